"""Checks and prepares a run's folder before the run reads any data."""

from __future__ import annotations

import logging
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import lightning
import yaml
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from fss.data.loading import batch_size_of_each
from fss.files import whole

logger = logging.getLogger(__name__)


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
        OSError: If the folder is not writable.
    """
    if first:
        _check_writable(folder)
    checkpoint = newest_checkpoint(folder) if resume else None
    if first and resume:
        print(f"Resuming from {checkpoint}" if checkpoint else f"Starting: there is no checkpoint in {folder}")
    elif first and any(folder.glob("*.ckpt")):
        aside = _earlier(folder)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        logger.warning(
            "Starting from scratch; resume=true would have continued the existing run. Its checkpoints are kept "
            "in %s until this run is trained",
            aside,
        )
    return checkpoint


def newest_checkpoint(folder: Path) -> Path | None:
    """Returns the newest intact checkpoint in a folder; damaged ones are skipped with a warning."""
    for path in sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            with zipfile.ZipFile(path) as archive:  # the format of torch.save, which includes checksums
                damaged = archive.testzip()
        except (OSError, zipfile.BadZipFile) as error:
            damaged = str(error)
        if damaged is None:
            return path
        logger.warning("%s is damaged (%s) and skipped", path, damaged)
    return None


def forget_earlier(folder: Path) -> None:
    """Removes the checkpoints that `prepare_folder` moved aside."""
    shutil.rmtree(_earlier(folder), ignore_errors=True)


def note_settings(path: Path, settings: dict[str, Any], resume: bool) -> None:
    """Writes a run's settings to a YAML file; warns about those that have changed since a resumed run started."""
    if resume and path.is_file():
        before, now = _flat(yaml.safe_load(path.read_text())), _flat(settings)
        for name in sorted((before.keys() | now.keys()) - {"resume"}):
            if name.startswith("differs_from_recipe."):  # follows from the others
                continue
            if before.get(name) != now.get(name):
                logger.warning("%s is now %s; the run started with %s", name, now.get(name), before.get(name))
    with whole(path) as unfinished:
        unfinished.write_text(yaml.safe_dump(settings, sort_keys=False))


def _check_writable(folder: Path) -> None:
    """Checks that a folder is writable, and removes files that a killed run left incomplete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for unfinished in folder.glob(".*.part"):
            unfinished.unlink()
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error}): choose another place with outputs=DIR") from error


def _earlier(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.before")


def _flat(settings: Any, path: str = "") -> dict[str, Any]:
    if isinstance(settings, dict) and settings:
        parts = (_flat(value, f"{path}.{name}".lstrip(".")) for name, value in settings.items())
        return {name: value for part in parts for name, value in part.items()}
    return {path: settings}
