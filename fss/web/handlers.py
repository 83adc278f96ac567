"""What the page's events do: from a visitor's session to what the page's parts show next.

Every handler returns values in the order of its outputs in `page.py`. Messages are shown as HTML, so that whatever
they quote is escaped.
"""

from __future__ import annotations

import functools
import html
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
import numpy as np

from fss.predictor import FewShotPredictor
from fss.visualize import base_map, class_color, outline
from fss.web.downloads import write_zip
from fss.web.examples import EXAMPLES, Shown
from fss.web.painting import Meaning, canvas, grown, painted
from fss.web.session import Session, alike
from fss.web.why import cross, draw_resemblance, heat

VIEWS = ["Answer", "Score", "Prior mask", "Base map"]
_MOST_MESSAGES = 5  # at once

Given = ParamSpec("Given")
Result = TypeVar("Result")
Updates = list[Any]


def told(handler: Callable[Given, Result]) -> Callable[Given, Result]:
    """Turns what a visitor can do wrong into a message on the page."""

    @functools.wraps(handler)
    def handled(*given: Given.args, **named: Given.kwargs) -> Result:
        try:
            return handler(*given, **named)
        except (ValueError, OSError) as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from error

    return handled


def _warn(wrong: Sequence[str]) -> None:
    for message in wrong[:_MOST_MESSAGES]:
        gr.Warning(html.escape(message))
    if len(wrong) > _MOST_MESSAGES:
        gr.Warning(f"{len(wrong) - _MOST_MESSAGES} more pictures cannot be used.")


