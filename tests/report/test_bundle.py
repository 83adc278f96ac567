"""Bundles: what is in them, and that no change to any of their bytes goes unnoticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import made_up

from fss.cli import bundles as data
from fss.evaluation.results import EPISODES, METRICS
from fss.report import bundle as bundles
from fss.report.__main__ import main
from fss.report.bundle import FINGERPRINT, MANIFEST, files, places, sha256, write_bundle
from fss.report.bundle_check import check_bundle


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, one of them with two evaluations and a model file."""
    outputs = tmp_path_factory.mktemp("made") / "outputs"
    for tuning, iou in (("frozen", 0.4), ("svf", 0.5)):
        rng = np.random.default_rng(3)
        episodes = made_up.episodes(iou, ("star", "ring"), rng=rng)
        folder = made_up.run(outputs, tuning=tuning)
        for checkpoint in ("last", "best")[: 1 + (tuning == "svf")]:
            made_up.evaluation(
                outputs, tuning=tuning, made=episodes, checkpoint=checkpoint, changes={"episodes": 8}
            )
    (folder / "checkpoints/model.safetensors").write_bytes(bytes(range(256)) * 4)
    return outputs


@pytest.fixture(scope="module")
def sound(runs: Path) -> Path:
    out = runs.parent / "bundle"
    write_bundle([runs], out, {})
    return out


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "bundle"))


def test_what_is_in_it(sound: Path, runs: Path) -> None:
    assert check_bundle(sound) == []
    names = set(files(sound))
    own = {"README.md", "LICENSES.md", "packages.txt", "data.json", "requirements.lock", MANIFEST, FINGERPRINT}
    assert {name for name in names if "/" not in name} == own
    svf = "runs/outputs/shapes/pfenet-svf-resnet50/1shot/fold0/seed0"
    parts = {name.removeprefix(f"{svf}/") for name in names if name.startswith(svf)}
    assert parts == {
        *("config.yaml", ".hydra/overrides.yaml", "training.json", "csv/version_0/metrics.csv"),
        "checkpoints/model.safetensors",
        *(f"results/{c}-svf/{name}" for c in ("last", "best") for name in (METRICS, "metrics.csv", EPISODES)),
    }
    assert len(places([runs])) == 3
    assert not list(sound.parent.glob(".*.part"))
    assert (sound / FINGERPRINT).read_text() == f"{sha256(sound / MANIFEST)}  {MANIFEST}\n"


