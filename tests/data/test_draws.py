"""Ways of drawing episodes: the published programs' replayed one for one, and the class first."""

from __future__ import annotations

import json
import pickle
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ROOT
from support.numbered import Corner, Numbered, data
from torch.utils.data import DataLoader, Dataset

from fss.data.draws import ClassFirst, Draw, Replayed, Shuffled, draws_of
from fss.data.episodes import EpisodeDataset
from fss.data.folds import fold_classes
from fss.data.index import Index, Pool, build_index, build_pool
from fss.data.plan import plan_episodes
from fss.data.readers.pascal import Pascal
from fss.files.digests import digest, stem

GOLDEN = json.loads((ROOT / "tests/golden/voc_episodes.json").read_text())
LOADERS = 8


class Published(Dataset[list[int]]):
    """What the published data class does with chance, whatever it reads.

    An item is a picture of the list. Its class is one of those that it shows, of any size; each support is drawn
    from the class's pictures until it is a new one. Before each support a number is drawn and forgotten.
    """

    def __init__(self, queries: Sequence[int], shown: dict[int, list[int]], files: dict[int, list[int]], k: int):
        self.queries, self.shown, self.files, self.k = queries, shown, files, k

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, item: int) -> list[int]:
        query = self.queries[item]
        classes = self.shown[query]
        chosen = classes[random.randint(1, len(classes)) - 1]
        files, places = self.files[chosen], []
        for _ in range(self.k):
            place, support = random.randint(1, len(files)) - 1, query
            while support == query or place in places:
                place = random.randint(1, len(files)) - 1
                support = files[place]
            places.append(place)
        return [chosen, query, *(files[place] for place in places)]


def published_episodes(pool: Published, seed: int, count: int) -> list[Draw]:
    """The published test: passes over the list by a loader of eight processes until there are enough episodes."""
    torch.manual_seed(seed)
    loader = DataLoader(pool, batch_size=1, shuffle=False, num_workers=LOADERS, collate_fn=lambda items: items[0])
    episodes: list[Draw] = []
    while len(episodes) < count:
        for chosen, query, *supports in loader:
            episodes.append(Draw(chosen, query, tuple(supports)))
            if len(episodes) == count:
                break
    return episodes


def made_up(pictures: int = 170) -> tuple[Index, list[dict[int, int]]]:
    """An index of pictures with one to three of six classes, small and large; and the same by picture."""
    noise = np.random.default_rng(5)
    held = []
    for _ in range(pictures):
        classes = sorted(noise.choice(np.arange(1, 7), int(noise.integers(1, 4)), replace=False).tolist())
        held.append({c: int(noise.integers(1, 6000)) for c in classes})
    rows = [(i, c, n) for i, picture in enumerate(held) for c, n in picture.items()]
    return Index(*np.array(rows).T), held


def pool_of(shot: int) -> Pool:
    return build_pool(made_up()[0], (2, 4, 5), shot, 2048, query_classes="any")


def drawn(draws: Any, seed: int, count: int) -> list[Draw]:
    return [draws.draw(seed, i, np.random.default_rng([seed, i])) for i in range(count)]


# The published episodes


@pytest.mark.filterwarnings("ignore:This DataLoader will create 8 worker processes")
@pytest.mark.parametrize("shot", [pytest.param(1, marks=pytest.mark.nightly), 5])
def test_replayed_are_the_published_episodes(shot: int) -> None:
    novel, held = (2, 4, 5), made_up()[1]
    files = {c: [i for i, picture in enumerate(held) if picture.get(c, 0) >= 2048] for c in novel}
    queries = sorted({i for of in files.values() for i in of})
    shown = {i: [c for c in held[i] if c in novel] for i in queries}
    assert 1000 % len(queries)
    assert 5 * len(queries) < 1000  # several passes, the last one cut short
    assert any(held[i][c] < 2048 for i in queries for c in shown[i])
    expected = published_episodes(Published(queries, shown, files, shot), 321, 1000)
    assert drawn(Replayed(pool_of(shot), shot), 321, 1000) == expected


