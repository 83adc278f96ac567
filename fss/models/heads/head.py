"""The three functions that every method has, and what they pass on.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from fss.models.losses import cross_entropy


class Features(NamedTuple):
    """A backbone's maps of one set of images, each (B, C, h, w), or (B, K, C, h, w) for supports.

    Attributes:
        base: Of a query, for a head with a base learner: high features of the backbone as it was before tuning.
    """

    low: Tensor
    mid: Tensor
    high: Tensor
    base: Tensor | None = None


class Prediction(NamedTuple):
    """What a method says about a query.

    Attributes:
        logits: (B, 2, S, S) background and foreground.
        prior: (B, 1, h, w) prior mask in 0..1.
        inner: Further logits (B, 2, S, S) that the method's own losses use.
        base: Logits of the base classes (B, N + 1, S, S), background first, from a base learner.
    """

    logits: Tensor
    prior: Tensor
    inner: tuple[Tensor, ...] = ()
    base: Tensor | None = None


class Head(nn.Module):
    """A few-shot method on top of a backbone: what the supports say, what the query offers, the answer.

    What `encode_support` and `encode_query` return is up to the head: a tensor, None, or tuples, named tuples,
    lists and dicts of these, nested at will. Tensors have leading (B, K) for supports and (B,) for queries, so
    that each image can be encoded once, kept, and put beside others; anything that is no tensor must be the same
    for every image.

    Attributes:
        base_learner_parts: Submodules that belong to a base learner, which is trained beforehand. A head that has
            any gets queries with `Features.base`.
        unused_parts: Submodules that published checkpoints of the method hold and never use; left out when they
            are loaded.
    """

    base_learner_parts: tuple[str, ...] = ()
    unused_parts: tuple[str, ...] = ()

    @property
    def has_base_learner(self) -> bool:
        """Whether queries come with `Features.base`."""
        return bool(self.base_learner_parts)

    def encode_support(self, features: Features, masks: Tensor) -> Any:
        """The supports' part of the answer.

        Args:
            features: Maps (B, K, C, h, w); `high` from masked images.
            masks: Foreground (B, K, S, S), 0 or 1.
        """
        raise NotImplementedError

    def encode_query(self, features: Features) -> Any:
        """The query's part of the answer, from maps (B, C, h, w)."""
        raise NotImplementedError

    def decode(
        self, query: Any, support: Any, size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        """The answer.

        Args:
            query: From `encode_query`.
            support: From `encode_support`.
            size: Height and width of the image, and of the logits.
            own_class: (B,) where the class asked for stands among the base classes, from 0; -1 for a novel
                one. None: all are novel.
        """
        raise NotImplementedError

    def check_shot(self, shot: int) -> None:
        """Whether a trained head answers this many supports.

        Raises:
            ValueError: It does not.
        """

    def losses(
        self,
        prediction: Prediction,
        mask: Tensor,
        class_weights: Tensor | None,
        base_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The named losses whose sum is minimised.

        Args:
            prediction: From `decode`.
            mask: Truth (B, S, S): 0, 1, 255 ignored.
            class_weights: (2,) weights of background and foreground, or None.
            base_mask: Truth of a base learner (B, S, S): 0, base classes from 1, 255 ignored.
        """
        return {"main": cross_entropy(prediction.logits, mask, class_weights)}
