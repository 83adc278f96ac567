"""What a bundle needs the data and the models for: digests of pictures, and episodes that are run again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from fss.cli import build, overrides, requests
from fss.cli.model_files import FILES
from fss.configuration import conf_folder
from fss.data.datamodule import FewShotDataModule
from fss.data.episodes import EpisodeDataset, collate
from fss.data.plan import with_seed
from fss.display.shown import shown
from fss.evaluation.record import DRAWING
from fss.evaluation.results import CHECKPOINTS, INTEGERS, RECORD, EpisodeResult, read_episodes
from fss.files.digests import stem
from fss.metrics import episode_integers
from fss.models.model_file import read_model
from fss.models.segmenter import FewShotSegmenter

FURTHEST = 0.01  # of an episode's union: what rounding on another machine may change


class NoRecordError(FileNotFoundError):
    """What an evaluation needs to be run again was not kept."""


class Again(NamedTuple):
    """Episodes of one evaluation that were run again.

    Attributes:
        episodes: How many.
        equal: How many gave the same four integers.
        furthest: Largest difference of an integer, as a fraction of the episode's union.
    """

    episodes: int
    equal: int
    furthest: float


class Bundled(NamedTuple):
    """One evaluation with its data.

    Attributes:
        run: Folder of its run.
        metrics: Content of its metrics.json.
        episodes: All its episodes.
        datamodule: Its data, set up.
    """

    run: Path
    metrics: Mapping[str, Any]
    episodes: list[EpisodeResult]
    datamodule: FewShotDataModule


def open_evaluation(results: Path, metrics: Mapping[str, Any], data: Path | None) -> Bundled:
    """The data of an evaluation, as its run's record and its metrics describe it.

    Nothing of a run's folder is followed but settings that the program knows (`fss.cli.recorded`).

    Args:
        results: Its results folder, in a run's folder.
        metrics: Content of its metrics.json.
        data: Where its data set is now; None if where it was.

    Raises:
        NoRecordError: There is no record of its settings.
        FileNotFoundError: There is no data.
        ValueError: The record is not what this program writes.
    """
    run = results.parents[1]
    if not (run / RECORD).is_file():
        raise NoRecordError(f"{run} has no record of its settings, as of a method that is not trained")
    if metrics["dataset"] != metrics["train_dataset"]:
        raise NoRecordError("evaluated on another data set than that of training")
    with initialize_config_dir(conf_folder(), version_base="1.3"):
        cfg = _recalled(_typed(run, metrics, data), metrics)
        requests.check_recorded(cfg, run)
        datamodule = build.build_datamodule(cfg)
    datamodule.setup("test")
    return Bundled(run, metrics, read_episodes(results), datamodule)


def picture_digests(bundled: Bundled) -> dict[str, str]:
    """SHA-256 of every picture with its labels, as decoded, that an episode shows; by the picture's name."""
    reader = bundled.datamodule.evaluation.reader
    used = {stem(name) for e in bundled.episodes for name in (e.query, *e.supports)}
    found = {}
    for number in range(len(reader)):
        if (name := stem(reader.name(number))) in used:
            digest = hashlib.sha256()
            for pixels in (reader.image(number), reader.mask(number)):
                digest.update(f"{pixels.dtype} {pixels.shape}".encode())
                digest.update(pixels.tobytes())
            found[name] = digest.hexdigest()
    return found


