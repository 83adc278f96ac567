"""A shell script that reproduces published claims on a SLURM cluster: job arrays that wait for one another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fss.report.claims import FOLDS, Claim
from fss.report.commands import base_learner_line, evaluation_line, training_line
from fss.report.estimate import Speeds, base_hours, training_hours
from fss.report.script import PLACE, data_stage, made_once, order, places, title

_SPARE = 1.3  # of the estimated time, for slower nodes; a job that is cut off goes on when it is submitted again


def slurm_script(claims: Sequence[Claim], speeds: Speeds | None = None) -> str:
    """Writes the script. `bash FILE submit` submits everything; each job of an array is one fold.

    Args:
        claims: What to reproduce; what they share (data, base learners, trainings) is made once.
        speeds: See `measured_speeds`, for the jobs' time limits; without, the partition's default holds.
    """
    bases, trainings = made_once(claims)
    known = speeds or {}
    arrays = {
        "base": [base_learner_line(c, [fold], PLACE) for c in bases for fold in range(FOLDS)],
        "train": [training_line(c, [fold], PLACE) + order(c) for c in trainings for fold in range(FOLDS)],
        "evaluate": [evaluation_line(c, [fold], PLACE) + order(c) for c in claims for fold in range(FOLDS)],
    }
    limits = {
        "base": _limit([base_hours(c, known) for c in bases]),
        "train": _limit([training_hours(c, known) for c in trainings]),
        "evaluate": "",
    }
    stages = "\n".join(f"{name}=(\n" + "\n".join(map(_quoted, lines)) + "\n)" for name, lines in arrays.items())
    data = "\n".join(data_stage(dataset) for dataset in dict.fromkeys(c.dataset for c in claims))
    submitted = "\n".join(_submit(name, len(lines), limits[name]) for name, lines in arrays.items() if lines)
    return f"""\
{title(claims)}#
# From the checkout on a login node, with the environment activated: bash FILE submit. It prepares the data and
# submits a job array for each stage, which waits for the one before. If a job fails or is cut off, submit again:
# what is unfinished goes on. `bash FILE base 3` does job 3 of a stage right here. The last job writes the report.
{places(claims)}
slurm=${{SLURM_OPTIONS:---gpus-per-node=1 --cpus-per-task=8 --mem=32G}}   # of every array, such as a partition

{stages}

data() {{
{data}
}}

submit() {{  # stage, dependency, more options; prints the job's number
    sbatch --parsable --kill-on-invalid-dep=yes --job-name="fss-$1" ${{2:+--dependency=afterok:$2}} \\
        $slurm "${{@:3}}" "$0" "$1"
}}

case "${{1:-}}" in
submit)
    data
    before=
{submitted}
    submit report "$before"
    ;;
base | train | evaluate)
    declare -n jobs=$1
    eval "${{jobs[${{2:-${{SLURM_ARRAY_TASK_ID:?give the number of a job}}}}]}}"
    ;;
report) python -m fss.report "$outputs" ;;
*)
    echo "usage: bash $0 submit | base N | train N | evaluate N | report" >&2
    exit 2
    ;;
esac
"""


def _submit(name: str, count: int, limit: str) -> str:
    return f'    before=$(submit {name} "$before" --array=0-{count - 1}{limit})'


def _limit(hours: Sequence[list[float] | None]) -> str:
    """The option that limits the time of an array's jobs, if all are known."""
    known = [max(of) for of in hours if of is not None]
    return f" --time={math.ceil(_SPARE * max(known))}:00:00" if known and len(known) == len(hours) else ""


def _quoted(line: str) -> str:
    """A command as one word of bash, to be evaluated later."""
    return "    '" + line.replace("'", "'\\''") + "'"
