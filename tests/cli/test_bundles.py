"""Bundled evaluations are run again in the precision that their metrics tell."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import made_up

from fss.cli import bundles
from fss.cli.bundles import Bundled, open_evaluation, run_again
from fss.evaluation.results import CHECKPOINTS, RECORD, EpisodeResult, read_metrics


class Episodes(dict[int, SimpleNamespace]):
    """One episode, as far as it is looked at."""

    geometry = "published"


def bundled(run: Path, **settings: Any) -> Bundled:
    (run / CHECKPOINTS).mkdir()
    (run / CHECKPOINTS / "model.safetensors").touch()
    episode = EpisodeResult(321, 0, 1, "cat", "q", ("s",), 1, 2, 3, 4)
    metrics = {"checkpoint": "last", "adapt": False, "config": settings}
    datamodule: Any = SimpleNamespace(evaluation=None)
    return Bundled(run, metrics, [episode], datamodule)


@pytest.mark.parametrize(("precision", "halved"), [("32-true", False), ("bf16-mixed", True)])
def test_in_its_own_precision(
    precision: str, halved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def integers(*given: Any) -> tuple[int, int, int, int]:
        seen.append(torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"))
        return 1, 2, 3, 4

    drawn = Episodes({0: SimpleNamespace(names=["q", "s"])})
    monkeypatch.setattr(bundles, "read_model", lambda file: (torch.nn.Identity(), None))
    monkeypatch.setattr(bundles, "with_seed", lambda episodes, seed: drawn)
    monkeypatch.setattr(bundles, "_integers", integers)
    again = run_again(bundled(tmp_path, precision=precision), 1)
    assert (again.equal, seen) == (1, [halved])


def test_a_record_of_settings_of_a_wrong_type_is_told(tmp_path: Path) -> None:
    results = made_up.evaluation(tmp_path)
    made_up.run(tmp_path, ["dataset.val_episodes=abc"])
    run = results.parents[1]
    message = f"{run / RECORD}: dataset.val_episodes=abc: must be a whole number"
    [metrics] = read_metrics(results).values()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        open_evaluation(results, {**metrics, "config": {}}, None)


@pytest.mark.parametrize("precision", ["8-true", None, ["32-true"]], ids=str)
def test_an_unknown_precision_is_named(precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "read_model", lambda file: (torch.nn.Identity(), None))
    with pytest.raises(ValueError, match=r"^precision .* of metrics\.json is none"):
        run_again(bundled(tmp_path, precision=precision), 1)
