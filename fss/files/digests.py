"""Short digests that identify lists of pictures and episodes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(lines: Iterable[str]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the lines joined by newlines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def stem(name: str) -> str:
    """A picture's file name without its folder and suffix, as used in lists."""
    return Path(name).stem
