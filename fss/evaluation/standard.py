"""The standard setting: evaluates episodes, writes results and pictures, and prints a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import lightning

from fss.data.datamodule import FewShotDataModule
from fss.display.console import PlainConsole
from fss.evaluation.engine import Evaluated, answer_episodes, finish, pictures_of
from fss.evaluation.record import Record
from fss.evaluation.results import METRICS, PICTURES, episode_digests, remarkable, summarize, write_results
from fss.evaluation.reuse import Reuse
from fss.evaluation.tables import evaluation_table
from fss.models.adaptation import Adaptation
from fss.models.segmenter import FewShotSegmenter
from fss.visualize import save_sheet

logger = logging.getLogger(__name__)


def evaluate_standard(
    trainer: lightning.Trainer,
    segmenter: FewShotSegmenter,
    datamodule: FewShotDataModule,
    record: Record,
    reuse: Reuse,
    pictures: int,
    adaptation: Adaptation | None = None,
) -> dict[str, Any]:
    """Evaluates a segmenter, resuming the same evaluation if it was interrupted.

    Args:
        trainer: Provides device, precision and processes.
        segmenter: The segmenter; it is not modified, since SVF layers are merged in a copy.
        datamodule: The data module, already set up.
        record: Description of the evaluation.
        reuse: Settings for encoding pictures.
        pictures: Number of episodes on each contact sheet; 0 draws none.
        adaptation: See `answer_episodes`.

    Returns:
        The content of metrics.json.
    """
    episodes, seeds, folder = datamodule.evaluation, list(record.eval_seeds), record.folder
    done = answer_episodes(
        *(trainer, segmenter, episodes, seeds, record.episodes, folder, reuse),
        num_workers=datamodule.num_workers,
        adaptation=adaptation,
    )
    metrics = {
        **record.identity,
        "protocol": record.protocol,
        "episodes": record.episodes,
        "eval_seeds": seeds,
        **summarize(done.episodes, datamodule.always_counted),
        "classes_left_out": datamodule.left_out,
        "drawing": {
            **record.drawing,
            **datamodule.list_facts(),
            "episodes_sha256": episode_digests(done.episodes),
        },
        "train_seconds": record.training["train_seconds"],
        "test_seconds": round(done.seconds, 1),
        "trained_parameters": record.training["trained_parameters"],
        **({} if adaptation is None else {"tuned_on_supports": _tuned(done.steps)}),
        **record.provenance,
    }
    if not trainer.is_global_zero:
        return metrics
    if missed := {episodes.reader.classes[c - 1] for c in episodes.pool.images_of} - set(metrics["classes"]):
        logger.warning("no episode for: %s; more episodes would evaluate them", ", ".join(sorted(missed)))
    if pictures:
        of_first_seed = [episode for episode in done.episodes if episode.eval_seed == seeds[0]]
        for sheet, ids in remarkable(of_first_seed, pictures).items():
            drawn = pictures_of(trainer, done.segmenter, episodes, seeds[0], ids, adaptation)
            save_sheet(drawn, folder / sheet)
    write_results(folder, metrics, done.episodes)
    finish(folder)
    console = PlainConsole()
    console.print(evaluation_table(metrics))
    if adaptation is not None:
        console.print(_cost_told(done, trainer.world_size), soft_wrap=True, highlight=False)
    console.print(f"Results: {folder / METRICS}", soft_wrap=True)
    if pictures:
        console.print(f"Pictures: {folder / PICTURES}, and of the worst and the best episodes", soft_wrap=True)
    return metrics


def _tuned(steps: Sequence[int]) -> dict[str, float]:
    """In how many episodes tuning on supports was kept, and by how many steps on average over all."""
    return {"kept": sum(number > 0 for number in steps), "mean_steps": fmean(steps)}


def _cost_told(done: Evaluated, processes: int) -> str:
    """What tuning on supports cost."""
    told = f"Tuned on supports: kept in {_tuned(done.steps)['kept']} of {len(done.steps)} episodes, "
    told += f"{processes * done.seconds / len(done.steps):.2f} s per episode"
    if done.cost is not None and done.cost.answering > 0:  # nothing where all were finished before
        episodes, tuning, answering = done.cost
        ratio = (tuning + answering) / answering
        told += f", {ratio:.1f} times the {answering / episodes:.2f} s of answering alone"
    return told
