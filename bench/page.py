"""How long the page takes from a click on "Find it" to a picture, without the browser's own time.

    python -m bench.page [--model RUN] [--times 20] [--device cpu]

A photograph of 12 million pixels, as telephones take them, is searched for one class of one support: read,
reduced, predicted and drawn; then explained at a point. Prints medians and 95th percentiles in seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fss.predictor import FewShotPredictor
from fss.web.examples import motorcycle
from fss.web.session import Session
from fss.web.why import draw_resemblance

SIZE = (4000, 3000)  # width and height in pixels


def seconds(work: Callable[[], object], times: int) -> list[float]:
    """Durations of some repetitions, after one that does not count."""
    work()
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return durations


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="match")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--times", type=int, default=20)
    given = parser.parse_args()
    model, example = FewShotPredictor.load(given.model, given.device), motorcycle()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "photograph.jpg"
        Image.fromarray(cv2.resize(example.queries["from the right"], SIZE)).save(file, quality=90)
        session = Session()
        session.ask([file])
        session.show(example.supports[0], model)

        def find() -> np.ndarray:
            session.search()
            return np.asarray(session.answers()[0].overlay())

        def explain() -> np.ndarray:
            session.search()  # forgets the explanation
            explanation = session.explain("motorcycle")
            return draw_resemblance(explanation.resemblance(400, 300), session.supports)

        def download() -> np.ndarray:
            return session.at_own_size(0).labels

        for name, work in (("find", find), ("find and explain", explain), ("mask at its own size", download)):
            durations = seconds(work, given.times)
            print(f"{name}: median {np.median(durations):.2f} s, p95 {np.percentile(durations, 95):.2f} s")


if __name__ == "__main__":
    main()
