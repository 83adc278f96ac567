"""Objects too small for the size that the network gets are counted and named."""

from __future__ import annotations

from pathlib import Path

import lightning
import numpy as np
import pytest
from support.tiny import CHANNELS, TinyBackbone

from fss.data.episodes import EpisodeDataset
from fss.data.index import build_index, build_pool
from fss.data.preprocessing import EvaluationTransform
from fss.evaluation.engine import answer_episodes
from fss.evaluation.reuse import Reuse
from fss.models.heads import PriorMask
from fss.models.segmenter import FewShotSegmenter


class Specks:
    """Nine of twelve pictures show an object of one pixel, in a place that resizing to a sixteenth skips."""

    classes = ("speck", "other")

    def __len__(self) -> int:
        return 12

    def name(self, index: int) -> str:
        return f"specks/{index}.png"

    def image(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 255, (256, 256, 3), dtype=np.uint8)

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((256, 256), np.uint8)
        mask[(slice(100, 200), slice(50, 150)) if index % 4 == 3 else (3, 5 + index)] = 1
        return mask


@pytest.mark.parametrize("geometry", ["published", "exact"])
def test_they_are_named(tmp_path: Path, geometry: str, caplog: pytest.LogCaptureFixture) -> None:
    reader = Specks()
    pool = build_pool(build_index(reader), (1,), 1, min_pixels=1)
    transform = EvaluationTransform(16, geometry)  # type: ignore[arg-type]
    episodes = EpisodeDataset(reader, pool, 1, 0, transform, with_label=True)
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    made = FewShotSegmenter(TinyBackbone(), PriorMask(CHANNELS, 0.5)).eval()
    answer_episodes(trainer, made, episodes, [0], 60, tmp_path, Reuse(1.0))
    supports = {n for i in range(60) for n in episodes.draw(i).supports}
    assert len(supports) == 12
    assert "9 of 12 supports show nothing of their object at this size: speck in specks/" in caplog.text
    assert "raise dataset.size or dataset.min_pixels" in caplog.text
