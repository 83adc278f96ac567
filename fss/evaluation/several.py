"""Evaluates several classes in one label map, and classes that are not there, with and without abstention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
from rich.table import Table

from fss.data.datamodule import FewShotDataModule
from fss.data.several_episodes import SeveralEpisodes
from fss.display.console import PlainConsole
from fss.evaluation.absence import choose
from fss.evaluation.record import Record
from fss.evaluation.several_answers import SeveralEvaluation
from fss.evaluation.several_scores import SeveralIoU, known, where_present
from fss.files.plain import write_json
from fss.models.segmenter import FewShotSegmenter


def evaluate_several(
    trainers: Sequence[lightning.Trainer],
    segmenter: FewShotSegmenter,
    chosen_on: SeveralEpisodes,
    episodes: SeveralEpisodes,
    datamodule: FewShotDataModule,
    record: Record,
    setting: str,
    limit_gb: float,
) -> dict[str, Any]:
    """Evaluates with and without abstention; a segmenter without a verifier first learns one on base classes.

    Args:
        trainers: Two, one for each; of device, precision and a single process.
        segmenter: The segmenter, which is not trained; it keeps the verifier.
        chosen_on: Episodes of base classes, half of whose queries show nothing asked for.
        episodes: The episodes to evaluate.
        datamodule: Their data module.
        record: Description of the evaluation, with a single seed of episodes.
        setting: "several" or "absent"; results are written to `metrics-SETTING.json`.
        limit_gb: See `SeveralEvaluation`.

    Returns:
        What is written.

    Raises:
        ValueError: There are several seeds or processes.
    """
    if len(record.eval_seeds) > 1:
        raise ValueError(f"setting={setting} takes one seed of episodes, not seeds={list(record.eval_seeds)}")
    if trainers[0].world_size > 1:
        raise ValueError(f"setting={setting} runs in one process: use trainer=default trainer.devices=1")
    workers = datamodule.num_workers
    brought = segmenter.verifier is not None
    if segmenter.verifier is not None:
        threshold = segmenter.verifier.threshold
    else:
        choosing = SeveralEvaluation(segmenter, chosen_on, record.episodes, None, workers, limit_gb)
        trainers[0].test(choosing, verbose=False)
        segmenter.verifier, threshold = choose(choosing)
    module = SeveralEvaluation(segmenter, episodes, record.episodes, threshold, workers, limit_gb)
    trainers[1].test(module, verbose=False)
    rows = {"always": module.always, "abstaining": module.abstaining}
    content: dict[str, Any] = {
        **record.identity,
        "setting": setting,
        "classes_asked": episodes.classes,
        "protocol": record.protocol,
        "episodes": record.episodes,
        "eval_seeds": list(record.eval_seeds),
        "presence_threshold": threshold,
        "where_present": where_present(module.answers, threshold),
        **{name: _told(metric, datamodule.class_names) for name, metric in rows.items()},
        **record.provenance,
    }
    path = record.folder / f"metrics-{setting}.json"
    write_json(path, content)
    table = Table("", title=f"{setting}, {record.episodes} episodes", title_justify="left")
    for heading in ("mIoU", "absent answered empty", "present found"):
        table.add_column(heading, justify="right")
    for name in rows:
        table.add_row(name, *(_shown(content[name][part]) for part in ("miou", "empty", "found")))
    console = PlainConsole()
    console.print(table)
    told = content["where_present"]
    console.print(
        f"Queries that show the class: mIoU {_shown(told['always'])}, abstaining {_shown(told['abstaining'])}",
        soft_wrap=True,
    )
    if setting == "absent":
        shares = ", ".join(
            f"{_shown(share, 2)} at {points}" for points, share in told["empty_at_points_lost"].items()
        )
        console.print(f"Absent answered empty, by points of that mIoU lost with other thresholds: {shares}")
    origin = "the model file's" if brought else "chosen on base classes"
    console.print(f"Threshold of presence, {origin}: {threshold:.3f}. Results: {path}", soft_wrap=True)
    return content


def _told(metric: SeveralIoU, names: Sequence[str]) -> dict[str, Any]:
    scores = metric.compute()
    return {
        **{part: known(scores[part]) for part in ("miou", "empty", "found")},
        "pairs": {"absent": metric.pairs[0].tolist(), "present": metric.pairs[1].tolist()},
        "classes": {
            names[class_id - 1]: {
                "iou": float(scores["class_iou"][row]),
                "intersection": int(metric.intersection[row]),
                "union": int(metric.union[row]),
            }
            for row, class_id in enumerate(metric.classes)
        },
    }


def _shown(score: float | None, digits: int = 3) -> str:
    return "-" if score is None else f"{score:.{digits}f}"
