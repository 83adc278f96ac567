"""What the page's events do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import CHANNELS, TinyBackbone

from fss.models.heads import BAM
from fss.models.segmenter import FewShotSegmenter
from fss.predictor import FewShotPredictor
from fss.web.examples import coins
from fss.web.session import Query, Session

gradio = pytest.importorskip("gradio")
from fss.web.handlers import VIEWS, Handlers, told  # noqa: E402

STEP1, STEP3 = 5, 8  # outputs of each, in page.py


@pytest.fixture(scope="module")
def bam() -> FewShotPredictor:
    torch.manual_seed(0)
    head = BAM(CHANNELS, base_classes=3, shot=1, width=8, base_width=8)
    return FewShotPredictor(FewShotSegmenter(TinyBackbone(), head).eval(), 64, presence_threshold=0, device="cpu")


def views(outputs: list[Any]) -> list[str]:
    """Names of the views among the outputs of a worked example."""
    [radio] = [
        each for each in outputs if isinstance(each, dict) and "Answer" in map(_name, each.get("choices", []))
    ]
    return [_name(choice) for choice in radio["choices"]]


def _name(choice: Any) -> str:
    return choice if isinstance(choice, str) else choice[0]


def test_a_model_with_a_base_learner_shows_its_map(bam: FewShotPredictor) -> None:
    handlers, session = Handlers(bam), Session()
    outputs = handlers.trial("Coins")(session)
    assert len(outputs) == STEP1 + STEP3 + 2
    assert views(outputs) == VIEWS
    shown = [handlers.look(session, view, None)[0] for view in VIEWS]
    assert {picture.shape for picture in shown} == {session.found[0].image.shape}
    assert len({picture.tobytes() for picture in shown}) == len(VIEWS)


def test_a_model_without_one_does_not_offer_it(training_free: FewShotPredictor) -> None:
    assert views(Handlers(training_free).trial("Coins")(Session())) == VIEWS[:-1]


def test_a_model_for_one_support_says_so(bam: FewShotPredictor) -> None:
    with pytest.raises(gradio.Error, match="trained with shot=1 got 2 supports"):
        Handlers(bam).trial("Two shapes")(Session())


def test_messages_show_what_they_quote_as_text() -> None:
    @told
    def fails() -> None:
        raise ValueError("<img src=x onerror=alert(1)>.png is no picture")

    with pytest.raises(gradio.Error) as raised:
        fails()
    assert raised.value.message == "&lt;img src=x onerror=alert(1)&gt;.png is no picture"


def test_captions_show_names_as_text(training_free: FewShotPredictor) -> None:
    handlers, session, example = Handlers(training_free), Session(), coins()
    session.show(example.supports[0]._replace(name="<b>coin"), training_free)
    session.queries = [Query("<i>query", image, image) for image in example.queries.values()]
    caption = handlers.find(session)[6]
    assert caption.startswith("<b>&lt;i&gt;query: &lt;b&gt;coin (presence 0.")


def test_clicks_before_anything_was_found_do_nothing(training_free: FewShotPredictor) -> None:
    handlers, session = Handlers(training_free), Session()
    click: Any = SimpleNamespace(index=0)
    assert all(
        update.get("__type__") == "update" for update in handlers.choose_result(session, "Answer", None, click)
    )
    with pytest.raises(gradio.Error, match="step 2"):
        handlers.look(session, "Answer", None)
    with pytest.raises(gradio.Error, match="step 2"):
        handlers.save(session)


def test_a_point_is_marked_and_its_likeness_drawn(training_free: FewShotPredictor) -> None:
    handlers, session = Handlers(training_free), Session()
    handlers.trial("Coins")(session)
    click: Any = SimpleNamespace(index=[101, 36])
    marked, said, drawn = handlers.resemble(session, "Answer", "coin", click)
    plain = handlers.look(session, "Answer", "coin")[0]
    assert (marked[36, 101] == 0).all()
    assert np.array_equal(marked[100:], plain[100:])
    assert said.startswith("<b>coin</b>")
    assert drawn["value"].ndim == 3


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_shares_out_of_range(training_free: FewShotPredictor, value: float) -> None:
    session = Session()
    with pytest.raises(gradio.Error, match="between 0 and 1"):
        Handlers(training_free).set_threshold(session, value, "Answer", None)
    assert session.threshold is None
