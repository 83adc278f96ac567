"""What many tests need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from support import voc2012 as official

if TYPE_CHECKING:
    from support.served_page import Served

    from fss.predictor import FewShotPredictor

if "PYTEST_XDIST_WORKER" in os.environ:  # several at once: threads of one would wait for those of another
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small operations on several threads wait for ages where other programs keep the cores busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def voc2012(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder VOC2012 with the official masks of PASCAL-5i and blank pictures; its index is kept there."""
    if not official.ARCHIVE.is_file():
        pytest.skip(f"no {official.ARCHIVE}")
    return official.unpack(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="session")
def training_free() -> FewShotPredictor:
    """The predictor that needs no training, with ImageNet weights; to be left without supports."""
    from fss.predictor import FewShotPredictor

    return FewShotPredictor.load("match", device="cpu")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page, as `python -m fss.web` serves it."""
    from support.served_page import serving

    pytest.importorskip("gradio")
    with serving(tmp_path_factory.mktemp("page")) as page:
        yield page
