"""Exported graphs in the place of a model: the three functions of a head, answered by two graphs.

Shapes: B batch, K shots, S image side, h w feature height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

from torch import Tensor

from fss.export.graphs import SUPPORT_INPUTS
from fss.models.backbones import Backbone, Channels, Lower
from fss.models.heads import Features, Head, Prediction
from fss.models.segmenter import FewShotSegmenter


class Graph(Protocol):
    """A graph that can be run.

    Attributes:
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        shot: The number of supports that it takes; None for any.
        digest: Of its file.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shot: int | None
    digest: str

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Maps inputs to outputs, both by name."""


def graph_segmenter(query: Graph, support: Graph) -> FewShotSegmenter:
    """A segmenter whose three functions are two graphs; every class is novel to it.

    Raises:
        ValueError: The graphs are not those of one exported model.
    """
    return FewShotSegmenter(Pictures(), GraphHead(query, support)).eval()


class Pictures(Backbone):
    """Hands pictures on as they are: graphs normalise them, and have backbones of their own."""

    def __init__(self) -> None:
        super().__init__(Channels(3, 3, 3))

    def normalize(self, images: Tensor) -> Tensor:
        return images.to(self.mean.dtype)

    def after_stem(self, stem: Tensor, mask: Tensor | None = None) -> Lower:
        return Lower(stem, stem)

    def upper(self, lower: Lower, mask: Tensor | None = None) -> Tensor:
        return lower.mid

    def stage_of(self, name: str) -> int:
        return 0


class GraphHead(Head):
    """Runs one graph for supports, and one for queries with them.

    Args:
        query: The graph that answers queries.
        support: The graph that encodes supports.

    Raises:
        ValueError: One does not take what the other makes.
    """

    def __init__(self, query: Graph, support: Graph) -> None:
        super().__init__()
        if support.inputs != SUPPORT_INPUTS or query.inputs != ("images", *support.outputs):
            raise ValueError("the two graphs are not those of one exported model: export it anew")
        self.query, self.support = query, support
        self.digest = query.digest + support.digest  # an evaluation is resumed with the same graphs alone

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it has no state

    def check_shot(self, shot: int) -> None:
        if self.support.shot not in (None, shot):
            raise ValueError(
                f"shot={shot}: this graph takes {self.support.shot} supports, since its head has weights for each"
            )

    def encode_support(self, features: Features, masks: Tensor) -> dict[str, Tensor]:
        return self.support.run({"images": features.mid, "masks": masks})

    def encode_query(self, features: Features) -> Tensor:
        return features.mid

    def decode(
        self, query: Tensor, support: dict[str, Tensor], size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        answer = self.query.run({"images": query, **support})
        return Prediction(answer["logits"], answer["prior"])
