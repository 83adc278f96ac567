"""What is installed, in bounds and as a locked set."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
ADVISORIES = {  # the first release without a known hole
    "torch": "2.11",
    "lightning": "2.6.6",
    "hydra-core": "1.3.4",
    "pillow": "12.3.0",
    "jinja2": "3.1.6",
}


def wanted() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    found = [Requirement(line.partition("#")[0].strip()) for line in lines if re.match(r"\w", line)]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def test_bounds_are_above_known_advisories() -> None:
    for name, fixed in ADVISORIES.items():
        numbers = [int(part) for part in fixed.split(".")]
        below = ".".join(map(str, [*numbers[:-1], numbers[-1] - 1 if numbers[-1] else 0]))
        older = below if below != fixed else f"{numbers[0]}.{numbers[1] - 1}.9"
        assert older not in wanted()[name].specifier, name


def test_every_bound_has_its_reason() -> None:
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert not re.match(r"\w", line) or re.search(r"\S\s+# \S", line), line


def test_lock_holds_all_that_is_wanted_with_hashes_and_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    blocks = re.findall(r"^(\S+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE)
    assert len(blocks) == text.count("==")
    locked: dict[str, str] = {canonicalize_name(name): version for name, version, _ in blocks}
    for name, requirement in wanted().items():
        assert locked[name] in requirement.specifier, name
