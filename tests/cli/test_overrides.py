"""Overrides are told apart by whole names of settings."""

from __future__ import annotations

import pytest

from fss.cli import overrides


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("fold=1", "fold"),
        ("++dataset.root='/x/a=b'", "dataset.root"),
        ("+search=s_lr", "search"),
        ("~logger", "logger"),
        ("dataset/reader=x", "dataset/reader"),
        ("dataset.fold_scheme=[[1,2],[3]]", "dataset.fold_scheme"),
    ],
)
def test_the_setting_of_an_override(override: str, name: str) -> None:
    assert overrides.setting(override) == name


def test_a_name_covers_its_parts_and_nothing_that_only_begins_like_it() -> None:
    typed = ["dataset=coco20i", "+dataset.root=x", "datasets=1", "shot=5", "shots=2", "seed=1", "seeds=[1]"]
    assert overrides.only(typed, "dataset") == ["dataset=coco20i", "+dataset.root=x"]
    assert overrides.without(typed, "dataset", "shot", "seed") == ["datasets=1", "shots=2", "seeds=[1]"]


def test_later_overrides_replace_earlier_ones_of_the_same_setting() -> None:
    assert overrides.merged(["a=1", "+b=2"], ["b=3", "c=4"]) == ["a=1", "b=3", "c=4"]


def test_old_names_become_new_ones() -> None:
    assert overrides.renamed("++dataset.pyramid=[1.0]", {"dataset.pyramid": "method.pyramid"}) == (
        "++method.pyramid=[1.0]"
    )
    assert overrides.renamed("dataset.pyramids=1", {"dataset.pyramid": "x"}) == "dataset.pyramids=1"


@pytest.mark.parametrize(
    "value",
    [
        "/plain/path-1.0",
        "/a=b",
        "~/x",
        "/with space/(1)",
        'a"b',
        "a\\b",
        "a\\",
        'a\\"b',
        "a,b",
        "[x]",
        "é",
        "a'b",
        "${x}",
    ],
)
def test_value_as_it_is_typed_is_read_again(value: str) -> None:
    assert overrides.parsed(overrides.typed("run_dir", value)).value() == value
