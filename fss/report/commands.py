"""The commands that fill the empty cells of the claims table."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable

from fss.report.claims import FOLDS, Claim
from fss.report.found import Found
from fss.report.verify import Verdict

NOVEL_KEPT = "novel-kept"  # otherwise runs on the original data would overwrite those without novel pictures


def commands(verdict: Verdict, found: Found) -> list[str]:
    """Commands to type, in order, for the missing folds of one training seed; empty if none is missing.

    The seed with the most results so far is used. Unfinished training is resumed; training evaluates at its end,
    and runs that are already trained need only `evaluate.py`.
    """
    claim = verdict.claim
    if verdict.judge is not None and verdict.judge.mean is not None:
        return []
    trained = {(run.config["fold"], run.config["seed"]) for run in verdict.runs if run.has_trained}
    began = {(run.config["fold"], run.config["seed"]) for run in verdict.runs}
    have = Counter(seed for _, seed in [*verdict.evaluated, *trained, *began])
    seed = min(have, key=lambda s: (-have[s], s)) if have else 0
    missing = {fold for fold in range(FOLDS) if (fold, seed) not in verdict.evaluated}
    to_train = {fold for fold in missing if (fold, seed) not in trained}
    lines = []
    if claim.method == "bam":
        lines += _line("train.py", _without_base(claim, found, to_train, seed), claim, found, "method=base", seed)
    method = f"method={claim.method} tuning={claim.tuning}"
    goes_on = " resume=true" if any((fold, seed) in began for fold in to_train) else ""
    lines += _line("train.py", to_train, claim, found, f"{method} shot={claim.train_shot}{goes_on}", seed)
    # evaluation with another number of shots comes after training
    other_shot = claim.train_shot != claim.shot
    shot = f"shot={claim.shot}" + (f" train_shot={claim.train_shot}" if other_shot else "")
    lines += _line(
        "evaluate.py", missing if other_shot else missing - to_train, claim, found, f"{method} {shot}", seed
    )
    return lines


def _without_base(claim: Claim, found: Found, folds: Iterable[int], seed: int) -> set[int]:
    """Folds whose base learner has not been trained yet."""
    there = {
        run.config["fold"]
        for run in found.runs.values()
        if run.has_trained
        and (run.config["method"]["name"], run.config["seed"]) == ("base", seed)
        and run.config["dataset"]["name"] == claim.dataset
        and run.config["backbone"]["name"].removesuffix("_deep") == claim.backbone
    }
    return set(folds) - there


def _line(script: str, folds: set[int], claim: Claim, found: Found, what: str, seed: int) -> list[str]:
    if not folds:
        return []
    # a report is made to be shared, and does not tell where somebody keeps things
    outputs = "DIR_OF_RUNS" if found.folder.is_absolute() else str(found.folder)
    words = ["python", script, *(["-m"] if len(folds) > 1 else [])]
    words += [f"dataset={claim.dataset}", "dataset.root=DIR", f"backbone={claim.backbone}", what]
    words += [f"fold={','.join(map(str, sorted(folds)))}"]
    if seed:
        words.append(f"seed={seed}")
    if claim.source.protocols[0] != "svf":
        words.append(f"protocol={claim.source.protocols[0]}")
    if not claim.exclude_novel:
        words.append("dataset.exclude_novel=false")
        outputs = f"{outputs}/{NOVEL_KEPT}"
    if outputs != "outputs":
        words.append(shlex.quote(f"outputs={outputs}"))
    return [" ".join(words)]
