"""What command lines of evaluate.py ask for, and what they leave."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from PIL import Image
from support import ROOT
from support.scripts import SMALL, start

from fss.cli.evaluations import adaptation_of, record_of
from fss.cli.requests import Request, requests
from fss.data import cross_domain
from fss.data.readers import pascal
from fss.evaluation.results import read_episodes, read_metrics
from fss.evaluation.tables import mean_of_folds
from fss.files.digests import digest

PRIOR = [*SMALL[:-2], "method=prior", "tuning=frozen"]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def asked(*overrides: str) -> list[Request]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("evaluate", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        return requests(cfg, list(overrides))


def saved(run: str, *overrides: str) -> None:
    """A run folder as training leaves it."""
    path = Path(run) / ".hydra/overrides.yaml"
    path.parent.mkdir(parents=True)
    OmegaConf.save(list(overrides), path)


def test_folds_and_checkpoints() -> None:
    every = asked("fold=all", "checkpoint=both", "seed=3")
    assert [(a.cfg.checkpoint, a.cfg.fold) for a in every] == [(c, f) for c in ("last", "best") for f in range(4)]
    assert every[5].cfg.run_dir == "outputs/shapes/pfenet-svf-efficientnet_lite0/1shot/fold1/seed3"
    given = asked("fold=all", "dataset=folder", "dataset.root=x", "dataset.fold_scheme=[[1,2],[3]]")
    assert [a.cfg.fold for a in given] == [0, 1]


def test_a_run_brings_its_settings_and_typed_ones_go_over_them() -> None:
    run = "outputs/shapes/pfenet-svf-efficientnet_lite0/1shot/fold0/seed0"
    saved(run, "method.head.width=32", "episodes=7", "seeds=[5]")
    [one] = asked("method.head.pyramid=[1.0]")
    assert (one.cfg.method.head.width, one.cfg.method.head.pyramid) == (32, [1.0])
    assert (one.cfg.episodes, one.cfg.seeds) == (7, [5])
    [one] = asked("protocol=bam")  # a protocol that is asked for is not changed by what the run had
    assert (one.cfg.method.head.width, one.cfg.episodes, len(one.cfg.seeds)) == (32, 1000, 5)


def test_results_of_another_head_have_a_folder_of_their_own() -> None:
    """The same weights answer otherwise with `refine`; what the run had is no change."""

    def folder(*overrides: str) -> str:
        [one] = asked(*overrides)
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            record = record_of(one.cfg, one.changed)
        assert record.identity["changed"] == list(one.changed)
        return record.folder.name

    saved("outputs/shapes/pfenet-svf-efficientnet_lite0/1shot/fold0/seed0", "method.head.width=32")
    assert folder() == folder("method.head.width=32") == folder("method.head.refine=0") == "last-svf"
    assert folder("method.head.refine=2") == "last-svf-refine-2"
    assert folder("method.pyramid=[1.0,0.5]", "++method.head.refine=1") == "last-svf-pyramid-1.0_0.5-refine-1"
    assert folder("method=match", "tuning=frozen", "method.head.maps=[low,mid]") == "last-svf-maps-low_mid"
    assert folder("backbone.weights=null", "method.base_seed=3") == "last-svf"
    file = Path("weights.pth")
    file.touch()
    assert folder(f"ckpt={file}", "method.head.width=16", "backbone=resnet50") == "svf"  # what fits it
    other = "trained_on=pascal5i", "dataset=folder", "dataset.root=x"
    assert folder(*other) + "-refine-3" == folder(*other, "method.head.refine=3")


def test_results_on_other_pictures_have_a_folder_of_their_own() -> None:
    def folder(*overrides: str) -> str:
        [one] = asked("dataset=folder", "dataset.root=x", *overrides)
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return record_of(one.cfg, one.changed).folder.name

    saved("outputs/folder/pfenet-svf-efficientnet_lite0/1shot/fold0/seed0", "dataset.root=y", "dataset.size=225")
    assert folder() == folder("dataset.size=225", "dataset.num_workers=0") == "last-svf"
    assert folder("dataset.size=321") == "last-svf-size-321"
    assert folder("dataset.query_classes=any", "dataset.eval_list='a/my list.txt'") == (
        "last-svf-eval_list-my_list-query_classes-any"
    )
    assert folder("dataset.eval_root=/data/other", "dataset.fold_scheme=[[1,2],[3]]") == (
        "last-svf-eval_root-other-fold_scheme-1_2_3"
    )


@pytest.mark.parametrize("content", ["5", "[recipe]", "recipe: {name: svf}\ndataset: 3"])
def test_settings_that_are_none_are_named(content: str) -> None:
    run = "outputs/shapes/pfenet-svf-efficientnet_lite0/1shot/fold0/seed0"
    saved(run)
    (Path(run) / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"config\.yaml holds no settings of a run: delete it"):
        asked("dataset.size=64")


def test_a_run_of_before_a_setting_was_renamed() -> None:
    saved("outputs/shapes/pfenet-svf-efficientnet_lite0/1shot/fold0/seed0", "dataset.pyramid=[1.0,0.5]", "~panels")
    [one] = asked()
    assert one.cfg.method.head.pyramid == [1.0, 0.5]
    [one] = asked("method.pyramid=[1.0]")
    assert one.cfg.method.head.pyramid == [1.0]


def test_a_run_from_before_recipes_keeps_its_networks() -> None:
    run = "outputs/coco20i/pfenet-svf-resnet50/1shot/fold0/seed0"
    saved(run, "dataset=coco20i", "dataset.root=x", "backbone=resnet50")
    settings = Path(run) / "config.yaml"
    settings.write_text("fold: 0\n")
    [one] = asked(f"run_dir={run}")
    assert (one.cfg.backbone.dilation, one.cfg.method.pyramid) == ("all", [1.0, 0.5, 0.25, 0.125])
    settings.write_text("recipe: {name: svf}\n")
    [one] = asked(f"run_dir={run}")
    assert (one.cfg.backbone.dilation, one.cfg.method.pyramid) == ("after_first", [60, 30, 15, 8])


def test_shots_of_the_run_and_of_the_evaluation() -> None:
    [one] = asked("shot=5", "train_shot=1", "method=bam", "dataset=pascal5i", "dataset.root=x")
    assert one.cfg.run_dir == "outputs/pascal5i/bam-svf-efficientnet_lite0/1shot/fold0/seed0"
    assert (one.cfg.method.head.shot, one.cfg.datamodule.shot) == (1, 5)


def test_a_model_of_another_data_set_stays_what_it_is() -> None:
    run = "outputs/coco20i/pfenet-svf-vgg16/1shot/fold2/seed0"
    saved(run, "dataset=coco20i", "dataset.root=elsewhere", "dataset.size=473", "method.head.width=32", "fold=2")
    data = ("dataset=pascal5i", "dataset.root=here", "dataset.min_pixels=9")
    [one] = asked(*data, "trained_on=coco20i", "backbone=vgg16", "fold=2")
    cfg = one.cfg
    assert cfg.run_dir == run
    assert (cfg.method.head.width, cfg.method.head.pyramid) == (32, [60, 30, 15, 8])
    assert (cfg.dataset.name, cfg.dataset.root, cfg.dataset.size, cfg.dataset.min_pixels) == (
        *("pascal5i", "here", 473, 9),
    )
    assert one.seen_classes is not None
    assert len(one.seen_classes) == 60
    assert "airplane" in one.seen_classes
    with pytest.raises(ValueError, match=r"trained_on=shapes: must be .* coco20i or pascal5i"):
        asked(*data, "trained_on=shapes")


@pytest.mark.parametrize(
    ("fold", "names"),
    [
        (0, {"aeroplane", "boat", "chair", "diningtable", "dog", "person"}),
        (1, {"bicycle", "bus", "horse", "sofa"}),
        (2, {"bird", "car", "pottedplant", "sheep", "train", "tvmonitor"}),
        (3, {"bottle", "cat", "cow", "motorbike"}),
    ],
)
def test_classes_of_pascal_that_a_fold_of_coco_does_not_know(fold: int, names: set[str]) -> None:
    """The lists of RePRI (Boudiaf et al., CVPR 2021) and HSNet."""
    seen = cross_domain.base_class_names("coco20i", fold, "interleaved")
    unseen = cross_domain.unseen_classes(pascal.CLASSES, seen)
    assert {pascal.CLASSES[class_id - 1] for class_id in unseen} == names


def test_nothing_left_to_evaluate() -> None:
    with pytest.raises(ValueError, match="every class"):
        cross_domain.unseen_classes(["Sofa", "car"], ["couch", "car"])


def voc(folder: Path) -> None:
    """A prepared VOC2012 with three pictures each of boat (novel to COCO's fold 0), bus and cat (not)."""
    for name in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    chance, stems = np.random.default_rng(0), []
    for i in range(9):
        class_id = 1 + pascal.CLASSES.index(("boat", "bus", "cat")[i % 3])
        mask = np.zeros((50, 60), np.uint8)
        mask[10:30, 5 * (i % 3) : 5 * (i % 3) + 25] = class_id
        picture = chance.integers(0, 90, (50, 60, 3), dtype=np.uint8) + 6 * mask[..., None]
        stems.append(f"2007_{i:06d}")
        Image.fromarray(picture).save(folder / f"JPEGImages/{stems[-1]}.jpg")
        Image.fromarray(mask).save(folder / f"SegmentationClassAug/{stems[-1]}.png")
    (folder / "ImageSets/Segmentation/val.txt").write_text("\n".join(stems))


def only(folder: Path) -> dict[str, Any]:
    [metrics] = read_metrics(folder).values()
    return metrics


def test_cross_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voc(tmp_path / "VOC2012")
    data = ["dataset=pascal5i", f"dataset.root={tmp_path}", "dataset.size=64", "dataset.min_pixels=9"]
    rest = [
        "trained_on=coco20i",
        "protocol=custom",
        "method=prior",
        "tuning=frozen",
        "trainer=cpu",
        "pictures=0",
        "episodes=5",
    ]
    start("evaluate", *data, *rest, "protocol=custom", "dataset.num_workers=0", "backbone.weights=null")
    metrics = only(tmp_path / "outputs/coco20i")
    assert (metrics["dataset"], metrics["train_dataset"]) == ("pascal5i", "coco20i")
    assert list(metrics["classes"]) == ["boat"]
    assert set(metrics["classes_left_out"]) == {"aeroplane", "chair", "diningtable", "dog", "person"}
    assert next(iter(read_metrics(tmp_path))).parent.name == "last-custom-5x321-on-pascal5i-min_pixels-9-size-64"
    assert "classes new to fold 0 of coco20i" in capsys.readouterr().out


def test_published_protocol_where_classes_have_no_episode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All six classes of the fold count; the episodes are the published ones of these three pictures."""
    voc(tmp_path / "VOC2012")
    (tmp_path / "list.txt").write_text("".join(f"JPEGImages/2007_{i:06d}.jpg\n" for i in (6, 8, 0, 3)))
    data = ["dataset=pascal5i", f"dataset.root={tmp_path}", "dataset.size=64", "dataset.min_pixels=9"]
    rest = ["trained_on=coco20i", "method=prior", "tuning=frozen", "trainer=cpu", "pictures=0", "episodes=5"]
    more = ["dataset.num_workers=0", "backbone.weights=null", f"dataset.eval_list={tmp_path / 'list.txt'}"]
    start("evaluate", *data, *rest, *more)
    metrics = only(tmp_path / "outputs/coco20i")
    boat = metrics["classes"].pop("boat")["iou"]
    assert boat > 0
    assert list(metrics["classes"]) == ["aeroplane", "chair", "diningtable", "dog", "person"]
    assert all(of["iou"] == 0 for of in metrics["classes"].values())
    assert metrics["miou"] == pytest.approx(boat / 6)
    place = next(iter(read_metrics(tmp_path))).parent
    assert place.name == "last-custom-5x321-published-zero-on-pascal5i-eval_list-list-min_pixels-9-size-64"
    assert [Path(e.query).stem[-1] for e in read_episodes(place)] == list("60360")
    drawing = metrics["drawing"]
    assert (drawing["draw"], drawing["workers"], drawing["absent"]) == ("published", 8, "zero")
    assert drawing["lists"]["all"] == {"pictures": 4, "sha256": digest(f"2007_{i:06d}" for i in (6, 8, 0, 3))}
    assert drawing["lists"]["queries"] == {"pictures": 3, "sha256": digest(f"2007_{i:06d}" for i in (6, 0, 3))}
    lines = [" ".join(["4", *(Path(name).stem for name in (e.query, *e.supports))]) for e in read_episodes(place)]
    assert drawing["episodes_sha256"] == {"321": digest(lines)}
    assert "Counted as 0 where no episode asks for it: aeroplane" in " ".join(capsys.readouterr().out.split())


def test_a_protocol_has_its_name_only_as_its_file_says(tmp_path: Path) -> None:
    pascal5i = ("dataset=pascal5i", "dataset.root=x")

    def named(*overrides: str) -> tuple[str, str]:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose("evaluate", list(overrides))
            record = record_of(cfg)
            return record.protocol, record.folder.name

    for protocol in ("svf", "bam", "pfenet", "hsnet", "small", "custom"):
        assert named(*pascal5i, f"protocol={protocol}")[0] == protocol
    assert named(*pascal5i) == ("svf", "last-svf")
    assert named(*pascal5i, "protocol.draw=drawn") == ("custom", "last-custom-1000x321-zero")
    assert named(*pascal5i, "protocol.absent=leave_out") == ("custom", "last-custom-1000x321-published")
    assert named(*pascal5i, "protocol.workers=4") == ("custom", "last-custom-1000x321-published-zero-4workers")
    assert named(*pascal5i, "protocol.episodes=9") == ("custom", "last-custom-9x321-published-zero")
    assert named(*pascal5i, "protocol.draws.pascal5i=drawn")[0] == "custom"
    assert named("protocol.draw=published") == ("custom", "last-custom-1000x321-published")
    assert named("protocol.draw=drawn") == ("svf", "last-svf")  # as it is on the embedded data
    assert named("protocol=custom") == ("custom", "last-custom-1000x321")


def test_every_fold_and_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start("evaluate", *PRIOR, "fold=all", "seeds=[1,2]", "pictures=0", "dataset.num_workers=0")
    found = read_metrics(tmp_path)
    assert [metrics["fold"] for metrics in found.values()] == [0, 1, 2, 3]
    for path, metrics in found.items():
        assert path.parent.name == "last-custom-6x1+2-size-64"
        assert (metrics["protocol"], metrics["episodes"], metrics["eval_seeds"]) == ("custom", 6, [1, 2])
        assert len(metrics["seeds"]) == 2
        low, high = metrics["miou_interval"]
        assert low <= metrics["miou"] <= high
        episodes = read_episodes(path.parent)
        assert [(e.eval_seed, e.id) for e in episodes] == [(seed, i) for seed in (1, 2) for i in range(6)]
        with (path.parent / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sum(int(row["episodes"]) for row in rows) == 12
        assert not list(path.parent.glob(".*"))
    mean = fmean(mean_of_folds(list(found.values()), "miou"))
    assert mean == pytest.approx(fmean(metrics["miou"] for metrics in found.values()))
    last = [line for line in capsys.readouterr().out.splitlines() if "mean" in line][-1]
    assert f"{mean:.3f}" in last


def test_tuned_on_supports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [*PRIOR, "episodes=2", "pictures=1", "dataset.num_workers=0"]
    start("evaluate", *small)
    capsys.readouterr()
    start("evaluate", *small, "adapt=true", "adaptation.steps=2", "adaptation.every=2")
    told = " ".join(capsys.readouterr().out.split())
    found = {path.parent.name: metrics for path, metrics in read_metrics(tmp_path).items()}
    assert {name: metrics["adapt"] for name, metrics in found.items()} == {
        "last-custom-2x321-size-64": False,
        "last-custom-2x321-adapt-size-64-steps-2-every-2": True,
    }
    for metrics in found.values():
        assert metrics.get("tuned_on_supports", {}).keys() == (
            {"kept", "mean_steps"} if metrics["adapt"] else set()
        )
    assert "training-free + adapt" in told
    assert "of 2 episodes" in told
    assert "times the" in told


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adaptation.steps=3"], r"adaptation\.steps=3 .*must be a multiple of every"),
        (
            ["adapt=true", "setting=several"],
            "adapt=true setting=several: tuning on supports is for setting=standard",
        ),
        (
            ["adapt=true", "model=there.onnx"],
            "adapt=true model=there.onnx: an exported graph has no singular values",
        ),
    ],
)
def test_what_cannot_be_tuned_on_supports(overrides: list[str], message: str) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("evaluate", overrides)
    with pytest.raises(ValueError, match=message):
        adaptation_of(cfg)