class Handlers:
    """Handlers of all events.

    Args:
        model: A predictor without supports; every visitor gets one of their own with the same network.
    """

    def __init__(self, model: FewShotPredictor) -> None:
        self._model = model
        self._defaults = [model.threshold, model.presence_threshold]  # of the two sliders
        self._with_base = model.segmenter.head.has_base_learner

    @told
    def offer(self, session: Session, files: list[str] | None) -> Updates:
        """Pictures were uploaded that are to become supports."""
        try:
            session.offer(files or ())
        except ValueError as error:
            _warn([str(error)])
        if session.painting is None:
            _warn(session.next_to_paint())
        return [None, *self._step1(session)]

    @told
    def skip(self, session: Session) -> Updates:
        """The picture is not painted after all."""
        _warn(session.next_to_paint())
        return self._step1(session)

    @told
    def add(self, session: Session, name: str, editor: Mapping[str, Any], meaning: Meaning) -> Updates:
        """The painted picture becomes a support, and the next one can be painted."""
        if session.painting is None:
            raise ValueError("Add a picture that shows the thing first.")
        height, width = session.painting.shape[:2]
        mask = painted(editor, height, width, meaning)
        if meaning == "a part of it":
            mask = grown(alike(self._model), session.painting, mask)
        session.show(Shown(name, session.painting, mask), self._model)
        _warn(session.next_to_paint())
        return [*self._step1(session), *self._step3(session)]

    def choose_support(self, session: Session, event: gr.SelectData) -> Any:
        """A support was clicked."""
        session.to_remove = int(event.index)
        return gr.update(visible=True)

    @told
    def remove(self, session: Session) -> Updates:
        """The clicked support is removed."""
        session.remove(session.to_remove)
        return [*self._step1(session), *self._step3(session)]

    @told
    def ask(self, session: Session, files: list[str] | None) -> Updates:
        """Pictures to search were uploaded."""
        try:
            _warn(session.ask(files or ()))
        except ValueError as error:
            _warn([str(error)])
        return [None, *self._step3(session)]

    @told
    def find(self, session: Session, progress: gr.Progress = gr.Progress()) -> Updates:  # noqa: B008
        """All pictures are searched."""
        session.search(lambda share: progress(share, desc="Searching"))
        return self._step3(session)

    @told
    def clear(self, session: Session) -> Updates:
        """Everything is forgotten."""
        session.clear()
        return [*self._step1(session), *self._step3(session), *self._defaults]

    def trial(self, name: str) -> Callable[[Session], Updates]:
        """The handler that shows a worked example."""

        @told
        def show(session: Session) -> Updates:
            session.take(EXAMPLES[name](), self._model)
            session.search()
            return [*self._step1(session), *self._step3(session), *self._defaults]

        return show

    @told
    def set_threshold(self, session: Session, value: float, view: str, of: str | None) -> Updates:
        """The pixels' threshold was moved."""
        session.threshold = _share(value)
        return self._decided(session, view, of)

    @told
    def set_presence(self, session: Session, value: float, view: str, of: str | None) -> Updates:
        """The presence that is asked for was moved."""
        session.presence = _share(value)
        return self._decided(session, view, of)

    def _decided(self, session: Session, view: str, of: str | None) -> Updates:
        if not session.found:
            return [gr.skip()] * 5
        return [self.hint(session), _gallery(session), *self.look(session, view, of)]

    @told
    def choose_result(self, session: Session, view: str, of: str | None, event: gr.SelectData) -> Updates:
        """An answer was clicked."""
        if not session.found:  # nothing has been searched yet
            return [gr.skip()] * 3
        session.chosen = int(event.index)
        return self.look(session, view, of)

    @told
    def look(self, session: Session, view: str, of: str | None) -> Updates:
        """Another view was chosen."""
        return [self._view(session, view, of), _caption(session), gr.update(visible=False)]

    @told
    def resemble(self, session: Session, view: str, of: str | None, event: gr.SelectData) -> Updates:
        """A point of the answer was clicked."""
        x, y = (int(value) for value in event.index)
        name = of or session.classes[0]
        found = session.explain(name).resemblance(x, y)
        said = (
            f"<b>{html.escape(name)}</b> in the examples: bright where it resembles the point, with a cross where "
            f"most (cosine similarity {found.similarity:.2f})."
        )
        drawn = draw_resemblance(found, session.supports_of(name))
        return [cross(self._view(session, view, of), (x, y)), said, gr.update(value=drawn, visible=True)]

    @told
    def save(self, session: Session, progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        """Everything is written to one file; returns its path."""
        if not session.found:
            raise ValueError("Find something first (step 2).")
        numbers = progress.tqdm(range(len(session.found)), desc="Masks at their pictures' sizes")
        answers = (session.at_own_size(number) for number in numbers)
        if session.archive is None:
            session.archive = Path(tempfile.mkdtemp()) / "segmentation.zip"
        write_zip(answers, session.archive)
        return str(session.archive)

    def hint(self, session: Session) -> str:
        """What to do next."""
        if not session.supports:
            return "Show an example of the thing first, or press one of the *Try* buttons."
        if not session.queries:
            return "Add the pictures to search."
        pictures = f"{len(session.queries)} picture{'s' * (len(session.queries) > 1)}"
        if not session.found:
            return f"{pictures} to search: press **Find it**."
        empty = sum(not answer.present for answer in session.answers())
        return f"Searched {pictures}" + (f"; nothing was found in {empty} of them." if empty else ".")

    def _step1(self, session: Session) -> Updates:
        """Painter, what it asks for, editor, gallery of supports, button that removes one."""
        more = f" After this picture, there are {len(session.waiting)} more." if session.waiting else ""
        supports = [
            (outline(each.image, each.mask, class_color(1 + sorted(session.classes).index(each.name))), each.name)
            for each in session.supports
        ]
        return [
            gr.update(visible=session.painting is not None),
            f"Paint with the brush.{more}",
            gr.skip() if session.painting is None else canvas(session.painting),
            gr.update(value=supports, visible=bool(supports), selected_index=None),
            gr.update(visible=False),
        ]

    def _step3(self, session: Session) -> Updates:
        """Hint, gallery of answers, closer look, its view, class, picture, question and resemblance."""
        classes, found = session.classes, bool(session.found)
        views = VIEWS if self._with_base else VIEWS[:-1]
        first = classes[0] if classes else None
        return [
            self.hint(session),
            gr.update(value=_gallery(session), visible=bool(session.queries), selected_index=None),
            gr.update(visible=found),
            gr.update(choices=views, value=VIEWS[0]),
            gr.update(choices=classes, value=first, visible=len(classes) > 1),
            self._view(session, VIEWS[0], first) if found else None,
            _caption(session),
            gr.update(value=None, visible=False),
        ]

    def _view(self, session: Session, view: str, of: str | None) -> np.ndarray:
        """The chosen picture (h, w, 3) uint8, as one of `VIEWS` shows it."""
        if session.chosen >= len(session.found):
            raise ValueError("Find something first (step 2).")
        found, name = session.found[session.chosen], of or session.classes[0]
        if view == "Score":
            return heat(found.scores[found.classes.index(name)], found.image)
        if view == "Prior mask":
            return heat(session.explain(name).prior, found.image)
        if view == "Base map" and (base := session.explain(name).base) is not None:
            return base_map(found.image, base)
        return np.asarray(session.answers()[session.chosen].overlay())


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError("Give a number between 0 and 1.")
    return value


def _gallery(session: Session) -> list[tuple[np.ndarray, str]]:
    """Pictures with captions: answers, or before a search the pictures themselves."""
    if not session.found:
        return [(each.preview, each.name) for each in session.queries]
    return [(np.asarray(each.overlay()), ", ".join(each.present) or "nothing found") for each in session.answers()]


def _caption(session: Session) -> str:
    """What was found in the chosen picture, as HTML."""
    if session.chosen >= len(session.found):
        return ""
    answer = session.answers()[session.chosen]
    found = ", ".join(
        f"{'' if name in answer.present else 'no '}{name} (presence {answer.presence[name]:.2f})"
        for name in answer.classes
    )
    said = html.escape(f"{answer.name}: {found}")
    return f"<b>{said}</b><br>Click a point of the picture to see what in the examples it resembles."
