"""FSS-1000 from small trees with the real names, and more classes than fit into a byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fss.data.episodes import EpisodeDataset, base_labels
from fss.data.folds import fold_classes
from fss.data.index import build_index, build_pool
from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.fss1000 import FSS1000

H = W = 16


def region_of(c: int, i: int) -> np.ndarray:
    region = np.zeros((H, W), bool)
    region[c % 8 : c % 8 + 8, i : i + 4] = True
    return region


def write(root: Path, classes: int, pictures: int) -> Path:
    for c in range(classes):
        folder = root / f"class_{c:03d}"
        folder.mkdir(parents=True)
        for i in range(1, pictures + 1):
            Image.fromarray(np.full((H, W, 3), (c % 256, 20 * i, 128), np.uint8)).save(folder / f"{i}.jpg")
            mask = Image.fromarray(region_of(c, i).astype(np.uint8) * 250)
            mask.convert("RGB" if i % 2 else "L").save(folder / f"{i}.png")  # the archive has both
    return root


@pytest.mark.parametrize("below", ["", "fewshot_data"])
def test_reader(tmp_path: Path, below: str) -> None:
    write(tmp_path / below, 3, 10)
    reader = FSS1000(str(tmp_path))
    assert reader.classes == ("class_000", "class_001", "class_002")
    assert len(reader) == 30
    assert [Path(reader.name(i)).name for i in range(10)] == [f"{i}.jpg" for i in range(1, 11)]
    for n in range(30):
        c, i = divmod(n, 10)
        np.testing.assert_array_equal(reader.mask(n), region_of(c, i + 1) * (c + 1))
        assert np.abs(reader.image(n).astype(int) - (c, 20 * (i + 1), 128)).max() <= 4
        assert reader.size(n) == (H, W)


def test_more_classes_than_a_byte_counts(tmp_path: Path) -> None:
    reader = FSS1000(str(write(tmp_path, 300, 2)))
    index = build_index(reader)
    assert index.class_id.tolist() == [c for c in range(1, 301) for _ in range(2)]
    assert index.image.tolist() == list(range(600))
    novel, base = fold_classes(300, 3, "contiguous")
    assert 255 in novel
    assert 256 in novel
    pool = build_pool(index, novel, shot=1, min_pixels=1, exclude=base)
    episodes = EpisodeDataset(reader, pool, 1, 0, EvaluationTransform(16), with_label=True, base_classes=base)
    seen = set()
    for n in range(150):
        episode = episodes[n]
        c, i = int(episode.class_id), int(Path(episode.names[0]).stem)
        seen.add(c)
        right = region_of(c - 1, i)
        np.testing.assert_array_equal(np.asarray(episode.label), right)  # 1, 0, and nothing ignored
        np.testing.assert_array_equal(episode.query_mask.numpy(), right)
        assert episode.support_mask.sum() > 0
    assert seen == set(novel)


def test_ignored_pixels_of_wide_masks() -> None:
    labels = np.array([[0, 255, 256, 65535]], np.uint16)
    np.testing.assert_array_equal(base_labels(labels, [2, 255, 256]), [[0, 2, 3, 255]])
    with pytest.raises(ValueError, match="255 base classes: a base learner can have at most 254"):
        base_labels(labels, range(1, 256))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere: set dataset\.root"):
        FSS1000(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no CLASS/1\.jpg in"):
        FSS1000(str(tmp_path))
    write(tmp_path, 2, 3)
    (tmp_path / "class_000/2.png").unlink()
    (tmp_path / "class_001/1.png").write_bytes(b"")
    Image.fromarray(np.zeros((H, W + 1), np.uint8)).save(tmp_path / "class_001/3.png")
    reader = FSS1000(str(tmp_path))
    assert reader.classes == ("class_000", "class_001")
    with pytest.raises(ValueError, match="2 of 6 pictures cannot be used") as error:
        build_index(reader)
    for part in ("class_000/2.png", "class_001/1.png cannot be read as a mask"):
        assert part in str(error.value)
