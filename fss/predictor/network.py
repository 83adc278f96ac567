"""A segmenter on its device: encodes supports and queries, and decodes one query for one class.

Shapes: S side of the square, C channels, h w feature height and width, n locations of an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from fss.data.episodes import stack_pictures
from fss.labels import IGNORE
from fss.models import presence
from fss.models.encodings import join, split
from fss.models.segmenter import FewShotSegmenter
from fss.predictor.supports import Support
from fss.svf import merge

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


class Encoded(NamedTuple):
    """An encoded picture.

    Attributes:
        head: What the head's `encode_support` or `encode_query` returns.
        features: For the presence: of a query at all locations (C, h, w), of a support at its object's (n, C).
    """

    head: Any
    features: Tensor


class Network:
    """A segmenter for prediction.

    Args:
        segmenter: The model; its SVF layers are merged in place.
        device: "auto" takes a GPU if there is one; or what torch calls a device.
        precision: "32-true", or "bf16-mixed" or "16-mixed" for autocast.

    Raises:
        ValueError: The precision is unknown, or there is no such device.
    """

    def __init__(self, segmenter: FewShotSegmenter, device: str | torch.device, precision: Precision) -> None:
        check_precision(precision)
        self.device, self.precision = find_device(device), precision
        self.segmenter: FewShotSegmenter = merge(segmenter).eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def encode_queries(self, squares: Sequence[Tensor]) -> list[Encoded]:
        """Encodes preprocessed pictures (3, S, S) in one pass of the backbone."""
        images = self._normalized(squares)
        with self._autocast():
            lower = self.segmenter.lower(images)
            encoded = split(self.segmenter.encode_query(images, lower), len(squares))
        return [Encoded(*pair) for pair in zip(encoded, presence.locations(lower), strict=True)]

    @torch.inference_mode()
    def encode_support(self, support: Support) -> Encoded:
        """Encodes a support in one pass of the backbone."""
        images, mask = self._normalized([support.image]), support.mask.to(self.device)
        with self._autocast():
            lower = self.segmenter.lower(images)
            encoded = self.segmenter.encode_support(images[:, None], mask[None, None], lower)
        return Encoded(encoded, presence.of_object(presence.locations(lower)[0], mask))

    @torch.inference_mode()
    def decode(self, query: Encoded, supports: Any, size: int) -> Tensor:
        """Logits (2, S, S) of a query, for what the head made of the supports of a novel class."""
        novel = torch.tensor([-1], device=self.device)
        with self._autocast():
            return self.segmenter.decode(query.head, supports, (size, size), novel).logits[0]

    @torch.inference_mode()
    def presence(
        self,
        query: Encoded,
        supports: Sequence[Encoded],
        logits: Tensor,
        covered: Tensor,
        others: Tensor | None = None,
    ) -> float:
        """How sure it is that a query shows the supports' class, in 0..1.

        Args:
            query: The query.
            supports: The supports of the class.
            logits: Answer (2, S, S).
            covered: (S, S) bool, where the square shows the picture.
            others: (n, C), what was `mistaken` for the class.
        """
        foreground = (logits[1] - logits[0]).float().sigmoid() * covered.to(self.device)
        objects = [one.features for one in supports]
        verifier = self.segmenter.verifier
        if verifier is not None and others is not None:
            verifier = verifier.knowing(others)
        return presence.presence(query.features, objects, foreground, verifier)

    @torch.inference_mode()
    def mistaken(self, negatives: Sequence[Support], supports: Sequence[Encoded]) -> Tensor:
        """What pictures that do not show the supports' class resemble it most in: mean features (n, C)."""
        joined = join([one.head for one in supports], dim=1)
        found = []
        for negative in negatives:
            [query] = self.encode_queries([negative.image])
            logits = self.decode(query, joined, negative.image.shape[-1])
            foreground = (logits[1] - logits[0]).float().sigmoid() * (negative.mask != IGNORE).to(self.device)
            found.append(presence.evidence(query.features, [one.features for one in supports], foreground).found)
        return torch.stack(found)

    def left_out(self, supports: Sequence[Support], encoded: Sequence[Encoded]) -> list[float]:
        """The presence of each of two or more supports, as a query for the others."""
        found = []
        for number, support in enumerate(supports):
            others = [one for other, one in enumerate(encoded) if other != number]
            [query] = self.encode_queries([support.image])
            logits = self.decode(query, join([one.head for one in others], dim=1), support.image.shape[-1])
            found.append(self.presence(query, others, logits, support.mask != IGNORE))
        return found

    def takes(self, shots: int) -> bool:
        """Whether the head accepts this number of supports."""
        try:
            self.segmenter.head.check_shot(shots)
        except ValueError:
            return False
        return shots > 0

    def _normalized(self, squares: Sequence[Tensor]) -> Tensor:
        return self.segmenter.backbone.normalize(stack_pictures(squares).to(self.device))

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "32-true":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if "bf16" in self.precision else torch.float16)


def check_precision(precision: object) -> None:
    """Raises ValueError where a precision is unknown."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision={precision!r:.100}: must be one of {', '.join(get_args(Precision))}")


def find_device(device: str | torch.device) -> torch.device:
    """The device of a name; "auto" is a GPU if there is one.

    Raises:
        ValueError: There is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
        if found.type == "meta":
            raise RuntimeError("its tensors have no contents")
    except (RuntimeError, AssertionError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"device={device}: torch has no such device here ({why})") from error
    return found
