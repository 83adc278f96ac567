"""A shell script that reproduces published claims: data, base learners, training, evaluation, report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fss.report.claims import BACKBONES, DATASETS, FOLDS, Claim, published
from fss.report.commands import WEIGHTS, Place, base_learner_line, evaluation_line, training_line
from fss.report.estimate import Speeds, base_hours, told, training_hours
from fss.report.recipes import Training, base_training, few_shot_training, starts_from_base_learner

ARCHIVES = {  # of each data set, with their size in GB
    "pascal5i": ("VOCtrainval_11-May-2012.tar and SBD's benchmark.tgz", 3.4),
    "coco20i": ("train2014.zip, val2014.zip and annotations_trainval2014.zip", 20.4),
}
LARGEST_CHECKPOINT = 0.4  # GB: of a ResNet-50 base learner, its optimiser included
_RESNET50 = f"""\
resnet50=${{RESNET50:-{WEIGHTS}}}    # ImageNet weights published with PFENet's and BAM's programs
"""
_NEEDS_RESNET50 = f"""\
need "$resnet50" "set RESNET50 to the file {WEIGHTS}, which is published with PFENet's and BAM's programs"
"""
_COCO_LIST = """\
# COCO_LIST: the published list of COCO's evaluation pictures. It is not sorted, and only its first pictures become
# queries; without it, pictures are taken in the order of their names, so the episodes are others.
"""
PLACE = Place("$outputs", "$seed", "$resnet50", "$options", quote='"{}"'.format)


def script(claims: Sequence[Claim], speeds: Speeds | None = None) -> str:
    """Writes the script, in stages that can each be stopped and started again.

    Args:
        claims: What to reproduce; what they share (data, base learners, trainings) is made once.
        speeds: See `measured_speeds`, for estimates of hours.
    """
    bases, trainings = made_once(claims)
    known = speeds or {}
    stages = {
        "Data": map(data_stage, dict.fromkeys(c.dataset for c in claims)),
        "Base learners, from whose backbones trainings start": (
            _base_learners(alike, known) for alike in _alike(bases)
        ),
        "Training": (_trainings(alike, known) for alike in _alike(trainings)),
        "Evaluation of the best and the last checkpoints of four folds": map(_evaluations, _alike(claims)),
        "Report": ['python -m fss.report "$outputs"'],
    }
    written = [(title, "\n\n".join(parts)) for title, parts in stages.items()]
    written = [stage for stage in written if stage[1]]
    numbered = [f"# {i}/{len(written)} {title}\n\n{text}\n" for i, (title, text) in enumerate(written, start=1)]
    return "\n".join([_head(claims, FOLDS * (len(bases) + len(trainings))), *numbered])


def made_once(claims: Sequence[Claim]) -> tuple[list[Claim], list[Claim]]:
    """Claims that stand for the base learners and for the trainings that some claims need, each once."""
    bases = {(c.dataset, c.backbone): c for c in claims if starts_from_base_learner(c)}
    # claims of other shots may be evaluations of the same training
    trainings = {(c[:5], c.train_shot, c.recipe): c for c in claims}
    return list(bases.values()), list(trainings.values())


def _alike(claims: Iterable[Claim]) -> list[list[Claim]]:
    """Claims whose trainings are of the same size."""
    groups: dict[tuple[str, str], list[Claim]] = {}
    for claim in claims:
        groups.setdefault((claim.dataset, claim.recipe), []).append(claim)
    return list(groups.values())


def title(claims: Sequence[Claim]) -> str:
    """The first lines of a script: what it reproduces."""
    numbers = "\n".join(f"#   {_title(claim)}: {published(claim, claim.mean)}" for claim in claims)
    return f"""\
#!/usr/bin/env bash
# Reproduces published numbers, mIoU in percent, mean of four folds:
{numbers}
"""


def places(claims: Sequence[Claim]) -> str:
    """The lines that set places and options from the environment, and check what has to be there."""
    needs_file = any(claim.network != claim.backbone for claim in claims)
    has_coco = any(claim.dataset == "coco20i" for claim in claims)
    return f"""\
set -euo pipefail

