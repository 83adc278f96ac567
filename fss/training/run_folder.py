"""What is looked at and put in order before a run reads any data."""

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
    """Looks whether all processes that were started train together, and can share a batch.

    Raises:
        ValueError: They do not, or cannot.
    """
    for environment in (TorchElasticEnvironment, SLURMEnvironment):
        if environment.detect() and (started := environment().world_size()) != trainer.world_size:
            raise ValueError(
                f"started as {started} processes, of which {trainer.world_size} would train together: set "
                "trainer=ddp, trainer.devices to the processes of a machine and trainer.num_nodes to the machines"
            )
    batch_size_of_each(batch_size, trainer.world_size)


def prepare_folder(folder: Path, resume: bool, first: bool) -> Path | None:
    """Makes a run's folder of checkpoints ready.

    Args:
        folder: Of its checkpoints.
        resume: Whether to go on with the run that left them; else they are set aside.
        first: Whether this is the first process, which does what only one may.

    Returns:
        The checkpoint to go on from; None to begin.

    Raises:
        OSError: The folder cannot be written.
    """
    if first:
        _check_writable(folder)
    checkpoint = newest_checkpoint(folder) if resume else None
    if first and resume:
        print(f"Goes on from {checkpoint}" if checkpoint else f"Begins: there is no checkpoint in {folder}")
    elif first and any(folder.glob("*.ckpt")):
        aside = _earlier(folder)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        logger.warning(
            "Begins anew; resume=true would have gone on with the run that was here. Its checkpoints are in %s "
            "until this one is trained",
            aside,
        )
    return checkpoint


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that is whole; damaged ones are passed over with a warning."""
    for path in sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            with zipfile.ZipFile(path) as archive:  # what torch.save writes, with checksums
                damaged = archive.testzip()
        except (OSError, zipfile.BadZipFile) as error:
            damaged = str(error)
        if damaged is None:
            return path
        logger.warning("%s is damaged (%s) and passed over", path, damaged)
    return None


def forget_earlier(folder: Path) -> None:
    """Removes the checkpoints that `prepare_folder` set aside."""
    shutil.rmtree(_earlier(folder), ignore_errors=True)


def note_settings(path: Path, settings: dict[str, Any], resume: bool) -> None:
    """Writes all settings of a run to a YAML file, and warns of those that a resumed run began without."""
    if resume and path.is_file():
        before, now = _flat(yaml.safe_load(path.read_text())), _flat(settings)
        for name in sorted((before.keys() | now.keys()) - {"resume"}):
            if before.get(name) != now.get(name):
                logger.warning("%s is now %s; the run began with %s", name, now.get(name), before.get(name))
    with whole(path) as unfinished:
        unfinished.write_text(yaml.safe_dump(settings, sort_keys=False))


def _check_writable(folder: Path) -> None:
    """Tries whether a folder can be written, and removes what a killed run left there half written."""
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
