"""Programs that are killed at any moment (kill -9): what is done again has the same bits, and nobody is left.

python -m checks.kills                      # 20 trainings, 10 evaluations, 10 of prepare, 5 sweeps
python -m checks.kills --kinds evaluation --times 3 --seed 7

Each is killed at a chance moment of its work, alone or several times before it may come to its end, and compared
with one that nothing happened to. Ten seconds after each kill none of its processes may be there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from checks import forks, interrupted, resume

ROOT = forks.ROOT
PATIENCE = 10.0  # seconds in which all processes have to be gone
TIMES = {"training": 20, "evaluation": 10, "prepare": 10, "sweep": 5}
MARK = "FSS_KILLS"  # in the environment of everything that is started here
SMALL = [*forks.SETTINGS, *resume.SETTINGS]
PRIOR = [
    *forks.SETTINGS[:-1],  # the prior mask has no width
    *("method=prior", "tuning=frozen", "backbone.weights=null", "trainer=cpu", "episodes=60", "pictures=0"),
]


class Kind(NamedTuple):
    """Something that can be killed.

    Attributes:
        command: What is typed after `python`.
        again: What is typed to go on.
        outcome: Everything of a folder that has to be the same.
        prepare: What a folder needs first.
        begun: Whether work has begun in a folder, after which it is killed.
    """

    command: list[str]
    again: list[str]
    outcome: Callable[[Path], Any]
    prepare: Callable[[Path], None] = lambda folder: None
    begun: Callable[[Path], bool] = lambda folder: True


def training(folder: Path) -> dict[str, Any]:
    """Weights, optimiser, scores and episodes of a training, as digests."""
    return {name: _digest(value) for name, value in resume.outcome(folder).items()}


def evaluation(folder: Path) -> dict[str, Any]:
    """All results but their timing."""
    return interrupted.outcome(folder)


def tree(folder: Path) -> dict[str, str]:
    """Every file below a data set's root but the given ones."""
    files = [path for path in (folder / "coco").rglob("*") if path.is_file() and path.suffix != ".jpg"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def sweep(folder: Path) -> dict[str, Any]:
    """Results of every job."""
    results = {}
    for path in sorted(folder.rglob("metrics.json")):
        metrics = json.loads(path.read_text())
        results[str(path.relative_to(folder))] = metrics["seeds"]
    return results


def write_coco(folder: Path) -> None:
    """A small COCO before its masks are drawn: 2000 pictures, which takes a few seconds."""
    root, chance = folder / "coco", np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    (root / "train2014").mkdir()
    cv2.imwrite(str(root / "train2014/0.jpg"), np.zeros((240, 320, 3), np.uint8))
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(2000):
        name = f"{number}.jpg"
        if number:
            os.link(root / "train2014/0.jpg", root / "train2014" / name)
        pictures.append({"id": number, "file_name": name, "height": 240, "width": 320})
        for _ in range(4):
            points = (chance.random((60, 2)) * (320, 240)).round(1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(chance.integers(1, 5)),
                    "segmentation": [points.ravel().tolist()],
                    "iscrowd": 0,
                    "area": 1.0,
                    "bbox": [0, 0, 1, 1],
                }
            )
    categories = [{"id": i, "name": f"thing {i}", "supercategory": "thing"} for i in range(1, 5)]
    content = {"images": pictures, "annotations": annotations, "categories": categories}
    (root / "annotations/instances_train2014.json").write_text(json.dumps(content))


KINDS: Mapping[str, Kind] = {
    "training": Kind(
        [str(ROOT / "train.py"), *SMALL, "save_minutes=0", "resume=true"],
        [str(ROOT / "train.py"), *SMALL, "save_minutes=0", "resume=true"],
        training,
        begun=lambda folder: (folder / forks.RUN / "checkpoints").is_dir(),
    ),
    "evaluation": Kind(
        [str(ROOT / "evaluate.py"), *PRIOR],
        [str(ROOT / "evaluate.py"), *PRIOR],
        evaluation,
        begun=lambda folder: any(folder.rglob(".unfinished-0")),
    ),
    "prepare": Kind(
        ["-m", "fss.data.prepare", "coco20i", "--root", "coco", "--sets", "train", "--workers", "2"],
        ["-m", "fss.data.prepare", "coco20i", "--root", "coco", "--sets", "train", "--workers", "2"],
        tree,
        write_coco,
        begun=lambda folder: any((folder / "coco/masks").rglob("*.png")),
    ),
    "sweep": Kind(
        [str(ROOT / "train.py"), "-m", "fold=0,1", *SMALL, "save_minutes=0", "resume=true"],
        [str(ROOT / "train.py"), "-m", "fold=0,1", *SMALL, "save_minutes=0", "resume=true"],
        sweep,
        begun=lambda folder: any(folder.rglob("checkpoints")),
    ),
}


