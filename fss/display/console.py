"""A console that shows what files and strangers say as text."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from fss.display.shown import shown


class PlainConsole(Console):
    """A console to which strings are text: no markup, no emoji codes, no commands to the terminal."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(shown(text, lines=True), **settings)
