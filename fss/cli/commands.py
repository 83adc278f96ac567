"""`train.py` and `evaluate.py`, which an installed package has as `fss-train` and `fss-evaluate`."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import hydra
from omegaconf import DictConfig

from fss.cli.errors import run_script
from fss.configuration import conf_folder


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


def run_train() -> None:
    """`fss-train`."""
    run_script(train)


def run_evaluate() -> None:
    """`fss-evaluate`."""
    run_script(evaluate)


@contextmanager
def _imports() -> Iterator[None]:
    """Around the imports that bring torch and Lightning: after Hydra has composed, so that --help need not wait.

    They make hardly any garbage, and looking for it takes a fifth of their time. What is imported stays: later
    searches leave it out too.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
