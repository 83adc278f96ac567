"""Words out of files as words: on a page, nothing that a file says is mark-up, a link or a place on a disk."""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup

from fss.display.shown import shown

_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~$&^@])")
_BEGINS_A_BLOCK = re.compile(r"(\s*)([-+=]|\d+[.)])(?=\s)")
_BARE_LINK = re.compile(r"(?i)(:)(?=//)|(www)(?=\.)|(mailto|xmpp)(?=:)")
_PLACE = re.compile(r"(?:(?<=[\s=:,\[('\"])|^)(?:~|[A-Za-z]:)?[/\\][^\s,;'\")\]]*")


class Ours(str):
    """Text for a page of Markdown that the program made: it is put in as it is."""


def in_markdown(value: Any) -> str:
    """What a template puts into Markdown, on one line and without any meaning there."""
    if isinstance(value, Ours | int | float):
        return str(value)
    text = shown(value)
    if text == "-":
        return text
    text = _MARKS.sub(r"\\\1", text).replace("\\<", "&lt;").replace("\\>", "&gt;")
    text = (
        _BEGINS_A_BLOCK.sub(lambda m: f"{m[1]}{m[2][:-1]}\\{m[2][-1]}", text, count=1)
        if text[:1].strip()
        else text
    )
    return _BARE_LINK.sub(lambda m: "".join(f"&#{ord(c)};" for c in m[0]), text)


def in_html(value: Any) -> Any:
    """What a template puts into HTML, before it escapes it: without control characters."""
    return value if isinstance(value, Markup | int | float) else shown(value)


def in_code(lines: list[str]) -> Ours:
    """Commands for a block of code in Markdown, which none of them can end."""
    return Ours("\n".join(shown(line).replace("```", "` ` `") for line in lines))


def without_places(text: str) -> str:
    """Text in which an absolute path is its last part alone: a report is made to be shared."""
    return _PLACE.sub(lambda m: ".../" + re.split(r"[/\\]", m[0].rstrip("/\\"))[-1], text)
