"""Analyses imports: rooms, arrows between them, upward imports, and circles.

    python -m checks.structure [ROOT]     # of this checkout, or of another one

A room is a folder of `fss/` with the modules that stand in it, a module that stands alone on top of `fss/`,
or a script: `train.py`, and every `__main__`. An arrow is a pair of rooms of which one imports the other. Only
imports that are written down count; what the configuration names (`_target_`) is not one.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGES = ("fss", "hydra_plugins")
FLOORS = (
    "svf",
    "models",
    "export",
    "data",
    "evaluation",
    "training",
    "report",
    "predictor",
    "cli",
)  # from the ground up


class Import(NamedTuple):
    """An import of one module by another.

    Attributes:
        source: Dotted name of the module that imports.
        target: Dotted name of what it imports: `fss.data.index`, `torch.nn`.
        line: Line number.
    """

    source: str
    target: str
    line: int


class Structure(NamedTuple):
    """Result of analysing the imports of a checkout.

    Attributes:
        rooms: Names such as `data/readers`, `metrics`, `train.py`.
        imports: Imports between two rooms of the project.
        arrows: Pairs (importing room, imported room).
        upward: Imports whose target is on a higher floor than their source.
        circles: Groups of rooms each of which reaches all others of its group, but for those of `nested`.
        nested: Such groups of a folder and its own subfolders.
    """

    rooms: set[str]
    imports: list[Import]
    arrows: set[tuple[str, str]]
    upward: list[Import]
    circles: list[set[str]]
    nested: list[set[str]]


@cache
def modules(root: Path = ROOT) -> dict[str, Path]:
    """Files of the program under their dotted names: packages under those of their folders, and the scripts."""
    files = [file for package in PACKAGES for file in (root / package).rglob("*.py")]
    found = {}
    for file in [*files, *root.glob("*.py")]:
        parts = file.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return dict(sorted(found.items()))


def imports(root: Path = ROOT) -> list[Import]:
    """All imports of a checkout, those within functions too; of `from package import module`, the module.

    Raises:
        ValueError: Where an import is relative.
    """
    known = modules(root)
    found = []
    for source, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                if node.level or not node.module:
                    raise ValueError(f"{path}:{node.lineno}: relative import; write the module's full name")
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [name if name in known else node.module for name in inner]
            else:
                continue
            found += [Import(source, target, node.lineno) for target in dict.fromkeys(targets)]
    return found


def room(module: str, root: Path = ROOT) -> str:
    """The room of a module: its folder, or its own name if it is at the top."""
    path = modules(root)[module].relative_to(root)
    folder = path.parent.parts[1:] if path.parts[0] == "fss" else path.parent.parts
    if path.stem == "__main__":
        return "/".join([*folder, path.name])
    if folder:
        return "/".join(folder)
    return path.name if len(path.parts) == 1 else path.stem


def top(room: str) -> str:
    """The top folder of a room, or the room itself where it stands alone or is a script."""
    return room if room.endswith(".py") else room.split("/")[0]


def floors(rooms: Iterable[str], arrows: Iterable[tuple[str, str]]) -> dict[str, int]:
    """The floor of every room: of those under `FLOORS` that of their top folder, counted from 1.

    Any other stands as low as what it imports lets it: 0 if it imports no room.
    """
    below: dict[str, set[str]] = {name: set() for name in rooms}
    for source, target in arrows:
        below[source].add(target)
    declared = {name: FLOORS.index(top(name)) + 1 for name in below if top(name) in FLOORS}
    found = {name: declared.get(name, 0) for name in below}
    for _ in below:  # as far as heights can travel
        for name in below.keys() - declared.keys():
            found[name] = max((found[target] for target in below[name]), default=0)
    return found


def circles(rooms: Iterable[str], arrows: Iterable[tuple[str, str]]) -> list[set[str]]:
    """Groups of rooms that import each other, directly or through others of the group."""
    arrows = list(arrows)
    reached = {name: {target for source, target in arrows if source == name} for name in rooms}
    for middle in reached:  # Warshall's closure
        for name in reached:
            if middle in reached[name]:
                reached[name] |= reached[middle]
    groups: list[set[str]] = []
    for name in sorted(reached):
        group = {other for other in reached[name] if name in reached[other]}
        if group and group not in groups:
            groups.append(group)
    return groups


def structure(root: Path = ROOT) -> Structure:
    """Reads a checkout."""
    rooms = {name: room(name, root) for name, path in modules(root).items() if path != root / "fss/__init__.py"}
    between = [
        found
        for found in imports(root)
        if found.source in rooms and found.target in rooms and rooms[found.source] != rooms[found.target]
    ]
    arrows = {(rooms[found.source], rooms[found.target]) for found in between}
    floor = floors(rooms.values(), arrows)
    upward = [found for found in between if floor[rooms[found.target]] > floor[rooms[found.source]]]
    found = circles(rooms.values(), arrows)
    nested = [group for group in found if len({top(name) for name in group}) == 1]
    return Structure(
        set(rooms.values()), between, arrows, upward, [group for group in found if group not in nested], nested
    )


def lines(found: Structure) -> list[str]:
    """A house as text, top floor first: each room with those that it imports."""
    floor = floors(found.rooms, found.arrows)
    below: Mapping[str, list[str]] = {
        name: sorted(t for s, t in found.arrows if s == name) for name in found.rooms
    }
    shown = sorted(found.rooms, key=lambda name: (-floor[name], name))
    return [
        *(f"{floor[name]}  {name:<18} {' '.join(below[name]) or '-'}" for name in shown),
        "",
        f"{len(found.rooms)} rooms, {len(found.arrows)} arrows, {len(found.imports)} imports between rooms",
        f"{len(found.upward)} upward"
        + "".join(f"\n  {i.source}:{i.line} imports {i.target}" for i in found.upward),
        f"{len(found.circles)} circles" + "".join(f"\n  {' '.join(sorted(c))}" for c in found.circles),
        f"{len(found.nested)} of a folder and its own subfolders"
        + "".join(f"\n  {' '.join(sorted(c))}" for c in found.nested),
    ]


def main() -> int:
    """Prints rooms and totals; returns 1 if an import goes upward or rooms import each other in a circle."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=ROOT, help="of the checkout; default: this one")
    root = parser.parse_args().root
    if not (root / "fss").is_dir():
        parser.error(f"{root} is no checkout: it holds no folder fss")
    found = structure(root)
    print("\n".join(lines(found)))
    return int(bool(found.upward or found.circles))


if __name__ == "__main__":
    sys.exit(main())
