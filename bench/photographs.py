"""Draws README's first picture: what is shown in one photograph and found in another, by training-free matching.

    python -m bench.photographs docs/photographs.png

Both photographs come with scikit-image; they are from the Middlebury 2014 stereo benchmark (Scharstein et al.).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from fss.predictor import FewShotPredictor
from fss.visualize import TRUTH_COLOR, outline
from fss.web.examples import motorcycle


def main() -> None:
    """Writes the support with its mask, and beside it the query with what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    example = motorcycle()
    [shown] = example.supports
    predictor = FewShotPredictor.load("match")
    predictor.fit(shown.image, shown.mask, name=shown.name)
    found = predictor.predict(example.queries["from the right"]).overlay()
    support = Image.fromarray(outline(shown.image, shown.mask.astype(np.uint8), TRUTH_COLOR))
    sheet = Image.new("RGB", (support.width + found.width + 8, found.height), "white")
    sheet.paste(support, (0, 0))
    sheet.paste(found, (support.width + 8, 0))
    sheet.resize((960, round(960 * sheet.height / sheet.width)), Image.Resampling.LANCZOS).save(given.file)


if __name__ == "__main__":
    main()
