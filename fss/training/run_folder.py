"""Checks and prepares a run's folder before the run reads any data."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from fss.data.loading import batch_size_of_each
from fss.display.shown import shown
from fss.files import lock
from fss.files.checked_zip import check_zip
from fss.files.plain import read_yaml
from fss.files.whole import forget_unfinished, whole

logger = logging.getLogger(__name__)

LAST = "last.ckpt"
_MEND = "choose another place with outputs=DIR"


def check_processes(trainer: lightning.Trainer, batch_size: int) -> None:
    """Checks that all started processes train together and can share a batch equally.

    Raises:
        ValueError: If they do not or cannot.
    """
    for environment in (TorchElasticEnvironment, SLURMEnvironment):
        if environment.detect() and (started := environment().world_size()) != trainer.world_size:
            raise ValueError(
                f"{started} processes were started, but only {trainer.world_size} would train together: set "
                "trainer=ddp, trainer.devices to the processes per machine and trainer.num_nodes to the machines"
            )
    batch_size_of_each(batch_size, trainer.world_size)


def prepare_folder(folder: Path, resume: bool, first: bool) -> Path | None:
    """Prepares a run's checkpoint folder.

    Args:
        folder: Folder of the run's checkpoints.
        resume: Resume the run that left the checkpoints; if False, they are moved aside.
        first: True in the first process, which does everything that only one process may do.

    Returns:
        The checkpoint to resume from; None to start from scratch.

    Raises:
        OSError: The folder cannot be written, or another process works in it.
    """
    if first:
        lock.hold(folder.parent, _MEND)  # until this process ends
        _check_writable(folder)
    checkpoint = newest_checkpoint(folder) if resume else None
    if first and resume:
        print(f"Resuming from {checkpoint}" if checkpoint else f"Starting: there is no checkpoint in {folder}")
    elif first and any(folder.glob("*.ckpt")):
        # one that is there holds what was before a run that has not been trained: nobody said to give it up
        names = (f"{folder.name}.before{number if number > 1 else ''}" for number in count(1))
        aside = next(path for path in map(folder.with_name, names) if not path.exists())
        folder.rename(aside)
        logger.warning(
            "Starting from scratch; resume=true would have continued the existing run. Its checkpoints are kept "
            "in %s until this run is trained",
            aside,
        )
    return checkpoint


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of a folder that is furthest on, by what it says itself: copying changes the times of files.

    Damaged ones are passed over with a warning.
    """
    found = []
    for path in folder.glob("*.ckpt"):
        try:
            check_zip(path)
            # of several of one step, that of the last step goes before those of the best
            found.append((_step(path), path.name == LAST, path.stat().st_mtime_ns, path))
        except (OSError, ValueError) as error:
            logger.warning("%s; it is passed over", shown(error))
    return max(found)[-1] if found else None


def _step(path: Path) -> int:
    """How many steps a checkpoint has behind it.

    Raises:
        ValueError: It does not say so.
    """
    try:
        content = torch.load(path, map_location="meta", weights_only=True, mmap=True)
        step = content["global_step"]
    except Exception as error:  # torch raises many kinds for files that are no checkpoints
        raise ValueError(f"{path} is no checkpoint of a training ({error})") from error
    if not isinstance(step, int) or step < 0:
        raise ValueError(f"{path} is no checkpoint of a training (global_step {step!r:.100})")
    return step


def forget_earlier(folder: Path) -> None:
    """Removes the checkpoints that `prepare_folder` moved aside."""
    for aside in folder.parent.glob(f"{folder.name}.before*"):
        shutil.rmtree(aside, ignore_errors=True)


def note_settings(path: Path, settings: dict[str, Any], resume: bool) -> None:
    """Writes a run's settings to a YAML file; warns about those that have changed since a resumed run started."""
    if resume and path.is_file():
        before, now = _flat(read_yaml(path)), _flat(settings)
        for name in sorted((before.keys() | now.keys()) - {"resume"}):
            if name.startswith("differs_from_recipe."):  # follows from the others
                continue
            if before.get(name) != now.get(name):
                told = (shown(value) for value in (name, now.get(name), before.get(name)))
                logger.warning("%s is now %s; the run started with %s", *told)
    with whole(path) as unfinished:
        unfinished.write_text(yaml.safe_dump(settings, sort_keys=False))


def note_typed(path: Path, typed: Sequence[str]) -> None:
    """Writes the overrides that a run was started with, by which evaluations go, to a YAML file."""
    path.parent.mkdir(exist_ok=True)
    with whole(path) as unfinished:
        unfinished.write_text(yaml.safe_dump(list(typed)))


def _check_writable(folder: Path) -> None:
    """Checks that a folder is writable, and removes files that a killed run left incomplete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        forget_unfinished(folder)
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error}): {_MEND}") from error


def _flat(settings: Any, path: str = "") -> dict[str, Any]:
    if isinstance(settings, dict) and settings:
        parts = (_flat(value, f"{path}.{name}".lstrip(".")) for name, value in settings.items())
        return {name: value for part in parts for name, value in part.items()}
    return {path: settings}
