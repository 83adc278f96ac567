"""What an evaluation is of, written down once and handed to whatever makes its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fss.evaluation.results import results_folder


@dataclass(frozen=True)
class Record:
    """Everything that metrics.json says besides the numbers.

    Attributes:
        run: The run folder of the evaluated weights; None for a checkpoint file that stands alone.
        weights: "last", "best", or the checkpoint file.
        identity: Which weights on which classes: data set, method, fold, shots and so on, by key of metrics.json.
        protocol: Name of the protocol, "custom" where its numbers of episodes or its seeds were changed.
        episodes: Episodes of each seed.
        eval_seeds: Seeds of the episodes.
        training: `train_seconds` and `trained_parameters` of the weights, None where unknown.
        provenance: What made the result: revision, versions, the whole configuration.
    """

    run: Path | None
    weights: str
    identity: Mapping[str, Any]
    protocol: str
    episodes: int
    eval_seeds: Sequence[int]
    training: Mapping[str, Any]
    provenance: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where the results go: its name says what differs from the run and from the protocol."""
        told = self.identity
        parts = []
        if self.protocol == "custom":
            parts.append(f"{self.episodes}x{'+'.join(map(str, self.eval_seeds))}")
        parts += [told["eval_classes"]] * (told["eval_classes"] != "novel")
        parts += [told["support_annotation"]] * (told["support_annotation"] != "mask")
        parts += [f"{told['shot']}shot"] * (told["shot"] != told["train_shot"])
        parts += [f"on-{told['dataset']}"] * (told["dataset"] != told["train_dataset"])
        if self.run is not None:
            return results_folder(self.run, self.weights, self.protocol, "-".join(parts))
        # results of a file of one's own go beside it, not among the runs
        file = Path(self.weights)
        return file.with_name(f"{file.stem}-evaluation") / "-".join([self.protocol, *parts])
