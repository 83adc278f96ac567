"""What is refused, in words that name the input or the setting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path

import numpy as np


@contextmanager
def named(what: str) -> Iterator[None]:
    """Says of which input it is that a file is missing or cannot be used."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{what}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def check_count(setting: str, value: object, least: int = 1) -> None:
    """Raises ValueError where a setting is no whole number, or below the least one."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{setting}={value!r:.100}: must be a whole number")
    if value < least:
        raise ValueError(f"{setting}={value}: must be at least {least}")


def check_share(setting: str, value: object) -> None:
    """Raises ValueError where a setting is no number in 0..1."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= 1:  # NaN fails too
        raise ValueError(f"{setting}={value!r:.100}: must be a number in 0..1")


def check_flag(setting: str, value: object) -> None:
    """Raises ValueError where a setting is neither true nor false: `"no"` would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{setting}={value!r:.100}: must be True or False")


def as_path(setting: str, value: object) -> Path:
    """A path, with `~` for the user's folder.

    Raises:
        ValueError: It is none.
    """
    name = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"{setting}={value!r:.100}: must be the name of a file or folder")
    return Path(name).expanduser()
