"""Fingerprints tell models apart whose answers differ, whatever makes them differ."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.tiny import CHANNELS, TinyBackbone

from fss.models.fingerprint import fingerprint
from fss.models.heads import Baseline, Head, Match, PFENet
from fss.models.segmenter import FewShotSegmenter
from fss.models.verification import Verifier


def match(**settings: Any) -> Match:
    return Match(
        CHANNELS, **{"maps": ["low", "mid"], "correspondences": 0.5, "threshold": 0.0, "refine": 2, **settings}
    )


MADE: list[tuple[Callable[[], Head], Callable[[], Head]]] = [
    (lambda: match(), lambda: match(threshold=0.3)),
    (lambda: match(), lambda: match(refine=0)),
    (lambda: match(maps=["mid"]), lambda: match(maps=["low"])),
    (lambda: Baseline(CHANNELS, 8, shots="sum"), lambda: Baseline(CHANNELS, 8, shots="mean")),
    (lambda: PFENet(CHANNELS, 8, (1.0, 0.5)), lambda: PFENet(CHANNELS, 8, (1.0, 0.25))),
]


def segmenter(head: Callable[[], Head]) -> FewShotSegmenter:
    torch.manual_seed(0)
    return FewShotSegmenter(TinyBackbone(), head()).eval()


@pytest.mark.parametrize("pair", MADE)
def test_settings_tell_heads_apart(pair: tuple[Callable[[], Head], Callable[[], Head]]) -> None:
    one, other = map(segmenter, pair)
    assert fingerprint(one) == fingerprint(copy.deepcopy(one)) != fingerprint(other)


def test_weights_and_buffers_tell_apart() -> None:
    made = segmenter(lambda: PFENet(CHANNELS, 8, (1.0,)))
    seen = {fingerprint(made)}
    with torch.no_grad():
        for tensor in (next(made.head.parameters()), *list(made.backbone.buffers())[:1]):
            tensor.add_(1)
            seen.add(fingerprint(made))
    assert len(seen) == 2 + bool(list(made.backbone.buffers()))


def test_verifiers_tell_apart() -> None:
    made = segmenter(lambda: PFENet(CHANNELS, 8, (1.0,)))
    parts = torch.zeros(3), torch.eye(3)[:1], torch.ones(1), torch.eye(3)
    seen = {fingerprint(made)}
    for other in (None, torch.ones(1, 3)):
        verifier = Verifier(*parts, (1.0, 1.0, 1.0, 0.0), 0.5)
        made.verifier = verifier if other is None else verifier.knowing(other)
        seen.add(fingerprint(made))
    assert len(seen) == 3
