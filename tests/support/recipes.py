"""The recipes of docs/extending.md, taken from the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from support import ROOT

PAGE = ROOT / "docs/extending.md"
FENCE = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Recipe(NamedTuple):
    """One section of the page.

    Attributes:
        title: Its heading.
        files: Contents under their paths.
        commands: Shell lines, in their order.
    """

    title: str
    files: dict[str, str]
    commands: list[str]

    def write(self, folder: Path) -> None:
        """Puts the files below a folder."""
        for path, content in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)


def recipes() -> list[Recipe]:
    """Those of the page: sections that hold a command.

    Raises:
        ValueError: A block of a section is neither a file nor commands.
    """
    found = []
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title, blocks = section.split("\n", 1)[0], FENCE.findall(section)
        if odd := [f"{language} {path}" for language, path, _ in blocks if (language == "sh") == bool(path)]:
            raise ValueError(f"{PAGE}, {title}: {odd}: blocks are `sh`, or a language and a path")
        commands = [line for language, _, text in blocks if language == "sh" for line in text.splitlines()]
        found.append(Recipe(title, {path: text for _, path, text in blocks if path}, commands))
    return found