# Places and options, which the environment can set
export FSS_DATA=${{FSS_DATA:-data}}        # folder of the data sets
archives=${{ARCHIVES:-downloads}}          # folder of their official archives; missing ones are downloaded
outputs=${{OUTPUTS:-outputs/published}}    # folder of the runs, for these alone: a run found there is resumed
seed=${{SEED:-0}}                          # training seed
options=${{OPTIONS:-}}                     # more settings of all runs, such as "trainer=ddp cache_gb=8"
{_RESNET50 if needs_file else ""}{_COCO_LIST if has_coco else ""}
need() {{ [ -f "$1" ] || {{ echo "no $1: $2" >&2; exit 1; }}; }}
need train.py "run this script from the checkout"
{_NEEDS_RESNET50 if needs_file else ""}"""


def _head(claims: Sequence[Claim], trainings: int) -> str:
    disk = 2 * LARGEST_CHECKPOINT * trainings
    return f"""\
{title(claims)}#
# Run it from the checkout, with its environment activated: bash FILE. It stops at the first command that fails.
# Run it again to continue: data in place is kept, unfinished trainings are resumed, finished ones evaluated again.
#
# Time: the progress bar of a training shows episodes (of a base learner: pictures) per second; csv/version_*/
# metrics.csv in its run folder has them as train/episodes_per_second. After some dozen steps,
# `python -m fss.report commands ... --measured OUTPUTS` writes this script with the hours that follow from them.
# training.json and metrics.json contain the seconds that a training and an evaluation took.
# Memory: nvidia-smi shows that of the GPU during the first steps, the first validation and an evaluation; top that
# of the host. Where a GPU has too little for a training, OPTIONS=trainer=ddp shares each batch among several GPUs.
# An evaluation keeps encoded pictures, in up to reuse.limit_gb=4 GB of each memory.
# Disk: two checkpoints per training, up to {LARGEST_CHECKPOINT} GB each; for {trainings} trainings {disk:.0f} GB.
{places(claims)}"""


def data_stage(dataset: str) -> str:
    """The commands that prepare and check a data set."""
    archives, size = ARCHIVES[dataset]
    return f"""\
# {DATASETS[dataset]}: {archives}.
# Disk: about {size} GB for the archives, as much for their contents. The check compares with the published lists.
python -m fss.data.prepare {dataset} --root "$FSS_DATA/{dataset}" --archives "$archives" --download
python -m fss.data.check dataset={dataset} pictures=0"""


def _base_learners(claims: Sequence[Claim], speeds: Speeds) -> str:
    training = base_training(claims[0].dataset)
    lines = [f"# {DATASETS[claims[0].dataset]}: {_size(training, 'pictures')}"]
    for claim in claims:
        lines += [
            f"# {BACKBONES[claim.backbone]}; {_weights(claim)}{told(base_hours(claim, speeds))}",
            base_learner_line(claim, range(FOLDS), PLACE),
        ]
    return "\n".join(lines)


def _trainings(claims: Sequence[Claim], speeds: Speeds) -> str:
    training = few_shot_training(claims[0])
    lines = [f"# {DATASETS[claims[0].dataset]}, recipe {claims[0].recipe}: {_size(training, 'episodes')}"]
    for claim in claims:
        start = "" if starts_from_base_learner(claim) else f"; {_weights(claim)}"
        line = training_line(claim, range(FOLDS), PLACE)
        hours = told(training_hours(claim, speeds))
        lines += [f"# {_title(claim, claim.train_shot)}{start}{hours}", line + order(claim)]
    return "\n".join(lines)


def _evaluations(claims: Sequence[Claim]) -> str:
    lines = []
    for claim in claims:
        lines.append(f"# {_title(claim)}: published {published(claim, claim.mean)}")
        lines.append(evaluation_line(claim, range(FOLDS), PLACE) + order(claim))
    return "\n".join(lines)


def order(claim: Claim) -> str:
    """The setting of the list that gives evaluation pictures their published order, if its place is known."""
    return ' ${COCO_LIST:+dataset.eval_list="$COCO_LIST"}' if claim.dataset == "coco20i" else ""


def _size(training: Training, what: str) -> str:
    """The size of the trainings of four folds, as lines of a comment."""
    steps = [f"{count:,}" for count in dict.fromkeys(training.steps)]
    stops = training.patience is not None and training.patience < training.epochs
    told = [
        f"{FOLDS} trainings per line, {training.epochs} epochs each"
        + (f" (or {training.patience} without a new best validation):" if stops else ":"),
        f"#   {' / '.join(steps)} steps of {training.batch_size} {what}{' (folds 0 to 3)' * (len(steps) > 1)}"
        + (f", {training.validations} validations of 1000 episodes" if what == "episodes" else ""),
    ]
    return "\n".join(told)


def _weights(claim: Claim) -> str:
    return "weights: $resnet50" if claim.network != claim.backbone else "weights: torchvision's, downloaded once"


def _title(claim: Claim, shot: int | None = None) -> str:
    return f"{DATASETS[claim.dataset]}, {BACKBONES[claim.backbone]}, {claim.name}, {shot or claim.shot}-shot"
