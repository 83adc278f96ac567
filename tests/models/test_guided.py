"""Guided upsampling, against a regression in every window, and on edges that the scores' grid does not have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.tiny import CHANNELS, TinyBackbone
from torch import Tensor, nn

from fss.models.heads import BAM, Baseline, Head, Match, PFENet, PriorMask
from fss.models.heads.guided import EPS, box_mean, guided_upsampling, refined
from fss.models.segmenter import FewShotSegmenter
from fss.resize import resize

pytestmark = pytest.mark.usefixtures("one_thread")


def regressed(scores: Tensor, picture: Tensor, radius: int) -> Tensor:
    """The same by ridge regressions of scores on red, green and blue, one for each window, in float64."""
    (h, w), n = scores.shape[-2:], picture.shape[-1] // scores.shape[-1]
    fine = picture[0].double().numpy()
    coarse = fine.reshape(3, h, n, w, n).mean((2, 4))
    planes = np.zeros((4, h, w))  # slopes and offset
    for y in range(h):
        for x in range(w):
            window = np.s_[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
            colours = coarse[(slice(None), *window)].reshape(3, -1)
            values = scores[0, 0].double().numpy()[window].ravel()
            centred = colours - colours.mean(1, keepdims=True)
            covariance = centred @ centred.T / values.size + EPS * np.eye(3)
            slope = np.linalg.solve(covariance, centred @ (values - values.mean()) / values.size)
            planes[:3, y, x], planes[3, y, x] = slope, values.mean() - slope @ colours.mean(1)
    means = np.zeros_like(planes)
    for y in range(h):
        for x in range(w):
            around = np.s_[:, max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
            means[:, y, x] = planes[around].mean((1, 2))
    raised = resize(torch.from_numpy(means)[None], fine.shape[-2:])[0].numpy()
    return torch.from_numpy((raised[:3] * fine).sum(0) + raised[3])


@pytest.mark.parametrize("radius", [1, 2, 7])
def test_by_regressions(radius: int) -> None:
    scores, picture = torch.randn(1, 1, 6, 5), torch.randn(1, 3, 24, 20)
    found = guided_upsampling(scores, picture, radius)
    torch.testing.assert_close(found[0, 0].double(), regressed(scores, picture, radius), atol=2e-4, rtol=2e-4)


def test_scores_follow_an_edge_between_their_locations() -> None:
    """A bright half, whose edge lies within a location; bilinear upsampling misses it."""
    picture = torch.zeros(1, 3, 32, 32)
    picture[..., 13:] = 1
    scores = torch.tensor([-1.0, -1.0, 1.0, 1.0]).expand(1, 1, 4, 4)  # location 1 is five eighths dark
    truth = picture[0, 0] > 0
    followed = guided_upsampling(scores, picture, 1)[0, 0] > 0
    assert float((followed == truth).float().mean()) == 1
    assert float(((resize(scores, (32, 32))[0, 0] > 0) == truth).float().mean()) < 1


def test_a_pixel_alone_is_not_answered_by_its_colour() -> None:
    """A speck of the object's colour beside it becomes the object by the filter alone, but not with the means."""
    picture = torch.zeros(1, 3, 64, 64)
    picture[..., 32:] = 1
    picture[0, :, 20, 20] = 1
    scores = torch.where(torch.arange(8) < 4, -1.0, 1.0).expand(1, 1, 8, 8)
    alone = guided_upsampling(scores, picture, 2)
    assert alone[0, 0, 20, 20] > 0
    found = box_mean(alone, 4)[0, 0]
    assert found[20, 20] < 0
    assert (found[:, :28] < 0).all()
    assert (found[:, 36:] > 0).all()


def test_means_are_of_what_lies_within() -> None:
    maps = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert torch.equal(box_mean(maps, 0), maps)
    assert box_mean(maps, 1)[0, 0, 0, 0] == maps[0, 0, :2, :2].mean()
    assert torch.allclose(box_mean(maps, 10**12), maps.mean().expand_as(maps))
    assert box_mean(maps, 1)[0, 0, 1, 2] == maps[0, 0, :, 1:].mean()


