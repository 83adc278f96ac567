"""Evaluates a segmenter on planned episodes: distributed over processes, resumable, exact.

Every episode yields four integers, which are recorded immediately and summed over the processes at the end.
Results therefore depend neither on the number of processes nor on interruptions.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from torch.utils.data import DataLoader

from fss.data.episodes import EpisodeDataset, collate
from fss.data.index_cache import fingerprint as state_of
from fss.data.plan import Picture, PlannedEpisode, own_copy, plan_episodes, with_seed
from fss.data.readers.reader import FileReader
from fss.data.share import Share
from fss.evaluation.adapting import AdaptingEvaluator, Cost, segmenter_for, views_seed
from fss.evaluation.empty_supports import EmptySupports
from fss.evaluation.episode_pictures import draw
from fss.evaluation.journal import Entry, Journal
from fss.evaluation.results import EpisodeResult
from fss.evaluation.reuse import Reuse, ReusingEvaluator, check_reuse, own_classes
from fss.files import lock
from fss.metrics import episode_integers
from fss.models.adaptation import Adaptation, SupportTuning
from fss.models.fingerprint import fingerprint
from fss.models.segmenter import FewShotSegmenter
from fss.processes import group
from fss.svf import merge
from fss.visualize import EpisodePicture

logger = logging.getLogger(__name__)


class Evaluated(NamedTuple):
    """The outcome of an evaluation.

    Attributes:
        episodes: Results of all episodes, sorted by seed and id.
        seconds: Time spent on them over all attempts, averaged over processes.
        segmenter: The evaluated segmenter, with SVF layers merged.
        steps: By which S was tuned for each episode, in the order of `episodes`.
        cost: Of tuning and answering in this process and attempt; None without tuning.
    """

    episodes: list[EpisodeResult]
    seconds: float
    segmenter: FewShotSegmenter
    steps: list[int]
    cost: Cost | None


class Evaluation(lightning.LightningModule):
    """Evaluates a process's share of the episodes.

    Args:
        segmenter: The segmenter, with SVF layers merged.
        episodes: Data set from which pictures are read.
        planned: All episodes, in the order of evaluation.
        journal: Record of finished episodes.
        reuse: Settings for encoding pictures.
        num_workers: Loader processes; 0 loads in the main process.
        adaptation: How S is tuned on the supports of each episode; None leaves it as it is.

    Attributes:
        numbers: (episodes, 6) int64 in the order of `planned`: the `numbers` of an `Entry`, or 0 if the episode is
            unfinished or belongs to another process.
        cost: See `Evaluated`.
    """

    def __init__(
        self,
        segmenter: FewShotSegmenter,
        episodes: EpisodeDataset,
        planned: Sequence[PlannedEpisode],
        journal: Journal,
        reuse: Reuse,
        num_workers: int,
        adaptation: Adaptation | None = None,
    ) -> None:
        super().__init__()
        self.segmenter = segmenter.eval()
        self.episodes, self.planned, self.journal, self.reuse = episodes, planned, journal, reuse
        self.num_workers, self.adaptation = num_workers, adaptation
        self.cost: Cost | None = None
        self.numbers = torch.zeros(len(planned), 6, dtype=torch.int64)
        self._row = {(episode.seed, episode.id): row for row, episode in enumerate(planned)}
        self._evaluator: ReusingEvaluator | AdaptingEvaluator | None = None
        self._empty = EmptySupports()

    def setup(self, stage: str) -> None:
        """Finds the remaining episodes and this process's share of them."""
        trainer = self.trainer
        # all processes use what the first one reads
        finished: Any = group.gather(self.journal.read() if trainer.is_global_zero else None)[0]
        done = {(entry.seed, entry.id): entry for entry in finished if (entry.seed, entry.id) in self._row}
        if trainer.is_global_zero:  # count them in one process only
            for entry in done.values():
                self._note(entry)
            if done:
                logger.info("%d of %d episodes were already finished", len(done), len(self.planned))
        left = [episode for episode in self.planned if (episode.seed, episode.id) not in done]
        self.share = Share(self.episodes, left, trainer.global_rank, trainer.world_size, self.reuse.batch)
        self.journal.open(trainer.global_rank)

    def test_dataloader(self) -> DataLoader[list[Picture]]:
        return self.share.loader(self.num_workers)

    def transfer_batch_to_device(self, batch: list[Picture], device: torch.device, index: int) -> list[Picture]:
        """Keeps pictures on the host; they are moved to the device when they are encoded."""
        return [own_copy(picture) for picture in batch]

    def on_test_start(self) -> None:
        share = self.share
        given = self.segmenter, share.pictures, share.blocks, own_classes(self.episodes.base_classes)
        if self.adaptation is None:
            self._evaluator = ReusingEvaluator(*given, *self.reuse)
        else:
            self._evaluator = AdaptingEvaluator(*given, self.adaptation)
        self._since = time.perf_counter()

    def test_step(self, batch: list[Picture], batch_idx: int) -> None:
        assert self._evaluator is not None
        for picture in batch:
            self._empty.look_at(picture, self.episodes.reader)
        for episode, prediction, label, steps in self._evaluator.answer(batch_idx, batch):
            integers = episode_integers(prediction.logits[0], label, self.episodes.geometry)
            now = time.perf_counter()
            spent, self._since = now - self._since, now
            microseconds = max(1, round(1e6 * spent / self.trainer.world_size))
            entry = Entry(episode.seed, episode.id, *integers, microseconds, steps)
            self.journal.add(entry)
            self._note(entry)

    def on_test_end(self) -> None:
        self.cost = self._evaluator.cost if isinstance(self._evaluator, AdaptingEvaluator) else None
        self._evaluator = None  # frees its memory
        self._empty.tell()

    @property
    def progress(self) -> str:
        """How many episodes the journal keeps: Ctrl-C may come between an entry and its note in `numbers`."""
        kept = {(entry.seed, entry.id) for entry in self.journal.read()}
        return f"{len(kept & self._row.keys())} of {len(self.planned)} episodes"

    def _note(self, entry: Entry) -> None:
        self.numbers[self._row[entry.seed, entry.id]] = torch.tensor(entry.numbers)