def start(command: list[str], folder: Path, mark: str) -> subprocess.Popen[bytes]:
    """Starts a command in a folder, where its output goes to log.txt."""
    environment = {**os.environ, MARK: mark, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def left(mark: str) -> list[str]:
    """Processes of a mark that have not ended, by what they are."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and f"{MARK}={mark}\0".encode() in (place / "environ").read_bytes():
                state = (place / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append(f"{place.name}: {words:.120}")
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return found


def killed(kind: Kind, folder: Path, mark: str, delay: float) -> tuple[bool, list[str], float]:
    """Starts something, and kills it some seconds after its work has begun.

    Returns:
        Whether it was killed before its end; who was left after the patience; after how many seconds nobody was.
    """
    process = start(kind.command, folder, mark)
    while process.poll() is None and not kind.begun(folder):
        time.sleep(0.02)
    try:
        process.wait(delay)
        was_killed = False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        was_killed = True
    began = time.monotonic()
    while (others := left(mark)) and time.monotonic() - began < PATIENCE:
        time.sleep(0.05)
    return was_killed, others, time.monotonic() - began


def check(name: str, times: int, chance: random.Random) -> int:
    """Kills one kind of program so many times; how many came out otherwise than undisturbed."""
    kind, failed = KINDS[name], 0
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        undisturbed = Path(place) / "undisturbed"
        undisturbed.mkdir()
        kind.prepare(undisturbed)
        process = start(kind.command, undisturbed, f"{os.getpid()}-undisturbed")
        while not kind.begun(undisturbed) and process.poll() is None:
            time.sleep(0.02)
        began = time.monotonic()
        if process.wait():
            print((undisturbed / "log.txt").read_text()[-6000:])
            return times
        work = time.monotonic() - began
        expected = kind.outcome(undisturbed)
        number = tried = 0
        while number < times:
            tried += 1
            folder, mark = Path(place) / f"{tried}", f"{os.getpid()}-{name}-{tried}"
            folder.mkdir()
            kind.prepare(folder)
            slowest, kills = 0.0, 0
            wrong: list[str] = []
            # at times again while it goes on, of which the last may be too late
            for _ in range(chance.choice((1, 1, 2))):
                was_killed, others, seconds = killed(kind, folder, mark, chance.random() * work)
                kills += was_killed
                slowest = max(slowest, seconds)
                wrong += [f"left: {other}" for other in others]
            if start(kind.again, folder, mark).wait():
                wrong.append("it did not go on")
            elif kind.outcome(folder) != expected:
                wrong.append("other bits")
            wrong += [f"left: {path}" for path in folder.rglob(".*.part")]
            verdict = "; ".join(wrong) if wrong else "the same bits"
            print(f"{name} {number + 1}: {kills} kills, nobody left after {slowest:.1f} s: {verdict}", flush=True)
            if wrong:
                failed += 1
                print((folder / "log.txt").read_text()[-4000:])
            number += kills > 0  # one that ended before it was killed shows nothing
            shutil.rmtree(folder)
    return failed


def _digest(value: Any) -> str:
    content = value.numpy().tobytes() if hasattr(value, "numpy") else repr(value).encode()
    return hashlib.sha256(content).hexdigest()


def main() -> int:
    """Kills what is named on the command line; 1 if anything came out otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m checks.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="default: all")
    parser.add_argument("--times", type=int, help="of each; default: 20, 10, 10 and 5")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    failed = sum(check(name, given.times or TIMES[name], chance) for name in given.kinds)
    print("all as undisturbed" if not failed else f"{failed} otherwise")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
