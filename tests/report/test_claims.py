"""Published claims and what was measured of them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from support import made_up

from fss.report.__main__ import main
from fss.report.claims import Claim, load_claims, published
from fss.report.commands import commands
from fss.report.found import Found
from fss.report.verify import Verdict, verify

CLAIMS = load_claims()


def claim(
    method: str = "pfenet",
    tuning: str = "svf",
    exclude_novel: bool = True,
    shot: int = 1,
    backbone: str = "resnet50",
) -> Claim:
    told = ("pascal5i", backbone, method, tuning, exclude_novel, shot)
    (found,) = [c for c in CLAIMS if c[:6] == told]
    return found


def identity_of(of: Claim, **changes: Any) -> dict[str, Any]:
    told = ("dataset", "method", "tuning", "shot", "exclude_novel")
    return {**{key: getattr(of, key) for key in told}, "backbone": of.network, **changes}


def measure(outputs: Path, of: Claim, folds: Any = range(4), off: float = 0.0, seed: int = 0, **more: Any) -> None:
    """Evaluates some folds of a claim as published, unless told otherwise, so many points off."""
    identity = identity_of(of, seed=seed, shot=more.pop("shot", of.shot))
    identity |= {key: more.pop(key) for key in ("backbone", "exclude_novel") if key in more}
    run = {key: more.pop(key) for key in ("overrides", "settings") if key in more}
    has_run = more.pop("has_run", True)
    more = {"checkpoint": "best", "protocol": of.source.protocol, "recipe": of.recipe, **more}
    for fold in folds:
        if has_run:
            told = {**identity, "fold": fold, "shot": more.get("train_shot") or identity["shot"]}
            made_up.run(outputs, recipe=more["recipe"], **run, **told)
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


def test_best_validation_judges_and_the_last_checkpoint_stands_beside_it(tmp_path: Path) -> None:
    measure(tmp_path, claim(), off=-5, checkpoint="last")
    found = verdict(tmp_path, claim())
    assert found.status == "running"  # trained, but not evaluated in the published way
    assert found.judge is None
    assert "last checkpoint" in found.measured[0].does_not_count
    measure(tmp_path, claim())
    found = verdict(tmp_path, claim())
    assert found.status == "verified"
    assert [(m.way.weights, m.way.selection, m.status) for m in found.measured] == [
        ("best", "novel classes", "verified"),
        ("last", "none", None),
    ]
    assert found.last == found.measured[1]
    assert main([str(tmp_path)]) == 0
    for name in ("report.md", "report.html"):
        first = (tmp_path / name).read_text().split("verify first")[1].split("1-shot")[0]
        assert "68.15" in first
        assert "63.15" in first


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"protocol": "custom"}, "protocol custom"),
        ({"protocol": "bam", "eval_seeds": (510, 365, 382, 322, 988)}, "protocol bam"),
        ({"eval_seeds": (5,)}, "1000 episodes of seed 5"),
        ({"changes": {"episodes": 100}}, "100 episodes of seed 321"),
        ({"shot": 1, "train_shot": 5}, "trained with 5-shot"),
        ({"backbone": "resnet50"}, "torchvision's stem"),
        ({"recipe": "bam"}, "recipe bam, not recipe svf"),
        ({"recipe": None}, "before recipes were recorded"),
    ],
)
def test_other_ways_are_shown_and_do_not_count(more: dict[str, Any], why: str, tmp_path: Path) -> None:
    measure(tmp_path, claim(), **more)
    found = verdict(tmp_path, claim())
    assert found.judge is None
    is_trained_as_published = not more.keys() & {"train_shot", "backbone", "recipe"}
    assert found.status == ("running" if is_trained_as_published else "not run")
    (shown,) = found.measured
    assert shown.difference == pytest.approx(0, abs=0.02)
    assert shown.status is None
    assert why in shown.does_not_count
    main([str(tmp_path)])
    assert why.replace("'", "&#39;") in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"differs_from_recipe": {"dataset.epochs": [2, 200]}}, "dataset.epochs=2"),
        ({"differs_from_recipe": {"tuning.stages": [[3, 4], [2, 3, 4]]}}, "tuning.stages=[3, 4]"),
        ({"differs_from_recipe": {"patience": [None, 75]}}, "patience=null"),
        ({"backbone": {"name": "resnet50_deep", "weights": None}}, "backbone.weights=null"),
    ],
)
def test_own_settings_are_shown_and_do_not_count(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    measure(tmp_path, claim(), settings=settings)
    found = verdict(tmp_path, claim())
    assert found.status == "not run"
    (shown,) = found.measured
    assert shown.way.own_settings == (told,)
    assert "recipe" in shown.does_not_count


@pytest.mark.parametrize(
    "overrides",
    [["backbone.weights=resnet50_v2.pth"], ["trainer=ddp", "precision=bf16-mixed"], ["dataset.epochs=200"]],
)
def test_what_is_typed_and_does_not_differ_counts(overrides: list[str], tmp_path: Path) -> None:
    measure(tmp_path, claim(), overrides=overrides)
    assert verdict(tmp_path, claim()).status == "verified"


def test_runs_from_before_recipes_show_what_was_typed(tmp_path: Path) -> None:
    measure(tmp_path, claim(), recipe=None, overrides=["dataset.epochs=9", "backbone.weights=a.pth", "cache_gb=1"])
    (shown,) = verdict(tmp_path, claim()).measured
    assert shown.way.own_settings == ("dataset.epochs=9",)
    assert shown.way.recipe is None


def test_base_learner_with_own_settings_does_not_count(tmp_path: Path) -> None:
    start = {"start": "base_learner", "backbone": {"name": "resnet50_deep", "weights": None}}
    measure(tmp_path, claim("bam"), settings=start)
    base: dict[str, Any] = {"dataset": "pascal5i", "method": "base", "backbone": "resnet50_deep"}
    for fold in range(4):
        made_up.run(tmp_path, fold=fold, **base)
    assert verdict(tmp_path, claim("bam")).status == "verified"
    for fold in range(4):
        short = {"differs_from_recipe": {"dataset.base.epochs": [1, 100]}}
        made_up.run(tmp_path, fold=fold, settings=short, **base)
    (shown,) = verdict(tmp_path, claim("bam")).measured
    assert shown.way.own_settings == ("base learner: dataset.base.epochs=1",)
    assert shown.status is None
    base_line, train_line, _ = commands(verdict(tmp_path, claim("bam")), Found(tmp_path))
    assert "resume" not in base_line + train_line  # all of it is trained again
    named = ["method.base_checkpoint=their.pth"]
    measure(tmp_path, claim("bam"), settings=start, overrides=named)
    assert verdict(tmp_path, claim("bam")).status == "verified"


def test_results_without_their_run_say_how_they_were_trained(tmp_path: Path) -> None:
    measure(tmp_path, claim(), has_run=False)
    assert verdict(tmp_path, claim()).status == "verified"
    measure(tmp_path, claim(), has_run=False, changes={"differs_from_recipe": {"patience": [None, 75]}})
    found = verdict(tmp_path, claim())
    assert found.status == "not run"
    assert found.measured[0].way.own_settings == ("patience=null",)


@pytest.mark.parametrize(
    ("of", "recipe", "network"),
    [
        (claim(), "svf", "resnet50_deep"),
        (claim(tuning="frozen"), "svf", "resnet50_deep"),
        (claim("baseline", "frozen"), "svf", "resnet50_deep"),
        (claim("bam"), "svf", "resnet50_deep"),
        (claim("bam", "frozen"), "bam", "resnet50_deep"),
        (claim(tuning="frozen", exclude_novel=False), "pfenet", "resnet50_deep"),
        (claim("bam", "frozen", backbone="vgg16"), "bam", "vgg16"),
    ],
)
def test_recipe_and_network_of_a_claim(of: Claim, recipe: str, network: str, tmp_path: Path) -> None:
    assert (of.recipe, of.network) == (recipe, network)
    place = tmp_path / "novel-kept" if not of.exclude_novel else tmp_path
    measure(place, of)
    assert verdict(tmp_path, of).status == "verified"


@pytest.mark.parametrize(
    "changes",
    [
        {"eval_classes": "base"},
        {"support_annotation": "box"},
        {"adapt": True},
        {"changed": ["size-321"]},
        {"train_dataset": "coco20i"},
    ],
)
def test_other_questions_belong_to_no_claim(changes: dict[str, Any], tmp_path: Path) -> None:
    measure(tmp_path, claim(), changes=changes)
    assert verdict(tmp_path, claim()).measured == []


def test_original_data_and_the_published_stem_are_told_apart(tmp_path: Path) -> None:
    kept = claim(tuning="frozen", exclude_novel=False)
    measure(tmp_path / "novel-kept", kept)
    measure(tmp_path, claim(tuning="frozen"), off=5, backbone="resnet50")
    measure(tmp_path, claim(tuning="frozen"))
    found = verdict(tmp_path, kept)
    assert found.status == "verified"
    assert found.measured[0].way.place == "novel-kept"
    found = verdict(tmp_path, claim(tuning="frozen"))
    assert found.status == "verified"
    assert [m.way.backbone for m in found.measured] == ["resnet50_deep", "resnet50"]


def test_checkpoint_files_are_shown_fold_by_fold(tmp_path: Path) -> None:
    for fold, value in enumerate(claim().folds):
        folder = made_up.evaluation(
            tmp_path / "files",
            value / 100,
            changes={"checkpoint": f"their{fold}.pth"},
            **identity_of(claim(), fold=fold),
        )
        folder.rename(tmp_path / f"their{fold}-evaluation")
    found = verdict(tmp_path, claim())
    assert found.status == "not run"
    (shown,) = found.measured
    assert shown.way.weights == "file"
    assert shown.difference == pytest.approx(0, abs=0.02)
    assert shown.does_not_count == "checkpoint files, whose training is not known"


def words(line: str) -> dict[str, str]:
    program, script, *typed = shlex.split(line)
    assert program == "python"
    return {"script": script, **dict(word.split("=", 1) for word in typed if word != "-m")}


def test_commands_for_what_is_missing(tmp_path: Path) -> None:
    identity = identity_of(claim(), seed=3)
    base = {**identity, "method": "base"}
    measure(tmp_path, claim(), [0], seed=3)
    made_up.run(tmp_path, fold=1, **identity)
    made_up.run(tmp_path, fold=2, has_trained=False, **identity)
    made_up.run(tmp_path, fold=2, **base)
    found = verdict(tmp_path, claim())
    assert found.begun == [(1, 3), (2, 3)]
    base_learner, train, resume, evaluate = map(words, commands(found, Found(tmp_path)))
    assert (base_learner["method"], base_learner["fold"], base_learner["seed"]) == ("base", "3", "3")
    assert (train["script"], train["fold"], train["seed"]) == ("train.py", "3", "3")
    assert "resume" not in train
    assert (resume["fold"], resume["resume"]) == ("2", "true")
    assert (evaluate["script"], evaluate["fold"], evaluate["seed"]) == ("evaluate.py", "1,2,3", "3")
    assert (evaluate["checkpoint"], evaluate["protocol"]) == ("both", "svf")
    assert train["outputs"] == "DIR_OF_RUNS"  # no absolute path in what is shared
    assert train["backbone.weights"] == "resnet50_v2.pth"
    measure(tmp_path, claim(), seed=3)
    assert commands(verdict(tmp_path, claim()), Found(tmp_path)) == []


def test_commands_continue_where_the_runs_are(tmp_path: Path) -> None:
    measure(tmp_path / "published", claim(), [0])
    assert all(
        words(line)["outputs"] == "DIR_OF_RUNS/published"
        for line in commands(verdict(tmp_path, claim()), Found(tmp_path))
    )


def test_original_data_at_five_shots_asks_a_model_of_one(tmp_path: Path) -> None:
    kept = claim(tuning="frozen", exclude_novel=False, shot=5)
    train, evaluate = map(words, commands(verdict(tmp_path, kept), Found(tmp_path)))
    assert train["shot"] == "1"
    assert (evaluate["shot"], evaluate["train_shot"], evaluate["protocol"]) == ("5", "1", "pfenet")
    assert train["recipe"] == evaluate["recipe"] == "pfenet"
    assert train["outputs"] == evaluate["outputs"] == "DIR_OF_RUNS/novel-kept"
    measure(tmp_path / "novel-kept", kept, [0], train_shot=1)
    _, evaluate = map(words, commands(verdict(tmp_path, kept), Found(tmp_path)))
    assert (evaluate["fold"], evaluate["outputs"]) == ("1,2,3", "DIR_OF_RUNS/novel-kept")
    measure(tmp_path / "novel-kept", kept, train_shot=1)
    assert verdict(tmp_path, kept).status == "verified"


def test_report_with_all_runs(tmp_path: Path) -> None:
    """Every claim is measured, each a little more off than the one before it."""
    for i, of in enumerate(CLAIMS):
        train_shot = None if of.train_shot == of.shot else of.train_shot
        place = tmp_path if of.exclude_novel else tmp_path / "novel-kept"
        measure(place, of, off=i / 50, train_shot=train_shot, has_run=False)
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
