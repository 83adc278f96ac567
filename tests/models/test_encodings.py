"""What heads encode, put together: the values of torch.cat, in the layout that they had."""

from __future__ import annotations

import pytest
import torch

from fss.models.encodings import join, split


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("is_last", [True, False])
def test_shots_keep_their_channels_where_they_are(dim: int, is_last: bool) -> None:
    torch.manual_seed(0)
    shots = [torch.randn(1, 2, 6, 4, 5) for _ in range(3)]
    expected = torch.cat(shots, dim)
    if is_last:
        shots = [shot.movedim(2, -1).contiguous().movedim(-1, 2) for shot in shots]
    joined = join([{"high": shot, "shots": 2} for shot in shots], dim)
    assert torch.equal(joined["high"], expected)
    assert joined["high"].movedim(2, -1).is_contiguous() == is_last
    assert joined["shots"] == 2


def test_split_reverses_join() -> None:
    first, second = (
        (torch.rand(1, 3), (torch.rand(1, 2, 2), None)),
        (torch.rand(1, 3), (torch.rand(1, 2, 2), None)),
    )
    for ours, theirs in zip(split(join([first, second], 0), 2), (first, second), strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1][0], theirs[1][0])
        assert ours[1][1] is None
