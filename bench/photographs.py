"""Draws README's first picture: things shown in one photograph and found in another, by training-free matching.

    python -m bench.photographs docs/photographs.png

The photographs come with scikit-image; the motorcycle is of the Middlebury stereo data set (CC0), the coins are of
the Brooklyn Museum (no known restrictions).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fss.predictor import FewShotPredictor
from fss.visualize import TRUTH_COLOR, outline, picture_sheet
from fss.web.examples import coins, motorcycle


def main() -> None:
    """Finds what the page's examples show, and writes one sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    predictor = FewShotPredictor.load("match")
    tiles: list[np.ndarray] = []
    captions: list[str] = []
    for example in (motorcycle(), coins()):
        [shown] = example.supports
        predictor.fit(shown.image, shown.mask, name=shown.name)
        tiles.append(outline(shown.image, shown.mask.astype(np.uint8), TRUTH_COLOR))
        captions.append(f"shown: {shown.name}")
        searched = next(iter(example.queries.values()))
        tiles.append(np.asarray(predictor.predict(searched).overlay()))
        captions.append("found")
        predictor.forget(shown.name)
    picture_sheet(tiles, captions, tile=360).save(given.file)


if __name__ == "__main__":
    main()