@pytest.mark.parametrize("episodes", GOLDEN, ids=lambda name: name.replace("/", "-"))
def test_published_episodes_of_the_official_masks(voc2012: Path, episodes: str) -> None:
    golden, fold, shot = GOLDEN[episodes], int(episodes[4]), int(episodes[6])
    reader = Pascal(str(voc2012), "val")
    novel = fold_classes(20, fold, "contiguous").novel
    pool = build_pool(build_index(reader), novel, shot, 2048, query_classes="any")
    lines = [
        " ".join([str(class_id), *(stem(reader.name(number)) for number in (query, *supports))])
        for class_id, query, supports in drawn(Replayed(pool, shot), 321, golden["episodes"])
    ]
    assert lines[:3] == golden["first"]
    assert lines[-1] == golden["last"]
    assert digest(lines) == golden["sha256"]


def test_replayed_depend_on_seed_id_and_processes_alone() -> None:
    first = Replayed(pool_of(5), 5)
    forward = drawn(first, 321, 700)
    other = pickle.loads(pickle.dumps(Replayed(pool_of(5), 5)))  # as a process that loads episodes gets it
    stream = np.random.default_rng(0)
    order = random.Random(0).sample(range(700), 700)
    assert {i: other.draw(321, i, stream) for i in order} == dict(enumerate(forward))
    assert drawn(first, 322, 700) != forward
    assert drawn(Replayed(pool_of(5), 5, workers=4), 321, 700) != forward
    # chance elsewhere plays no part
    torch.manual_seed(1)
    random.seed(1)
    assert drawn(first, 321, 700) == forward


def test_replay_of_several_seeds_is_one_of_each() -> None:
    reader = Numbered()
    pool = build_pool(build_index(reader), (1, 2, 3, 4), 2, 1)
    episodes = EpisodeDataset(reader, pool, 2, 0, Corner(), draws=Replayed)
    planned = plan_episodes(episodes, (510, 365), 60)
    for seed in (510, 365):
        expected = drawn(Replayed(pool, 2), seed, 60)
        assert [
            Draw(e.class_id, e.query, e.supports) for e in sorted(planned, key=lambda e: e.id) if e.seed == seed
        ] == expected
    assert [d.query for d in drawn(Replayed(pool, 2), 510, 48)] == 2 * pool.queries.tolist()


# The class first


@pytest.mark.parametrize("shot", [1, 5])
def test_class_first(shot: int) -> None:
    pool, count = pool_of(shot), 1500
    episodes = drawn(ClassFirst(pool, shot), 0, count)
    for class_id, query, supports in episodes:
        images = pool.images_of[class_id].tolist()
        assert {query, *supports} <= set(images)
        assert len({query, *supports}) == 1 + shot
    share = Counter(episode.class_id for episode in episodes)
    assert set(share) == {2, 4, 5}
    assert all(abs(share[c] / count - 1 / 3) < 0.05 for c in share)  # four standard deviations
    # a class's pictures come equally often
    of = Counter(episode.query for episode in episodes if episode.class_id == 2)
    expected = share[2] / len(pool.images_of[2])
    assert sum((of[q] - expected) ** 2 / expected for q in pool.images_of[2].tolist()) < 2 * len(pool.images_of[2])
    assert drawn(ClassFirst(pool, shot), 0, 20) == episodes[:20]
    assert drawn(ClassFirst(pool, shot), 1, 20) != episodes[:20]


# Names and settings


