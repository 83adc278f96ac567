"""What is looked at and put in order before a run reads any data."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from fss import lock
from fss.checked_zip import check_zip
from fss.data.loading import batch_size_of_each
from fss.files import forget_unfinished, whole
from fss.plain_files import read_yaml
from fss.shown import shown

logger = logging.getLogger(__name__)

LAST = "last.ckpt"
_MEND = "choose another place with outputs=DIR"


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
        OSError: The folder cannot be written, or another process works in it.
    """
    if first:
        lock.hold(folder.parent, _MEND)  # until this process ends
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
    """Removes the checkpoints that `prepare_folder` set aside."""
    shutil.rmtree(_earlier(folder), ignore_errors=True)


def note_settings(path: Path, settings: dict[str, Any], resume: bool) -> None:
    """Writes all settings of a run to a YAML file, and warns of those that a resumed run began without."""
    if resume and path.is_file():
        before, now = _flat(read_yaml(path)), _flat(settings)
        for name in sorted((before.keys() | now.keys()) - {"resume"}):
            if before.get(name) != now.get(name):
                told = (shown(value) for value in (name, now.get(name), before.get(name)))
                logger.warning("%s is now %s; the run began with %s", *told)
    with whole(path) as unfinished:
        unfinished.write_text(yaml.safe_dump(settings, sort_keys=False))


def _check_writable(folder: Path) -> None:
    """Tries whether a folder can be written, and removes what a killed run left there half written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        forget_unfinished(folder)
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error}): {_MEND}") from error


def _earlier(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.before")


def _flat(settings: Any, path: str = "") -> dict[str, Any]:
    if isinstance(settings, dict) and settings:
        parts = (_flat(value, f"{path}.{name}".lstrip(".")) for name, value in settings.items())
        return {name: value for part in parts for name, value in part.items()}
    return {path: settings}
