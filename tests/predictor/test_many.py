"""Folders of pictures and videos: what is written, skipped, refused, and kept after a stop."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from support import own_pictures
from support.predictors import predictor, shot

from fss.data.readers.folder import Folder
from fss.predictor import FewShotPredictor
from fss.predictor.many import JOURNAL, segment_all
from fss.predictor.queries import Query, QueryReader, find_queries
from fss.predictor.support_folder import read_supports

pytestmark = pytest.mark.usefixtures("one_thread")


def fitted() -> FewShotPredictor:
    return predictor("prior").fit({"cup": [shot(0)], "ant": [shot(1)]})


def write_pictures(folder: Path, n: int) -> Path:
    folder.mkdir()
    for i in range(n):
        Image.fromarray(shot(10 + i, 30 + i, 44)[0]).save(folder / f"picture {i}.png")
    return folder


def write_video(file: Path, frames: int) -> list[np.ndarray]:
    pictures = [np.full((32, 48, 3), (8 * i, 90, 200 - 8 * i), np.uint8) for i in range(frames)]
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 5, (48, 32))
    for picture in pictures:
        video.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    video.release()
    return pictures


def test_results_are_the_predictors_answers(tmp_path: Path) -> None:
    queries, unreadable = find_queries(write_pictures(tmp_path / "queries", 5))
    done = segment_all(fitted(), queries, tmp_path / "out", abstain=False, batch_size=2)
    assert (done.answered, done.earlier, done.skipped, unreadable) == (5, 0, {}, {})
    coco = COCO(str(tmp_path / "out/predictions.json"))
    assert coco.getImgIds() == [1, 2, 3, 4, 5]
    assert sorted(coco.getAnnIds()) == list(range(1, 1 + len(coco.getAnnIds())))
    found = list(fitted().predict([query.file for query in queries], batch_size=2))
    for info, query, answer in zip(coco.loadImgs(coco.getImgIds()), queries, found, strict=True):
        assert (info["file_name"], info["height"]) == (query.file.name, answer.labels.shape[0])
        mask = np.asarray(Image.open(tmp_path / f"out/masks/{query.name}.png"))
        np.testing.assert_array_equal(mask, answer.labels)
        drawn = np.zeros_like(mask)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[info["id"]])):
            drawn[coco.annToMask(annotation) > 0] = annotation["category_id"]
        np.testing.assert_array_equal(drawn, mask)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("masks", "overlays", "predictions.json", "sheet.png"),
    }


def test_pictures_that_cannot_be_used_are_named_and_skipped(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "queries", 2)
    (folder / "text.jpg").write_text("hello")
    (folder / "video.mp4").write_text("hello")
    (folder / "notes.txt").write_text("hello")
    queries, unreadable = find_queries(folder)
    assert list(unreadable) == [str(folder / "video.mp4")]
    done = segment_all(fitted(), queries, tmp_path / "out")
    assert done.answered == 2
    assert list(done.skipped) == [str(folder / "text.jpg")]
    assert "text.jpg cannot be read as a picture" in done.skipped[str(folder / "text.jpg")]
    assert len(json.loads((tmp_path / "out/predictions.json").read_text())["images"]) == 2


def test_names_that_are_too_long_are_skipped_and_the_longest_that_are_not_written(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "queries", 2)
    longest, too_long = folder / f"{'Ж' * 124}.png", folder / f"{'Ж' * 126}.a"  # of which STEM.png has 256 bytes
    (folder / "picture 0.png").rename(longest)
    (folder / "picture 1.png").rename(too_long)
    done = segment_all(fitted(), [Query(too_long), Query(longest)], tmp_path / "out")
    assert done.answered == 1
    assert "choose another name" in done.skipped[str(too_long)]
    for place in ("queries", "out/masks"):
        assert longest.name in [path.name for path in (tmp_path / place).iterdir()]
    answer = replace(fitted().predict(longest), name=longest.stem)
    with pytest.raises(OSError, match="choose another name"):
        answer.save(tmp_path / "saved")  # NAME-overlay.jpg
    assert not list((tmp_path / "saved").iterdir())


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"tile": 4}])
def test_settings_are_refused_before_results_are_touched(settings: dict[str, int], tmp_path: Path) -> None:
    queries, _ = find_queries(write_pictures(tmp_path / "queries", 1))
    with pytest.raises(ValueError, match="must be at least"):
        segment_all(fitted(), queries, tmp_path / "out", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_goes_on_after_a_stop_with_the_same_result(tmp_path: Path) -> None:
    queries, _ = find_queries(write_pictures(tmp_path / "queries", 6))
    segment_all(fitted(), queries, tmp_path / "whole")

    def stopped(left: object, total: int) -> object:
        for number, query in enumerate(left):  # type: ignore[var-annotated, arg-type]
            if number == 3:
                raise KeyboardInterrupt
            yield query

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        segment_all(fitted(), queries, out, shown=stopped)  # type: ignore[arg-type]
    assert not (out / "predictions.json").exists()
    journal = out / JOURNAL
    journal.write_text(journal.read_text() + '["cut sho')
    (out / "masks/picture 1.png").unlink()  # somebody has tidied up
    asked: list[Query] = []

    def watched(left: object, total: int) -> object:
        asked.extend(left)  # type: ignore[arg-type]
        return list(asked)

    done = segment_all(fitted(), queries, out, shown=watched)  # type: ignore[arg-type]
    assert [query.name for query in asked] == [f"picture {i}" for i in (1, 3, 4, 5)]
    assert (done.answered, done.earlier) == (6, 2)
    for file in ("predictions.json", "sheet.png", *(f"masks/picture {i}.png" for i in range(6))):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_another_model_support_setting_or_picture_is_answered_anew(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "queries", 2)
    out = tmp_path / "out"

    def answered(found: FewShotPredictor, abstain: bool = True) -> int:
        """Pictures of an earlier start that count; this one is stopped too."""
        queries, _ = find_queries(folder)
        left: list[int] = []

        def stop(some: object, total: int) -> object:
            left.append(total)
            yield from some  # type: ignore[misc]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            segment_all(found, queries, out, abstain, shown=stop)  # type: ignore[arg-type]
        return 2 - left[0]

    assert answered(fitted()) == 0
    assert answered(fitted()) == 2
    assert answered(fitted().fit(*shot(5), name="bee")) == 0
    assert answered(fitted(), abstain=False) == 0
    other = fitted()
    other.threshold = 0.4
    assert answered(other) == 0
    other.threshold, other.refine = fitted().threshold, 1
    assert answered(other) == 0
    assert answered(fitted()) == 0
    Image.fromarray(shot(77)[0]).save(folder / "picture 1.png")
    assert answered(fitted()) == 1
    assert answered(predictor("prior", seed=1).fit({"cup": [shot(0)], "ant": [shot(1)]})) == 0


def test_frames_of_a_video(tmp_path: Path) -> None:
    pictures = write_video(tmp_path / "clip.avi", 7)
    queries, _ = find_queries(tmp_path / "clip.avi", every=3)
    assert queries == [Query(tmp_path / "clip.avi", frame) for frame in (0, 3, 6)]
    reader = QueryReader()
    for query in (*queries, queries[0]):  # back to the beginning too
        difference = reader.read(query).astype(int) - pictures[query.frame or 0]
        assert np.abs(difference).max() < 6  # JPEG
    with pytest.raises(ValueError, match="ends before frame 50"):
        reader.read(Query(tmp_path / "clip.avi", 50))
    with pytest.raises(ValueError, match="frames of 48 x 32 pixels are more than max_pixels=1000"):
        QueryReader(max_pixels=1000).read(queries[0])
    done = segment_all(fitted(), queries, tmp_path / "out")
    assert done.answered == 3
    images = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [(image["file_name"], image["frame"]) for image in images] == [("clip.avi", f) for f in (0, 3, 6)]


@pytest.mark.parametrize("suffix", ["webm", "mkv"])
def test_frames_of_a_video_that_does_not_say_how_long_it_is(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"stream.{suffix}"
    pictures = [np.full((32, 48, 3), 8 * i, np.uint8) for i in range(7)]
    file.write_bytes(b"".join(cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures))
    assert find_queries(file, every=3) == ([Query(file, frame) for frame in (0, 3, 6)], {})
    assert np.abs(QueryReader().read(Query(file, 6)).astype(int) - pictures[6]).max() < 6  # JPEG


@pytest.mark.parametrize("suffix", ["gif", "GIF", "jfif", "tif"])
def test_pictures_that_are_read_alone_are_found_in_folders(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(shot(0)[0]).save(file)
    assert find_queries(tmp_path) == find_queries(file) == ([Query(file)], {})
    assert QueryReader().read(Query(file)).shape == (40, 56, 3)


def test_queries_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no queries"):
        find_queries(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="no pictures or videos"):
        find_queries(tmp_path)
    for suffix in ("png", "jpg"):
        Image.fromarray(shot(0)[0]).save(tmp_path / f"a.{suffix}")
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png would share a\.png"):
        find_queries(tmp_path)
    with pytest.raises(ValueError, match="every=0"):
        find_queries(tmp_path, every=0)


def test_supports_in_folders_of_classes(tmp_path: Path) -> None:
    for name in ("cup", "ant"):
        (tmp_path / name).mkdir()
        for i in range(2):
            picture, mask = shot(i)
            Image.fromarray(picture).save(tmp_path / name / f"{i}.jpg")
            Image.fromarray(mask).save(tmp_path / name / f"{i}.png")
    found = read_supports(tmp_path)
    assert {name: len(shots) for name, shots in found.items()} == {"ant": 2, "cup": 2}
    assert predictor().fit(found).classes == ("ant", "cup")
    (tmp_path / "ant/1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"not so: .*ant/1\.jpg"):
        read_supports(tmp_path)


@pytest.mark.parametrize("per_class", [True, False])
def test_supports_as_for_training(per_class: bool, tmp_path: Path) -> None:
    own_pictures.write(tmp_path / "own", n=5, per_class=per_class)
    found = read_supports(tmp_path / "own")
    assert set(found) == set(own_pictures.NAMES)
    reader = Folder(str(tmp_path / "own"))
    for number, name in enumerate(own_pictures.NAMES, start=1):
        expected = [reader.mask(i) == number for i in range(5) if (reader.mask(i) == number).any()]
        for (_, mask), there in zip(found[name], expected, strict=True):
            np.testing.assert_array_equal(mask, there)


def test_supports_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder of supports"):
        read_supports(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="make a folder for each class"):
        read_supports(tmp_path)