def test_ways_by_name() -> None:
    assert draws_of("drawn") is Shuffled
    assert draws_of("class_first") is ClassFirst
    pool = pool_of(1)
    assert drawn(draws_of("published")(pool, 1), 3, 50) == drawn(Replayed(pool, 1, 8), 3, 50)
    assert drawn(draws_of("published", 3)(pool, 1), 3, 50) == drawn(Replayed(pool, 1, 3), 3, 50)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draw": "replayed"}, r"protocol\.draw='replayed': must be 'published', 'drawn' or 'class_first'"),
        ({"draw": "published", "draw_workers": 0}, r"protocol\.workers=0: must be at least 1"),
        ({"draw": "drawn", "draw_workers": 8}, r"protocol\.workers=8 has no meaning with protocol\.draw=drawn"),
        ({"draw": "class_first", "draw_workers": 8}, "no meaning with protocol.draw=class_first"),
        ({"draw": "class_first", "setting": "generalized"}, "the class cannot be drawn first"),
        ({"absent": "one"}, r"protocol\.absent='one': must be 'zero' or 'leave_out'"),
        ({"query_classes": "all"}, r"dataset\.query_classes='all': must be 'any' or 'eligible'"),
        ({"support_annotation": "boxes"}, r"must be one of mask, box, box_published"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data(**settings)


def test_training_is_shuffled_whatever_evaluation_does() -> None:
    plain, published = data(), data(draw="published")
    for module in (plain, published):
        module.setup("fit")
    assert [plain.training.draw(i) for i in range(60)] == [published.training.draw(i) for i in range(60)]
    queries = published.evaluation.pool.queries.tolist()
    assert [published.evaluation.draw(i).query for i in range(2 * len(queries))] == 2 * queries
    assert [plain.evaluation.draw(i).query for i in range(len(queries))] != queries


def test_query_is_asked_for_small_objects_too() -> None:
    """Numbered's second objects have 65 pixels, its first ones 18 and more."""
    settings = {"min_pixels": 36, "fold_scheme": [[1, 2], [3, 4]]}
    modules = {way: data(**settings, query_classes=way) for way in ("any", "eligible")}
    for module in modules.values():
        module.setup("fit")
    for part in ("training", "evaluation"):
        some, few = (getattr(modules[way], part).pool for way in ("any", "eligible"))
        assert some.queries.tolist() == few.queries.tolist()
        assert all(some.images_of[c].tolist() == few.images_of[c].tolist() for c in some.images_of)
        assert all(set(few.classes_of[q]) <= set(some.classes_of[q]) for q in some.classes_of)
        assert few.classes_of != some.classes_of


def test_absent_classes_count_as_zero_or_not(caplog: pytest.LogCaptureFixture) -> None:
    scheme = [[1, 2, 3], [4]]
    for absent, named in (("zero", {1: "ant", 2: "bee", 3: "cat"}), ("leave_out", None)):
        module = data(absent=absent, fold_scheme=scheme)
        module.setup("test")
        class_id = module.evaluation.draw(0).class_id
        assert module.evaluated_classes(1) == (named or {class_id: Numbered.classes[class_id - 1]})
        assert module.always_counted == (named or {})
    assert "they count as 0 (protocol.absent=leave_out leaves them out)" in caplog.text
    assert "use more episodes to evaluate them" in caplog.text


def test_classes_with_too_few_pictures_count_as_zero_too() -> None:
    module = data(absent="zero", fold_scheme=[[1, 2], [3, 4]], min_pixels=25)  # no more than 30 of the first
    module.eval_reader = Scarce
    module.setup("test")
    assert module.left_out == ["bee"]
    assert module.evaluated_classes(20) == {1: "ant", 2: "bee"}


class Scarce(Numbered):
    """Class 2 in one picture alone."""

    def mask(self, index: int) -> np.ndarray:
        mask = super().mask(index)
        mask[mask == 2] = 0
        if index == 5:
            mask[2:12, 2:12] = 2
        return mask


def test_generalized_replay_takes_supports_of_any_size() -> None:
    small = {}
    for draw in ("published", "drawn"):
        settings = {"min_pixels": 36, "query_classes": "any", "fold_scheme": [[1, 2], [3, 4]]}
        module = data(setting="generalized", draw=draw, **settings)
        module.setup("test")
        pool, reader = module.evaluation.pool, Numbered()
        small[draw] = sum((reader.mask(i) == c).sum() < 36 for c, images in pool.images_of.items() for i in images)
        if draw == "published":
            assert [module.evaluation.draw(i).query for i in range(24)] == list(range(24))
    assert small["published"] > 0 == small["drawn"]
