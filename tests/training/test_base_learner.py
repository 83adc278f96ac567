"""Data and training of the base learner."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from support.tiny import CHANNELS, TinyBackbone
from torch import nn

from fss.data.base_datamodule import BaseLearnerDataModule
from fss.data.base_images import BaseImages, base_images
from fss.data.index import build_index
from fss.data.preprocessing import EvaluationTransform
from fss.data.transforms import TrainingTransform
from fss.models.base_segmenter import BaseLearnerSegmenter
from fss.models.heads import PSPHead
from fss.training.base_learner import BaseLearner

pytestmark = pytest.mark.usefixtures("one_thread")

BASE = (2, 4)


class Pictures:
    """12 pictures of 4 classes, one each; every fourth is empty. Red is the number."""

    classes = ("ant", "bee", "cat", "dog")

    def __len__(self) -> int:
        return 12

    def name(self, index: int) -> str:
        return f"{index}.png"

    def image(self, index: int) -> np.ndarray:
        return np.full((40, 48, 3), index, np.uint8)

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((40, 48), np.uint8)
        if index % 4:
            mask[10:30, 10:40] = 1 + index % 3 if index < 9 else 4
        mask[0] = 255
        return mask


def shown(index: int) -> set[int]:
    return set(np.unique(Pictures().mask(index)).tolist()) - {0, 255}


def test_pictures_without_a_base_class_stay_or_go() -> None:
    index = build_index(Pictures())
    assert base_images(index, 12, BASE, keep_unlabelled=True).tolist() == list(range(12))
    kept = base_images(index, 12, BASE, keep_unlabelled=False).tolist()
    assert kept == [i for i in range(12) if shown(i) & set(BASE)]
    assert 0 < len(kept) < 12


def test_every_picture_once_a_cycle_in_new_order() -> None:
    images = BaseImages(Pictures(), np.arange(12), BASE, EvaluationTransform(48), seed=3)
    cycles = [[int(images[12 * cycle + i].images[0, 0, 0]) for i in range(12)] for cycle in range(3)]
    assert all(Counter(cycle) == Counter(range(12)) for cycle in cycles)
    assert cycles[0] != cycles[1] != cycles[2]


def test_labels_are_base_classes_in_their_order() -> None:
    images = BaseImages(Pictures(), np.arange(12), BASE, EvaluationTransform(48), seed=3)
    for i in range(12):
        picture = images[i]
        truth = Pictures().mask(int(picture.images[0, 0, 0]))
        expected = np.select([truth == 2, truth == 4, truth == 255], [1, 2, 255], 0)
        np.testing.assert_array_equal(picture.labels[:40].numpy(), expected)
        assert (picture.labels[40:] == 255).all()


def test_augmentation_depends_on_seed_and_id_alone() -> None:
    def labels(seed: int, ids: range) -> list[bytes]:
        images = BaseImages(Pictures(), np.arange(1, 2), BASE, TrainingTransform(32, (0.5, 2.0), keep=0), seed)
        return [images[i].labels.numpy().tobytes() for i in ids]

    first = labels(0, range(8))
    assert labels(0, range(7, -1, -1)) == first[::-1]
    assert len(set(first)) == 8
    assert not set(labels(1, range(8))) & set(first)


def test_crop_anywhere_may_miss_the_object() -> None:
    image, mask = np.zeros((96, 96, 3), np.uint8), np.zeros((96, 96), np.uint8)
    mask[38:58, 5:25] = 1
    anywhere, kept = (TrainingTransform(48, (1.0, 1.0), rotation=0, keep=keep) for keep in (0, 0.85))
    counts = [[np.count_nonzero(t(image, mask, seed)[1] == 1) for seed in range(40)] for t in (anywhere, kept)]
    assert sum(count == 0 for count in counts[0]) > 5
    assert sum(count == 0 for count in counts[1]) == 0


def module(**changes: object) -> BaseLearnerDataModule:
    settings: dict = {
        "train_reader": Pictures,
        "eval_reader": Pictures,
        "train_transform": TrainingTransform(32, (0.5, 2.0), keep=0),
        "eval_transform": EvaluationTransform(32),
        "fold": 0,
        "fold_scheme": "contiguous",
        "seed": 0,
        "batch_size": 4,
        "num_workers": 0,
    }
    return BaseLearnerDataModule(**{**settings, **changes})


def test_datamodule() -> None:
    data = module()
    data.setup("fit")
    assert data.base_classes == (2, 3, 4)
    batches = list(data.train_dataloader())
    assert [len(batch.images) for batch in batches] == [4, 4, 4]
    assert batches[0].images.shape == (4, 3, 32, 32)
    assert batches[0].images.dtype == batches[0].labels.dtype == torch.uint8
    assert sum(len(batch.images) for batch in data.val_dataloader()) == 12


def test_batch_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="batch_size=1: must be at least 2"):
        module(batch_size=1)
    with pytest.raises(ValueError, match="12 training pictures do not fill a batch of 13"):
        module(batch_size=13).setup("fit")


def learner(backbone_lr: float) -> BaseLearner:
    segmenter = BaseLearnerSegmenter(TinyBackbone(), PSPHead(CHANNELS.high, 3, width=8))
    return BaseLearner(segmenter, 3, partial(torch.optim.SGD, momentum=0.9), 0.1, backbone_lr)


@pytest.mark.parametrize("backbone_lr", [0.0, 0.01])
def test_backbone_is_trained_with_its_norms_or_not_at_all(backbone_lr: float) -> None:
    module = learner(backbone_lr).train()
    before = {name: value.clone() for name, value in module.segmenter.backbone.state_dict().items()}
    loss = module(torch.randint(0, 255, (4, 3, 32, 32))).square().mean()
    loss.backward()
    gradients = [p.grad is not None for p in module.segmenter.backbone.parameters()]
    assert all(gradients) if backbone_lr else not any(gradients)
    moved = {
        name
        for name, value in module.segmenter.backbone.state_dict().items()
        if not torch.equal(value, before[name])
    }
    statistics = {name for name in before if "running" in name or "tracked" in name}
    assert moved == (statistics if backbone_lr else set())
    assert any(m.training for m in module.segmenter.head.modules() if isinstance(m, nn.BatchNorm2d))
