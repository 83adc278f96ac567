"""A batch whose pixels are all ignored contributes nothing, instead of ending the run."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fss.models.losses import cross_entropy


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0])])
def test_all_ignored(weights: torch.Tensor | None) -> None:
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 4, 4), 255, dtype=torch.uint8), weights)
    loss.backward()
    assert float(loss) == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0])])
def test_others_are_as_before(weights: torch.Tensor | None) -> None:
    mask = torch.randint(0, 2, (2, 4, 4), dtype=torch.uint8)
    mask[0] = 255
    ours, plain = (torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)) for _ in range(2))
    loss = cross_entropy(ours.requires_grad_(), mask, weights)
    expected = F.cross_entropy(plain.requires_grad_(), mask.long(), weights, ignore_index=255)
    loss.backward()
    expected.backward()
    assert float(loss) == float(expected)
    assert ours.grad is not None
    assert plain.grad is not None
    assert torch.equal(ours.grad, plain.grad)


def test_a_broken_network_still_shows() -> None:
    logits = torch.full((1, 2, 2, 2), float("nan"))
    assert cross_entropy(logits, torch.zeros(1, 2, 2, dtype=torch.uint8), None).isnan()
