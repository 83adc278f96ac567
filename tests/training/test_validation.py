"""Validation while training: each picture encoded once, with the integers of a plain loop."""

from __future__ import annotations

import copy
from typing import Any
from unittest.mock import Mock

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from support.tiny import TinyBackbone, cheap_svd

from fss.data.datamodule import FewShotDataModule
from fss.data.episodes import collate
from fss.data.preprocessing import EvaluationTransform
from fss.data.transforms import TrainingTransform
from fss.metrics import ClassIoU
from fss.models.heads import PFENet
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf
from fss.svf import merge
from fss.training.callbacks import EpisodePanels, episode_panels
from fss.training.meta_learner import MetaLearner

pytestmark = pytest.mark.usefixtures("one_thread")

SHOT, COUNT = 2, 40


class Squares:
    """Pictures of noise, each with a lighter square of one of four classes."""

    classes = ("ant", "bee", "cat", "dog")

    def __len__(self) -> int:
        return 24

    def name(self, index: int) -> str:
        return f"{index}.png"

    def image(self, index: int) -> np.ndarray:
        noise = np.random.default_rng(index).integers(0, 128, (30, 26 + index % 5, 3), dtype=np.uint8)
        return noise + 100 * (self.mask(index) > 0).astype(np.uint8)[..., None]

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((30, 26 + index % 5), np.uint8)
        mask[4 + index % 7 : 18, 3 + index % 5 : 20] = 1 + index % 4
        mask[0] = 255
        return mask


def episodes() -> FewShotDataModule:
    return FewShotDataModule(
        train_reader=Squares,
        eval_reader=Squares,
        train_transform=TrainingTransform(24, (0.9, 1.1)),
        eval_transform=EvaluationTransform(24),
        fold=0,
        fold_scheme=[[1, 3]],
        shot=SHOT,
        seed=0,
        batch_size=4,
        train_episodes=48,
        val_episodes=COUNT,
        min_pixels=1,
        exclude_novel=False,
        num_workers=0,
    )


class Validated(lightning.Callback):
    """What each validation of a training found, what it stands for, and how often it encoded."""

    def __init__(self) -> None:
        self.sums: list[list[Any]] = []  # of numbers for each class
        self.segmenters: list[FewShotSegmenter] = []
        self.encoded: list[dict[str, int]] = []

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, MetaLearner)
        assert pl_module.metric is not None
        assert pl_module._evaluator is not None
        metric = pl_module.metric
        self.sums.append([part.tolist() for part in (metric.intersection, metric.union, metric.episodes)])
        self.segmenters.append(copy.deepcopy(pl_module.segmenter))
        self.encoded.append(dict(pl_module._evaluator.encoded))


def learner(data: FewShotDataModule, limit_gb: float = 1.0) -> MetaLearner:
    """One that answers half of the pixels, so that whatever moves its weights moves its answers."""
    torch.manual_seed(0)
    backbone = TinyBackbone()
    segmenter = FewShotSegmenter(backbone, PFENet(backbone.channels, 8, (1.0, 0.5)))
    segmenter.tune(lambda untuned: svf(untuned, svd=cheap_svd))
    data.setup("fit")
    some = collate([data.evaluation[i] for i in range(6)])
    images = (backbone.normalize(part) for part in (some.query, some.support))
    last = segmenter.head.get_submodule("cls.3")
    with torch.no_grad():
        logits = segmenter.eval()(*images, some.support_mask).logits
        difference = logits[:, 1] - logits[:, 0]
        scale = 3 / difference.std()
        for parameter in last.parameters():
            parameter.mul_(scale)
        last.get_parameter("bias")[0] += scale * difference.median()
    return MetaLearner(segmenter.train(), torch.optim.Adam, 2e-3, 2e-3, limit_gb=limit_gb)


def train(
    made: MetaLearner, data: FewShotDataModule, callbacks: list[lightning.Callback], **settings: Any
) -> None:
    lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        callbacks=callbacks,
        **{"logger": False, **settings},
    ).fit(made, datamodule=data)


@torch.inference_mode()
def plain_sums(segmenter: FewShotSegmenter, data: FewShotDataModule) -> list[list[int]]:
    """Every picture of every episode encoded anew, one by one."""
    metric = ClassIoU(data.evaluated_classes(COUNT), data.geometry)
    merged = merge(copy.deepcopy(segmenter)).eval()
    normalize = merged.backbone.normalize
    for i in range(COUNT):
        episode = data.evaluation[i]
        query = merged.encode_query(normalize(episode.query)[None])
        shots = [
            merged.encode_support(normalize(image)[None, None], mask[None, None])
            for image, mask in zip(episode.support, episode.support_mask, strict=True)
        ]
        together = torch.utils._pytree.tree_map(lambda *parts: torch.cat(parts, 1), *shots)
        logits = merged.decode(query, together, (24, 24), episode.own_class[None]).logits[0]
        metric.update(logits, torch.as_tensor(np.asarray(episode.label)), int(episode.class_id))
    return [part.tolist() for part in (metric.intersection, metric.union, metric.episodes)]


@pytest.mark.parametrize("limit_gb", [1.0, 0.0, 1e-4])
def test_every_validation_is_a_plain_loop_over_the_weights_of_its_time(limit_gb: float) -> None:
    data, seen = episodes(), Validated()
    made = learner(data, limit_gb)
    train(made, data, [seen])
    assert len(seen.sums) == 3  # the first is Lightning's check of one step
    for sums, segmenter in zip(seen.sums[1:], seen.segmenters[1:], strict=True):
        assert sums == plain_sums(segmenter, data)
        assert sum(sums[2]) == COUNT
        assert all(intersection > 0 for row in sums[0] for intersection in row), (
            "nothing or everything is answered"
        )
    assert seen.sums[1] != seen.sums[2], "the same answers before and after training: this would test only one"
    drawn = [data.evaluation.draw(i) for i in range(COUNT)]
    if limit_gb == 1:
        for encoded in seen.encoded[1:]:
            assert encoded["query"] == len({draw.query for draw in drawn}) < COUNT
            assert encoded["support"] == len({s for draw in drawn for s in draw.supports}) < SHOT * COUNT
    assert made.evaluated is None, "it would keep what it encoded while training goes on"


def test_panels_show_the_first_episodes(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    data, seen, log = episodes(), Validated(), Mock()
    made = learner(data)
    monkeypatch.setattr(episode_panels, "log_episodes", log)
    train(made, data, [EpisodePanels(3, every_n_epochs=2), seen], logger=TensorBoardLogger(tmp_path))
    log.assert_called_once()
    shown = log.call_args.args[1]
    merged = merge(copy.deepcopy(seen.segmenters[-1])).eval()
    for number, picture in enumerate(shown):
        episode = collate([data.evaluation[number]])
        images = (merged.backbone.normalize(part) for part in (episode.query, episode.support))
        with torch.inference_mode():
            prediction = merged(*images, episode.support_mask, episode.own_class)
        assert torch.equal(picture.prediction, prediction.logits[0].argmax(0))
        assert torch.equal(picture.query, episode.query[0])
        assert picture.title == Squares.classes[int(episode.class_id) - 1]
    assert len(shown) == 3


def test_a_limit_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"reuse\.limit_gb=-1"):
        learner(episodes(), -1.0)
