"""`train.py`, `evaluate.py` and `predict.py`; an installed package has them as `fss-train` and so on."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import hydra
from omegaconf import DictConfig

from fss.cli.errors import run_script
from fss.configuration import conf_folder
from fss.processes.cores import share_cores


@hydra.main(version_base="1.3", config_path=conf_folder(), config_name="train")
def train(cfg: DictConfig) -> float:
    """Returns what a sweeper can maximise: the final mIoU of the evaluated classes."""
    with _imports():
        from fss.cli import runs

    return runs.train(cfg)


@hydra.main(version_base="1.3", config_path=conf_folder(), config_name="evaluate")
def evaluate(cfg: DictConfig) -> None:
    """Does every evaluation that was asked for; of several folds it also prints the mean."""
    with _imports():
        from fss.cli import evaluations

    evaluations.evaluate(cfg)


@hydra.main(version_base="1.3", config_path=conf_folder(), config_name="predict")
def predict(cfg: DictConfig) -> None:
    """Segments pictures; exits with 1 if some could not be used."""
    with _imports():
        from fss.cli import predictions

    if predictions.predict(cfg).skipped:
        sys.exit(1)


def run_train() -> None:
    """`fss-train`."""
    run_script(train)


def run_evaluate() -> None:
    """`fss-evaluate`."""
    run_script(evaluate)


def run_predict() -> None:
    """`fss-predict`."""
    run_script(predict)


@contextmanager
def _imports() -> Iterator[None]:
    """Around the imports that bring torch and Lightning: after Hydra has composed, so that --help need not wait.

    Two things would make them a third slower. They leave hardly any garbage, yet looking for it takes a fifth of
    their time; what is imported stays, so later searches leave it out too. And timm takes W&B in for a training
    script of its own, if it can; a run that logs to W&B imports it later.
    """
    share_cores()
    gc.disable()
    hidden = "wandb" not in sys.modules
    if hidden:
        sys.modules["wandb"] = None  # type: ignore[assignment]  # how Python marks what cannot be imported
    try:
        yield
        gc.freeze()
    finally:
        if hidden:
            del sys.modules["wandb"]
        gc.enable()
