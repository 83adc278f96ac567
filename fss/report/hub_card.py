"""The card of a bundle: a README whose head states the results as model hubs read them (`model-index`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from fss.evaluation.tables import supports_told, tuning_told
from fss.report.escape import in_markdown

_TAGS = ["few-shot-segmentation", "semantic-segmentation", "singular-value-fine-tuning"]


def hub_card(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Writes the card.

    Args:
        metrics: Content of metrics.json by the place of each evaluation.
    """
    models: dict[str, list[dict[str, Any]]] = {}
    for m in metrics.values():
        models.setdefault(_model(m), []).append(_entry(m))
    head = {
        "license": "mit",
        "pipeline_tag": "image-segmentation",
        "tags": _TAGS,
        "model-index": [{"name": name, "results": entries} for name, entries in models.items()],
    }
    rows = [
        f"| {in_markdown(_model(m))} | {in_markdown(_where(m))} | {m['seed']} | {100 * m['miou']:.2f} | "
        f"{100 * m['fb_iou']:.2f} | {_count(m['trained_parameters'])} | `{place}` |"
        for place, m in metrics.items()
    ]
    text = f"""\
# Few-shot segmentation: results to check

{len(metrics)} evaluations with the integers of every episode, from which every score is computed; mIoU and
FB-IoU in percent. `python -m fss.report verify DIR` checks this folder, and with `--data DIR` runs episodes again.

| model | evaluated on | seed | mIoU | FB-IoU | trained | place |
|---|---|---:|---:|---:|---:|---|
"""
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{text}" + "\n".join(rows) + "\n"


def _model(m: Mapping[str, Any]) -> str:
    return f"{m['method']}-{tuning_told(m)}-{m['backbone']}"


def _where(m: Mapping[str, Any]) -> str:
    told = f"{m['dataset']}, fold {m['fold']}, {m['shot']}-shot, {m['eval_classes']} classes{supports_told(m)}"
    seeds = ", ".join(map(str, m["eval_seeds"]))
    return f"{told}; {m['episodes']} episodes, seeds {seeds}, protocol {m['protocol']}; {_weights(m)}"


def _weights(m: Mapping[str, Any]) -> str:
    chosen = "no selection" if m["selection"] == "none" else f"selected on {m['selection']}"
    return f"checkpoint {m['checkpoint']}, {chosen}"


def _entry(m: Mapping[str, Any]) -> dict[str, Any]:
    values = (("mean_iou", "mIoU", "miou"), ("fb_iou", "FB-IoU", "fb_iou"))
    return {
        "task": {"type": "image-segmentation", "name": "Few-shot segmentation"},
        "dataset": {"type": m["dataset"], "name": _where(m), "args": {"fold": m["fold"], "shot": m["shot"]}},
        "metrics": [{"type": kind, "name": name, "value": round(m[key], 6)} for kind, name, key in values],
    }


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)
