"""The ReLU that keeps bits: torch's numbers and gradients, in the memory format of its input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fss.models.backbones.relu import pack, relu, unpack

SHAPES = [(8,), (4, 6), (2, 8, 3, 5), (1, 16, 2, 2), (3, 1, 8, 1), (0, 8), (7,), (3, 5, 3, 3)]


def arrangements(shape: tuple[int, ...]) -> list[Tensor]:
    """Random numbers in memory as torch lays them, channels last, transposed, and with gaps."""
    x = torch.randn(shape)
    gaps = torch.randn(*shape[:-1], 2 * shape[-1])[..., ::2]
    last = [x.contiguous(memory_format=torch.channels_last)] if len(shape) == 4 else []
    return [x, gaps, *last, *([x.transpose(0, -1)] if len(shape) > 1 else [])]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_come_back(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    for x in arrangements(shape):
        flags = x > 0
        bits, layout = pack(flags.clone(memory_format=torch.preserve_format))
        assert bits.numel() == (flags.numel() if layout is None else flags.numel() // 8)
        back = unpack(bits, layout)
        assert torch.equal(back.bool(), flags)
        assert set(back.unique().tolist()) <= {0, 1}
        assert back.stride() == flags.stride() or layout is None or 1 in shape or 0 in shape


def test_every_byte_comes_back() -> None:
    flags = ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).bool()
    bits, layout = pack(flags.clone())
    assert len(bits.unique()) == 256
    assert torch.equal(unpack(bits, layout).bool(), flags)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_relu_is_torchs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for given in arrangements(shape):
        x = given.to(dtype)
        mine, theirs = (x.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2))
        out, expected = relu(mine * 1), torch.relu(theirs * 1)
        assert torch.equal(out, expected)
        (out**3).sum().backward()
        (expected**3).sum().backward()
        assert torch.equal(mine.grad, theirs.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "kept"), [((2, 8, 3, 3), 18), ((4, 5), 20 // 8 * 8 + 4)], ids=str)
def test_relu_keeps_little(shape: tuple[int, ...], kept: int) -> None:
    saved: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    x = torch.randn(shape).requires_grad_() * 1
    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        relu(x)
    assert sum(t.numel() * t.element_size() for t in saved) == kept


def test_relu_without_gradients_is_in_place() -> None:
    x = torch.randn(4, 8)
    assert relu(x) is x
    assert (x >= 0).all()
