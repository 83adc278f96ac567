"""Overrides as they are typed on a command line, told apart by the whole name of the setting that each is for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override


def setting(override: str) -> str:
    """The full name of the setting or group that an override is for: `dataset.root` of `++dataset.root=DIR`."""
    return parsed(override).key_or_group


def parsed(override: str) -> Override:
    """An override in its parts.

    Raises:
        HydraException: It is none.
    """
    return _parser().parse_override(override)


def typed(name: str, value: object) -> str:
    """The override that gives a setting a value, in quotes where Hydra needs them."""
    text = str(value)
    if re.fullmatch(r"[\w/.:+-]+", text, re.ASCII):
        return f"{name}={text}"
    # before a quote, and at the end, a backslash has a meaning
    quoted = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ("\\" + m[2] if m[2] else ""), text)
    return f'{name}="{quoted}"'


def is_for(override: str, *settings: str) -> bool:
    """Whether an override is for one of these settings or groups, or for a part of one.

    `dataset` covers `dataset=coco20i` and `dataset.root=DIR`, but not `datasets=1`; `+` and `~` change nothing.
    """
    name = setting(override)
    return any(name == s or name.startswith((f"{s}.", f"{s}/")) for s in settings)


def without(overrides: Sequence[str], *settings: str) -> list[str]:
    """The overrides that are for none of these settings."""
    return [override for override in overrides if not is_for(override, *settings)]


def only(overrides: Sequence[str], *settings: str) -> list[str]:
    """The overrides that are for these settings."""
    return [override for override in overrides if is_for(override, *settings)]


def merged(*overrides: Sequence[str]) -> list[str]:
    """Several lists of overrides as one, in which later ones replace earlier ones for the same setting."""
    return list({setting(o): o for some in overrides for o in some}.values())


def renamed(override: str, names: Mapping[str, str]) -> str:
    """The same override, for the setting's new name if its own is an old one."""
    name = setting(override)
    return override.replace(name, names[name], 1) if name in names else override


@lru_cache(maxsize=1)
def _parser() -> OverridesParser:
    return OverridesParser.create()
