"""What a run says of itself in `.hydra/overrides.yaml`, as far as evaluation goes by it.

A run folder may come from anybody. What its record says is therefore compared with what the program knows before
any of it is composed: a group's member by its name, a setting that exists as a number, a word or a list of these.
What could name code to run, a place to write, an environment variable or a resolver is refused, and how the run's
machine worked is left out. Only folders and files to read data and weights from are paths.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fss.cli import overrides
from fss.configuration import conf_folder
from fss.display.shown import shown
from fss.evaluation.results import RECORD
from fss.files.plain import read_yaml

RENAMED = {"dataset.pyramid": "method.pyramid"}  # settings in the overrides of older runs

_LONGEST = 4096  # characters of an entry
_MOST = 500  # entries
# Where a run was kept, how it was watched and how its machine worked: not replayed, whatever it says. `run_name`
# and `tags` are older runs' names of method.run_name and method.tags.
_OF_ITS_PLACE = (
    *("outputs", "run_dir", "run_group", "run_path", "run_name", "method.run_name", "tags", "logger", "panels"),
    *("trainer", "dataset.num_workers", "cache_gb", "reuse", "resume", "compile", "checkpointing"),
    *("keep_best", "save_minutes"),
)
# Parts that take what the program does not name, passed on to torch: an evaluation has no use for them.
_OPEN = ("optimizer", "learner")
# Settings that evaluate.py alone goes by, though train.py has them.
EVALUATIONS_OWN = ("checkpoint", "ckpt", "model", "train_shot", "trained_on")
_READ_FROM = re.compile(r"dataset\.(\w+_)?root|backbone\.weights|method\.base_checkpoint")
_WORD = re.compile(r"[\w .+-]*")
_REFERENCE = re.compile(r"\$\{([A-Za-z]\w*(?:\.[A-Za-z]\w*)*)\}")


def recorded_overrides(folder: Path) -> list[str]:
    """The overrides that a run was trained with, as far as they decide what its weights are and were trained on.

    Args:
        folder: Of the run.

    Returns:
        As they were typed; none where there is no record.

    Raises:
        ValueError: The record holds what no run of this program needs; file and entry are named.
    """
    file = folder / RECORD
    if not file.is_file():
        return []
    entries = read_yaml(file)
    if not isinstance(entries, list) or not all(isinstance(e, str) and len(e) <= _LONGEST for e in entries):
        raise ValueError(f"{file} is no list of overrides: delete it, and type what the run was trained with")
    if len(entries) > _MOST:
        raise ValueError(f"{file} holds {len(entries)} overrides, which nobody has typed: delete it")
    told = []
    for entry in entries:
        _parsed(entry, file)
        now = overrides.renamed(entry, RENAMED)
        told.append((now, _parsed(now, file)))
    with _composing():
        groups = [entry for entry, override in told if _is_group(entry, override, file)]
        settings = _settings(groups, file)
        return [
            entry for entry, override in told if entry in groups or _is_setting(entry, override, settings, file)
        ]


def _parsed(entry: str, file: Path) -> Override:
    try:
        override = overrides.parsed(entry)
    except (HydraException, RecursionError) as error:
        raise _refusal(entry, file, "is no override") from error
    parts = override.key_or_group.replace("/", ".").split(".")
    if override.package is not None or any(part.startswith("_") or not part for part in parts):
        raise _refusal(entry, file, "says how an object is made")
    if parts[0] == "hydra":
        raise _refusal(entry, file, "is a setting of Hydra's own")
    if override.is_sweep_override():
        raise _refusal(entry, file, "is several values")
    if override.type == OverrideType.DEL and not overrides.is_for(entry, *_OF_ITS_PLACE):
        raise _refusal(entry, file, "takes a setting away")
    return override


def _is_group(entry: str, override: Override, file: Path) -> bool:
    """Whether an override names members of a group, all of which the program knows."""
    name = override.key_or_group
    members = GlobalHydra.instance().config_loader().get_group_options(name)
    if not members or name in _OF_ITS_PLACE:
        return False
    chosen = override.value()
    for one in chosen if isinstance(chosen, list) else [chosen]:
        if one is not None and str(one) not in members:
            raise _refusal(entry, file, f"names none of {', '.join(members)}")
    return True


def _is_setting(entry: str, override: Override, settings: DictConfig, file: Path) -> bool:
    """Whether an override is to be replayed: a plain value of a setting that there is.

    Raises:
        ValueError: It is not plain, or not of a setting.
    """
    name = override.key_or_group
    _check_plain(override.value(), name, settings, entry, file)
    if overrides.is_for(entry, *_OF_ITS_PLACE):
        return False
    if _is_leaf(settings, name) and not overrides.is_for(entry, *EVALUATIONS_OWN):
        return True
    if override.type == OverrideType.ADD and overrides.is_for(entry, *_OPEN):
        return False
    raise _refusal(entry, file, "is no setting of a training")


def _check_plain(value: Any, name: str, settings: DictConfig, entry: str, file: Path) -> None:
    """Raises a ValueError where a value is more than a number, a word, a path to read, or a list of these."""
    if isinstance(value, list):
        for one in value:
            _check_plain(one, name, settings, entry, file)
        return
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int | float):
        if not math.isfinite(value) or abs(value) >= 2**63:
            raise _refusal(entry, file, "is no finite number")
        return
    if not isinstance(value, str):
        raise _refusal(entry, file, "is neither a number, a word nor a list of these")
    text = _REFERENCE.sub("", value)
    if "$" in text or "\\" in text:
        raise _refusal(entry, file, "asks for more than the value of another setting")
    if unknown := [other for other in _REFERENCE.findall(value) if not _is_leaf(settings, other)]:
        raise _refusal(entry, file, f"refers to {unknown[0]}, which is no setting")
    is_path = _READ_FROM.fullmatch(name) or name in _OF_ITS_PLACE or name.startswith("logger.")
    if (
        (not is_path and not _WORD.fullmatch(text))
        or (".." in text and not is_path)
        or "://" in text
        or "\0" in text
    ):
        raise _refusal(entry, file, "is no word")


def _is_leaf(settings: DictConfig, name: str) -> bool:
    """Whether a setting exists and holds no settings itself, nor refers to any."""
    plain: Any = OmegaConf.to_container(settings, resolve=False)
    for part in name.split("."):
        if not isinstance(plain, dict) or part not in plain:
            return False
        plain = plain[part]
    if isinstance(plain, dict):
        return False
    try:
        return not OmegaConf.is_dict(OmegaConf.select(settings, name))
    except OmegaConfBaseException:  # it refers to what has no value yet
        return True


def _settings(groups: Sequence[str], file: Path) -> DictConfig:
    try:
        return compose("train", overrides.merged(groups))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{file}: its groups cannot be put together ({shown(error)}): delete it") from error


@contextmanager
def _composing() -> Iterator[None]:
    """The program's configuration, and what `--config-dir` adds to it where a script has been started so."""
    is_there = GlobalHydra.instance().is_initialized()
    with nullcontext() if is_there else initialize_config_dir(conf_folder(), version_base="1.3"):
        yield


def _refusal(entry: str, file: Path, why: str) -> ValueError:
    return ValueError(
        f"{file}: the entry {shown(repr(entry))} {why}, and is not followed. Runs of this program hold no such "
        "entry: if you know the run, delete the entry and type what is needed"
    )
