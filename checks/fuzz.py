"""Damaged inputs for everything that the program reads: each is refused by name or accepted, and nothing else.

python -m checks.fuzz                            # 100 000 in all, on two processes
python -m checks.fuzz --count 3000 --only coco   # targets whose name holds "coco"
python -m checks.fuzz --only coco --first 1234 --count 1 --seed 0   # one input again

The table counts for each target: `named`, refused by a ValueError or OSError that names the file and is short
enough to read; `accepted`; `silent`, accepted with another result although the format carries checksums; `other`,
any other error, a dead or hanging process, memory beyond bounds, or a file written outside the example. The last
two must be 0.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import logging
import multiprocessing
import os
import pkgutil
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import checks.fuzzing
from checks.fuzzing.target import Target

OUTCOMES = ("named", "accepted", "silent", "other")
LONGEST_MESSAGE = 4000  # characters that somebody still reads
PATIENCE = 30  # seconds for one input
MEMORY = 6 * 2**30  # bytes that a process may take beyond what it starts with


class Outcome(NamedTuple):
    """What became of one input; `detail` says why it is not as it should be."""

    number: int
    kind: str
    detail: str = ""


def targets() -> list[Target]:
    """All that the modules of `checks.fuzzing` offer, by name."""
    modules = [
        importlib.import_module(f"checks.fuzzing.{m.name}") for m in pkgutil.iter_modules(checks.fuzzing.__path__)
    ]
    found = sorted((t for module in modules for t in getattr(module, "TARGETS", ())), key=lambda t: t.name)
    if len({target.name for target in found}) < len(found):
        raise ValueError(f"two targets of one name: {[target.name for target in found]}")
    return found


def trials(target: Target, seed: int, numbers: range) -> Iterator[Outcome]:
    """Tries a target with damaged inputs, each a function of (target, seed, number) alone.

    Args:
        target: What is tried.
        seed: Of all damage.
        numbers: Which inputs.
    """
    with tempfile.TemporaryDirectory(prefix="fuzz-") as around:
        folder = Path(around, "example")
        folder.mkdir()
        files = [path.relative_to(folder) for path in target.write(folder)]
        sound = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        expected = target.read(folder)  # an example that is refused as it is would prove nothing
        _restore(folder, sound)
        for number in numbers:
            rng = np.random.default_rng(
                [seed, int(hashlib.sha256(target.name.encode()).hexdigest()[:8], 16), number]
            )
            file = files[int(rng.integers(len(files)))]
            damaged = target.mutate(sound[file], rng)
            (folder / file).write_bytes(damaged)
            yield _trial(target, folder, file, number, expected)
            _restore(folder, sound)


def _trial(target: Target, folder: Path, file: Path, number: int, expected: object) -> Outcome:
    try:
        found = target.read(folder)
    except (ValueError, OSError) as error:
        message = str(error)
        if file.name not in message and file.stem not in message:
            return Outcome(number, "other", f"{file} is not named by {error!r:.300}")
        if len(message) > LONGEST_MESSAGE:
            return Outcome(number, "other", f"{file}: a message of {len(message)} characters")
        return _stays_inside(Outcome(number, "named"), folder)
    except Exception:
        return Outcome(number, "other", traceback.format_exc(limit=-4))
    silent = target.exact and found != expected
    return _stays_inside(Outcome(number, "silent" if silent else "accepted", str(file) if silent else ""), folder)


def _stays_inside(outcome: Outcome, folder: Path) -> Outcome:
    written = [path.name for path in folder.parent.iterdir() if path != folder]
    return Outcome(outcome.number, "other", f"written outside: {written}") if written else outcome


def _restore(folder: Path, sound: dict[Path, bytes]) -> None:
    """Makes an example what it was before a trial."""
    for path in [p for p in folder.parent.iterdir() if p != folder]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif not path.is_dir() and path.relative_to(folder) not in sound:
            path.unlink()
    for name, content in sound.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def isolated(target: Target, seed: int, numbers: range) -> list[Outcome]:
    """As `trials`, in a process of its own: one that dies or hangs is an outcome, and another goes on after it."""
    outcomes: list[Outcome] = []
    context = multiprocessing.get_context("fork")
    while len(outcomes) < len(numbers):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(target, seed, numbers[len(outcomes) :], send), daemon=True)
        process.start()
        send.close()
        why = ""
        try:
            while len(outcomes) < len(numbers):
                if not receive.poll(PATIENCE):
                    why = f"no answer within {PATIENCE} s"
                    break
                received = receive.recv()
                if isinstance(received, str):
                    raise RuntimeError(f"{target.name}: the sound example itself cannot be read:\n{received}")
                outcomes.append(received)
        except EOFError:
            process.join()
            why = f"the process ended with {process.exitcode}"
        process.kill()
        process.join()
        if why:
            outcomes.append(Outcome(numbers[len(outcomes)], "other", why))
    return outcomes


def _work(target: Target, seed: int, numbers: range, send: Connection) -> None:
    logging.disable(logging.CRITICAL)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libjpeg and others talk there
    try:
        for outcome in trials(target, seed, numbers):
            send.send(outcome)
    except Exception:
        send.send(traceback.format_exc())


def main(arguments: Sequence[str] | None = None) -> int:
    """Tries all targets and prints the table; 1 where anything is silent or other."""
    parser = argparse.ArgumentParser(
        prog="python -m checks.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--count", type=int, default=100_000, help="inputs, shared by the targets; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all damage; default: %(default)s")
    parser.add_argument("--only", default="", help="targets whose name holds this")
    parser.add_argument("--first", type=int, default=0, help="number of each target's first input")
    parser.add_argument("--workers", type=int, default=2, help="processes; default: %(default)s")
    given = parser.parse_args(arguments)
    chosen = [target for target in targets() if given.only in target.name]
    if not chosen:
        parser.error(f"--only {given.only}: there are {', '.join(target.name for target in targets())}")
    each = -(-given.count // len(chosen))

    def run(target: Target) -> tuple[list[Outcome], float]:
        start = time.perf_counter()
        return isolated(target, given.seed, range(given.first, given.first + each)), time.perf_counter() - start

    table = Table("target", *OUTCOMES, "s")
    sums: Counter[str] = Counter()
    console = Console()
    with ThreadPoolExecutor(given.workers) as pool:
        for target, (outcomes, seconds) in zip(chosen, pool.map(run, chosen), strict=True):
            counts = Counter(outcome.kind for outcome in outcomes)
            sums += counts
            table.add_row(target.name, *(str(counts[kind]) for kind in OUTCOMES), f"{seconds:.0f}")
            for outcome in [o for o in outcomes if o.detail][:3]:
                console.print(escape(f"{target.name} --first {outcome.number}: {outcome.kind}: {outcome.detail}"))
    table.add_row("all", *(str(sums[kind]) for kind in OUTCOMES), "", style="bold")
    console.print(table)
    return 1 if sums["other"] or sums["silent"] else 0


if __name__ == "__main__":
    sys.exit(main())
