"""What an evaluation keeps of pictures, within limits and for as long as it is of use."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class Part(NamedTuple):
    """What can be kept of a picture.

    Attributes:
        kind: "picture", or what a segmenter makes of it: "lower", "query" or "support".
        number: Of the picture.
        class_id: Of a support.
    """

    kind: str
    number: int
    class_id: int = 0


class Memory:
    """Parts by name, up to a number of bytes on the device and as many beside it.

    When either is full, what is next used latest has to go: from the device to the host, from there for good.
    Parts without further use go at once.

    Args:
        uses: When each part is used: ascending numbers of episodes.
        limit: Bytes.
        device: Where parts are made; a CPU has one memory.
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
        """What is held, both places together."""
        return sum(self._bytes)

    def get(self, part: Part) -> Any:
        """The part, on the device unless it is a picture.

        Raises:
            KeyError: It is not held.
        """
        for place in self._places:
            if part in place:
                kept = place[part]
                return kept if part.kind == "picture" else _moved(kept, self._device)
        raise KeyError(part)

    def put(self, part: Part, value: Any) -> None:
        """Holds a part for its next use; something else, or this, may have to go."""
        if part not in self and self._next_use(part) < math.inf:
            on_host = part.kind == "picture" or self._device.type == "cpu"
            self._add(int(on_host), part, value)

    def advance(self) -> None:
        """Ends the present episode: what was used in it for the last time is forgotten."""
        for part in self._used_at.pop(self._now, ()):
            self._uses[part].popleft()
            if not self._uses[part] and part in self:
                self._take(part)
        self._now += 1

    def _next_use(self, part: Part) -> float:
        """The first after the present episode, which has in hand what it uses."""
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
    """The same on another device, whatever a head made it of; the tensors' memory format stays."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), value)


def _bytes(value: Any) -> int:
    return sum(part.nbytes for part in pytree.tree_leaves(value) if isinstance(part, Tensor))
