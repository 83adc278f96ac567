"""Results: from episodes' integers to numbers, to files and back."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from fss.evaluation import results
from fss.evaluation.results import (
    EpisodeResult,
    episode_row,
    parse_episode,
    read_episodes,
    read_metrics,
    spread,
    summarize,
    write_results,
)
from fss.files.plain import write_json

IDENTITY: dict[str, Any] = {
    **dict.fromkeys(results.REQUIRED, ""),
    **dict.fromkeys(("fold", "shot", "train_shot", "seed", "episodes", "trained_parameters"), 1),
    **{"eval_seeds": [321, 322, 323], "train_seconds": None, "test_seconds": 2.5, "classes_left_out": []},
    **{"versions": {}, "config": {}},
}


@dataclass
class Made:
    episodes: list[EpisodeResult]
    metrics: dict[str, Any]


@pytest.fixture
def made() -> Made:
    chance = random.Random(0)
    episodes = []
    for seed in (321, 322, 323):
        for number in range(12):
            class_id = chance.randrange(1, 4)
            union, background = chance.randrange(50, 100), chance.randrange(200, 300)
            counts = (chance.randrange(union), union, chance.randrange(background), background)
            names = (f"c{class_id}, or so", f"{number}.jpg", ("a.jpg", "b.jpg"))
            episodes.append(EpisodeResult(seed, number, class_id, *names, *counts))
    return Made(episodes, {**IDENTITY, **summarize(episodes)})


def test_spread_is_students() -> None:
    values = [0.5, 0.6, 0.55, 0.7, 0.52]
    mean, std, interval = spread(values)
    low, high = stats.t.interval(0.95, 4, loc=mean, scale=stats.sem(values))
    assert std == pytest.approx(stats.tstd(values))
    assert interval == pytest.approx((low, high))
    assert spread([0.5]) == (0.5, None, None)


def test_numbers_do_not_depend_on_the_order(made: Made) -> None:
    shuffled = random.Random(1).sample(made.episodes, len(made.episodes))
    assert summarize(shuffled) == summarize(made.episodes)


def test_sums_of_a_class(made: Made) -> None:
    seed = made.metrics["seeds"][1]
    assert seed["eval_seed"] == 322
    for name, scores in seed["classes"].items():
        own = [e for e in made.episodes if e.eval_seed == 322 and e.class_name == name]
        assert scores["episodes"] == len(own)
        assert scores["iou"] == sum(e.intersection for e in own) / sum(e.union for e in own)
    assert seed["miou"] == pytest.approx(sum(c["iou"] for c in seed["classes"].values()) / len(seed["classes"]))
    mean, std, _ = spread([s["miou"] for s in made.metrics["seeds"]])
    assert (made.metrics["miou"], made.metrics["miou_std"]) == (mean, std)


def test_remarkable_episodes() -> None:
    counts = [(5, 10), (0, 10), (9, 10), (0, 90), (18, 20)]  # intersections and unions
    episodes = [EpisodeResult(321, i, 1, "c", "q", ("s",), *count, 0, 1) for i, count in enumerate(counts)]
    expected = {"episodes.png": [0, 1, 2], "worst.png": [3, 1, 0], "best.png": [4, 2, 0]}
    assert results.remarkable(reversed(episodes), 3) == expected
    assert results.remarkable(episodes, 9)["worst.png"] == [3, 1, 0, 4, 2]


def test_class_that_some_seeds_miss_has_the_mean_of_the_others() -> None:
    rows = [EpisodeResult(s, 0, c, f"c{c}", "q", ("s",), 1, 2, 1, 2) for s, c in ((1, 1), (2, 1), (2, 2))]
    summary = summarize(rows)
    assert summary["classes"]["c2"] == {"id": 2, "iou": 0.5, "iou_std": None}
    assert list(summary["seeds"][0]["classes"]) == ["c1"]


def test_classes_that_always_count() -> None:
    rows = [EpisodeResult(s, 0, c, f"c{c}", "q", ("s",), 1, 2, 1, 2) for s, c in ((1, 1), (2, 1), (2, 2))]
    plain, summary = summarize(rows), summarize(rows, {0: "c0", 2: "c2"})
    assert [seed["miou"] for seed in summary["seeds"]] == pytest.approx([0.5 / 3, 1 / 3])
    assert summary["miou"] == pytest.approx(0.25)
    assert list(summary["classes"]) == ["c0", "c1", "c2"]
    assert summary["classes"]["c2"]["iou"] == 0.25
    assert summary["seeds"][0]["classes"]["c2"]["episodes"] == 0
    assert summary["fb_iou"] == plain["fb_iou"]


def test_digest_of_episodes() -> None:
    rows = [
        EpisodeResult(321, i, c, "c", f"a/2007_{i}.jpg", (f"b/s{i}.png", "t.png"), 1, 2, 1, 2)
        for i, c in enumerate((7, 3, 3))
    ]
    lines = "7 2007_0 s0 t\n3 2007_1 s1 t\n3 2007_2 s2 t"
    expected = hashlib.sha256(lines.encode()).hexdigest()[:16]
    again = [row._replace(eval_seed=7, intersection=0) for row in rows]
    assert results.episode_digests([*rows[::-1], *again]) == {"7": expected, "321": expected}
    assert results.episode_digests(rows[:2])["321"] != expected


def test_files_are_read_as_they_were_written(made: Made, tmp_path: Path) -> None:
    write_results(tmp_path / "run", made.metrics, reversed(made.episodes))
    assert read_episodes(tmp_path / "run") == made.episodes
    (metrics,) = read_metrics(tmp_path).values()
    assert metrics == {"format": 2, **made.metrics}
    lines = (tmp_path / "run" / results.CLASSES).read_text().splitlines()
    assert len(lines) == 1 + sum(len(seed["classes"]) for seed in made.metrics["seeds"])
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    "names", [("a;b.jpg", "c.jpg"), ("[1].jpg",), ('"q".jpg', "ü;.jpg"), ("plain.jpg", "x.jpg")]
)
def test_names_of_any_kind_come_back(names: tuple[str, ...], tmp_path: Path) -> None:
    episode = EpisodeResult(321, 0, 1, "cat", "q;1.jpg", names, 1, 2, 3, 4)
    row = [str(value) for value in episode_row(episode)]
    assert parse_episode(row) == episode


def test_names_of_earlier_files_come_back() -> None:
    row = ["321", "0", "1", "cat", "q.jpg", "[old] 1.jpg;2.jpg", "1", "2", "3", "4"]
    assert parse_episode(row).supports == ("[old] 1.jpg", "2.jpg")


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"format": results.FORMAT, "miou": 1})])
def test_foreign_metrics_are_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(ValueError, match=r"metrics\.json is not a metrics file"):
        read_metrics(tmp_path)


def test_metrics_of_an_earlier_version_are_named(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"miou": 0.5})
    with pytest.raises(ValueError, match=r"metrics\.json has format 1, but this version reads 2: delete it"):
        read_metrics(tmp_path)


def test_damaged_episode_is_named(made: Made, tmp_path: Path) -> None:
    write_results(tmp_path, made.metrics, made.episodes)
    path = tmp_path / results.EPISODES
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ValueError, match=r"episodes\.csv, line 37: not an episode"):
        read_episodes(tmp_path)


def test_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/metrics.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