def answer_episodes(
    trainer: lightning.Trainer,
    segmenter: FewShotSegmenter,
    episodes: EpisodeDataset,
    seeds: Sequence[int],
    count: int,
    folder: Path,
    reuse: Reuse,
    num_workers: int = 0,
    adaptation: Adaptation | None = None,
) -> Evaluated:
    """Evaluates a segmenter, resuming the same evaluation if `folder` contains an unfinished one.

    Args:
        trainer: Provides device, precision and processes.
        segmenter: The segmenter; it is not modified, since SVF layers are merged in a copy.
        episodes: Data set from which episodes are drawn and pictures read; its own seed is not used.
        seeds: Seeds of the episodes.
        count: Number of episodes for each seed.
        folder: Folder that records finished episodes until the results are written; `finish` then removes them.
        reuse: Settings for encoding pictures.
        num_workers: Loader processes; 0 loads in the main process.
        adaptation: How S is tuned on the supports of each episode, for which no encoding is reused; None leaves it
            as it is.

    Raises:
        ValueError: If the method does not accept this number of supports, or if a setting is out of range.
        OSError: If the folder is not writable, or if another process is working in it.
        RuntimeError: If the evaluation is stopped before its end.
        SystemExit: It was interrupted by Ctrl-C; what is finished is kept.
    """
    check_reuse(*reuse)
    segmenter.head.check_shot(episodes.shot)
    if adaptation is not None:
        adaptation.check_shot(segmenter.head, episodes.shot)
    if count < 1 or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"episodes={count} seeds={list(seeds)}: give at least 1 episode and different seeds")
    if trainer.is_global_zero:
        # until `finish`
        lock.hold(folder, "evaluate by another protocol, or choose another place with outputs=DIR")
    merged = merge(copy.deepcopy(segmenter)).eval()
    planned = plan_episodes(episodes, seeds, count)
    settings: dict[str, Any] = {
        "precision": str(trainer.precision),
        "device": trainer.strategy.root_device.type,
        "tf32": torch.backends.cudnn.allow_tf32,
        "batch": reuse.batch,
    }
    if adaptation is not None:
        settings["adaptation"] = asdict(adaptation)
    key = _fingerprint(merged, episodes, planned, settings)
    journal = Journal(folder, key)
    module = Evaluation(merged, episodes, planned, journal, reuse, num_workers, adaptation)
    try:
        _test(trainer, module, folder)
    except BaseException:
        lock.release(folder)
        raise
    finally:
        journal.close()
    numbers = group.total(module.numbers.to(trainer.strategy.root_device)).cpu()
    microseconds = numbers[:, 4]
    if (microseconds == 0).any():
        done = int((microseconds > 0).sum())
        raise RuntimeError(f"stopped after {done} of {len(planned)} episodes: run the same command to continue")
    names, files = episodes.reader.classes, episodes.reader.name
    results = [
        EpisodeResult(
            episode.seed,
            episode.id,
            episode.class_id,
            names[episode.class_id - 1],
            files(episode.query),
            tuple(map(files, episode.supports)),
            *integers,
        )
        for episode, integers in zip(planned, numbers[:, :4].tolist(), strict=True)
    ]
    steps = {
        (episode.seed, episode.id): number for episode, number in zip(planned, numbers[:, 5].tolist(), strict=True)
    }
    results.sort(key=lambda result: (result.eval_seed, result.id))
    steps_of = [steps[result.eval_seed, result.id] for result in results]
    return Evaluated(results, float(microseconds.sum()) / 1e6, merged, steps_of, module.cost)


