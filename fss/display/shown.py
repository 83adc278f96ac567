"""What files and strangers say, in forms that a terminal, a log and a page can show without obeying it."""

from __future__ import annotations

import logging
import unicodedata

LONGEST = 2000  # characters of what is quoted


def shown(said: object, lines: bool = False) -> str:
    r"""Text of which nothing is a command to whatever shows it.

    Control characters (ESC begins a terminal's commands), marks that reverse the direction of text, line
    separators and halves of characters become visible, as `\x1b`. Long text is cut in the middle.

    Args:
        said: Anything; its `str` is shown.
        lines: Whether line breaks and tabs stay.
    """
    text = str(said)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(c) if _commands(c) and not (lines and c in "\n\t") else c for c in text)


def _commands(character: str) -> bool:
    kind = unicodedata.category(character)
    # joiners (Cf too) belong to scripts and emoji; what turns the direction of text around does not
    turns = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    return turns or kind in ("Cc", "Cs", "Zl", "Zp")


def _visible(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def show_record(record: logging.LogRecord) -> bool:
    """A filter of log handlers: whatever a record quotes, its text has no commands. Lets all pass."""
    record.msg, record.args = shown(record.getMessage(), lines=True), ()
    return True
