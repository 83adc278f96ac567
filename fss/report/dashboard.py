"""Creates a dashboard for sweeps in Weights & Biases: results, classes, episodes, singular values, training.

python -m fss.report.dashboard                        needs an account and `pip install wandb-workspaces`
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import wandb

PROJECT = "few-shot-segmentation"  # as in conf/logger/wandb.yaml


def build_dashboard(entity: str, project: str = PROJECT) -> Any:
    """Builds an unsaved workspace for the keys that training logs.

    Runs are grouped by their settings: a group contains all folds and seeds of one configuration, like a row in a
    paper's table.

    Args:
        entity: W&B user or team.
        project: W&B project.

    Returns:
        A `wandb_workspaces.workspaces.Workspace`; its `save` uploads it and needs an account.

    Raises:
        ModuleNotFoundError: If `wandb-workspaces` is not installed.
    """
    from wandb_workspaces import workspaces as ws  # optional, and slow to import
    from wandb_workspaces.reports import v2 as panels

    group = panels.Config("run_group")

    def line(title: str, *keys: str, **settings: Any) -> panels.LinePlot:
        x = "trainer/global_step"
        return panels.LinePlot(
            title=title, x=x, y=list(keys), groupby=group, groupby_rangefunc="stddev", **settings
        )

    def bars(title: str, key: str) -> panels.BarPlot:
        return panels.BarPlot(title=title, metrics=[key], groupby=group, groupby_rangefunc="stddev")

    sections: dict[str, list[Any]] = {
        "Results": [
            bars("Test mIoU, mean and spread over folds and seeds", "test/miou"),
            bars("Test FB-IoU", "test/fb_iou"),
            line("Validation mIoU", "val/miou"),
            line("Validation FB-IoU", "val/fb_iou"),
        ],
        "Classes": [
            panels.CustomChart(
                query={"summaryTable": {"tableKey": "val/class_iou_table"}},
                chart_name="wandb/bar/v0",
                chart_fields={"label": "class", "value": "IoU"},
                chart_strings={"title": "IoU of each class, last validation"},
            ),
            line("IoU of each class over time", metric_regex="val/iou/.*"),
        ],
        "Episodes": [
            panels.MediaBrowser(title=f"Episode {i}", media_keys=[f"episodes/{i}"], num_columns=4)
            for i in range(4)
        ],
        "Singular values": [
            line("Mean |S / S0 - 1| of each stage", *(f"svf/stage{stage}/mean_change" for stage in range(5)))
        ],
        "Training": [
            line("Loss", "train/loss"),
            line("Episodes per second", "train/episodes_per_second"),
            line("Learning rates", metric_regex="lr-.*"),
        ],
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Few-shot segmentation: sweeps",
        sections=[ws.Section(name=name, panels=content, is_open=True) for name, content in sections.items()],
        runset_settings=ws.RunsetSettings(groupby=[ws.Config("run_group")]),
        auto_generate_panels=False,
    )


def main() -> int:
    """Saves the dashboard and prints its address."""
    parser = argparse.ArgumentParser(
        prog="python -m fss.report.dashboard", description="Creates a dashboard for sweeps in Weights & Biases."
    )
    parser.add_argument("--entity", help="W&B user or team; default: the account's own")
    parser.add_argument("--project", default=PROJECT, help="default: %(default)s")
    given = parser.parse_args()
    try:
        if not wandb.login(prompt=False):
            raise ValueError("not logged in to W&B: run `wandb login` once or set WANDB_API_KEY")
        workspace = build_dashboard(given.entity or str(wandb.Api().default_entity), given.project)
        workspace.save()
    except ModuleNotFoundError as error:
        print(f"error: {error}: pip install wandb-workspaces", file=sys.stderr)
        return 2
    except (ValueError, wandb.Error, OSError) as error:
        print(f"error: no dashboard was created: {error}", file=sys.stderr)
        return 2
    print(f"Dashboard: {workspace.url}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