def _test(trainer: lightning.Trainer, module: Evaluation, folder: Path) -> None:
    """Answers the episodes; what ends it before its end says how far it came."""
    try:
        trainer.test(module, verbose=False)
    except SystemExit:
        if trainer.interrupted and trainer.is_global_zero:  # Lightning makes this of Ctrl-C, and says nothing
            logger.warning(
                "interrupted after %s, which %s keeps; the same command goes on from there",
                module.progress,
                folder,
            )
            raise SystemExit(128 + signal.SIGINT) from None
        raise
    except OSError as error:
        raise OSError(f"stopped after {module.progress}, which stay finished: {error}") from error


@torch.inference_mode()
def pictures_of(
    trainer: lightning.Trainer,
    segmenter: FewShotSegmenter,
    episodes: EpisodeDataset,
    seed: int,
    ids: Iterable[int],
    adaptation: Adaptation | None = None,
) -> list[EpisodePicture]:
    """Predicts selected episodes again to draw them.

    Args:
        trainer: Provides device and precision.
        segmenter: The evaluated segmenter.
        episodes: The evaluated data set.
        seed: Seed of the episodes.
        ids: Ids of the episodes to draw.
        adaptation: How S was tuned for them, which is done again; None if it was not.
    """
    device = trainer.strategy.root_device
    segmenter = segmenter.to(device)
    normalize, drawn = segmenter.backbone.normalize, with_seed(episodes, seed)
    tuning = None if adaptation is None else SupportTuning(segmenter, adaptation)
    pictures = []
    for i in ids:
        episode = collate([drawn[i]])
        query, support, masks, own_class = (
            part.to(device) for part in (episode.query, episode.support, episode.support_mask, episode.own_class)
        )
        used = segmenter
        if tuning is not None:
            used, _ = segmenter_for(segmenter, tuning, support[0], masks[0], own_class, views_seed(seed, i))
        with trainer.precision_plugin.test_step_context():
            prediction = used(normalize(query), normalize(support), masks, own_class)
        on_device = episode._replace(query_mask=episode.query_mask.to(device))
        pictures += draw(on_device, prediction, episodes.reader.classes, 1)
    return pictures


def finish(folder: Path) -> None:
    """Removes the notes of an evaluation whose results are written, and lets others work there."""
    Journal(folder, "").remove()
    lock.release(folder)


def _fingerprint(
    segmenter: FewShotSegmenter,
    episodes: EpisodeDataset,
    planned: Sequence[PlannedEpisode],
    settings: dict[str, Any],
) -> str:
    """Hash of everything that the integers of an evaluation depend on."""
    reader = episodes.reader
    numbers = sorted({number for e in planned for number in (e.query, *e.supports)})
    told = {
        **settings,
        "model": fingerprint(segmenter),
        "annotation": episodes.support_annotation,
        "transform": vars(episodes.transform),
        "base classes": episodes.base_classes,
        "pictures": {number: reader.name(number) for number in numbers},
        "files": state_of(reader.classes, reader.files()) if isinstance(reader, FileReader) else None,
        "episodes": planned,
    }
    return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()
