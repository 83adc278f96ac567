"""How large the trainings behind a claim are: what recipes and data sets set, read from `conf`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from fss.configuration import conf_folder
from fss.files.plain import read_yaml
from fss.report.claims import FOLDS, Claim, training_pictures


class Training(NamedTuple):
    """One training, on each fold.

    Attributes:
        drawn: Episodes of an epoch by fold; of a base learner, pictures.
        epochs: Number of epochs, if it is not stopped before.
        batch_size: Episodes or pictures per step, over all processes.
        validations: Number of validations in all epochs.
        patience: Epochs without a new best validation after which it stops; None if it never does.
    """

    drawn: list[int]
    epochs: int
    batch_size: int
    validations: int
    patience: int | None = None

    @property
    def steps(self) -> list[int]:
        """Steps of all epochs, by fold."""
        return [self.epochs * (drawn // self.batch_size) for drawn in self.drawn]


def few_shot_training(claim: Claim) -> Training:
    """The training on episodes that a claim's recipe sets."""
    recipe, dataset = _read("recipe", claim.recipe), claim.dataset
    epochs = recipe["epochs"][dataset]
    between = recipe["check_val_every_n_epoch"].get(dataset, 1)
    within = recipe["val_check_interval"].get(dataset, 1.0)
    return Training(
        drawn=training_pictures()[dataset]["novel_excluded" if claim.exclude_novel else "novel_kept"],
        epochs=epochs,
        batch_size=recipe["batch_size"][dataset],
        validations=round(epochs // between / within),
        patience=recipe["patience"],
    )


def base_training(dataset: str) -> Training:
    """The training of a base learner."""
    base = _read("dataset", dataset)["base"]
    return Training(
        drawn=[training_pictures()[dataset]["base_learner"]] * FOLDS,
        epochs=base["epochs"],
        batch_size=base["batch_size"],
        validations=base["epochs"],
    )


def starts_from_base_learner(claim: Claim) -> bool:
    """Whether a claim's recipe starts from the backbone of a base learner; otherwise from ImageNet weights."""
    return _read("recipe", claim.recipe)["start"].get(claim.dataset) == "base_learner"


@cache
def _read(group: str, name: str) -> dict[str, Any]:
    return read_yaml(Path(conf_folder(), group, f"{name}.yaml"))
