"""Reading a data set as training does."""

from __future__ import annotations

from pathlib import Path

from fss.data.episodes import EpisodeDataset
from fss.data.index import build_index, build_pool
from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.reader import Reader


def use(reader: Reader) -> set[str]:
    """Reads everything through index and episodes, as training does; the names of the pictures used."""
    index = build_index(reader)
    names = dict(enumerate(reader.classes, start=1))
    pool = build_pool(index, names, shot=1, min_pixels=1, names=names)
    episodes = EpisodeDataset(reader, pool, 1, 0, EvaluationTransform(16), with_label=True)
    used = {name for i in range(3 * len(pool.queries)) for name in episodes[i].names}
    return {Path(name).name for name in used}
