"""A kept index that is damaged, or that came with somebody's data, is made anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.own_pictures import write

from fss.data import index as index_module
from fss.data import index_cache
from fss.data.index import Index, build_index
from fss.data.readers.folder import Folder

Damage = Callable[[Path], object]


def flipped(at: float) -> Damage:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(at * len(content))] ^= 0x40
        path.write_bytes(content)

    return damage


def another_format(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.arange(3))


@pytest.mark.parametrize(
    "damage",
    [
        *(flipped(k / 40) for k in range(40)),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04" + bytes(500)),
        lambda path: path.write_text("no index"),
        another_format,
    ],
)
def test_damaged_index_is_made_anew(
    tmp_path: Path, damage: Damage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index_module, "WORTHWHILE", 1)
    monkeypatch.setattr(index_module, "cores", lambda: 1)
    reader = Folder(str(write(tmp_path)))
    expected = build_index(reader)
    damage(reader.cache)
    for found in (build_index(reader), build_index(reader)):
        for column, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(column, wanted)


@pytest.mark.parametrize("field", Index._fields)
@pytest.mark.parametrize("value", [-1, 10**6])
def test_forged_index_is_not_used(tmp_path: Path, field: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if (field, value) == ("pixels", 10**6):
        pytest.skip("a large object is none that could not be")
    monkeypatch.setattr(index_module, "WORTHWHILE", 1)
    monkeypatch.setattr(index_module, "cores", lambda: 1)
    reader = Folder(str(write(tmp_path)))
    expected = build_index(reader)
    forged = {name: column.copy() for name, column in expected._asdict().items()}
    forged[field][-1] = value
    key = index_cache.fingerprint(reader.classes, reader.files())
    index_cache.save(reader.cache, key, {**forged, "remarks": np.array([], np.str_)})
    np.testing.assert_array_equal(getattr(build_index(reader), field), getattr(expected, field))


def test_remarks_are_told_at_every_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from PIL import Image

    monkeypatch.setattr(index_module, "WORTHWHILE", 1)
    write(tmp_path)
    Image.fromarray(np.full((24, 32), 255, np.uint8)).save(tmp_path / "masks/picture 03.png")
    for _ in range(2):
        caplog.clear()
        build_index(Folder(str(tmp_path)))
        assert "1 of 15 pictures: the mask of" in caplog.text


def test_two_classes_of_one_name_are_refused() -> None:
    """Results are kept by name: 12 of 24 episodes were lost."""

    class Twins:
        classes = ("ant", "bee", "ant")

        def __len__(self) -> int:
            return 1

        def name(self, index: int) -> str:
            return "0.png"

        def image(self, index: int) -> np.ndarray:
            return np.zeros((2, 2, 3), np.uint8)

        def mask(self, index: int) -> np.ndarray:
            return np.ones((2, 2), np.uint8)

    with pytest.raises(ValueError, match="two classes are called 'ant': give each its own name"):
        build_index(Twins())
