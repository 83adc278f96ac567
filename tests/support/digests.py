"""Episodes compared by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from torch import Tensor

from fss.data.episodes import Episode


def digest(episode: Episode) -> str:
    tensors = [value for value in episode if isinstance(value, Tensor)]
    parts = [f"{t.dtype} {tuple(t.shape)}".encode() + t.numpy().tobytes() for t in tensors]
    return hashlib.sha256(b"".join(parts) + repr(list(episode.names)).encode()).hexdigest()


def apart(batch: Episode) -> Iterator[Episode]:
    """The episodes of a batch."""
    for i in range(len(batch.class_id)):
        yield Episode._make([column[i] for column in batch])