def run_again(bundled: Bundled, count: int) -> Again:
    """Runs some episodes of an evaluation again, one at a time and in its precision, and compares their integers.

    Args:
        bundled: The evaluation.
        count: How many, at least 1; they are taken at equal distances.

    Raises:
        NoRecordError: The weights are not there, or were tuned on the supports of each episode.
        ValueError: This program draws other episodes.
    """
    if bundled.metrics.get("adapt"):
        raise NoRecordError("its model was another one in every episode, tuned on the supports")
    if told := bundled.metrics.get("changed"):
        raise NoRecordError(f"it was evaluated otherwise than its run: {', '.join(told)}")
    file = bundled.run / CHECKPOINTS / FILES.get(bundled.metrics["checkpoint"], "none")
    if not file.is_file():
        raise NoRecordError("its weights are not in the bundle")
    segmenter, _ = read_model(file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    in_its_precision = _autocast(bundled.metrics["config"], device)
    segmenter = segmenter.to(device).eval()
    asked = bundled.episodes[:: max(1, len(bundled.episodes) // count)][:count]
    equal, furthest = 0, 0.0
    for episode in asked:
        episodes = with_seed(bundled.datamodule.evaluation, episode.eval_seed)
        drawn = episodes[episode.id]
        if [stem(name) for name in drawn.names] != [stem(n) for n in (episode.query, *episode.supports)]:
            raise ValueError(
                f"{bundled.run}: episode {episode.id} of seed {episode.eval_seed} has other pictures here: take "
                "the revision of the program and the data that the results were made with"
            )
        told = tuple(getattr(episode, key) for key in INTEGERS)
        with in_its_precision:
            found = _integers(segmenter, episodes, drawn, device)
        equal += found == told
        apart = max(abs(a - b) for a, b in zip(found, told, strict=True))
        furthest = max(furthest, apart / max(1, episode.union))
    return Again(len(asked), equal, furthest)


def _autocast(settings: Mapping[str, Any], device: torch.device) -> AbstractContextManager[Any]:
    """The precision of an evaluation's settings."""
    precision = settings.get("precision", "32-true")
    halves = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    if not isinstance(precision, str) or precision not in halves:
        raise ValueError(f"precision {shown(precision)} of metrics.json is none that this program evaluates in")
    torch.backends.cudnn.allow_tf32 = settings.get("tf32", True) is not False
    return torch.autocast(device.type, halves[precision], enabled=halves[precision] is not None)


@torch.inference_mode()
def _integers(
    segmenter: FewShotSegmenter, episodes: EpisodeDataset, drawn: Any, device: torch.device
) -> tuple[int, int, int, int]:
    batch = collate([drawn])
    normalize = segmenter.backbone.normalize
    query, support = (normalize(part.to(device)) for part in (batch.query, batch.support))
    prediction = segmenter(query, support, batch.support_mask.to(device), batch.own_class.to(device))
    return episode_integers(prediction.logits[0], batch.label[0], episodes.geometry)


def _typed(run: Path, metrics: Mapping[str, Any], data: Path | None) -> list[str]:
    """The overrides that find an evaluation again."""
    settings = {
        **{f"protocol.{key}": metrics.get("drawing", {}).get(key) for key in DRAWING},
        **{key: metrics[key] for key in ("fold", "shot", "train_shot", "seed", "episodes")},
        "dataset.eval_classes": metrics["eval_classes"],
        "dataset.support_annotation": metrics["support_annotation"],
        "run_dir": run,
    }
    if data is not None:
        settings["dataset.root"] = data
    seeds = ",".join(map(str, metrics["eval_seeds"]))
    typed = [overrides.typed(name, "null" if value is None else value) for name, value in settings.items()]
    return ["protocol=custom", f"seeds=[{seeds}]", *typed]


def _recalled(typed: list[str], metrics: Mapping[str, Any]) -> DictConfig:
    """The configuration of a run's evaluation, with what it changed of the pictures."""
    given = compose("evaluate", overrides.merged(typed))
    cfg = requests.requests(given, typed)[0].cfg
    theirs = metrics["config"].get("dataset", {})
    changed = [
        overrides.typed(f"dataset.{name}", theirs[name])
        for name in requests.PICTURES
        if isinstance(theirs.get(name), int | str) and theirs[name] != cfg.dataset.get(name)
    ]
    return requests.requests(given, [*typed, *changed])[0].cfg
