"""predict.py as a user starts it."""

from __future__ import annotations

import json
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
    start("predict", *write(tmp_path), "abstain=false", "threshold=0.52")
    assert "2 pictures answered, 0 skipped" in capsys.readouterr().out
    found = FewShotPredictor.load("prior", device="cpu")
    found.fit(tmp_path / "supports/cup/a.jpg", tmp_path / "supports/cup/a.png", name="cup")
    for number in (1, 2):
        mask = np.asarray(Image.open(tmp_path / f"out/masks/{number}.png"))
        np.testing.assert_array_equal(mask, found.predict(shot(number)[0]).at(0.52).labels)
    content = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [category["name"] for category in content["categories"]] == ["cup"]


def test_exit_code_tells_that_pictures_were_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write(tmp_path)
    (tmp_path / "queries/3.png").write_text("hello")
    with pytest.raises(SystemExit) as ended:
        start("predict", *settings)
    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert "2 pictures answered, 1 skipped" in told
    assert "3.png cannot be read as a picture" in told


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model=nowhere", "no model nowhere: give the folder of a run"),
        ("supports=nowhere", "no folder of supports nowhere"),
        ("queries=nowhere", "no queries nowhere"),
        ("presence_threshold=2", "presence_threshold=2: must be in"),
        ("tile=3", "tile=3: must be at least 8"),
    ],
)
def test_what_can_be_mended_is_told_before_work_starts(setting: str, message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        start("predict", *write(tmp_path), setting)
    assert not list(tmp_path.glob("out/masks/*"))


def test_settings_without_a_default() -> None:
    with pytest.raises(ValueError, match="without a default: model, queries, supports"):
        start("predict")
