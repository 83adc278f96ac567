"""The description of an evaluation, created once and passed to everything that writes its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss.evaluation.results import results_folder

DRAWING = ("draw", "workers", "absent")  # how a protocol draws its episodes


@dataclass(frozen=True)
class Record:
    """Everything in metrics.json except the scores.

    Attributes:
        run: Run folder of the evaluated weights; None for a checkpoint file outside of a run.
        weights: "last", "best", or the path of the checkpoint file.
        identity: Evaluated weights and classes (data set, method, fold, shot and so on), by key of metrics.json.
        protocol: Name of the protocol; "custom" if anything in it was changed.
        episodes: Number of episodes per seed.
        eval_seeds: Seeds of the episodes.
        drawing: How they are drawn and counted, by key: `draw`, `workers` and `absent`; see `FewShotDataModule`.
        changed: What of the evaluated pictures and of the model differs from the run, and of `adaptation` from its
            defaults, as words for the folder's name.
        training: `train_seconds` and `trained_parameters` of the weights, None if unknown.
        provenance: Revision, versions and the full configuration.
    """

    run: Path | None
    weights: str
    identity: Mapping[str, Any]
    protocol: str
    episodes: int
    eval_seeds: Sequence[int]
    drawing: Mapping[str, Any]
    changed: Sequence[str]
    training: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Folder of the results, whose name says what differs from the run and the protocol."""
        told = self.identity
        parts = []
        if self.protocol == "custom":
            parts.append(f"{self.episodes}x{'+'.join(map(str, self.eval_seeds))}")
            usual = {"draw": "drawn", "absent": "leave_out"}
            parts += [self.drawing[key] for key in usual if self.drawing[key] != usual[key]]
            parts += [f"{self.drawing['workers']}workers"] * (self.drawing["workers"] not in (None, 8))
        parts += [told["eval_classes"]] * (told["eval_classes"] != "novel")
        parts += [told["support_annotation"]] * (told["support_annotation"] != "mask")
        parts += [f"{told['shot']}shot"] * (told["shot"] != told["train_shot"])
        parts += [f"on-{told['dataset']}"] * (told["dataset"] != told["train_dataset"])
        parts += ["adapt"] * told["adapt"]
        parts += self.changed
        if self.run is not None:
            return results_folder(self.run, self.weights, self.protocol, "-".join(parts))
        # results of a checkpoint file outside of a run are written beside it
        file = Path(self.weights)
        own = file.name if file.suffix == ".onnx" else file.stem  # there may be a model.safetensors too
        return file.with_name(f"{own}-evaluation") / "-".join([self.protocol, *parts])
