"""Training-free matching, against loops over locations."""

from __future__ import annotations

import pytest
import torch
from support.tiny import CHANNELS
from torch import Tensor

from fss.models.heads import Features, Match

pytestmark = pytest.mark.usefixtures("one_thread")


def maps(b: int, k: int | None, h: int = 5, w: int = 4) -> Features:
    lead = (b,) if k is None else (b, k)
    return Features(*(torch.randn(*lead, c, h, w) for c in CHANNELS))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def looped(query: Tensor, supports: Tensor, masks: Tensor, share: float) -> list[float]:
    """Margins of one episode: query (C, h, w), supports (K, C, h, w) and masks (K, h, w) of the same grid."""
    inside: list[Tensor] = []
    outside: list[Tensor] = []
    for shot, mask in zip(supports, masks, strict=True):
        for y in range(mask.shape[0]):
            for x in range(mask.shape[1]):
                (inside if mask[y, x] else outside).append(shot[:, y, x] / shot[:, y, x].norm())
    prototypes = torch.stack(inside).mean(0), torch.stack(outside).mean(0)
    margins = []
    for y in range(query.shape[1]):
        for x in range(query.shape[2]):
            here = query[:, y, x]
            of_means = cosine(here, prototypes[0]) - cosine(here, prototypes[1])
            of_nearest = max(cosine(here, s) for s in inside) - max(cosine(here, s) for s in outside)
            margins.append((1 - share) * of_means + share * of_nearest)
    return margins


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("shots", [1, 3])
def test_margins_by_loops(share: float, shots: int) -> None:
    head = Match(CHANNELS, ["mid"], share, threshold=0.1)
    query, support = maps(2, None), maps(2, shots)
    masks = torch.zeros(2, shots, 5, 4)
    masks[:, :, 1:3, :2] = 1
    masks[1, -1, 4] = 1
    prediction = head.decode(head.encode_query(query), head.encode_support(support, masks), (5, 4))
    for b in range(2):
        expected = torch.tensor(looped(query.mid[b], support.mid[b], masks[b], share)).reshape(5, 4)
        torch.testing.assert_close(prediction.logits[b, 1], 20 * (expected - 0.1), atol=1e-4, rtol=1e-4)
        stretched = (expected - expected.min()) / (expected.max() - expected.min())
        torch.testing.assert_close(prediction.prior[b, 0], stretched, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(prediction.logits[:, 0], -prediction.logits[:, 1])


def test_both_maps_count_alike() -> None:
    """One map that is a thousand times the other does not outweigh it."""
    head = Match(CHANNELS, ["low", "mid"], 0.5, 0.0)
    query = maps(1, None)
    larger = query._replace(low=1000 * query.low)
    torch.testing.assert_close(head.encode_query(query), head.encode_query(larger))


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_masks_without_object_or_surroundings(fill: float) -> None:
    head = Match(CHANNELS, ["mid"], 0.5, 0.02)
    support = head.encode_support(maps(1, 1), torch.full((1, 1, 40, 32), fill))
    prediction = head.decode(head.encode_query(maps(1, None)), support, (40, 32))
    assert bool(torch.isfinite(prediction.logits).all())
    assert 0 <= prediction.prior.min() <= prediction.prior.max() <= 1


def test_an_object_smaller_than_a_location_is_found() -> None:
    """Of half a location at most, and at the same place as in the support."""
    head = Match(CHANNELS, ["mid"], 0.5, 0.0)
    seen = maps(1, None)
    mask = torch.zeros(1, 1, 15, 12)
    mask[0, 0, 7, 6:8] = 1  # in location (2, 2)
    support = Features(*(m[:, None] for m in seen[:3]))
    prior = head.decode(head.encode_query(seen), head.encode_support(support, mask), (5, 4)).prior
    assert int(prior.argmax()) == 2 * 4 + 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (([], 0.5, 0.0), "method.head.maps is \\[\\]"),
        ((["high"], 0.5, 0.0), "method.head.maps is \\['high'\\]"),
        ((["mid"], 1.5, 0.0), "method.head.correspondences is 1.5"),
        ((["mid"], 0.5, 3.0), "method.head.threshold is 3.0"),
    ],
)
def test_settings_out_of_range(settings: tuple[list[str], float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Match(CHANNELS, *settings)  # type: ignore[arg-type]
