"""What each episode is made of: class, query and supports, from a seed and the id of the episode.

Each way of drawing is a function of (pool, shot, seed, id) alone, whatever was drawn before.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch

from fss.data.index import Pool

Drawing = Literal["published", "drawn", "class_first"]
LOADER_PROCESSES = 8  # of the published configurations


class Draw(NamedTuple):
    """What an episode is made of: a class, the query's picture number, the supports' picture numbers."""

    class_id: int
    query: int
    supports: tuple[int, ...]


class Draws(Protocol):
    """A way of drawing episodes from a pool."""

    def draw(self, seed: int, episode_id: int, stream: np.random.Generator) -> Draw:
        """One episode.

        Args:
            seed: Of all episodes.
            episode_id: From 0.
            stream: The episode's own, `default_rng([seed, episode_id])`, as yet unused.
        """
        ...


MakeDraws = Callable[[Pool, int], Draws]  # from a pool and the number of supports


class Shuffled:
    """Each query once in every `len(pool.queries)` successive ids, in an order that is drawn anew each time.

    The class is drawn uniformly from those that the query may be asked for, the supports uniformly and without
    replacement from that class's other pictures.
    """

    def __init__(self, pool: Pool, shot: int) -> None:
        self._pool, self._shot = pool, shot

    def draw(self, seed: int, episode_id: int, stream: np.random.Generator) -> Draw:
        queries = self._pool.queries
        cycle, place = divmod(episode_id, len(queries))
        query = int(queries[draw_order(seed, cycle, len(queries))[place]])
        class_id = int(stream.choice(self._pool.classes_of[query]))
        return Draw(class_id, query, _supports(self._pool, class_id, query, self._shot, stream))


class ClassFirst:
    """First the class, uniformly; then the query among its pictures, then the supports among the others.

    The way of HSNet's program on COCO-20i (Min et al., ICCV 2021), which may draw a support twice; this does not.
    """

    def __init__(self, pool: Pool, shot: int) -> None:
        self._pool, self._shot = pool, shot
        self._classes = sorted(pool.images_of)

    def draw(self, seed: int, episode_id: int, stream: np.random.Generator) -> Draw:
        class_id = int(stream.choice(self._classes))
        query = int(stream.choice(self._pool.images_of[class_id]))
        return Draw(class_id, query, _supports(self._pool, class_id, query, self._shot, stream))


class Replayed:
    """The very episodes that the programs of PFENet, BAM and SVF draw when they validate and test.

    The list of queries is walked in its order, again and again. Every pass over it takes one number from torch's
    generator, and gives each of the loader's processes a Python generator of its own, seeded with that number plus
    the process's. The processes serve the queries in turn.

    Args:
        pool: Its pictures in the order of the list.
        shot: K.
        workers: Processes of the loader (8 in the published configurations): another number gives other episodes.
    """

    def __init__(self, pool: Pool, shot: int, workers: int = LOADER_PROCESSES) -> None:
        self._shot, self._workers = shot, workers
        self._queries = [(query, pool.classes_of[query]) for query in pool.queries.tolist()]
        self._images_of = {c: images.tolist() for c, images in pool.images_of.items()}
        self._passes: dict[tuple[int, int], list[Draw]] = {}  # the latest two

    def draw(self, seed: int, episode_id: int, stream: np.random.Generator) -> Draw:
        number, place = divmod(episode_id, len(self._queries))
        if (seed, number) not in self._passes:
            if len(self._passes) == 2:
                del self._passes[next(iter(self._passes))]
            self._passes[seed, number] = self._pass(seed, number)
        return self._passes[seed, number][place]

    def _pass(self, seed: int, number: int) -> list[Draw]:
        generator, drawn = torch.Generator().manual_seed(seed), torch.empty(number + 1, dtype=torch.int64)
        base = [int(one.random_(generator=generator)) for one in drawn][-1]
        streams = [random.Random(base + worker) for worker in range(self._workers)]
        return [
            self._episode(query, classes, streams[place % self._workers])
            for place, (query, classes) in enumerate(self._queries)
        ]

    def _episode(self, query: int, classes: tuple[int, ...], stream: random.Random) -> Draw:
        class_id = classes[stream.randint(1, len(classes)) - 1]  # of one class a number is drawn too
        images = self._images_of[class_id]
        supports: list[int] = []
        for _ in range(self._shot):
            stream.randint(1, len(images))  # a draw that the published loop makes and never uses
            support = query
            while support == query or support in supports:
                support = images[stream.randint(1, len(images)) - 1]
            supports.append(support)
        return Draw(class_id, query, tuple(supports))


class OtherClass:
    """A control: the classes and queries of another way of drawing, with supports of other classes.

    The supports are drawn uniformly and without replacement from the pictures that show another of the pool's
    classes and not the episode's own.

    Args:
        draws: The other way.
        pool, shot: As for any way.

    Raises:
        ValueError: If there are too few such pictures for one of the classes.
    """

    def __init__(self, draws: MakeDraws, pool: Pool, shot: int) -> None:
        self._draws, self._shot = draws(pool, shot), shot
        self._others: dict[int, np.ndarray] = {}
        pictures = sorted({p for images in pool.images_of.values() for p in images.tolist()})
        for class_id in pool.images_of:
            others = [p for p in pictures if class_id not in pool.classes_of[p]]
            if len(others) < shot:
                raise ValueError(
                    f"dataset.support_annotation=other_class: only {len(others)} pictures show another class than "
                    f"class {class_id} alone, for {shot} supports: take a fold with more classes"
                )
            self._others[class_id] = np.array(others)

    def draw(self, seed: int, episode_id: int, stream: np.random.Generator) -> Draw:
        class_id, query, _ = self._draws.draw(seed, episode_id, stream)
        supports = stream.choice(self._others[class_id], self._shot, replace=False)
        return Draw(class_id, query, tuple(supports.tolist()))


def draws_of(draw: Drawing, workers: int | None = None) -> MakeDraws:
    """The way of drawing that a protocol names.

    Args:
        draw: Its name.
        workers: See `Replayed`; None takes the published number. Nothing else has any.

    Raises:
        ValueError: No such way, or it cannot have this number.
    """
    if draw not in get_args(Drawing):
        raise ValueError(f"protocol.draw={draw!r}: must be 'published', 'drawn' or 'class_first'")
    if draw == "published":
        workers = LOADER_PROCESSES if workers is None else workers
        if workers < 1:
            raise ValueError(f"protocol.workers={workers}: must be at least 1 (8 as published)")
        return partial(Replayed, workers=workers)
    if workers is not None:
        raise ValueError(
            f"protocol.workers={workers} has no meaning with protocol.draw={draw}: leave it out, or replay the "
            "published episodes with protocol.draw=published"
        )
    return Shuffled if draw == "drawn" else ClassFirst


@lru_cache(maxsize=8)  # successive ids ask for the same order; a few data sets may alternate
def draw_order(seed: int, cycle: int, n: int) -> np.ndarray:
    """In which order n things come in a cycle."""
    # a stream of its own: [seed, id] belongs to the episodes
    return np.random.default_rng([seed, cycle, n]).permutation(n)


def _supports(pool: Pool, class_id: int, query: int, shot: int, stream: np.random.Generator) -> tuple[int, ...]:
    others = pool.images_of[class_id]
    others = others[others != query]
    return tuple(stream.choice(others, shot, replace=False).tolist())
