"""The site: README, CONTRIBUTING and CHANGELOG as pages of it, and a look at what a browser would load.

mkdocs build           # mkdocs.yml names this file as a hook
python -m checks.site  # looks through what was built: nothing may come from another place
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINKED = ("LICENSE", "Makefile", "CITATION.cff")  # files beside these that they link to
_LINK = re.compile(r"(\]\()(?:\.\./)*(?:docs/)?([^)\s#]*)")
_NAMED = re.compile(r"^(```\w+) ([\w./-]+)$", re.MULTILINE)  # a block of code with the name of its file
# What a browser loads by itself: scripts, styles, pictures, frames, fonts; not the links that people follow.
_LOADS = (
    re.compile(r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\ssrc=[\"']?((?:https?:)?//[^\"'\s>]+)"),
    re.compile(
        r"<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|icon|preconnect|preload|prefetch|dns-prefetch|modulepreload))"
        r"[^>]*?\shref=[\"']?((?:https?:)?//[^\"'\s>]+)"
    ),
    re.compile(r"url\([\"']?((?:https?:)?//[^\"')]+)"),
    re.compile(r"@import\s+[\"']((?:https?:)?//[^\"']+)"),
)


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that stand at the top of the checkout."""
    from mkdocs.structure.files import File

    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=page(ROOT / source)))
    for name in LINKED:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leads links out of docs/ to the pages that the site has of them; a block's file becomes its title."""
    for source, name in PAGES.items():
        markdown = markdown.replace(f"](../{source}", f"]({name}")
    return _NAMED.sub(r'\1 title="\2"', markdown)


def page(file: Path) -> str:
    """A page of the site from a file at the top of the checkout, whose links are relative to that."""
    return _LINK.sub(lambda m: m[1] + PAGES.get(m[2], m[2]), file.read_text(encoding="utf-8"))


def loads(text: str) -> list[str]:
    """Addresses elsewhere that a browser would load from for a page or a style."""
    return [address for pattern in _LOADS for address in pattern.findall(text)]


def main() -> int:
    """Prints every address that a page of the site would load from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, nargs="?", default=ROOT / "site", help="default: %(default)s")
    site = parser.parse_args().site
    pages = [path for path in sorted(site.rglob("*")) if path.suffix in (".html", ".css")]
    if not pages:
        parser.error(f"no page in {site}: build it first (make site)")
    found = [f"{path.relative_to(site)}: {a}" for path in pages for a in loads(path.read_text(encoding="utf-8"))]
    print("\n".join([*found, f"{len(pages)} pages and styles load from {len(found)} other places"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
