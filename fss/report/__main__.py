"""Reports on runs.

python -m fss.report outputs               # prints tables; writes report.md and report.html to outputs
python -m fss.report compare RUN_A RUN_B   # B minus A on the same episodes, with its interval
python -m fss.report commands --bold       # prints a script that reproduces published numbers
python -m fss.report later                  # published numbers of later papers, with sources
python -m fss.report collect outputs --json results.json   # all results in one file that can be committed
python -m fss.report page results.json     # results.md and its drawings, made from that file
python -m fss.report bundle RUNS           # all that others need to check results
python -m fss.report verify bundle         # checks it
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fss.display.console import PlainConsole
from fss.display.shown import shown
from fss.evaluation.tables import changes

if TYPE_CHECKING:
    from fss.report.compare import Result


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the given command.

    Returns:
        The exit code: 0; 1 for a bundle with problems, which are named; 2 for an error that a user can mend, which
        is printed as other commands print it.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    command = _COMMANDS.get(typed[0] if typed else "")
    try:
        return command(typed[1:]) if command else _report(typed)
    except Exception as error:
        from fss.cli.errors import MENDABLE, tell  # brings Hydra, which --help need not wait for

        if not tell(error):
            raise
        return MENDABLE


def _report(typed: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fss.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("outputs"), help="folder of runs; default: %(default)s"
    )
    parser.add_argument("--out", type=Path, help="folder for the pages; default: that of the runs")
    parsed = parser.parse_args(typed)
    from fss.evaluation.results import PICTURES  # these bring matplotlib, which --help need not wait for
    from fss.report.document import is_sheet, write_report
    from fss.report.found import Found
    from fss.report.tables import comparisons, print_comparison

    found = Found(parsed.folder)
    console = PlainConsole()
    for comparison in comparisons(found.evaluations):
        print_comparison(console, comparison)
    pictures = [path for e in found.evaluations if is_sheet(path := e.path.with_name(PICTURES))]
    if pictures:
        console.print("Pictures of episodes:")
        for path in pictures:
            console.print(f"  {path}", soft_wrap=True)
    if not found.evaluations:
        console.print(f"no evaluation below {parsed.folder} yet: train or evaluate first (python train.py)")
    for path in write_report(found, parsed.out or parsed.folder):
        console.print(f"Report: {path}", soft_wrap=True)
    return 0


def _compare(typed: list[str]) -> int:
    from fss.report.compare import RESAMPLES, compare, find_pairs

    parser = argparse.ArgumentParser(
        prog="python -m fss.report compare",
        description="B minus A on the same episodes, paired, with a 95 % interval over episodes. Folders that "
        "contain several runs are compared fold by fold and seed by seed, where both have them.",
    )
    parser.add_argument("a", type=Path, metavar="RUN_A", help="a results folder, a run, or a folder of runs")
    parser.add_argument("b", type=Path, metavar="RUN_B", help="the same for B")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="resamples; default: %(default)s")
    parsed = parser.parse_args(typed)
    if parsed.resamples < 100:
        raise ValueError(f"--resamples {parsed.resamples}: an interval needs at least 100")
    groups, alone = find_pairs(parsed.a, parsed.b)
    console = PlainConsole()
    console.print(f"A: {parsed.a}\nB: {parsed.b}", soft_wrap=True, highlight=False)
    for pairs in groups:
        _print(console, compare(pairs, parsed.resamples))
    for path in alone:
        console.print(f"left out, because only one has it: {path}", soft_wrap=True, highlight=False)
    return 0


def _commands(typed: list[str]) -> int:
    from fss.report.claims import FILTERS, load_claims, select
    from fss.report.estimate import measured_speeds
    from fss.report.script import script
    from fss.report.slurm import slurm_script

    parser = argparse.ArgumentParser(
        prog="python -m fss.report commands",
        description="Prints a shell script that reproduces published claims, stage by stage: data, base learners, "
        "training, evaluation, report. Claims are named by what they have in common: dataset=coco20i method=bam "
        "tuning=svf shot=5 backbone=resnet50. Comments in the script say what each stage needs.",
    )
    parser.add_argument("filters", nargs="*", metavar="SETTING=VALUE", help=f"any of {', '.join(FILTERS)}")
    parser.add_argument("--bold", action="store_true", help="only the claims to verify first")
    parser.add_argument("--all", action="store_true", help="all claims, if no setting is given")
    parser.add_argument("--slurm", action="store_true", help="a script that submits job arrays to SLURM")
    parser.add_argument(
        "--measured", type=Path, metavar="OUTPUTS", help="folder of runs whose logged speed tells the hours"
    )
    parsed = parser.parse_args(typed)
    if not (parsed.filters or parsed.bold or parsed.all):
        parser.error("name claims (dataset=pascal5i method=bam), or give --bold or --all")
    claims = [claim for claim in load_claims() if claim.first or not parsed.bold]
    speeds = measured_speeds(parsed.measured) if parsed.measured else {}
    print((slurm_script if parsed.slurm else script)(select(claims, parsed.filters), speeds), end="")
    return 0


def _later(typed: list[str]) -> int:
    from fss.report.later import load_later, print_later

    argparse.ArgumentParser(
        prog="python -m fss.report later",
        description="Prints published numbers of later papers, which this program does not reproduce, with their "
        "sources, and the commands for its own numbers beside them.",
    ).parse_args(typed)
    print_later(PlainConsole(), load_later())
    return 0


def _collect(typed: list[str]) -> int:
    from fss.report.collection import add, check_file, collect, read_collection, write_collection
    from fss.report.paired import paired

    parser = argparse.ArgumentParser(
        prog="python -m fss.report collect",
        description="Writes the results of all runs below a folder into one JSON file: integers of every episode, "
        "learning curves, paired comparisons of svf with everything else, and the machine.",
    )
    parser.add_argument("folder", type=Path, help="folder of runs")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--add", action="store_true", help="keep what FILE already holds of other runs, of other machines too"
    )
    parsed = parser.parse_args(typed)
    check_file(parsed.json, parsed.add)
    old = read_collection(parsed.json) if parsed.add else None
    collection = collect(parsed.folder)
    if old is not None:
        collection = add(old, collection)
    write_collection(parsed.json, collection, paired(collection))
    told = f"{parsed.json}: {len(collection.results)} evaluations"
    PlainConsole().print(told, soft_wrap=True, highlight=False)
    return 0


def _page(typed: list[str]) -> int:
    from fss.report.results_page import write_page

    parser = argparse.ArgumentParser(
        prog="python -m fss.report page",
        description="Makes a page of results and its drawings from a file of `collect`. What people have written "
        "into the page outside of its marks stays.",
    )
    parser.add_argument("json", type=Path, help="the file of `collect`")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; default: beside the file, .md")
    parsed = parser.parse_args(typed)
    for path in write_page(parsed.json, parsed.out or parsed.json.with_suffix(".md")):
        PlainConsole().print(str(path), soft_wrap=True, highlight=False)
    return 0


def _bundle(typed: list[str]) -> int:
    from fss.report.bundle import RUNS, check_out, places, write_bundle

    parser = argparse.ArgumentParser(
        prog="python -m fss.report bundle",
        description="Writes a folder with all that others need to check the results of some runs: settings, logs, "
        "weights, versions, the integers of every episode, digests of all these and of the data, a model card. "
        "It holds no picture of the data.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUNS", help="runs, or folders of runs")
    parser.add_argument(
        "--out", type=Path, default=Path("bundle"), help="the folder to write; default: %(default)s"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the data set is now, if it has moved")
    parser.add_argument("--no-weights", action="store_true", help="leave out the weights")
    parser.add_argument("--no-data", action="store_true", help="leave out the digests of the data")
    parsed = parser.parse_args(typed)
    console = PlainConsole()
    check_out(parsed.out)
    found = places(parsed.runs)
    digests = {}
    if not parsed.no_data:
        from fss.cli.bundles import NoRecordError, open_evaluation, picture_digests

        for place, evaluation in found.items():
            try:
                opened = open_evaluation(evaluation.path.parent, evaluation.metrics, parsed.data)
            except NoRecordError as error:
                console.print(f"no digests of the data of {place}: {error}", soft_wrap=True, highlight=False)
            else:
                digests[place] = picture_digests(opened)
    fingerprint = write_bundle(parsed.runs, parsed.out, digests, not parsed.no_weights)
    console.print(f"{parsed.out}: {len(found)} evaluations below {RUNS}/", soft_wrap=True, highlight=False)
    console.print(f"Fingerprint: {fingerprint}", soft_wrap=True, highlight=False)
    return 0


def _verify(typed: list[str]) -> int:
    from fss.report.bundle import FINGERPRINT
    from fss.report.bundle_check import check_bundle

    parser = argparse.ArgumentParser(
        prog="python -m fss.report verify",
        description="Checks a bundle: the digest of every file, and every score against the integers of its "
        "episodes. Where the data is at hand, also the digests of the pictures, and some episodes are run again.",
    )
    parser.add_argument("bundle", type=Path, help="the folder of a bundle")
    parser.add_argument("--fingerprint", help="the fingerprint that was quoted with the results")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where the data set is; embedded data needs none")
    parser.add_argument("--episodes", type=int, default=0, metavar="N", help="episodes of each to run; default: 0")
    parsed = parser.parse_args(typed)
    if parsed.episodes < 0:
        raise ValueError(f"--episodes {parsed.episodes}: must be at least 0, which runs none again")
    console = PlainConsole()
    problems = check_bundle(parsed.bundle)
    told = "" if problems else (parsed.bundle / FINGERPRINT).read_text().split()[0]
    if not problems and parsed.fingerprint not in (None, told):
        problems = [f"its fingerprint is {told}, not {parsed.fingerprint}: it is another bundle"]
    if not problems:
        console.print(f"Every file and every score is as it was made. Fingerprint: {told}", soft_wrap=True)
        if parsed.data or parsed.episodes:
            problems = _run_again(console, parsed.bundle, parsed.data, parsed.episodes)
    for problem in problems:
        print(shown(problem), file=sys.stderr)
    return 1 if problems else 0


def _run_again(console: Console, bundle: Path, data: Path | None, count: int) -> list[str]:
    """Compares pictures and episodes of a bundle with those here; returns what differs."""
    from fss.cli.bundles import FURTHEST, NoRecordError, open_evaluation, picture_digests, run_again
    from fss.report.bundle import bundled_metrics, data_digests

    noted, problems = data_digests(bundle), []
    for place, metrics in bundled_metrics(bundle).items():
        try:
            opened = open_evaluation(bundle / place, metrics, data)
        except NoRecordError as error:
            console.print(f"{place}: not run again, {error}", soft_wrap=True, highlight=False)
            continue
        here = picture_digests(opened)
        if others := {name for name, _ in here.items() ^ noted.get(place, here).items()}:
            problems.append(f"{place}: {len(others)} pictures are others here, such as {min(others)}")
            continue
        if not count:
            told = f"{len(here)} pictures are the same here" if place in noted else "no digests of its pictures"
            console.print(f"{place}: {told}", soft_wrap=True, highlight=False)
            continue
        try:
            again = run_again(opened, count)
        except NoRecordError as error:
            console.print(f"{place}: not run again, {error}", soft_wrap=True, highlight=False)
            continue
        told = f"{place}: {again.equal} of {again.episodes} episodes gave the same integers"
        if again.equal < again.episodes:
            told += f"; the others differ by up to {again.furthest:.2%} of the union"
        if again.furthest > FURTHEST:
            problems.append(f"{told}, more than rounding does")
        else:
            console.print(told, soft_wrap=True, highlight=False)
    return problems


def _print(console: Console, result: Result) -> None:
    m = result.pairs[0].metrics
    folds = sorted({pair.metrics[0]["fold"] for pair in result.pairs})
    seeds = sorted({pair.metrics[0]["seed"] for pair in result.pairs})
    console.print(
        f"{m[0]['dataset']}, {m[0]['shot']}-shot, folds {folds}, training seeds {seeds}\n"
        f"{result.episodes} episodes (protocol {m[0]['protocol']})",
        highlight=False,
    )
    if any(metrics["selection"] != "none" for metrics in m):
        console.print(f"weights chosen by: A {m[0]['selection']}, B {m[1]['selection']}", highlight=False)
    for name, metrics in zip("AB", m, strict=True):
        if changed := changes(metrics):
            console.print(f"{name} was evaluated otherwise than its run: {', '.join(changed)}", highlight=False)
    table = Table()
    table.add_column("IoU in percent")
    for name in ("A", "B", "B - A", "95 % interval", "B better"):
        table.add_column(name, justify="right")
    for row in (*result.classes, result.miou):
        if row is result.miou:
            table.add_section()
        low, high = (f"{100 * value:+.1f}" for value in row.interval)
        numbers = (f"{100 * row.a:.1f}", f"{100 * row.b:.1f}", f"{100 * row.difference:+.1f}", f"{low} to {high}")
        table.add_row(row.label, *numbers, f"{row.better:.1%}", style="bold" if row is result.miou else None)
    console.print(table)
    if len(result.of_seed) > 1:
        told = ", ".join(f"{100 * value:+.1f} (seed {seed})" for seed, value in sorted(result.of_seed.items()))
        console.print(f"mIoU, B - A, by training seed: {told}", highlight=False)
    else:
        console.print(
            "One training seed: the interval covers other episodes, not other training runs.", highlight=False
        )


_COMMANDS = {
    "compare": _compare,
    "commands": _commands,
    "later": _later,
    "collect": _collect,
    "page": _page,
    "bundle": _bundle,
    "verify": _verify,
}

if __name__ == "__main__":
    sys.exit(main())
