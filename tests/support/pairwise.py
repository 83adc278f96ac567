"""Few combinations in which any two settings still meet."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import combinations, product


def pairs(combination: Iterable[Hashable]) -> set[tuple[tuple[int, Hashable], ...]]:
    """Every two values of a combination, with their places."""
    return set(combinations(enumerate(combination), 2))


def pairwise(*settings: Iterable[Hashable]) -> list[tuple[Hashable, ...]]:
    """Combinations of one value of each setting: greedily, the one with the most new pairs, until none is new."""
    every = list(product(*settings))
    left = set().union(*map(pairs, every))
    chosen = []
    while left:
        chosen.append(max(every, key=lambda combination: len(pairs(combination) & left)))
        left -= pairs(chosen[-1])
    return chosen
