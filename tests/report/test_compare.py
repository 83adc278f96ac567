"""Two runs on the same episodes: pairing, the bootstrap against brute force, and its coverage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import made_up

from fss.evaluation.results import EpisodeResult, summarize
from fss.report.__main__ import main
from fss.report.compare import Pair, compare, find_pairs


def both(rng: np.random.Generator, n: int, classes: int, better: float, eval_seed: int = 321) -> Any:
    """Made-up episodes of two runs: hard ones are hard for both, B is a little better."""
    rows: tuple[list[EpisodeResult], list[EpisodeResult]] = ([], [])
    for number in range(n):
        class_id = 1 + int(rng.integers(classes))
        union, ease = int(rng.lognormal(9)), rng.normal(0.3, 1)
        for run, of in enumerate(rows):
            iou = 1 / (1 + np.exp(-(ease + rng.normal(0, 0.5) + better * run)))
            told = (eval_seed, number, class_id, f"c{class_id}", f"q{number}", (f"s{number}",))
            of.append(EpisodeResult(*told, int(iou * union), union, 0, 1))
    return rows


def pair(episodes: Any, fold: int = 0, seed: int = 0, always: dict[int, str] | None = None) -> Pair:
    metrics = [{"fold": fold, "seed": seed, **summarize(of, always)} for of in episodes]
    return Pair(f"fold{fold}/seed{seed}", (metrics[0], metrics[1]), episodes)


def miou_difference(episodes: Any) -> float:
    a, b = (summarize(of)["miou"] for of in episodes)
    return b - a


def test_values_are_those_of_the_metrics() -> None:
    rng = np.random.default_rng(0)
    first, second = (both(rng, 60, 3, 0.3, eval_seed) for eval_seed in (1, 2))
    episodes = [a + b for a, b in zip(first, second, strict=True)]
    result = compare([pair(episodes)], resamples=100)
    for run, value in enumerate((result.miou.a, result.miou.b)):
        metrics = summarize(episodes[run])
        assert value == pytest.approx(metrics["miou"])
        classes = {row.label: (row.a, row.b)[run] for row in result.classes}
        assert classes == pytest.approx({name: c["iou"] for name, c in metrics["classes"].items()})
    assert result.miou.difference == pytest.approx(miou_difference(episodes))
    assert result.episodes == 120


def test_classes_that_count_as_0_belong_to_the_mean() -> None:
    episodes = both(np.random.default_rng(0), 60, 3, 0.3)
    result = compare([pair(episodes, always={2: "c2", 9: "never"})], resamples=100)
    a, b = (summarize(of, {9: "never"})["miou"] for of in episodes)
    assert (result.miou.a, result.miou.b) == pytest.approx((a, b))
    assert result.miou.difference == pytest.approx(3 / 4 * miou_difference(episodes))


def test_interval_equals_that_of_brute_force() -> None:
    """Episode by episode in plain Python, with chance of its own: equal to the chance of both."""
    episodes = both(np.random.default_rng(1), 90, 3, 0.2)
    result = compare([pair(episodes)], resamples=4000)
    rng = np.random.default_rng(2)
    differences = []
    for _ in range(1500):
        drawn: tuple[list[EpisodeResult], list[EpisodeResult]] = ([], [])
        for class_id in range(1, 4):
            of_class = [i for i, episode in enumerate(episodes[0]) if episode.class_id == class_id]
            for i in rng.choice(of_class, len(of_class)):
                for run in range(2):
                    drawn[run].append(episodes[run][i])
        differences.append(miou_difference(drawn))
    low, high = np.quantile(differences, (0.025, 0.975))
    assert result.miou.interval == pytest.approx((low, high), abs=0.15 * (high - low))
    assert result.miou.better == pytest.approx(np.mean(np.array(differences) > 0), abs=0.05)


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    truth = miou_difference(both(rng, 40_000, 4, 0.2))
    held = 0
    for i in range(200):
        low, high = compare([pair(both(rng, 160, 4, 0.2))], resamples=400, seed=i).miou.interval
        held += low <= truth <= high
    assert 180 <= held <= 198  # 190 expected, standard deviation 3


def test_pairing_is_what_makes_the_interval_small() -> None:
    """Against the same episodes dealt out anew, so that hard ones no longer meet."""
    episodes = both(np.random.default_rng(4), 200, 2, 0.2)
    a, b = ({c: [e for e in of if e.class_id == c] for c in (1, 2)} for of in episodes)
    shuffled = [
        e._replace(intersection=o.intersection, union=o.union)
        for c in a
        for e, o in zip(a[c], b[c][::-1], strict=True)
    ]
    paired = compare([pair(episodes)], resamples=500).miou
    unpaired = compare([pair((a[1] + a[2], shuffled))], resamples=500).miou
    assert paired.difference == pytest.approx(unpaired.difference)
    widths = [row.interval[1] - row.interval[0] for row in (paired, unpaired)]
    assert widths[0] < 0.6 * widths[1]


def test_equal_runs_differ_by_nothing() -> None:
    episodes = both(np.random.default_rng(5), 40, 2, 0.0)
    row = compare([pair((episodes[0], episodes[0]))], resamples=100).miou
    assert (row.difference, row.interval, row.better) == (0, (0, 0), 0.5)


def test_seed_makes_the_interval_the_same() -> None:
    episodes = both(np.random.default_rng(6), 40, 2, 0.1)
    assert compare([pair(episodes)], 200, seed=1) == compare([pair(episodes)], 200, seed=1)
    assert (
        compare([pair(episodes)], 200, seed=1).miou.interval
        != compare([pair(episodes)], 200, seed=2).miou.interval
    )


def test_folds_make_the_interval_smaller_seeds_on_the_same_episodes_do_not() -> None:
    """The same numbers as another fold are other episodes; as another training seed they bring nothing new."""
    episodes = both(np.random.default_rng(7), 100, 2, 0.2)
    width = {}
    for name, more in (("one", []), ("seed", [pair(episodes, seed=1)]), ("fold", [pair(episodes, fold=1)])):
        low, high = compare([pair(episodes), *more], resamples=4000).miou.interval
        width[name] = high - low
    assert width["seed"] == pytest.approx(width["one"])
    assert width["fold"] == pytest.approx(width["one"] / 2**0.5, rel=0.1)


def test_training_seeds_are_told_apart() -> None:
    rng = np.random.default_rng(8)
    episodes = both(rng, 60, 2, 0.3)
    other = (episodes[1], episodes[0])  # where B is worse by as much
    result = compare([pair(episodes), pair(other, seed=1)], resamples=100)
    assert result.miou.difference == pytest.approx(0)
    assert result.of_seed[0] == pytest.approx(-result.of_seed[1])
    assert result.of_seed[0] == pytest.approx(miou_difference(episodes))
    with pytest.raises(ValueError, match="both of fold 0, but have different episodes"):
        compare([pair(episodes), pair(both(rng, 60, 2, 0.3), seed=1)])


def test_runs_of_one_place_are_paired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(9)
    for fold in range(2):
        for tuning, rows in zip(("frozen", "svf"), both(rng, 50, 2, 0.5), strict=True):
            made_up.evaluation(tmp_path, tuning=tuning, fold=fold, made=rows)
    made_up.evaluation(tmp_path, tuning="svf", checkpoint="best")
    a, b = (tmp_path / f"shapes/pfenet-{tuning}-resnet50" for tuning in ("frozen", "svf"))
    (pairs,), alone = find_pairs(a, b)
    assert [p.name for p in pairs] == [f"1shot/fold{fold}/seed0/results/last-svf" for fold in range(2)]
    assert alone == [str(b / "1shot/fold0/seed0/results/best-svf")]
    assert main(["compare", str(a), str(b), "--resamples", "200"]) == 0
    told = capsys.readouterr().out
    expected = compare(pairs, 200).miou
    assert f"{100 * expected.difference:+.1f}" in told
    assert "folds [0, 1]" in told
    assert "One training seed" in told
    assert "only one has" in told


def test_two_choices_of_weights_of_one_run(tmp_path: Path) -> None:
    last = made_up.evaluation(tmp_path, 0.5)
    best = made_up.evaluation(tmp_path, 0.6, checkpoint="best")
    ((both_of_run,),), alone = find_pairs(last, best)
    assert alone == []
    assert compare([both_of_run], 100).miou.difference == pytest.approx(0.1)


def test_tuning_on_supports_is_compared_with_none_and_never_averaged_with_it(tmp_path: Path) -> None:
    rows = both(np.random.default_rng(3), 40, 2, 0.5)
    for tuning, usual, adapted in (("frozen", 0, 1), ("svf", 1, 0)):
        made_up.evaluation(tmp_path, tuning=tuning, made=rows[usual])
        made_up.evaluation(tmp_path, tuning=tuning, made=rows[adapted], changes={"adapt": True})
    frozen, svf = (tmp_path / f"shapes/pfenet-{tuning}-resnet50" for tuning in ("frozen", "svf"))
    results = frozen / "1shot/fold0/seed0/results"
    ((of_run,),), _ = find_pairs(results / "last-svf", results / "last-svf-adapt")
    assert compare([of_run], 100).miou.difference == pytest.approx(miou_difference(rows))
    groups, alone = find_pairs(frozen, svf)
    assert alone == []
    gained = [compare(pairs, 100).miou.difference for pairs in groups]
    assert gained == [pytest.approx(sign * miou_difference(rows)) for sign in (1, -1)]


def test_what_was_changed_is_compared_with_what_was_not(tmp_path: Path) -> None:
    """Below two folders, whose results' names differ by it; but nothing is guessed where there are several."""
    rows = both(np.random.default_rng(3), 40, 2, 0.5)
    made_up.evaluation(tmp_path / "a", made=rows[0])
    other = made_up.evaluation(tmp_path / "b", made=rows[1], changes={"changed": ["refine-2", "size-321"]})
    assert other.name.endswith("-refine-2-size-321")
    for b in (tmp_path / "b", other):
        a = tmp_path / "a" if b.name == "b" else next((tmp_path / "a").rglob("last-*"))
        ((of_run,),), alone = find_pairs(a, b)
        assert alone == []
        assert compare([of_run], 100).miou.difference == pytest.approx(miou_difference(rows))
    second = made_up.evaluation(tmp_path / "b", made=rows[1], changes={"changed": ["size-321"]})
    with pytest.raises(FileNotFoundError, match="no evaluation has the same path"):
        find_pairs(tmp_path / "a", tmp_path / "b")
    made_up.evaluation(tmp_path / "b", made=rows[1])
    ((of_run,),), alone = find_pairs(tmp_path / "a", tmp_path / "b")
    assert of_run.metrics[1].get("changed") is None
    assert alone == sorted([str(other), str(second)])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"eval_seeds": (1,)}, r"eval_seeds \[321\] and \[1\]"),
        ({"shot": 5}, "shot 1 and 5"),
        ({"made": made_up.episodes(0.5, ["star", "ring"], each=3)}, "8 and 6 episodes"),
        ({"made": made_up.episodes(0.5, ["ring", "star"])}, "'star'.*and.*'ring'"),
    ],
)
def test_other_episodes_are_refused(
    change: dict[str, Any], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = made_up.evaluation(tmp_path)
    b = made_up.evaluation(tmp_path, tuning="frozen", **change)
    with pytest.raises(ValueError, match=f"do not have the same episodes .*{why}"):
        find_pairs(a, b)
    assert main(["compare", str(a), str(b)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert "same episodes" in told


def test_a_run_differs_from_itself_and_its_equals_by_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (made_up.evaluation(tmp_path, tuning=tuning) for tuning in ("svf", "frozen"))
    for other in (a, b):
        assert main(["compare", str(a), str(other), "--resamples", "100"]) == 0
        printed = capsys.readouterr()
        assert printed.out.count("+0.0 to +0.0") == 3
        assert not printed.err


def test_one_episode_of_a_class_makes_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = made_up.evaluation(tmp_path, made=made_up.episodes(0.5, ["star", "ring"], each=1))
    assert main(["compare", str(a), str(a)]) == 2
    assert capsys.readouterr().err == (
        "error: fold 0, seed 321: star has one episode, but an interval needs two or more of every class: "
        "evaluate with more (episodes=N)\n"
    )


def test_a_fault_of_the_program_has_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = made_up.evaluation(tmp_path)
    monkeypatch.setattr("fss.report.compare.compare", lambda *_: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        exec("main(['compare', str(a), str(a)])", {"main": main, "a": a})


def test_nothing_to_compare(tmp_path: Path) -> None:
    a = made_up.evaluation(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no metrics\.json below .*empty"):
        find_pairs(a, tmp_path / "empty")
    made_up.evaluation(tmp_path / "b", fold=1)
    with pytest.raises(FileNotFoundError, match="no evaluation has the same path"):
        find_pairs(tmp_path / "a", tmp_path / "b")
