"""Whether a metrics.json says what this program would have written: nothing else vouches for a received one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# What every metrics.json has, besides its format and the numbers that `summarize` makes.
_TEXTS = (
    *("dataset", "train_dataset", "method", "tuning", "backbone", "checkpoint", "selection", "protocol"),
    *("eval_classes", "support_annotation"),
)
_LONGEST = 4096  # characters of a text: a path
_NUMBERS = ("fold", "shot", "train_shot", "seed", "episodes")
_OTHERS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "train_seconds": (lambda v: v is None or is_amount(v), "a number of seconds"),
    "test_seconds": (lambda v: v is None or is_amount(v), "a number of seconds"),
    "trained_parameters": (lambda v: v is None or is_count(v), "a whole number"),
    "git_revision": (lambda v: v is None or isinstance(v, str), "a text"),
    "versions": (lambda v: isinstance(v, dict) and all(map(is_text, v.values())), "texts by name"),
    "config": (lambda v: isinstance(v, dict), "settings by name"),
    "classes_left_out": (lambda v: isinstance(v, list) and all(map(is_text, v)), "a list of names"),
    "eval_seeds": (lambda v: isinstance(v, list) and bool(v) and all(map(is_count, v)), "a list of seeds"),
    "seeds": (lambda v: isinstance(v, list) and bool(v), "a list of results"),
}
SUMS = (("intersection", "union"), ("background_intersection", "background_union"))


def check_metrics(metrics: Mapping[str, Any], summarize: Callable[..., dict[str, Any]]) -> None:
    """Looks whether all values are of their kind, and the results what their integers give.

    Args:
        metrics: With all entries there.
        summarize: What makes the results out of (eval_seed, class id, name, integers) of each class.

    Raises:
        ValueError: They are not; the message names the entry.
    """
    check_entries(metrics, (*_TEXTS, *_NUMBERS, *_OTHERS))
    check_changes(metrics)
    drawing = metrics.get("drawing", {})
    known = isinstance(drawing, dict) and drawing.get("absent", "zero") in ("zero", "leave_out")
    _check(known, "drawing", drawing, "how episodes are drawn and counted")
    sums = [row for number, seed in enumerate(metrics["seeds"]) for row in _sums(seed, f"seeds[{number}]")]
    _check(
        [s["eval_seed"] for s in metrics["seeds"]] == sorted(metrics["eval_seeds"]), "seeds", "", "of eval_seeds"
    )
    for key, expected in summarize(sums).items():
        _compare(metrics[key], expected, key)


def check_entries(told: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Looks whether entries of a metrics.json are of their kind.

    Raises:
        ValueError: One is not.
    """
    for key in keys:
        value = told[key]
        if key in _OTHERS:
            is_kind, kind = _OTHERS[key]
            _check(is_kind(value), key, value, kind)
        elif key in _NUMBERS:
            _check(is_count(value), key, value, "a whole number")
        else:
            _check(isinstance(value, str) and len(value) <= _LONGEST, key, value, "a text")


def check_changes(told: Mapping[str, Any]) -> None:
    """Looks whether `adapt` and `changed`, which older results lack, are of their kind.

    Raises:
        ValueError: One is not.
    """
    _check(isinstance(told.get("adapt", False), bool), "adapt", told.get("adapt"), "true or false")
    changed = told.get("changed", [])
    _check(isinstance(changed, list) and all(map(is_text, changed)), "changed", changed, "a list of words")


def check_training(training: Any) -> None:
    """Looks whether the values of a training.json are of their kind.

    Raises:
        ValueError: They are not; the message names the entry.
    """
    _check(isinstance(training, dict), "training.json", training, "values by name")
    for key, is_kind, kind in (
        ("seconds", is_amount, "a number of seconds"),
        ("parameters", is_count, "a whole number"),
    ):
        value = training.get(key)
        _check(value is None or is_kind(value), key, value, kind)


def is_text(value: Any) -> bool:
    """Whether a value is a text."""
    return isinstance(value, str)


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0 on that a 64-bit integer holds."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def is_amount(value: Any, least: float = 0.0) -> bool:
    """Whether a value is a finite number from `least` on."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and value >= least and abs(value) < 1e300


def _sums(seed: Any, place: str) -> list[tuple[Any, ...]]:
    """(eval_seed, class id, name, integers) of each class of a seed."""
    _check(isinstance(seed, dict) and is_count(seed.get("eval_seed")), place, seed, "a seed's result")
    classes = seed.get("classes")
    _check(isinstance(classes, dict) and bool(classes), f"{place}.classes", classes, "results by class")
    rows = []
    for name, scores in classes.items():
        where = f"{place}.classes.{name}"
        _check(isinstance(scores, dict), where, scores, "a class's result")
        for key in ("id", "episodes", *(key for pair in SUMS for key in pair)):
            _check(is_count(scores.get(key)), f"{where}.{key}", scores.get(key), "a whole number")
        for part, all_ in SUMS:
            _check(scores[part] <= scores[all_], f"{where}.{part}", scores[part], f"at most its {all_}")
        rows.append((seed["eval_seed"], scores["id"], name, *(scores[key] for pair in SUMS for key in pair)))
    return rows


def _compare(found: Any, expected: Any, place: str) -> None:
    """Raises a ValueError where results differ from what their integers give."""
    if isinstance(expected, dict):
        _check(
            isinstance(found, dict) and found.keys() - {"episodes"} == expected.keys(), place, found, "complete"
        )
        for key, value in expected.items():
            _compare(found[key], value, f"{place}.{key}")
    elif isinstance(expected, list):
        _check(isinstance(found, list) and len(found) == len(expected), place, found, "complete")
        for number, value in enumerate(expected):
            _compare(found[number], value, f"{place}[{number}]")
    elif isinstance(expected, float):
        same = is_amount(found, -math.inf) and math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)
        _check(same, place, found, f"{expected:g}, which its integers give")
    else:
        _check(type(found) is type(expected) and found == expected, place, found, f"{expected}")


def _check(condition: bool, place: str, value: Any, kind: str) -> None:
    if not condition:
        raise ValueError(f"{place} is {value!r:.200}, not {kind}")
