"""Measures how long a query takes after `fit`, beside the published way, on the same pictures in one process.

    python -m bench.prediction                    # PFENet on ResNet-50 at 473 pixels, 1 and 5 supports

The published way (`bench/reference.py`) passes the query and all supports through a factored backbone for every
query, the supports one after another. The predictor encodes the supports once and merges the factors. Both are
timed in turns, so that other programs disturb them alike; weights are random, and times contain preprocessing and
the way back to the picture's size. The table also tells on how many pixels of all queries their masks differ.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.evaluation import Blobs, factors
from bench.reference import Published
from fss.data.preprocessing import EvaluationTransform
from fss.metrics import predict_at_original_size
from fss.models.backbones import ResNetBackbone
from fss.models.heads import PFENet
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf
from fss.predictor import FewShotPredictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=473)
    parser.add_argument("--depth", type=int, default=50, help="depth of the ResNet; default: %(default)s")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--queries", type=int, default=20)
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reader, transform = Blobs(100), EvaluationTransform(given.size)
    torch.manual_seed(0)
    backbone = ResNetBackbone(depth=given.depth, stem="torchvision")
    segmenter = FewShotSegmenter(backbone, PFENet(backbone.channels))
    published = Published(segmenter, factors).to(device)
    segmenter.tune(partial(svf, svd=factors))
    predictor = FewShotPredictor(segmenter, given.size, "published", device=device)
    normalize = segmenter.backbone.normalize

    def square(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = transform(reader.image(number), (reader.mask(number) > 0).astype(np.uint8))
        return torch.from_numpy(image).permute(2, 0, 1).to(device), torch.from_numpy(mask).to(device)

    @torch.inference_mode()
    def publish(query: int, supports: range) -> np.ndarray:
        images, masks = zip(*map(square, supports), strict=True)
        support, mask = normalize(torch.stack(images))[None], torch.stack(masks)[None]
        logits = published(normalize(square(query)[0])[None], support, mask).logits[0]
        return predict_at_original_size(logits, *reader.mask(query).shape).cpu().numpy()

    def answer(query: int) -> np.ndarray:
        return predictor.predict(reader.image(query)).labels

    title = f"Seconds for a query, PFENet on ResNet-{given.depth}, {given.size} pixels, {device}, "
    title += f"{torch.get_num_threads()} threads, {given.queries} queries in turns"
    columns = "shots", "fit", "published p50", "p95", "after fit p50", "p95", "ratio p50", "pixels that differ"
    table = Table(*columns, title=title)
    for shots in given.shots:
        supports = range(shots)
        since = time.perf_counter()
        predictor.fit([reader.image(n) for n in supports], [reader.mask(n) > 0 for n in supports])
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # an answer waits for the device by itself
        fit = time.perf_counter() - since
        times: dict[str, list[float]] = {"published": [], "ours": []}
        differing = 0
        for query in range(20, 21 + given.queries):
            masks: dict[str, np.ndarray] = {}
            ways = {"published": partial(publish, query, supports), "ours": partial(answer, query)}
            for way, call in ways.items():
                since = time.perf_counter()
                masks[way] = call()
                times[way].append(time.perf_counter() - since)
            differing += int(np.count_nonzero(masks["published"] != masks["ours"]))
        predictor.forget("object")
        theirs, ours = (np.array(values[1:]) for values in times.values())  # the first is for warming up
        row = [fit, *np.percentile(theirs, [50, 95]), *np.percentile(ours, [50, 95]), np.median(ours / theirs)]
        table.add_row(str(shots), *(f"{value:.3f}" for value in row), str(differing))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
