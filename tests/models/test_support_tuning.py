"""Tuning S on supports: what is held out, what is put back, and what it depends on."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import torch
from support.predictors import head, segmenter
from torch import Tensor

from fss.models.adaptation import VIEWS, Adaptation, SupportTuning
from fss.models.segmenter import FewShotSegmenter
from fss.models.views import Support, view_of

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = Adaptation(steps=4, every=2, rate=0.05, shots=1, views=True)
S = 32


def supports(shots: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures (K, 3, S, S) of a bright square, with two rows that are none, and masks (K, S, S)."""
    images, masks = torch.empty(shots, 3, S, S), torch.zeros(shots, S, S, dtype=torch.uint8)
    for k in range(shots):
        chance = torch.Generator().manual_seed(first + k)
        images[k] = 120 * torch.rand(3, S, S, generator=chance)
        top, left = torch.randint(2, 16, (2,), generator=chance).tolist()
        masks[k, top : top + 10, left : left + 10] = 1
        images[k, 0, top : top + 10, left : left + 10] += 120
    images[:, :, -2:], masks[:, -2:] = 0, 255
    return images, masks


def tuning(settings: Adaptation = QUICK, rising: int = 0, made: FewShotSegmenter | None = None) -> SupportTuning:
    """Where `rising` is 1 every look finds more than the last, where it is -1 less."""
    built, looks = SupportTuning(made or segmenter(), settings), count(start=1)
    if rising:
        built._iou = lambda *given: 1 - 0.5 ** (rising * next(looks))  # type: ignore[method-assign]
    return built


def state(of: SupportTuning) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in of.segmenter.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("shots", [1, 2, 4])
def test_s_alone_is_tuned_and_put_back_to_the_bit(shots: int) -> None:
    made = segmenter()
    plain = {name: value.clone() for name, value in made.state_dict().items()}
    tuned = tuning(rising=1, made=made)
    before = state(tuned)
    with torch.inference_mode():  # as evaluations run
        images, masks = (part.clone() for part in supports(shots))
        assert tuned.fit(images, masks, torch.tensor([-1])).steps == 4
    changed = moved(before, state(tuned))
    assert changed
    assert all(name.endswith(".S") and name.startswith("backbone.layer") for name in changed)
    tuned.reset()
    assert not moved(before, state(tuned))
    assert not moved(plain, dict(made.state_dict()))


def test_what_does_not_help_is_not_kept() -> None:
    tuned = tuning(rising=-1)
    before = state(tuned)
    assert tuned.fit(*supports(2)).steps == 0
    assert not moved(before, state(tuned))


def test_it_depends_on_supports_and_seed_alone() -> None:
    used = tuning(rising=1)
    used.fit(*supports(3, first=7), seed=5)  # what came before does not matter
    found = []
    for of, seed in ((used, 1), (tuning(rising=1), 1), (tuning(rising=1), 2)):
        of.fit(*supports(2), seed=seed)
        found.append(state(of))
    assert not moved(found[0], found[1])
    assert moved(found[0], found[2])


def test_each_support_is_held_out_once_and_of_one_its_views() -> None:
    shown = [Support(*one) for one in zip(*supports(3), strict=True)]
    tuned, chance = tuning(), torch.Generator().manual_seed(0)
    for number, (used, [query]) in enumerate(tuned._held_out(shown, chance)):
        assert query is shown[number]
        assert [id(one) for one in used] == [id(one) for one in shown if one is not query]
    [(used, queries)] = tuned._held_out(shown[:1], chance)
    assert [id(one) for one in used] == [id(shown[0])]
    assert len({float(query.image.sum()) for query in (shown[0], *queries)}) == 1 + VIEWS


def test_a_base_learner_s_class_is_told() -> None:
    made, kept = segmenter("bam"), []
    made.head.decode = lambda *given: kept.append(given[-1])  # type: ignore[method-assign,assignment]
    with pytest.raises(AttributeError):  # there is no answer
        SupportTuning(made, QUICK).fit(*supports(1), torch.tensor([2]))
    assert [float(one) for one in kept] == [2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 5}, r"adaptation\.steps=5 adaptation\.every=2: steps must be a multiple"),
        ({"steps": 0}, r"adaptation\.steps=0"),
        ({"every": 0}, r"adaptation\.every=0"),
        ({"rate": 0.0}, r"adaptation\.rate=0\.0: must be between 0 and 1"),
        ({"shots": 0}, r"adaptation\.shots=0: must be at least 1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adaptation(**{"steps": 4, "every": 2, "rate": 0.1, **settings})


def test_heads_and_backbones_that_cannot_be_tuned() -> None:
    QUICK.check_shot(head("bam", shot=1), 1)
    with pytest.raises(ValueError, match="trained with shot=3 got 1 supports"):
        QUICK.check_shot(head("bam", shot=3), 3)
    without_views = Adaptation(steps=4, every=2, rate=0.1)
    with pytest.raises(ValueError, match="needs 3 supports, not 2"):
        without_views.check_shot(head(), 2)
    made = segmenter()
    for name in ("layer2", "layer3", "layer4"):
        setattr(made.backbone, name, torch.nn.Identity())
    with pytest.raises(ValueError, match="this backbone has no singular values to tune on supports"):
        SupportTuning(made, QUICK)


def test_views_move_picture_and_mask_alike() -> None:
    mask = torch.zeros(S, S, dtype=torch.uint8)
    mask[8:20, 3:12], mask[-2:] = 1, 255
    shown = Support((200.0 * (mask == 1)).expand(3, S, S).clone(), mask)
    chance = torch.Generator().manual_seed(0)
    views = [view_of(shown, chance) for _ in range(12)]
    assert len({int((view.mask == 1).sum()) for view in views}) > 6
    sides = {bool((view.mask == 1)[:, : S // 2].sum() > (view.mask == 1)[:, S // 2 :].sum()) for view in views}
    assert sides == {True, False}  # some are flipped
    for image, marked in views:
        bright, there = image[0] > 100, marked == 1
        assert (bright & there).sum() / (bright | there).sum() > 0.9
    assert sum(bool((view.mask[0] == 255).all()) for view in views) > 1  # above what was zoomed out, no picture
    torch.testing.assert_close(view_of(shown, torch.Generator().manual_seed(0)), views[0], rtol=0, atol=0)
    corner = torch.zeros(S, S, dtype=torch.uint8)
    corner[0, 0] = 1
    lost = Support(torch.zeros(3, S, S), corner)
    assert any(view_of(lost, chance) is lost for _ in range(12))
