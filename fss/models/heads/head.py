"""The three functions of every few-shot method, and the data they exchange.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fss.models.heads.guided import refined
from fss.models.losses import cross_entropy
from fss.resize import resize


class Features(NamedTuple):
    """Feature maps of a set of images, each (B, C, h, w), or (B, K, C, h, w) for supports.

    Attributes:
        low: Features of stage 2.
        mid: Features of stage 3.
        high: Features for the prior mask.
        base: For queries of a head with a base learner: high features of the backbone before tuning.
        picture: For queries of a head that `sees_pictures`: the pictures (B, 3, S, S), normalised.
    """

    low: Tensor
    mid: Tensor
    high: Tensor
    base: Tensor | None = None
    picture: Tensor | None = None


class Prediction(NamedTuple):
    """A method's prediction for a batch of queries.

    Attributes:
        logits: (B, 2, S, S), background and foreground.
        prior: (B, 1, h, w) prior mask in 0..1.
        inner: Intermediate logits (B, 2, S, S), used by the method's auxiliary losses; a method may leave them out
            without gradients.
        base: Logits (B, N + 1, S, S) of a base learner, background first; None without one.
    """

    logits: Tensor
    prior: Tensor
    inner: tuple[Tensor, ...] = ()
    base: Tensor | None = None


class Head(nn.Module):
    """A few-shot method on top of a backbone: encodes supports and queries, and predicts the queries' masks.

    `encode_support` and `encode_query` may return anything built from tensors and None with tuples, named tuples,
    lists and dicts, nested to any depth. Tensors have leading dimensions (B, K) for supports and (B,) for queries,
    so that each image can be encoded once, kept, and combined with others; anything that is not a tensor must be
    the same for every image.

    Attributes:
        base_learner_parts: Submodules that belong to a base learner, which is trained beforehand. A head with any
            of them receives queries with `Features.base`.
        unused_parts: Submodules in published checkpoints of the method that are never used; skipped when loading.
        looks_around: Whether mid features of supports are used outside their objects too. If not, they may be
            zeros there.
        radius: Radius, in locations, of a guided filter's windows, by which answers outside of training follow the
            edges of the picture; 0: they are upsampled bilinearly, as published. May be changed before queries are
            encoded.
    """

    base_learner_parts: tuple[str, ...] = ()
    unused_parts: tuple[str, ...] = ()
    looks_around: bool = True
    radius: int = 0

    @property
    def sees_pictures(self) -> bool:
        """Whether queries come with `Features.picture`."""
        return self.radius > 0

    @property
    def has_base_learner(self) -> bool:
        """Whether the head receives queries with `Features.base`."""
        return bool(self.base_learner_parts)

    def encode_support(self, features: Features, masks: Tensor) -> Any:
        """Encodes the supports.

        Args:
            features: Maps (B, K, C, h, w); `high` is computed from masked mid features, and may be zero outside
                objects.
            masks: Support masks (B, K, S, S), 0 or 1.
        """
        raise NotImplementedError

    def encode_query(self, features: Features) -> Any:
        """Encodes the queries from maps (B, C, h, w)."""
        raise NotImplementedError

    def decode(
        self, query: Any, support: Any, size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        """Predicts the queries' masks.

        Args:
            query: Output of `encode_query`.
            support: Output of `encode_support`.
            size: Height and width of the image in pixels, and thus of the logits.
            own_class: (B,) position of each episode's class among the base classes, from 0; -1 for a novel
                class. None if all are novel.
        """
        raise NotImplementedError

    def upsampled(self, logits: Tensor, picture: Tensor | None, size: tuple[int, int]) -> Tensor:
        """The logits (B, 2, S, S) of an answer; outside of training they follow the edges of the picture.

        Args:
            logits: (B, 2, h, w).
            picture: `Features.picture` of the queries.
            size: Height and width of the result in pixels.
        """
        plain = resize(logits, size)
        if picture is None or not self.radius or self.training:
            return plain
        # the mean of plain and refined margins: objects are not only where colours say so
        margin = resize(refined((logits[:, 1:] - logits[:, :1]).float(), picture, self.radius), size) / 2
        return (plain + torch.cat([-margin, margin], 1)) / 2

    def check_shot(self, shot: int) -> None:
        """Checks that a trained head accepts this number of supports.

        Raises:
            ValueError: If it does not.
        """

    def losses(
        self,
        prediction: Prediction,
        mask: Tensor,
        class_weights: Tensor | None,
        base_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Returns the named losses; training minimises their sum.

        Args:
            prediction: Output of `decode`.
            mask: Ground truth (B, S, S): 0, 1, or 255 for ignored pixels.
            class_weights: (2,) weights of background and foreground, or None for equal weights.
            base_mask: Ground truth (B, S, S) for the base learner: 0, base classes from 1, 255 for ignored pixels.
        """
        return {"main": cross_entropy(prediction.logits, mask, class_weights)}
