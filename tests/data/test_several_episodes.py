"""Episodes of several classes, and of classes that the query does not show."""

from __future__ import annotations

import numpy as np
import pytest

from fss.data.episodes import EpisodeDataset, select
from fss.data.index import build_index, build_pool, images_by_class
from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.shapes import Shapes
from fss.data.several_episodes import SeveralEpisodes

CLASSES = (1, 2, 3, 4)


def dataset(classes: int, absent: bool, shot: int = 2) -> SeveralEpisodes:
    reader = Shapes("val", 64, 120)
    index = build_index(reader)
    pool = build_pool(index, CLASSES, shot=shot, min_pixels=1)
    episodes = EpisodeDataset(reader, pool, shot, 7, EvaluationTransform(48), with_label=True)
    return SeveralEpisodes(episodes, images_by_class(index, CLASSES, 1), len(reader), classes, absent)


def test_every_class_has_its_own_supports() -> None:
    several = dataset(3, absent=False)
    reader = several.episodes.reader
    asked = set()
    for i in range(40):
        query, supports = several.draw(i)
        assert list(supports) == sorted(supports)
        assert len(supports) == 3
        asked |= set(supports)
        for class_id, numbers in supports.items():
            assert len(set(numbers)) == 2
            assert query not in numbers
            assert all((reader.mask(number) == class_id).any() for number in numbers)
        assert several.episodes.draw(i).class_id in np.unique(reader.mask(query))  # one of them is there
    assert asked == set(CLASSES)


def test_every_other_query_shows_nothing_asked_for() -> None:
    several = dataset(1, absent=True)
    reader = several.episodes.reader
    queries = set()
    for i in range(40):
        query, supports = several.draw(i)
        [class_id] = supports
        assert (class_id in np.unique(reader.mask(query))) == (i % 2 == 0)
        assert several.draw(i) == (query, supports)
        queries.add(query)
    assert len(queries) > 20


def test_label_numbers_the_classes_asked_for() -> None:
    several = dataset(3, absent=False)
    reader = several.episodes.reader
    for i in range(6):
        query, drawn = several.draw(i)
        episode = several[i]
        mask = reader.mask(query)
        assert episode.classes == tuple(drawn)
        assert episode.support.shape == (3, 2, 3, 48, 48)
        for position, (class_id, numbers) in enumerate(drawn.items(), start=1):
            np.testing.assert_array_equal(episode.label.numpy() == position, mask == class_id)
            image, small = several.episodes.transform(
                reader.image(numbers[0]), select(reader.mask(numbers[0]), class_id), 0
            )
            np.testing.assert_array_equal(episode.support[position - 1, 0].permute(1, 2, 0), image)
            np.testing.assert_array_equal(episode.support_mask[position - 1, 0], small)


def test_more_classes_than_there_are() -> None:
    with pytest.raises(ValueError, match="classes=5: must be 1 to 4"):
        dataset(5, absent=False)
