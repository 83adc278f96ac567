"""A backbone combined with a head: the torch model for training, evaluation and prediction.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fss.models.backbones import Backbone, Lower
from fss.models.heads import Features, Head, Prediction
from fss.models.verification import Verifier


class FewShotSegmenter(nn.Module):
    """Segments in a query the class that the supports show.

    Images must be normalised (`backbone.normalize`). The backbone stays in eval mode even during training, except
    for its norms if `norms` is "batch".

    Args:
        backbone: The feature extractor.
        head: The few-shot method.
        norms: Statistics used by the backbone's batch norms in training: "eval" for the pretrained ones, which are
            kept fixed; or "batch" for those of the queries and of the supports of each shot, whose running mean is
            used in evaluation (dvlab's PFENet).

    Attributes:
        base_backbone: For a head with a base learner, the backbone before tuning; None if `backbone` is unchanged.
        verifier: What base classes have taught of how to tell that a class is absent; None before. It is kept in
            model files, not in the state dict.

    Raises:
        ValueError: If `norms` is neither, or is "batch" for a backbone without batch norms.
    """

    def __init__(self, backbone: Backbone, head: Head, norms: Literal["eval", "batch"] = "eval") -> None:
        super().__init__()
        if norms not in ("eval", "batch"):
            raise ValueError(f"backbone.norms is {norms!r}, must be 'eval' or 'batch'")
        if norms == "batch" and not _batch_norms(backbone):
            raise ValueError("backbone.norms=batch: this backbone has no batch norms, leave it at eval")
        self.backbone = backbone
        self.head = head
        self.norms = norms
        self.base_backbone: Backbone | None = None
        self.verifier: Verifier | None = None
        self.to(memory_format=torch.channels_last)  # saves a quarter of the time on CPUs
        self.train(self.training)

    def tune(self, tuning: Callable[[Backbone], None]) -> None:
        """Applies a tuning to the backbone; a base learner keeps a copy of the untuned backbone.

        Args:
            tuning: A function of `fss.models.tuning`.
        """
        untuned = self.base_backbone or self.backbone
        before = copy.deepcopy(untuned) if self.head.has_base_learner else None
        tuning(self.backbone)
        changes = self.norms == "batch" or any(p.requires_grad for p in self.backbone.parameters())
        if before is not None and changes:
            self.keep_for_base_learner(before)

    def keep_for_base_learner(self, backbone: Backbone) -> None:
        """Gives the base learner its own frozen backbone.

        Parts that are equal in both backbones and stay equal are stored once: `backbone` takes those of the tuned
        one. If the stem is such a part, it also runs only once.
        """
        self.base_backbone = backbone.requires_grad_(False).eval()
        if self.norms == "eval":  # otherwise all norms are about to change
            _share_equal_parts(self.base_backbone, self.backbone)

    def keep_less(self) -> None:
        """See `Backbone.keep_less`.

        Raises:
            ValueError: If the backbone cannot, or its norms use batch statistics, which would be taken twice.
        """
        if self.norms == "batch":
            raise ValueError(
                "checkpointing=true would count each batch twice in backbone.norms=batch: leave one out"
            )
        self.backbone.keep_less()

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.backbone.eval()
        if self.norms == "batch":
            for module in _batch_norms(self.backbone):
                module.train(mode)
        if self.base_backbone is not None:
            self.base_backbone.eval()
        return self

    def lower(self, images: Tensor, masks: Tensor | None = None) -> Lower:
        """Low and mid features of normalised images (B, 3, S, S).

        Args:
            images: Queries, supports, or both.
            masks: (B, 1, S, S) of supports that are not queries too: what the head does not use may be zero.
        """
        return self.backbone.lower(_channels_last(images), None if self.head.looks_around else masks)

    def encode_support(self, images: Tensor, masks: Tensor, lower: Lower | None = None) -> Any:
        """Encodes the supports; the result can be reused for any number of queries.

        Args:
            images: (B, K, 3, S, S), normalised.
            masks: (B, K, S, S); 1 is the object, any other value is not.
            lower: Low and mid features of the B * K images, if they are already known.
        """
        foreground = (masks == 1).to(images.dtype)
        objects = foreground.flatten(0, 1)[:, None]  # (B * K, 1, S, S)
        lower = lower or self.lower(images.flatten(0, 1), objects)
        high = self.backbone.upper(lower, objects)
        return self._encode_support((lower.low, lower.mid, high), foreground)

    def encode_query(self, images: Tensor, lower: Lower | None = None) -> Any:
        """Encodes the queries.

        Args:
            images: (B, 3, S, S), normalised.
            lower: Low and mid features of the images, if they are already known.
        """
        images = _channels_last(images)
        stem = self.backbone.stem(images) if lower is None else None
        base = self._base_features(images, stem)
        if lower is None:
            assert stem is not None
            lower = self.backbone.after_stem(stem)
        return self._encode_query(images, lower, self.backbone.upper(lower), base)

    def decode(
        self, query: Any, support: Any, size: tuple[int, int], own_class: Tensor | None = None
    ) -> Prediction:
        """Predicts the queries' masks; see `Head.decode`."""
        return self.head.decode(query, support, size, own_class)

    def forward(
        self, query: Tensor, support: Tensor, support_masks: Tensor, own_class: Tensor | None = None
    ) -> Prediction:
        """Runs all three functions; on a GPU, with a single pass of the backbone over all images.

        If norms use batch statistics, the queries and the supports of each shot are instead passed through the
        backbone one after another, as in the published program.

        Args:
            query: (B, 3, S, S), normalised.
            support: (B, K, 3, S, S), normalised.
            support_masks: (B, K, S, S); 1 is the object.
            own_class: (B,); see `Head.decode`.
        """
        b, s = query.shape[0], query.shape[-2:]
        foreground = (support_masks == 1).to(query.dtype)
        if self.training and self.norms == "batch":
            encoded_query = self.encode_query(query)
            shots = [self._maps(*shot) for shot in zip(support.unbind(1), foreground.unbind(1), strict=True)]
            features = Features(*(torch.stack(maps, 1) for maps in zip(*shots, strict=True)))
            encoded_support = self.head.encode_support(features, foreground)
            return self.decode(encoded_query, encoded_support, (s[0], s[1]), own_class)
        if query.device.type == "cpu":  # it gains nothing from larger batches, but would copy maps to split them
            encoded_query, encoded_support = self.encode_query(query), self.encode_support(support, support_masks)
            return self.decode(encoded_query, encoded_support, (s[0], s[1]), own_class)
        masks = torch.cat(
            [torch.ones_like(query[:, :1]), foreground.flatten(0, 1)[:, None]]
        )  # (B + B * K, 1, S, S)
        stem = self.backbone.stem(_channels_last(torch.cat([query, support.flatten(0, 1)])))
        base = self._base_features(query, stem[:b])
        lower = self.backbone.after_stem(stem, None if self.head.looks_around else masks)
        high = self.backbone.upper(lower, masks)
        encoded_query = self._encode_query(query, Lower(lower.low[:b], lower.mid[:b]), high[:b], base)
        encoded_support = self._encode_support((lower.low[b:], lower.mid[b:], high[b:]), foreground)
        return self.decode(encoded_query, encoded_support, (s[0], s[1]), own_class)

    def _base_features(self, images: Tensor, stem: Tensor | None) -> Tensor | None:
        """High features of the backbone before tuning for queries (B, 3, S, S); None if it is the same one.

        To be called before the backbone runs: nothing here is kept for the way back, so that what is kept after it
        takes the memory that this has left.
        """
        base = self.base_backbone
        if base is None:
            return None
        pairs = zip(base.stem_modules, self.backbone.stem_modules, strict=True)
        shared = all(mine is theirs for mine, theirs in pairs)
        return base.upper(base.after_stem(stem) if shared and stem is not None else base.lower(images))

    def _encode_query(self, images: Tensor, lower: Lower, high: Tensor, base: Tensor | None) -> Any:
        if self.head.has_base_learner and base is None:
            base = high
        picture = images if self.head.sees_pictures else None
        return self.head.encode_query(Features(lower.low, lower.mid, high, base, picture))

    def _maps(self, images: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Low, mid and high features of supports (B, 3, S, S) with their foreground (B, S, S)."""
        lower = self.lower(images)
        return lower.low, lower.mid, self.backbone.upper(lower, foreground[:, None])

    def _encode_support(self, maps: Sequence[Tensor], foreground: Tensor) -> Any:
        # low, mid and high (B * K, C, h, w) -> (B, K, C, h, w)
        shots = Features(*(m.unflatten(0, foreground.shape[:2]) for m in maps))
        return self.head.encode_support(shots, foreground)


def _batch_norms(backbone: nn.Module) -> list[nn.Module]:
    return [module for module in backbone.modules() if isinstance(module, _BatchNorm)]


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _share_equal_parts(copied: nn.Module, tuned: nn.Module) -> None:
    """Replaces parts of `copied` by those of `tuned` that are frozen and equal, starting with the largest."""
    for name, part in copied.named_children():
        other = getattr(tuned, name)
        if _equal_and_frozen(part, other):
            setattr(copied, name, other)
        elif type(part) is type(other):
            _share_equal_parts(part, other)


def _equal_and_frozen(part: nn.Module, other: nn.Module) -> bool:
    mine, theirs = part.state_dict(), other.state_dict()
    return (
        mine.keys() == theirs.keys()
        and not any(p.requires_grad for p in other.parameters())
        and all(torch.equal(mine[key], theirs[key]) for key in mine)
    )
