"""Bundles: folders with all that others need to check the results of some runs, without any picture of the data.

    manifest.json        the digest and size of every other file; what the bundle was made with
    manifest.sha256      the digest of manifest.json: the bundle's fingerprint, to be quoted with its results
    README.md            model card with the results, as model hubs read it
    LICENSES.md          what program, weights and data may be used for, as far as is known
    packages.txt         every installed package; requirements.lock, if the checkout has it
    data.json            digests of the pictures and masks in the evaluated episodes
    runs/...             of every run: settings, logs, the weights as a model file; of every evaluation:
                         metrics.json, metrics.csv, and episodes.csv with the integers of every episode

Digests find what was changed by accident or in passing. Who rewrites a bundle with its digests changes its
fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from fss.evaluation.results import (
    CHECKPOINTS,
    CLASSES,
    EPISODES,
    METRICS,
    RECORD,
    SETTINGS,
    TRAINING,
    read_metrics,
)
from fss.files.plain import read_json
from fss.files.whole import check_target, unfinished_of
from fss.report.curves import LOGS
from fss.report.found import Evaluation, Found
from fss.report.hub_card import hub_card
from fss.report.licenses import licenses
from fss.report.machine import machine

FORMAT = 1
MANIFEST, FINGERPRINT = "manifest.json", "manifest.sha256"
README, LICENSES, PACKAGES, DATA, RUNS = "README.md", "LICENSES.md", "packages.txt", "data.json", "runs"
LOCK = Path(__file__).parents[2] / "requirements.lock"
_OF_EVALUATION = (METRICS, CLASSES, EPISODES)


def write_bundle(
    folders: Sequence[Path], out: Path, data: Mapping[str, Mapping[str, str]], weights: bool = True
) -> str:
    """Writes a bundle, whole or not at all.

    Args:
        folders: Runs, or folders of runs; everything below them goes into the bundle.
        out: The bundle's folder, which must not exist.
        data: Digests of the evaluated pictures by their names, by the place of each results folder (see `places`).
        weights: Whether to put in the weights; without them, nobody can run episodes again.

    Returns:
        The bundle's fingerprint.

    Raises:
        FileNotFoundError: There is no evaluation in the folders, or a file of one is missing.
        OSError: There is such a folder, or it cannot be written.
        ValueError: Two folders have one name, or a file is not what this program writes.
    """
    check_out(out)
    unfinished = unfinished_of(out)
    try:
        unfinished.mkdir(parents=True)
        _fill(unfinished, folders, data, weights)
        manifest = {"format": FORMAT, "made_with": machine(), "files": digests(unfinished)}
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        fingerprint = sha256(unfinished / MANIFEST)
        (unfinished / FINGERPRINT).write_text(f"{fingerprint}  {MANIFEST}\n", encoding="ascii")
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return fingerprint


def check_out(out: Path) -> None:
    """Makes sure that a bundle can be written, before digests are made for it.

    Raises:
        OSError: There is something at its place, or it cannot be written.
    """
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists already: delete it, or choose another place with --out")
    check_target(out)


def places(folders: Sequence[Path]) -> dict[str, Evaluation]:
    """The evaluations below some folders by the place of their results folder in a bundle.

    Raises:
        FileNotFoundError: There is none, or no such folder.
        ValueError: Two folders have one name.
    """
    found: dict[str, Evaluation] = {}
    names = [folder.resolve().name for folder in folders]
    if twins := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two folders are called {', '.join(sorted(twins))}: give the one above both")
    for folder, name in zip(folders, names, strict=True):
        for evaluation in Found(folder).evaluations:
            place = Path(RUNS, name, evaluation.path.parent.relative_to(folder))
            found[place.as_posix()] = evaluation
    if not found:
        raise FileNotFoundError(f"no evaluation below {', '.join(map(str, folders))}: train or evaluate first")
    return found


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """SHA-256 and size of every file below a folder, by its path, sorted."""
    paths = {name: folder / name for name in files(folder)}
    return {name: {"sha256": sha256(path), "bytes": path.stat().st_size} for name, path in paths.items()}


def files(folder: Path) -> list[str]:
    """Paths of all files and links below a folder, sorted."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundled_metrics(bundle: Path) -> dict[str, dict[str, Any]]:
    """Metrics of every evaluation of a bundle by the place of its results folder.

    Raises:
        ValueError: A file is not what this program writes.
    """
    found = read_metrics(bundle / RUNS)
    return {path.parent.relative_to(bundle).as_posix(): metrics for path, metrics in found.items()}


def data_digests(bundle: Path) -> dict[str, dict[str, str]]:
    """Digests of pictures by their names, by the place of the results folder; see `write_bundle`.

    Raises:
        ValueError: The file is not what this program writes.
    """
    noted = read_json(bundle / DATA)
    sound = isinstance(noted, dict) and all(
        isinstance(of, dict) and all(isinstance(value, str) for value in of.values()) for of in noted.values()
    )
    if not sound:
        raise ValueError(f"{bundle / DATA} holds no digests of pictures")
    return noted


def _fill(bundle: Path, folders: Sequence[Path], data: Mapping[str, Mapping[str, str]], weights: bool) -> None:
    for place, evaluation in places(folders).items():
        results = bundle / place
        for name in _OF_EVALUATION:
            _copy(evaluation.path.with_name(name), results / name)
        if evaluation.run is not None:
            for path in _of_run(evaluation.run.folder, weights):
                target = results.parents[1] / path.relative_to(evaluation.run.folder)
                if not target.exists():  # runs have several evaluations
                    _copy(path, target)
    metrics = bundled_metrics(bundle)
    (bundle / DATA).write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (bundle / README).write_text(hub_card(metrics), encoding="utf-8")
    (bundle / LICENSES).write_text(licenses(metrics.values()), encoding="utf-8")
    installed = sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions()}, key=str.lower)
    (bundle / PACKAGES).write_text("\n".join(installed) + "\n", encoding="utf-8")
    if LOCK.is_file():
        _copy(LOCK, bundle / LOCK.name)


def _of_run(run: Path, weights: bool) -> Iterator[Path]:
    yield from (path for path in (run / SETTINGS, run / RECORD, run / TRAINING) if path.is_file())
    yield from sorted((run / LOGS).glob("version_*/metrics.csv"))
    if weights:
        yield from sorted((run / CHECKPOINTS).glob("*.safetensors"))  # which hold no code


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise FileNotFoundError(f"no {source}: evaluate again (python evaluate.py)")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
