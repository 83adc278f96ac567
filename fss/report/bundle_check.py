"""Checks a bundle: every byte against its digest, and every score against the integers that it comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fss.display.shown import shown
from fss.evaluation.results import INTEGERS, episode_digests, read_episodes, summarize
from fss.files.plain import read_json
from fss.files.text import is_file_name
from fss.report.bundle import (
    FINGERPRINT,
    FORMAT,
    LICENSES,
    MANIFEST,
    README,
    bundled_metrics,
    files,
    sha256,
)
from fss.report.hub_card import hub_card
from fss.report.licenses import licenses


def check_bundle(bundle: Path) -> list[str]:
    """Finds everything in a bundle that is not as it was made.

    Returns:
        One sentence for each finding, which names the file; none if the bundle is sound.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not bundle.is_dir():
        raise FileNotFoundError(f"no folder {bundle}: give the folder of a bundle")
    problems = _files(bundle)
    return problems or _scores(bundle)  # what is damaged need not be understood


def _files(bundle: Path) -> list[str]:
    """What is wrong with the files: their names, number, sizes and digests."""
    try:
        listed = _listed(bundle)
    except (OSError, ValueError) as error:
        return [str(error)]
    problems = []
    there = set(files(bundle)) - {MANIFEST, FINGERPRINT}
    problems += [f"{shown(name)} is missing" for name in sorted(listed.keys() - there)]
    problems += [f"{shown(name)} is not of this bundle" for name in sorted(there - listed.keys())]
    for name in sorted(listed.keys() & there):
        path, told = bundle / name, listed[name]
        if _is_link(bundle, path) or not path.is_file():
            problems.append(f"{shown(name)} is a link or no file")
        elif path.stat().st_size != told["bytes"]:
            problems.append(f"{shown(name)} has {path.stat().st_size} bytes instead of {told['bytes']}")
        elif sha256(path) != told["sha256"]:
            problems.append(f"{shown(name)} has been changed: its digest is another")
    return problems


def _listed(bundle: Path) -> dict[str, dict[str, Any]]:
    """The files of a bundle, as its manifest says.

    Raises:
        ValueError: The manifest is not the one that was written, or lists what no bundle has.
    """
    for name in (MANIFEST, FINGERPRINT):
        if not (bundle / name).is_file() or _is_link(bundle, bundle / name):
            raise ValueError(f"{name} is missing: {bundle} is no bundle, or not all of it")
    if (bundle / FINGERPRINT).read_bytes() != f"{sha256(bundle / MANIFEST)}  {MANIFEST}\n".encode():
        raise ValueError(f"{MANIFEST} or {FINGERPRINT} has been changed: the one is not the digest of the other")
    manifest = read_json(bundle / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{MANIFEST} is not of a bundle that this version writes (format {FORMAT})")
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not listed:
        raise ValueError(f"{MANIFEST} lists no files")
    for name, told in listed.items():
        if not is_file_name(name) or name in (MANIFEST, FINGERPRINT):
            raise ValueError(f"{MANIFEST} lists {shown(ascii(name))}, which is no file of a bundle")
        sizes = isinstance(told, dict) and isinstance(told.get("sha256"), str) and type(told.get("bytes")) is int
        if not sizes:
            raise ValueError(f"{MANIFEST} has no digest and size of {shown(name)}")
    return listed


def _is_link(bundle: Path, path: Path) -> bool:
    """Whether a path, or a folder on the way to it, leads elsewhere."""
    return any(part.is_symlink() for part in (path, *path.parents) if part != bundle and bundle in part.parents)


def _scores(bundle: Path) -> list[str]:
    """What is wrong with scores and card."""
    try:
        metrics = bundled_metrics(bundle)  # which compares scores with the integers of every class
    except ValueError as error:
        return [str(error)]
    problems = [problem for place, m in metrics.items() for problem in _episodes(bundle, place, m)]
    for name, made in ((README, hub_card(metrics)), (LICENSES, licenses(metrics.values()))):
        if (bundle / name).read_text(encoding="utf-8") != made:
            problems.append(f"{name} is not what the results make it")
    return problems


def _episodes(bundle: Path, place: str, metrics: Mapping[str, Any]) -> list[str]:
    """Whether the episodes of an evaluation give its scores."""
    try:
        episodes = read_episodes(bundle / place)
    except (OSError, ValueError) as error:
        return [str(error)]
    if not episodes:
        return [f"{place}/episodes.csv has no episodes"]
    without = {
        c["id"]: name for seed in metrics["seeds"] for name, c in seed["classes"].items() if not c["episodes"]
    }
    again = summarize(episodes, without)
    problems = []
    if len(episodes) != metrics["episodes"] * len(metrics["eval_seeds"]):
        problems.append(f"{place}/episodes.csv has {len(episodes)} episodes, not those of metrics.json")
    for key in ("miou", "fb_iou"):
        if not math.isclose(again[key], metrics[key], rel_tol=1e-9):
            problems.append(f"{place}: {key} is {metrics[key]:.6f}, but its episodes give {again[key]:.6f}")
    for seed, told in zip(again["seeds"], metrics["seeds"], strict=False):
        for name, c in told["classes"].items():
            own = seed["classes"].get(name, {})
            if any(own.get(key) != c[key] for key in (*INTEGERS, "episodes")):
                problems.append(f"{place}: the integers of {shown(name)} are not those of its episodes")
    digests = metrics.get("drawing", {}).get("episodes_sha256", {})
    if digests and episode_digests(episodes) != digests:
        problems.append(f"{place}/episodes.csv has other episodes than metrics.json says (another digest)")
    return problems
