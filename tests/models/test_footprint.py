"""What a step needs of memory is known before it is taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal
from unittest import mock

import pytest
import torch
from support.tiny import CHANNELS, TinyBackbone
from torch import nn

from fss.models import footprint
from fss.models.heads import BAM, Baseline, CrossAttention, Match, PFENet, PriorMask, PSPHead
from fss.models.segmenter import FewShotSegmenter


def segmenter(norms: Literal["eval", "batch"] = "eval") -> FewShotSegmenter:
    return FewShotSegmenter(TinyBackbone(), PFENet(CHANNELS, width=8, pyramid=(1.0, 0.5)), norms)


def test_similarities_of_all_locations_are_in_it() -> None:
    """They grow with the fourth power of the side: size 2049 took 20 GB."""
    small, large = (footprint.forward_bytes(segmenter(), 1, 1, size, training=False) for size in (256, 512))
    locations = (512 // 4) ** 2  # TinyBackbone has one for four pixels
    assert large > 4 * locations**2
    assert 8 < large / small < 17


@pytest.mark.parametrize("norms", ["eval", "batch"])
def test_nothing_is_computed_or_changed(norms: Literal["eval", "batch"]) -> None:
    made = segmenter(norms).train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    assert footprint.forward_bytes(made, 8, 5, 2049, training=True) > 2 * 10**11  # nobody has as much
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


def test_training_needs_more_than_evaluation_and_more_episodes_more() -> None:
    made = segmenter()
    evaluation, training = (footprint.forward_bytes(made, 4, 1, 32, training=t) for t in (False, True))
    assert training > evaluation
    assert footprint.forward_bytes(made, 8, 1, 32, training=True) > 1.8 * training


def test_what_cannot_fit_is_refused() -> None:
    device = torch.device("cpu")
    with pytest.raises(
        ValueError, match=r"dataset\.size=2049 with 8 episodes of 1 supports needs about .* GB of mem"
    ):
        footprint.check_memory(segmenter(), 8, 1, 2049, True, device)
    with mock.patch.object(footprint, "memory_bytes", return_value=10**15):
        footprint.check_memory(segmenter(), 8, 1, 2049, True, device)
    footprint.check_memory(segmenter(), 2, 1, 128, True, device)


def test_memory_of_this_machine() -> None:
    assert 10**8 < footprint.memory_bytes(torch.device("cpu")) < 10**14


@pytest.mark.parametrize(
    "build",
    [
        lambda: PFENet(CHANNELS, width=8),
        lambda: BAM(CHANNELS, shot=1, base_classes=3, width=8),
        lambda: Baseline(CHANNELS, width=8),
        lambda: CrossAttention(CHANNELS, width=8),
        lambda: Match(CHANNELS, maps=("mid",), correspondences=0.5, threshold=0.0),
        lambda: PriorMask(CHANNELS, threshold=0.7),
        lambda: PSPHead(CHANNELS[2], base_classes=3, width=8),
    ],
)
def test_weights_of_heads_are_counted_before_there_are_any(build: Callable[[], nn.Module]) -> None:
    """And without a draw, so that what is built afterwards is what it would have been."""
    random = torch.get_rng_state()
    counted = footprint.weights_bytes(build)
    assert torch.equal(torch.get_rng_state(), random)
    made = build()
    assert counted == sum(value.nbytes for values in (made.parameters(), made.buffers()) for value in values)


def test_weights_beyond_numbers_and_those_that_cannot_be_counted() -> None:
    assert footprint.weights_bytes(lambda: PFENet(CHANNELS, width=10**9)) == math.inf
    assert footprint.weights_bytes(lambda: PFENet(CHANNELS, width=10**5)) > 10**11
    assert footprint.weights_bytes(lambda: nn.Linear(int(torch.ones(1).item()), 1)) == 0


def test_pictures_beyond_numbers_are_refused() -> None:
    for batch, size in ((10**9, 64), (1, 10**9)):
        with pytest.raises(ValueError, match=rf"^dataset\.size={size} with {batch} episodes of 1 supports needs"):
            footprint.check_memory(segmenter(), batch, 1, size, True, torch.device("cpu"))
