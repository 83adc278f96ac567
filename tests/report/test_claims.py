"""Published claims and what was measured of them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from support import ROOT, made_up

from fss.report.__main__ import main
from fss.report.claims import Claim, load_claims
from fss.report.commands import commands
from fss.report.document import published
from fss.report.found import Found
from fss.report.verify import Verdict, verify

CLAIMS = load_claims()


def claim(method: str = "pfenet", tuning: str = "svf", exclude_novel: bool = True, shot: int = 1) -> Claim:
    told = ("pascal5i", "resnet50", method, tuning, exclude_novel, shot)
    (found,) = [c for c in CLAIMS if c[:6] == told]
    return found


def measure(outputs: Path, of: Claim, folds: Any = range(4), off: float = 0.0, seed: int = 0, **more: Any) -> None:
    """Evaluates some folds of a claim, so many points off."""
    told = ("dataset", "method", "tuning", "backbone", "shot", "exclude_novel")
    identity: dict[str, Any] = {**{key: getattr(of, key) for key in told}, "seed": seed}
    identity |= {key: more.pop(key) for key in ("backbone", "shot") if key in more}
    has_run = more.pop("has_run", True)
    for fold in folds:
        if has_run:
            made_up.run(outputs, **{**identity, "fold": fold, "shot": more.get("train_shot") or identity["shot"]})
        made_up.evaluation(outputs, (of.folds[fold] + off) / 100, fold=fold, **{**identity, **more})


def verdict(outputs: Path, of: Claim) -> Verdict:
    (found,) = verify([of], Found(outputs))
    return found


def test_claims_are_those_of_the_papers() -> None:
    assert len(CLAIMS) == 54
    assert len({c[:6] for c in CLAIMS}) == 54
    first = [c for c in CLAIMS if c.first]
    assert len(first) == 16
    assert all(c.tuning == "svf" and c.method != "baseline" for c in first)
    assert {(c.dataset, c.backbone) for c in first} == {
        (dataset, backbone) for dataset in ("pascal5i", "coco20i") for backbone in ("vgg16", "resnet50")
    }


@pytest.mark.parametrize("of", CLAIMS, ids=lambda c: "-".join(map(str, c[:6])))
def test_printed_mean_is_that_of_the_printed_folds(of: Claim) -> None:
    """To rounding: of two digits 0.005; the rows printed with one digit are up to 0.075 off."""
    digits = len(published(of, of.mean).partition(".")[2])
    assert digits == (2 if of.exclude_novel else 1)
    assert abs(sum(of.folds) / 4 - of.mean) <= {2: 0.0051, 1: 0.076}[digits]


def test_nothing_found(tmp_path: Path) -> None:
    verdicts = verify(CLAIMS, Found(tmp_path))
    assert {v.status for v in verdicts} == {"not run"}
    assert all(v.judge is None and commands(v, Found(tmp_path)) for v in verdicts)


def test_some_folds_are_shown_and_judge_nothing(tmp_path: Path) -> None:
    measure(tmp_path, claim(), [0, 2])
    found = verdict(tmp_path, claim())
    assert found.status == "running"
    assert found.judge is not None
    assert found.judge.mean is None
    assert found.judge.difference is None
    means = [fold.mean if fold else None for fold in found.judge.folds]
    assert means == [pytest.approx(69.27), None, pytest.approx(67.49), None]


@pytest.mark.parametrize(
    ("off", "status"), [(0.9, "verified"), (-0.9, "verified"), (1.1, "differs"), (-1.1, "differs")]
)
def test_one_seed_is_judged_by_a_point(off: float, status: str, tmp_path: Path) -> None:
    measure(tmp_path, claim(), off=off)
    found = verdict(tmp_path, claim())
    assert found.status == status
    assert found.judge is not None
    assert found.judge.difference == pytest.approx(off, abs=0.02)  # the printed folds' mean is 68.1525
    assert found.judge.seeds == 1


@pytest.mark.parametrize(("offs", "status"), [((2, 3, 4), "differs"), ((1, 3, 5), "verified")])
def test_several_seeds_are_judged_by_their_spread(offs: tuple[int, ...], status: str, tmp_path: Path) -> None:
    for seed, off in enumerate(offs):
        measure(tmp_path, claim(), off=off, seed=seed)
    found = verdict(tmp_path, claim())
    assert found.judge is not None
    assert found.judge.mean is not None
    assert found.judge.mean.mean == pytest.approx(68.15 + 3, abs=0.01)
    assert found.judge.mean.std == pytest.approx(offs[1] - offs[0], abs=0.01)
    assert found.status == status


def test_only_seeds_with_all_folds_have_a_mean(tmp_path: Path) -> None:
    measure(tmp_path, claim())
    measure(tmp_path, claim(), [0, 1], off=-30, seed=1)
    found = verdict(tmp_path, claim())
    assert found.judge is not None
    assert found.judge.seeds == 1
    assert found.status == "verified"
    for fold, value in zip(found.judge.folds, claim().folds, strict=True):
        assert fold is not None
        assert fold.mean == pytest.approx(value)


def test_last_weights_judge_before_the_best_on_novel_classes(tmp_path: Path) -> None:
    measure(tmp_path, claim(), checkpoint="best")
    assert verdict(tmp_path, claim()).status == "verified"
    assert main([str(tmp_path)]) == 0
    for name in ("report.md", "report.html"):
        assert "selected on novel classes" in (tmp_path / name).read_text().split("1-shot")[0]
    measure(tmp_path, claim(), off=-2)
    found = verdict(tmp_path, claim())
    assert found.status == "differs"
    assert [(m.weights, m.selection, m.status) for m in found.measured] == [
        ("last", "none", "differs"),
        ("best", "novel classes", "verified"),
    ]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"protocol": "custom"}, "protocol custom"),
        ({"shot": 1, "train_shot": 5}, "trained with 5-shot"),
    ],
)
def test_other_protocols_are_shown_and_do_not_count(more: dict[str, Any], why: str, tmp_path: Path) -> None:
    measure(tmp_path, claim(), **more)
    found = verdict(tmp_path, claim())
    assert found.judge is None
    assert found.status == "running" if "protocol" in more else "not run"
    (shown,) = found.measured
    assert shown.difference == pytest.approx(0, abs=0.02)
    assert why in shown.does_not_count


def test_other_recipe_is_shown_and_does_not_count(tmp_path: Path) -> None:
    measure(tmp_path, claim(), [0])
    identity: dict[str, Any] = {"dataset": "pascal5i", "method": "pfenet", "tuning": "svf", "backbone": "resnet50"}
    made_up.run(tmp_path, ["dataset.epochs=2", "dataset.root=/data"], **identity)
    found = verdict(tmp_path, claim())
    assert found.status == "not run"
    assert found.measured[0].own_settings == ("dataset.epochs=2",)
    assert "recipe" in found.measured[0].does_not_count


@pytest.mark.parametrize(
    "changes",
    [
        {"eval_classes": "base"},
        {"support_annotation": "box"},
        {"train_dataset": "coco20i"},
    ],
)
def test_other_questions_belong_to_no_claim(changes: dict[str, Any], tmp_path: Path) -> None:
    measure(tmp_path, claim(), changes=changes)
    assert verdict(tmp_path, claim()).measured == []


def test_original_data_and_the_published_stem_are_told_apart(tmp_path: Path) -> None:
    kept = claim(tuning="frozen", exclude_novel=False)
    measure(tmp_path / "novel-kept", kept, protocol="pfenet")
    measure(tmp_path, claim(tuning="frozen"), backbone="resnet50_deep")
    found = verdict(tmp_path, kept)
    assert found.status == "verified"
    assert found.measured[0].place == "novel-kept"
    found = verdict(tmp_path, claim(tuning="frozen"))
    assert found.status == "verified"
    assert found.measured[0].backbone == "resnet50_deep"


def test_checkpoint_files_count_fold_by_fold(tmp_path: Path) -> None:
    for fold, value in enumerate(claim().folds):
        identity: dict[str, Any] = {"dataset": "pascal5i", "fold": fold}
        folder = made_up.evaluation(
            tmp_path / "files", value / 100, changes={"checkpoint": f"their{fold}.pth"}, **identity
        )
        folder.rename(tmp_path / f"their{fold}-evaluation")
    found = verdict(tmp_path, claim())
    assert found.status == "verified"
    assert found.measured[0].weights == "file"


def words(line: str) -> dict[str, str]:
    program, script, *typed = shlex.split(line)
    assert program == "python"
    return {"script": script, **dict(word.split("=") for word in typed if word != "-m")}


def test_commands_for_what_misses(tmp_path: Path) -> None:
    measure(tmp_path, claim(), [0], seed=3)
    identity: dict[str, Any] = {
        "dataset": "pascal5i",
        "method": "pfenet",
        "tuning": "svf",
        "backbone": "resnet50",
        "seed": 3,
    }
    made_up.run(tmp_path, fold=1, **identity)
    made_up.run(tmp_path, fold=2, has_trained=False, **identity)
    found = verdict(tmp_path, claim())
    assert found.begun == [(1, 3), (2, 3)]
    train, evaluate = map(words, commands(found, Found(tmp_path)))
    assert (train["script"], train["fold"], train["seed"]) == ("train.py", "2,3", "3")
    assert train["resume"] == "true"
    assert (evaluate["script"], evaluate["fold"], evaluate["seed"]) == ("evaluate.py", "1", "3")
    assert train["outputs"] == "DIR_OF_RUNS"  # no absolute path in what is shared
    measure(tmp_path, claim(), seed=3)
    assert commands(verdict(tmp_path, claim()), Found(tmp_path)) == []


def test_bam_needs_its_base_learner_first(tmp_path: Path) -> None:
    made_up.run(tmp_path, dataset="pascal5i", method="base", fold=1)
    made_up.run(tmp_path, dataset="pascal5i", method="base", fold=2, has_trained=False)
    base, bam = map(words, commands(verdict(tmp_path, claim("bam")), Found(tmp_path)))
    assert (base["method"], base["fold"]) == ("base", "0,2,3")
    assert (bam["method"], bam["tuning"], bam["fold"]) == ("bam", "svf", "0,1,2,3")


def test_original_data_at_five_shots_asks_a_model_of_one(tmp_path: Path) -> None:
    kept = claim(tuning="frozen", exclude_novel=False, shot=5)
    train, evaluate = map(words, commands(verdict(tmp_path, kept), Found(tmp_path)))
    assert train["shot"] == "1"
    assert (evaluate["shot"], evaluate["train_shot"], evaluate["protocol"]) == ("5", "1", "pfenet")
    assert train["dataset.exclude_novel"] == evaluate["dataset.exclude_novel"] == "false"
    measure(tmp_path / "novel-kept", kept, protocol="pfenet", train_shot=1)
    assert verdict(tmp_path, kept).status == "verified"


def test_every_command_composes(tmp_path: Path) -> None:
    """And trains and evaluates what the claim is of, in a folder where the report looks."""
    found = Found(tmp_path)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for v in verify([c for c in CLAIMS if c.dataset == "pascal5i"], found):
            for line in commands(v, found):
                told = words(line)
                script = told.pop("script").removesuffix(".py")
                cfg = compose(script, [f"{k}={v.partition(',')[0]}" for k, v in told.items()])
                assert cfg.run_dir.startswith("DIR_OF_RUNS/")
                if cfg.method.name != "base":
                    c = v.claim
                    assert (cfg.dataset.name, cfg.backbone.name, cfg.method.name, cfg.tuning.name) == c[:1] + c[
                        1:4
                    ]
                    assert cfg.dataset.exclude_novel == c.exclude_novel


def test_report_with_all_runs(tmp_path: Path) -> None:
    """Every claim is measured, each a little more off than the one before it."""
    for i, of in enumerate(CLAIMS):
        train_shot = None if of.train_shot == of.shot else of.train_shot
        place = tmp_path if of.exclude_novel else tmp_path / "novel-kept"
        more: dict[str, Any] = {"protocol": of.source.protocols[0], "train_shot": train_shot, "has_run": False}
        measure(place, of, off=i / 50, **more)
    assert main([str(tmp_path)]) == 0
    verdicts = verify(CLAIMS, Found(tmp_path))
    assert [v.status for v in verdicts[:48]] == ["verified"] * 48
    assert verdicts[-1].status == "differs"
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "not run" not in text.split("verify first")[1]
        assert "python train.py" not in text
        for v in verdicts:
            assert v.judge is not None
            assert v.judge.mean is not None
            assert f"{v.judge.mean.mean:.2f}" in text
