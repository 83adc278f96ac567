"""predict.py as a user starts it."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.predictors import shot
from support.scripts import start

from fss.predictor import FewShotPredictor

pytestmark = pytest.mark.usefixtures("one_thread")


def write(root: Path) -> list[str]:
    (root / "supports/cup").mkdir(parents=True)
    (root / "queries").mkdir()
    picture, mask = shot(0)
    Image.fromarray(picture).save(root / "supports/cup/a.jpg", quality=95)
    Image.fromarray(mask).save(root / "supports/cup/a.png")
    for number in (1, 2):
        Image.fromarray(shot(number)[0]).save(root / f"queries/{number}.png")
    places = {"supports": "supports", "queries": "queries", "out": "out"}
    return ["model=prior", "device=cpu", *(f"{setting}={root / name}" for setting, name in places.items())]


def test_a_folder_is_segmented_as_by_the_predictor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start("predict", *write(tmp_path), "abstain=false", "threshold=0.52", "refine=1")
    assert "2 pictures answered, 0 skipped" in capsys.readouterr().out
    found = FewShotPredictor.load("prior", device="cpu")
    found.refine = 1
    found.fit(tmp_path / "supports/cup/a.jpg", tmp_path / "supports/cup/a.png", name="cup")
    for number in (1, 2):
        mask = np.asarray(Image.open(tmp_path / f"out/masks/{number}.png"))
        np.testing.assert_array_equal(mask, found.predict(shot(number)[0]).at(0.52).labels)
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["cup"]


def test_what_is_no_picture_is_named_and_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, queries = write(tmp_path), tmp_path / "queries"
    (queries / "text.png").write_text("hello")
    (queries / "empty.jpg").touch()
    (queries / "pickle.png").write_bytes(pickle.dumps(np.zeros(100)))
    with zipfile.ZipFile(queries / "zip.png", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("picture.png", bytes(10**7))
    Image.new("1", (20_000, 20_000)).save(queries / "bomb.png")
    Image.fromarray(shot(3, 8, 8)[0]).save(queries / "small.png")
    Image.fromarray(shot(4, 1080, 1920)[0]).save(queries / "large.png")
    with pytest.raises(SystemExit) as ended:
        start("predict", *settings)
    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert "4 pictures answered, 5 skipped" in told
    for name in ("text.png", "empty.jpg", "pickle.png", "zip.png"):
        assert f"{name} cannot be read as a picture" in told
    assert "bomb.png: 400000000 pixels are more than dataset.max_pixels=100000000 (predict.py: max_pixels)" in told
    sizes = {path.stem: Image.open(path).size for path in (tmp_path / "out/masks").iterdir()}
    assert sizes == {"1": (56, 40), "2": (56, 40), "small": (8, 8), "large": (1920, 1080)}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model=nowhere", "no model nowhere: give the folder of a run"),
        ("supports=nowhere", "no folder of supports nowhere"),
        ("queries=nowhere", "no queries nowhere"),
        ("presence_threshold=2", "presence_threshold=2: must be in"),
        ("tile=3", "tile=3: must be at least 8"),
        ("refine=-1", "refine=-1: must be at least 0"),
        ("negatives=nowhere", "no queries nowhere"),
        ("negatives=.", "no pictures or videos in"),
        ("batch_size=0", "batch_size=0: must be at least 1"),
        ("batch_size=abc", "batch_size=abc: must be a whole number"),
        ("batch_size=null", "batch_size=null: must be a whole number"),
        ("every=abc", "every=abc: must be a whole number"),
        ("every=null", "every=null: must be a whole number"),
        ("tile=100.5", r"tile=100\.5: must be a whole number, or null"),
        ("max_pixels=abc", "max_pixels=abc: must be a whole number"),
        ("threshold=abc", "threshold=abc: must be a number, or null"),
        ("threshold=nan", r"threshold=nan: must be in 0\.\.1, or null"),
        ("abstain=no", "abstain=no: must be true or false"),
        ("abstain=1", "abstain=1: must be true or false"),
        ("queries=2024", "queries=2024: must be a path; put ./ before"),
        ("out=20_24", "out=2024: must be a path; put ./ before"),
        ("model=true", "model=true: must be a path"),
        ("supports=null", "supports=null: must be one path"),
        ("supports=[a,b]", r"supports=\['a', 'b'\]: must be one path"),
        ("out=null", "out=null: must be one path"),
        ("out=", "out=: must be one path"),
        ("device=null", "device=null: must be a text"),
        ("device=nowhere", "device=nowhere: torch has no such device here"),
        ("device=cuda:99", "device=cuda:99: torch has no such device here"),
        ("precision=16", "precision=16: must be one of 32-true"),
    ],
)
def test_what_can_be_mended_is_told_before_work_starts(
    setting: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting != "model=nowhere":
        monkeypatch.setattr(FewShotPredictor, "load", lambda *_: pytest.fail("work has begun"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        start("predict", *write(tmp_path), setting)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["out", "out/sheet.png/a", "out/masks"])
def test_a_folder_that_cannot_be_written_is_told_before_work_starts(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = write(tmp_path)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    monkeypatch.setattr(FewShotPredictor, "load", lambda *_: pytest.fail("work has begun"))
    with pytest.raises(OSError, match=r"could not be written \((Is|Not) a directory\): .* folder; "):
        start("predict", *settings)


def test_negatives_are_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, others = write(tmp_path), tmp_path / "others"
    others.mkdir()
    (others / "clip.mp4").write_text("hello")
    monkeypatch.setattr(FewShotPredictor, "load", lambda *_: pytest.fail("work has begun"))
    with pytest.raises(ValueError, match=r"others holds videos \(.*clip\.mp4\): negatives are pictures"):
        start("predict", *settings, f"negatives={others}")


def test_where_nothing_could_be_answered_earlier_results_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path)
    for file in (tmp_path / "queries").iterdir():
        file.write_text("hello")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/predictions.json").write_text("earlier")
    with pytest.raises(SystemExit):
        start("predict", *settings)
    told = capsys.readouterr().out
    assert "0 pictures answered, 2 skipped" in told
    assert "No results" in told
    assert "sheet.png" not in told
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.json"]
    assert (tmp_path / "out/predictions.json").read_text() == "earlier"


def test_settings_without_a_default() -> None:
    with pytest.raises(ValueError, match="without a default: model, queries, supports"):
        start("predict")
