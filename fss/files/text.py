"""Text that comes from files: in whatever encoding it was saved, and in forms that can be shown and written."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

# the longer ones first: UTF-32's begins as UTF-16's
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in what its byte order mark says (Windows writes UTF-16 so).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is in another encoding, which no mark tells, or no text at all.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        where = f"byte 0x{content[error.start]:02x} at {error.start}" if error.start < len(content) else "its end"
        raise ValueError(
            f"{printable(path)} is not text in {encoding.upper()} ({where}; perhaps cp1252, as Windows saves): "
            "save it as UTF-8"
        ) from None
    if "\0" in text:
        raise ValueError(
            f"{printable(path)} holds NULs at {text.index(chr(0))}: it is damaged, or in UTF-16 without a byte "
            "order mark; save it as UTF-8"
        )
    return text


def printable(name: str | Path) -> str:
    r"""A name that can be shown and written anywhere: bytes of a file's name that are no UTF-8 become `\xe9`."""
    text = str(name)
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a character, which only JSON can spell
        return text.encode("utf-8", "backslashreplace").decode()


def is_name(text: str) -> bool:
    """Whether a text can name a class: something to be seen, without control characters or half characters."""
    return bool(text.strip()) and text.isprintable() and len(text) <= 200


def is_file_name(name: str) -> bool:
    """Whether a name leads to a file below the folder that it is put after, and nowhere else.

    That is a relative path without `..`, that the file system can hold.
    """
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:  # half a character, which only JSON can spell
        return False
    parts = name.replace("\\", "/").split("/")
    plain = all(part not in ("", ".", "..") for part in parts) and "\0" not in name
    return (
        plain and ":" not in parts[0] and len(encoded) <= 1024 and all(len(os.fsencode(p)) <= 255 for p in parts)
    )


def some(things: Iterable[object], limit: int = 10, separator: str = ", ") -> str:
    """The first few of many for a message, and how many more there are."""
    listed = list(things)
    shown = separator.join(str(thing) for thing in islice(listed, limit))
    return shown if len(listed) <= limit else f"{shown}{separator}and {len(listed) - limit} more"
