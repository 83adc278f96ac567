"""A model as two graphs: one encodes supports, once; the other answers queries with what the first has made.

Shapes: B batch, K shots, S image side, h w feature height and width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from fss.models.segmenter import FewShotSegmenter

SUPPORT_INPUTS = ("images", "masks")
QUERY_OUTPUTS = ("logits", "prior")


class Graphs(NamedTuple):
    """Both graphs of a model.

    Attributes:
        support: images (B, K, 3, S, S) float, RGB in 0..255, and masks (B, K, S, S) float, 1 object and 0 not, to
            the tensors of the encoded supports, (B, K, ...) each.
        query: images (B, 3, S, S) float, RGB in 0..255, and the tensors of the encoded supports, to logits
            (B, 2, S, S), background and foreground, and the prior mask (B, 1, h, w).
        names: Names of the tensors of the encoded supports.
    """

    support: ExportedProgram
    query: ExportedProgram
    names: tuple[str, ...]


class Example(NamedTuple):
    """Inputs of both graphs: queries (B, 3, S, S), supports (B, K, 3, S, S) and their masks (B, K, S, S)."""

    queries: Tensor
    images: Tensor
    masks: Tensor


class SupportEncoder(nn.Module):
    """The first graph as a module."""

    def __init__(self, segmenter: FewShotSegmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, ...]:
        normalized = self.segmenter.backbone.normalize(images)
        return tuple(pytree.tree_leaves(self.segmenter.encode_support(normalized, masks)))


class QueryDecoder(nn.Module):
    """The second graph as a module.

    Args:
        segmenter: The model.
        structure: How the tensors of the encoded supports belong together.
        size: S.
    """

    def __init__(self, segmenter: FewShotSegmenter, structure: pytree.TreeSpec, size: int) -> None:
        super().__init__()
        self.segmenter, self.structure, self.size = segmenter, structure, size

    def forward(self, images: Tensor, support: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        query = self.segmenter.encode_query(self.segmenter.backbone.normalize(images))
        encoded = pytree.tree_unflatten(list(support), self.structure)
        answer = self.segmenter.decode(query, encoded, (self.size, self.size))
        return answer.logits, answer.prior


def example(size: int, shot: int, batch: int) -> Example:
    """Pictures of noise with a bright square each, which is the object; the same ones every time."""
    chance = torch.Generator().manual_seed(0)
    side = size // 2
    pictures = 128 * torch.rand(batch, 1 + shot, 3, size, size, generator=chance)
    masks = torch.zeros(batch, 1 + shot, size, size)
    for row in range(batch):
        for picture in range(1 + shot):
            top, left = torch.randint(0, size - side + 1, (2,), generator=chance).tolist()
            masks[row, picture, top : top + side, left : left + side] = 1
    pictures += 100 * masks[:, :, None]
    return Example(pictures[:, 0].contiguous(), pictures[:, 1:].contiguous(), masks[:, 1:].contiguous())


@torch.no_grad()
def export_graphs(segmenter: FewShotSegmenter, size: int, shot: int, any_shot: bool) -> Graphs:
    """Traces a model, for any batch.

    Args:
        segmenter: On the CPU, in eval mode, SVF layers merged. Classes are taken to be novel.
        size: S.
        shot: K.
        any_shot: Whether the graphs are to take other numbers of supports too. Runtimes of torch.export check what
            the tracer assumed, that there are several; ONNX does not.
    """
    batch = Dim("batch", min=1)
    k = max(2, shot) if any_shot else shot  # of one, a tracer takes it for a constant
    queries, images, masks = example(size, k, batch=2)
    encoder = SupportEncoder(segmenter)
    encoded = segmenter.encode_support(segmenter.backbone.normalize(images), masks)
    paths, structure = pytree.tree_flatten_with_path(encoded)
    of_support = {0: batch, 1: Dim("shots", min=1)} if any_shot else {0: batch}
    support = torch.export.export(encoder, (images, masks), dynamic_shapes=(of_support, of_support))
    leaves = tuple(leaf for _, leaf in paths)
    decoder = QueryDecoder(segmenter, structure, size)
    dynamic = ({0: batch}, tuple(of_support for _ in leaves))
    query = torch.export.export(decoder, (queries, leaves), dynamic_shapes=dynamic)
    return Graphs(support, query, tuple(f"support{pytree.keystr(path)}" for path, _ in paths))


def accepts_any_shot(segmenter: FewShotSegmenter, shot: int) -> bool:
    """Whether a head accepts another number of supports than it was trained with."""
    try:
        segmenter.head.check_shot(shot + 1)
    except ValueError:
        return False
    return True