def test_the_card_is_read_by_hubs(sound: Path) -> None:
    _, head, text = (sound / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(head)
    names = [model["name"] for model in card["model-index"]]
    assert names == ["pfenet-frozen-resnet50", "pfenet-svf-resnet50"]
    results = card["model-index"][1]["results"]
    found = json.loads(
        (sound / next(n for n in files(sound) if "svf-resnet50" in n and n.endswith(METRICS))).read_text()
    )
    values = {m["type"]: m["value"] for m in results[0]["metrics"]}
    assert values == {"mean_iou": round(found["miou"], 6), "fb_iou": round(found["fb_iou"], 6)}
    assert all(result["task"]["type"] == "image-segmentation" for result in results)
    assert "selected on novel classes" in text


def test_without_weights(runs: Path, tmp_path: Path) -> None:
    write_bundle([runs], tmp_path / "b", {}, weights=False)
    assert check_bundle(tmp_path / "b") == []
    assert not [name for name in files(tmp_path / "b") if name.endswith(".safetensors")]


def test_a_changed_byte_of_any_file_is_found(bundle: Path) -> None:
    for name in files(bundle):
        path = bundle / name
        content = path.read_bytes()
        assert content, name
        for place in {0, len(content) // 2, len(content) - 1}:
            changed = bytearray(content)
            changed[place] ^= 1
            path.write_bytes(changed)
            problems = check_bundle(bundle)
            assert len(problems) == 1, (name, problems)
            expected = (MANIFEST,) if name in (MANIFEST, FINGERPRINT) else (name,)
            assert problems[0].startswith(expected), (name, problems)
        for other in (content[:-1], content + b"\n", b""):
            path.write_bytes(other)
            assert check_bundle(bundle), name
        path.write_bytes(content)
    assert check_bundle(bundle) == []


def test_missing_and_additional_files_are_named(bundle: Path) -> None:
    for name in files(bundle):
        (bundle / name).rename(bundle.parent / "away")
        problems = check_bundle(bundle)
        assert [p for p in problems if p.startswith(f"{name} is missing")], (name, problems)
        (bundle.parent / "away").rename(bundle / name)
    (bundle / "runs/more.txt").write_text("more")
    (bundle / "runs/link").symlink_to("/etc")
    assert check_bundle(bundle) == ["runs/link is not of this bundle", "runs/more.txt is not of this bundle"]


def test_links_are_no_files(bundle: Path) -> None:
    (bundle / "README.md").rename(bundle.parent / "README.md")
    (bundle / "README.md").symlink_to(bundle.parent / "README.md")
    assert check_bundle(bundle) == ["README.md is a link or no file"]
    (bundle / "README.md").unlink()
    (bundle.parent / "README.md").rename(bundle / "README.md")
    (bundle / "runs").rename(bundle.parent / "runs")
    (bundle / "runs").symlink_to(bundle.parent / "runs")
    assert check_bundle(bundle)


def rewritten(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the manifest as somebody would who can compute digests."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    for name in manifest["files"]:
        if (path := bundle / name).is_file():
            manifest["files"][name] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    (bundle / FINGERPRINT).write_text(f"{sha256(bundle / MANIFEST)}  {MANIFEST}\n")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "runs/../../outside", "", "a\\..\\..\\b", MANIFEST])
def test_names_that_lead_elsewhere_are_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "outside").write_text("x")
    told = {"sha256": sha256(bundle.parent / "outside"), "bytes": 1}
    rewritten(bundle, lambda manifest: manifest["files"].update({name: told}))
    assert [p for p in check_bundle(bundle) if "which is no file of a bundle" in p]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format=99),
        lambda m: m.update(files={}),
        lambda m: m.update(files=[]),
        lambda m: m["files"].update({"README.md": None}),
        lambda m: m["files"]["README.md"].update(bytes="many"),
    ],
)
def test_manifests_that_are_none(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    rewritten(bundle, change)
    [problem] = check_bundle(bundle)
    assert problem.startswith(MANIFEST)


def results_of(bundle: Path) -> Path:
    return next(iter(sorted((bundle / "runs").rglob(METRICS)))).parent


@pytest.mark.parametrize("key", ["intersection", "union", "background_intersection", "background_union"])
def test_scores_are_those_of_the_episodes(bundle: Path, key: str) -> None:
    """Also where every digest was made anew."""
    path = results_of(bundle) / EPISODES
    head, *lines = path.read_text().splitlines()
    column = head.split(",").index(key)
    for number, line in enumerate(lines):
        fields = line.split(",")
        if int(fields[column]) > 0 and "star" in fields:
            fields[column] = str(int(fields[column]) + (1 if key.endswith("union") else -1))
            lines[number] = ",".join(fields)
            break
    path.write_text("\n".join([head, *lines]) + "\n")
    rewritten(bundle, lambda manifest: None)
    assert [p for p in check_bundle(bundle) if "the integers of star are not those of its episodes" in p]


def test_the_card_says_what_the_results_say(bundle: Path) -> None:
    card = bundle / "README.md"
    card.write_text(card.read_text().replace("mIoU", "accuracy", 1))
    rewritten(bundle, lambda manifest: None)
    assert check_bundle(bundle) == ["README.md is not what the results make it"]


def test_metrics_that_are_none(bundle: Path) -> None:
    path = results_of(bundle) / METRICS
    metrics = json.loads(path.read_text())
    metrics["miou"] += 0.1
    path.write_text(json.dumps(metrics))
    rewritten(bundle, lambda manifest: None)
    [problem] = check_bundle(bundle)
    assert "miou" in problem


def test_left_out_episodes_are_found(bundle: Path) -> None:
    path = results_of(bundle) / EPISODES
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    rewritten(bundle, lambda manifest: None)
    assert [p for p in check_bundle(bundle) if "has 7 episodes" in p]


def test_written_whole_or_not_at_all(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> str:
        raise OSError("no space left on the device")

    monkeypatch.setattr(bundles, "licenses", full)
    with pytest.raises(OSError, match="no space"):
        write_bundle([runs], tmp_path / "b", {})
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept(runs: Path, sound: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match=r"exists already: delete it, or choose another place with --out"):
        write_bundle([runs], sound, {})
    with pytest.raises(ValueError, match="two folders are called outputs"):
        write_bundle([runs, Path(shutil.copytree(runs, tmp_path / "outputs"))], tmp_path / "b", {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no evaluation below"):
        write_bundle([tmp_path / "empty"], tmp_path / "b", {})


def test_commands(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bundle"
    assert main(["bundle", str(runs), "--out", str(out), "--no-data"]) == 0
    fingerprint = sha256(out / MANIFEST)
    assert f"Fingerprint: {fingerprint}" in capsys.readouterr().out
    assert main(["verify", str(out), "--fingerprint", fingerprint]) == 0
    assert "Every file and every score is as it was made" in capsys.readouterr().out
    assert main(["verify", str(out), "--fingerprint", "0" * 64]) == 1
    assert "it is another bundle" in capsys.readouterr().err
    (out / "packages.txt").write_text("torch==0\n")
    assert main(["verify", str(out)]) == 1
    assert capsys.readouterr().err.startswith("packages.txt")
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert "give the folder of a bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "message"),
    [("there", "exists already: delete it"), ("file/b", "file is no folder; choose another place")],
)
def test_a_bundle_that_cannot_be_written_is_told_before_work_starts(
    out: str,
    message: str,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(bundles, "places", lambda *_: pytest.fail("work has begun"))
    assert main(["bundle", str(runs), "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err


def test_pictures_are_compared_where_no_episode_is_run_again(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = results_of(bundle).relative_to(bundle).as_posix()
    (bundle / "data.json").write_text(json.dumps({place: {"a": "1"}}))
    rewritten(bundle, lambda manifest: None)
    here = {"a": "1"}
    monkeypatch.setattr(data, "open_evaluation", lambda *_: None)
    monkeypatch.setattr(data, "picture_digests", lambda _: here)
    monkeypatch.setattr(data, "run_again", lambda *_: pytest.fail("nobody asked for it"))
    assert main(["verify", str(bundle), "--data", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert f"{place}: 1 pictures are the same here" in told
    assert told.count("no digests of its pictures") == 2
    here["a"] = "2"
    assert main(["verify", str(bundle), "--data", str(tmp_path)]) == 1
    assert "1 pictures are others here, such as a" in capsys.readouterr().err
    assert main(["verify", str(bundle), "--episodes", "-3"]) == 2
    assert "--episodes -3: must be at least 0" in capsys.readouterr().err