@pytest.mark.parametrize("picture", [torch.zeros(3, 1, 1), torch.rand(1, 40, 40)], ids=["black", "grey"])
def test_pictures_without_colours(picture: Tensor) -> None:
    """Red, green and blue are then one, and their covariances singular."""
    scores = torch.randn(1, 1, 5, 5)
    found = guided_upsampling(scores, picture.expand(1, 3, 40, 40).contiguous(), 2)
    assert float(found.abs().max()) < 10 * float(scores.abs().max())
    if not picture.any():  # no edge to follow: means of means
        assert float(found.max()) <= float(scores.max())


def test_matching_with_refinement() -> None:
    """Together and in parts, and with the prior mask as without."""
    query, support, masks = torch.randn(2, 3, 32, 24), torch.randn(2, 2, 3, 32, 24), torch.zeros(2, 2, 32, 24)
    masks[..., 4:20, 3:15] = 1
    heads = [Match(CHANNELS, ["mid"], 0.5, 0.02, refine) for refine in (0, 2)]
    plain, follows = (FewShotSegmenter(TinyBackbone(), head).eval() for head in heads)
    follows.backbone.load_state_dict(plain.backbone.state_dict())
    with torch.no_grad():
        first, second = plain(query, support, masks), follows(query, support, masks)
        encoded = follows.encode_query(query)
        again = follows.decode(encoded, follows.encode_support(support, masks), (32, 24))
    torch.testing.assert_close(first.prior, second.prior)
    torch.testing.assert_close(again.logits, second.logits)
    assert not torch.allclose(first.logits, second.logits)
    assert torch.equal(encoded.picture, query)
    assert plain.encode_query(query).picture is None
    with pytest.raises(ValueError, match=r"method\.head\.refine is -1"):
        Match(CHANNELS, ["mid"], 0.5, 0.02, -1)


@pytest.mark.parametrize(
    "head",
    [
        PFENet(CHANNELS, 8, (6, 3, 2)),
        Baseline(CHANNELS, 8),
        BAM(CHANNELS, 3, 2, 8, base_width=8),
        PriorMask(CHANNELS, 0.5),
    ],
    ids=["pfenet", "baseline", "bam", "prior"],
)
def test_answers_of_any_head_follow_the_picture(head: Head) -> None:
    """Margins are the mean of plain and refined ones; in training nothing changes."""
    segmenter = FewShotSegmenter(TinyBackbone(), head)
    query, support, masks = torch.randn(2, 3, 32, 24), torch.randn(2, 2, 3, 32, 24), torch.zeros(2, 2, 32, 24)
    masks[..., 4:20, 3:15] = 1

    def margins(radius: int, size: tuple[int, int]) -> Tensor:
        head.radius = radius
        with torch.no_grad():
            encoded = segmenter.encode_query(query)
            logits = segmenter.decode(encoded, segmenter.encode_support(support, masks), size).logits
        return logits[:, 1:] - logits[:, :1]

    segmenter.eval()
    grid = margins(0, (8, 6))
    plain, followed = margins(0, (32, 24)), margins(2, (32, 24))
    torch.testing.assert_close(followed, (plain + refined(grid, query, 2)) / 2)
    assert not torch.allclose(followed, plain)
    with torch.no_grad():
        encoded = segmenter.encode_query(query)
        head.radius = 0  # a picture that is already there is not looked at any more
        again = segmenter.decode(encoded, segmenter.encode_support(support, masks), (32, 24)).logits
    torch.testing.assert_close(again[:, 1:] - again[:, :1], plain)
    segmenter.train()
    for module in segmenter.modules():
        if isinstance(module, nn.Dropout2d):
            module.eval()
    assert torch.equal(margins(0, (32, 24)), margins(2, (32, 24)))


@pytest.mark.parametrize(
    "build",
    [
        lambda refine: PFENet(CHANNELS, 8, refine=refine),
        lambda refine: Baseline(CHANNELS, 8, refine=refine),
        lambda refine: BAM(CHANNELS, 3, 1, 8, base_width=8, refine=refine),
        lambda refine: PriorMask(CHANNELS, 0.5, refine),
    ],
    ids=["pfenet", "baseline", "bam", "prior"],
)
def test_radius_of_a_head(build: Callable[[int], Head]) -> None:
    assert build(0).sees_pictures is False
    assert build(3).sees_pictures is True
    assert build(3).radius == 3
    with pytest.raises(ValueError, match=r"method\.head\.refine is -1"):
        build(-1)
