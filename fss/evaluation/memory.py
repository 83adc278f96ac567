"""Keeps encoded pictures for as long as an evaluation needs them, within a memory limit."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class Part(NamedTuple):
    """Identifies data that can be kept for a picture.

    Attributes:
        kind: "picture" itself, or the segmenter's "lower" features, "query" or "support" encoding.
        number: Number of the picture in its reader.
        class_id: Class of a support; 0 otherwise.
    """

    kind: str
    number: int
    class_id: int = 0


class Memory:
    """Stores parts, up to a number of bytes on the device and the same number on the host.

    When either memory is full, the part whose next use is furthest in the future is evicted: from the device to
    the host, and from the host for good. Parts that will not be used again are removed immediately.

    Args:
        uses: When each part is used: ascending numbers of episodes.
        limit: Limit in bytes for each of the two memories.
        device: Device on which parts are computed; on a CPU, only the host memory is used.
    """

    def __init__(self, uses: Mapping[Part, Sequence[int]], limit: int, device: torch.device) -> None:
        self._uses = {part: deque(times) for part, times in uses.items()}
        self._used_at: dict[int, list[Part]] = {}
        for part, times in uses.items():
            for time in times:
                self._used_at.setdefault(time, []).append(part)
        self._now = 0
        self._limit, self._device = limit, device
        self._places: tuple[dict[Part, Any], dict[Part, Any]] = ({}, {})  # device, host
        self._bytes = [0, 0]

    def __contains__(self, part: Part) -> bool:
        return any(part in place for place in self._places)

    @property
    def bytes(self) -> int:
        """Number of bytes in both memories together."""
        return sum(self._bytes)

    def get(self, part: Part) -> Any:
        """Returns a part, on the device unless it is a picture.

        Raises:
            KeyError: If it is not stored.
        """
        for place in self._places:
            if part in place:
                kept = place[part]
                return kept if part.kind == "picture" else _moved(kept, self._device)
        raise KeyError(part)

    def put(self, part: Part, value: Any) -> None:
        """Stores a part for its next use, which may evict another part or the part itself."""
        if part not in self and self._next_use(part) < math.inf:
            on_host = part.kind == "picture" or self._device.type == "cpu"
            self._add(int(on_host), part, value)

    def advance(self) -> None:
        """Ends the current episode and removes the parts that were used for the last time."""
        for part in self._used_at.pop(self._now, ()):
            self._uses[part].popleft()
            if not self._uses[part] and part in self:
                self._take(part)
        self._now += 1

    def _next_use(self, part: Part) -> float:
        """First use after the current episode, which already has its parts; infinity if there is none."""
        return next((time for time in self._uses.get(part, ()) if time > self._now), math.inf)

    def _add(self, level: int, part: Part, value: Any) -> None:
        self._places[level][part] = value
        self._bytes[level] += _bytes(value)
        while self._bytes[level] > self._limit:
            last = max(self._places[level], key=self._next_use)
            value = self._take(last)
            if level == 0:
                self._add(1, last, _moved(value, torch.device("cpu")))

    def _take(self, part: Part) -> Any:
        level = 0 if part in self._places[0] else 1
        value = self._places[level].pop(part)
        self._bytes[level] -= _bytes(value)
        return value


def _moved(value: Any, device: torch.device) -> Any:
    """Moves the tensors in a head's nested output to another device, keeping their memory format."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), value)


def _bytes(value: Any) -> int:
    return sum(part.nbytes for part in pytree.tree_leaves(value) if isinstance(part, Tensor))
