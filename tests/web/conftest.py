"""The model and the page that the tests of this room share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.served_page import Served
from support.served_page import served as serving

from fss.predictor import FewShotPredictor


@pytest.fixture(scope="session")
def model() -> FewShotPredictor:
    """The training-free predictor with ImageNet weights, as the page has it if no model is named."""
    return FewShotPredictor.load("prior", device="cpu")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("gradio")
    with serving(tmp_path_factory.mktemp("page")) as page:
        yield page
