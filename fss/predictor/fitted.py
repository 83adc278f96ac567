"""What a predictor has been shown: supports and negatives of classes, and what its network makes of them, once.

Shapes: C channels, n pictures.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from fss.labels import MAX_CLASSES
from fss.models.encodings import join
from fss.predictor.network import Encoded, Network
from fss.predictor.supports import Shots, Support


class Fitted:
    """Fitted classes.

    Neither the order in which they come nor the number of calls matters.

    Args:
        network: Encodes the supports.

    Attributes:
        network: The one that has encoded all supports.
        supports: Of each class, as the network sees them.
        negatives: Likewise, pictures that are known not to show a class.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.supports: dict[str, list[Support]] = {}
        self.negatives: dict[str, list[Support]] = {}
        self._encoded: dict[str, list[Encoded]] = {}
        # what follows is computed when it is asked for
        self._joined: dict[str, Any] = {}
        self._left_out: dict[str, list[float]] = {}
        self._mistaken: dict[str, Tensor] = {}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in alphabetical order."""
        return tuple(sorted(self.supports))

    def with_more(self, supports: Shots) -> dict[str, list[Support]]:
        """The supports of all classes with further ones, which are not added.

        Raises:
            ValueError: There are too many classes.
        """
        together = {name: list(shots) for name, shots in self.supports.items()}
        for name, shots in supports.items():
            together[name] = [*together.get(name, ()), *shots]
        if len(together) > MAX_CLASSES:
            raise ValueError(f"more than {MAX_CLASSES} classes: labels are 8-bit numbers")
        return together

    def add(self, supports: Shots, negatives: Shots, network: Network) -> None:
        """Adds supports and negatives to classes, new or not.

        Args:
            supports: By class.
            negatives: By class, of some or all of these.
            network: Encodes them; if it is another one than before, also those that have been added earlier.

        Raises:
            ValueError: See `with_more`. Nothing has been added then.
        """
        together = self.with_more(supports)
        encoded = dict(self._encoded) if network is self.network else {}
        changed = supports if network is self.network else together
        for name in changed:
            old = encoded.get(name, [])
            encoded[name] = old + [network.encode_support(one) for one in together[name][len(old) :]]
        self._drop_computed(changed)
        for name, without in negatives.items():
            self.negatives[name] = [*self.negatives.get(name, ()), *without]
        self.supports, self._encoded, self.network = together, encoded, network

    def forget(self, name: str) -> None:
        """Removes a class."""
        for kept in (self.supports, self.negatives, self._encoded):
            kept.pop(name, None)
        self._drop_computed([name])

    def check(self, *names: str) -> None:
        """Raises ValueError if nothing has been fitted, or one of some classes has not."""
        if not self.supports:
            raise ValueError("nothing has been fitted yet: call fit with pictures and masks first")
        if unknown := [name for name in names if not isinstance(name, str) or name not in self.supports]:
            raise ValueError(f"no class {unknown[0]!r:.100}; fitted are {', '.join(self.classes)}")

    def check_shots(self) -> None:
        """Raises ValueError if the network needs another number of supports of some class."""
        for name in self.classes:
            try:
                self.network.segmenter.head.check_shot(len(self.supports[name]))
            except ValueError as error:
                raise ValueError(f"class {name!r}: {error}") from error

    def encoded(self, name: str) -> list[Encoded]:
        """The encoded supports of a class."""
        return self._encoded[name]

    def joined(self, name: str) -> Any:
        """What the head made of all supports of a class together."""
        if name not in self._joined:
            self._joined[name] = join([one.head for one in self._encoded[name]], dim=1)
        return self._joined[name]

    def left_out(self, name: str) -> list[float]:
        """The presence of each support of a class, looked for with the others; none if the head cannot."""
        if not self.network.takes(len(self.supports[name]) - 1):
            return []
        if name not in self._left_out:
            self._left_out[name] = self.network.left_out(self.supports[name], self._encoded[name])
        return self._left_out[name]

    def mistaken(self, name: str) -> Tensor | None:
        """What was mistaken for a class in its negatives (n, C); None without any or without a verifier."""
        if not self.negatives.get(name) or self.network.segmenter.verifier is None:
            return None
        if name not in self._mistaken:
            self._mistaken[name] = self.network.mistaken(self.negatives[name], self._encoded[name])
        return self._mistaken[name]

    def _drop_computed(self, names: Iterable[str]) -> None:
        for name in names:
            for computed in (self._joined, self._left_out, self._mistaken):
                computed.pop(name, None)
