"""A backbone and a head put together: the torch model that training, evaluation and prediction use.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from fss.backbones import Backbone, Lower
from fss.heads import Features, Head, Prediction


class FewShotSegmenter(nn.Module):
    """Finds in a query what the supports show.

    Images come normalised (`backbone.normalize`). The backbone stays in eval mode also while training: its
    norms keep the statistics that they were pretrained with.

    Args:
        backbone: Where features come from.
        head: The method.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.eval()
        return self

    def encode_support(self, images: Tensor, masks: Tensor) -> Any:
        """What the supports say; it can be kept and used for any number of queries.

        Args:
            images: (B, K, 3, S, S), normalised.
            masks: (B, K, S, S); 1 is the object, anything else is not.
        """
        lower = self.backbone.lower(images.flatten(0, 1))
        foreground = (masks == 1).to(images.dtype)
        high = self.backbone.upper(lower, foreground.flatten(0, 1)[:, None])
        return self._encode_support(Features(*lower, high), foreground)

    def encode_query(self, images: Tensor) -> Any:
        """What the queries (B, 3, S, S), normalised, offer."""
        lower = self.backbone.lower(images)
        return self.head.encode_query(Features(*lower, self.backbone.upper(lower)))

    def decode(self, query: Any, support: Any, size: tuple[int, int]) -> Prediction:
        """The answer, its logits at `size` (height and width of the images)."""
        return self.head.decode(query, support, size)

    def forward(self, query: Tensor, support: Tensor, support_masks: Tensor) -> Prediction:
        """The three functions in one go, with one pass of the backbone over all images.

        Args:
            query: (B, 3, S, S), normalised.
            support: (B, K, 3, S, S), normalised.
            support_masks: (B, K, S, S); 1 is the object.
        """
        b, s = query.shape[0], query.shape[-2:]
        foreground = (support_masks == 1).to(query.dtype)
        masks = torch.cat(
            [torch.ones_like(query[:, :1]), foreground.flatten(0, 1)[:, None]]
        )  # (B + B * K, 1, S, S)
        lower: Lower = self.backbone.lower(torch.cat([query, support.flatten(0, 1)]))
        features = Features(*lower, self.backbone.upper(lower, masks))
        encoded_query = self.head.encode_query(Features(*(maps[:b] for maps in features)))
        encoded_support = self._encode_support(Features(*(maps[b:] for maps in features)), foreground)
        return self.decode(encoded_query, encoded_support, (s[0], s[1]))

    def _encode_support(self, features: Features, foreground: Tensor) -> Any:
        # (B * K, C, h, w) -> (B, K, C, h, w)
        shots = Features(*(maps.unflatten(0, foreground.shape[:2]) for maps in features))
        return self.head.encode_support(shots, foreground)
