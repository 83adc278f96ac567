"""A flawless answer keeps its score on pictures of every size; papers' recipes keep the loss that they have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from support.tiny import CHANNELS, TinyBackbone

from fss.configuration import conf_folder
from fss.data.datamodule import FewShotDataModule
from fss.data.episodes import EpisodeDataset
from fss.data.index import build_index, build_pool
from fss.data.preprocessing import EvaluationTransform
from fss.data.transforms import TrainingTransform
from fss.evaluation.engine import answer_episodes
from fss.evaluation.generalized import GeneralizedIoU
from fss.evaluation.reuse import Reuse
from fss.geometry import Geometry, at_original_size, fitted
from fss.metrics import ClassIoU, episode_integers
from fss.models.heads import PriorMask
from fss.models.segmenter import FewShotSegmenter

GEOMETRIES: tuple[Geometry, ...] = ("published", "exact")
SIZES = [
    (427, 640),
    (60, 1500),
    (60, 2000),
    (2000, 60),
    (1999, 1001),
    (2000, 2000),
    (61, 60),
    (100, 2000),
    (333, 500),
]
SIZES += [(int(h), int(w)) for h, w in np.random.default_rng(0).integers(60, 2001, (12, 2))]


def shapes(height: int, width: int) -> dict[str, np.ndarray]:
    """A rectangle of half of each side, and an ellipse of two fifths."""
    rows, columns = (np.arange(n) + 0.5 for n in (height, width))
    rectangle = np.zeros((height, width), np.uint8)
    rectangle[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 1
    ellipse = (((rows / height - 0.5) / 0.2) ** 2)[:, None] + (((columns / width - 0.5) / 0.2) ** 2)[None] < 1
    return {"rectangle": rectangle, "ellipse": ellipse.astype(np.uint8)}


class Boxes:
    """Pictures of several sizes, each with one bright rectangle."""

    classes = ("box", "other")

    def __len__(self) -> int:
        return 10

    def name(self, index: int) -> str:
        return f"boxes/{index}.png"

    def image(self, index: int) -> np.ndarray:
        mask = self.mask(index)
        noise = np.random.default_rng(index).integers(0, 100, (*mask.shape, 3), dtype=np.uint8)
        return noise + np.uint8(120) * (mask == 1)[..., None]

    def mask(self, index: int) -> np.ndarray:
        height, width = 40 + 7 * index, 100 - 5 * index
        mask = np.zeros((height, width), np.uint8)
        mask[height // 2 : height - 4, width // 2 : width - 4] = 1 if index else 2
        return mask


def flawless(label: np.ndarray, size: int, geometry: Geometry) -> torch.Tensor:
    """Logits (2, S, S) that say what the label says, as the network sees it."""
    image = np.zeros((*label.shape, 3), np.uint8)
    _, seen = EvaluationTransform(size, geometry)(image, label)
    found = torch.from_numpy(seen == 1).float()
    return torch.stack([1 - found, found])


def score(label: np.ndarray, size: int, geometry: Geometry) -> float:
    intersection, union, *_ = episode_integers(flawless(label, size, geometry), torch.from_numpy(label), geometry)
    return intersection / union


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_exact_keeps_a_flawless_answer(size: tuple[int, int]) -> None:
    for label in shapes(*size).values():
        assert score(label, 321, "exact") >= 0.96
        assert score(label, 225, "exact") >= 0.96


def test_published_loses_what_it_is_known_to_lose() -> None:
    fifth = np.zeros((427, 640), np.uint8)
    fifth[170:256, 256:384] = 1
    assert score(fifth, 321, "published") == pytest.approx(0.856, abs=0.003)
    assert score(fifth, 321, "exact") >= 0.96
    strip = np.zeros((60, 1500), np.uint8)
    strip[24:36, 600:900] = 1
    assert score(strip, 321, "published") == 0
    assert score(strip, 321, "exact") >= 0.96


def test_fitted() -> None:
    assert fitted(427, 640, 321, "published") == (208, 320)
    assert fitted(427, 640, 321, "exact") == (214, 321)
    assert fitted(1080, 1920, 321, "exact") == (181, 321)  # 16 : 9 keeps its proportion
    assert fitted(60, 1500, 321, "exact") == (60, 321)  # no row is lost
    assert fitted(600, 6000, 321, "exact") == (180, 321)
    assert fitted(1, 9, 8, "exact") == (1, 8)
    for size in (8, 64, 321):
        for height, width in [(1, 1), (1, 4000), (3, 2), (4000, 4000)]:
            assert all(1 <= side <= size for side in fitted(height, width, size, "exact"))


def test_published_is_as_it_was() -> None:
    logits = torch.rand(2, 40, 40)
    assert torch.equal(at_original_size(logits, 30, 50), at_original_size(logits, 30, 50, "published"))


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"dataset\.geometry='square': must be 'published' or 'exact'"):
        EvaluationTransform(64, "square")  # type: ignore[arg-type]


def test_all_metrics_go_the_same_way_back() -> None:
    label = shapes(120, 400)["rectangle"]
    for geometry in GEOMETRIES:
        logits = flawless(label, 64, geometry)
        intersection, union, *_ = episode_integers(logits, torch.from_numpy(label), geometry)
        metric = ClassIoU([7], geometry)
        metric.update(logits, torch.from_numpy(label), 7)
        assert (int(metric.intersection[0, 1]), int(metric.union[0, 1])) == (intersection, union)
        # BAM's maps: the novel class is label 1 where there is no base class
        both = GeneralizedIoU(0, [7], "final", 0.5, geometry=geometry)
        both.update(20 * logits, torch.ones(1, 64, 64), torch.from_numpy(label), 7)
        assert (int(both.intersection[0]), int(both.union[0])) == (intersection, union)


def test_evaluation_uses_the_geometry_of_its_pictures(tmp_path: Path) -> None:
    reader = Boxes()
    pool = build_pool(build_index(reader), (1,), 1, min_pixels=1)
    made = FewShotSegmenter(TinyBackbone(), PriorMask(CHANNELS, 0.5)).eval()
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    found: dict[str, Any] = {}
    for geometry in GEOMETRIES:
        transform = EvaluationTransform(48, geometry)
        episodes = EpisodeDataset(reader, pool, 1, 0, transform, with_label=True)
        done = answer_episodes(trainer, made, episodes, [0], 8, tmp_path / geometry, Reuse(1.0))
        found[geometry] = [(e.intersection, e.union) for e in done.episodes]
        normalize = made.backbone.normalize
        for result in done.episodes:
            e = episodes[result.id]
            with torch.inference_mode():  # each picture alone, as the engine encodes them: the same rounding
                query = made.encode_query(normalize(e.query[None]))
                support = made.encode_support(normalize(e.support[None]), e.support_mask[None])
                answer = made.decode(query, support, (48, 48))
            assert isinstance(e.label, torch.Tensor)
            expected = episode_integers(answer.logits[0], e.label, geometry)
            assert (result.intersection, result.union) == expected[:2]
    assert np.abs(np.subtract(found["published"], found["exact"])).max() > 20


@pytest.mark.parametrize(
    ("dataset", "geometry"),
    [
        *(("folder", "exact"), ("fss1000", "exact")),
        *(("pascal5i", "published"), ("coco20i", "published"), ("shapes", "published")),
    ],
)
def test_defaults(dataset: str, geometry: str) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(conf_folder(), version_base="1.3"):
        cfg = compose("train", [f"dataset={dataset}", "dataset.root=/data"] if dataset != "shapes" else [])
    data = OmegaConf.to_container(cfg.dataset, resolve=True)
    assert isinstance(data, dict)
    assert data["geometry"] == data["eval_transform"]["geometry"] == geometry
    assert data["base"]["eval_transform"]["geometry"] == geometry


def test_datamodule_tells_the_geometry() -> None:
    module = FewShotDataModule(
        Boxes,
        Boxes,
        TrainingTransform(48, (0.9, 1.1)),
        EvaluationTransform(48, "exact"),
        fold=0,
        fold_scheme=[[1]],
        shot=1,
        seed=0,
        min_pixels=1,
    )
    module.setup("test")
    assert module.geometry == "exact"
