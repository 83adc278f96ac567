"""Lists of evaluation pictures in an order of their own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.numbered import Numbered, data

from fss.data.index import build_index
from fss.data.lists import facts, in_order
from fss.files.digests import digest


class Filed(Numbered):
    """Numbered's pictures under names of the kind that data sets have."""

    def __init__(self, pattern: str = "VOC2012/JPEGImages/2007_{:06}.jpg") -> None:
        self.pattern = pattern

    def name(self, index: int) -> str:
        return self.pattern.format(index, index // 6)


def listed(folder: Path, *lines: str) -> Path:
    file = folder / "list.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize(
    "line",
    [
        "2007_{:06}",
        "2007_{:06}.jpg",
        "JPEGImages/2007_{:06}.jpg SegmentationClassAug/2007_{:06}.png",
        "../data/VOCdevkit/VOC2012/JPEGImages/2007_{:06}.jpg\t../data/masks/2007_{:06}.png",
        "JPEGImages/2007_{:06}.jpg  masks/2007_{:06}_labels.png",
        "  2007_{:06}.png  ",
    ],
)
def test_lines_as_lists_have_them(tmp_path: Path, line: str) -> None:
    numbers = np.random.default_rng(0).permutation(24)[:17].tolist()
    reader = Filed()
    file = listed(tmp_path, "", *(line.format(i, i) for i in numbers), "")
    others, index = in_order(reader, build_index(reader), file)
    assert [others.name(i) for i in range(len(others))] == [reader.name(i) for i in numbers]
    for place, number in enumerate(numbers):
        np.testing.assert_array_equal(others.image(place), reader.image(number))
        np.testing.assert_array_equal(others.mask(place), reader.mask(number))
    for a, b in zip(index, build_index(others), strict=True):  # as if it had been scanned in this order
        np.testing.assert_array_equal(a, b)


def test_names_with_blanks_and_dots(tmp_path: Path) -> None:
    reader = Filed("photos/my cat.{:02}.jpg")
    file = listed(tmp_path, "my cat.03", "photos/my cat.11.jpg")
    others, _ = in_order(reader, build_index(reader), file)
    assert [others.name(i) for i in range(2)] == [reader.name(i) for i in (3, 11)]


def test_folders_tell_equal_names_apart(tmp_path: Path) -> None:
    class Classes(Numbered):
        def name(self, index: int) -> str:
            return f"fss/{'abcd'[index % 4]}/{index // 4}.jpg"

    reader = Classes()
    file = listed(tmp_path, "b/2.jpg b/2.png", "data/fss/a/2.jpg")
    others, _ = in_order(reader, build_index(reader), file)
    assert [others.name(i) for i in range(2)] == ["fss/b/2.jpg", "fss/a/2.jpg"]
    with pytest.raises(
        ValueError, match=r"line 1: '2\.jpg' may be fss/a/2\.jpg or fss/b/2\.jpg; list folders too"
    ):
        in_order(reader, build_index(reader), listed(tmp_path, "2.jpg"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ("2007_000001", "2007_000099.jpg"),
            r"line 2: '2007_000099\.jpg' is none of the 24 pictures, whose first is VOC",
        ),
        (("2007_000001", "2007_000002", "a/2007_000001.jpg"), r"line 3: .* is in line 1 already"),
        (("", " "), "lists no picture"),
    ],
)
def test_lists_that_cannot_be(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    reader = Filed()
    with pytest.raises(ValueError, match=rf"dataset\.eval_list={tmp_path}.*{message}"):
        in_order(reader, build_index(reader), listed(tmp_path, *lines))


def test_no_list(tmp_path: Path) -> None:
    reader = Filed()
    with pytest.raises(FileNotFoundError, match=r"dataset\.eval_list=.*nowhere\.txt: no such file"):
        in_order(reader, build_index(reader), tmp_path / "nowhere.txt")
    (tmp_path / "picture.png").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match=r"picture\.png is not text"):
        in_order(reader, build_index(reader), tmp_path / "picture.png")


def test_evaluation_walks_the_list(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(24).tolist()
    file = listed(tmp_path, *(f"2007_{i:06}" for i in order))
    settings: dict[str, Any] = {"draw": "published", "fold_scheme": [[1, 2], [3, 4]]}
    lists = {"own": None, "listed": str(file)}
    modules = {name: data(**settings, eval_list=eval_list) for name, eval_list in lists.items()}
    for module in modules.values():
        module.train_reader = module.eval_reader = partial(Filed)
        module.setup("test")
    own, other = (module.evaluation for module in modules.values())
    shows = [i for i in order if np.isin(Numbered().mask(i), (1, 2)).any()]
    count = len(shows)
    assert [other[i].names[0] for i in range(count)] == [Filed().name(i) for i in shows]
    assert [own[i].names[0] for i in range(count)] == [Filed().name(i) for i in sorted(shows)]
    told = modules["listed"].list_facts()["lists"]
    assert told["all"] == {"pictures": 24, "sha256": digest(f"2007_{i:06}" for i in order)}
    assert told["queries"] == {"pictures": count, "sha256": digest(f"2007_{i:06}" for i in shows)}
    assert modules["own"].list_facts()["lists"]["all"] == facts(Filed(), range(24))._asdict() != told["all"]
