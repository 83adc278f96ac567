"""Measures a training step and an evaluation episode beside the published way of computing them, on equal inputs.

    python -m bench.training [--methods pfenet bam] [--shots 1 5] [--what training] [--size 473] [--json FILE]

ResNet-50 with random weights, float32, one episode a step, without dropout. For each case, two processes, one for
each way, take turns step by step, so that both meet the same machine; a ratio is that of two neighbouring steps.
Both ways must find the same loss. Memory is the largest resident memory of each process. The supports' object is a
circle of `--object` of the picture's side.

On a busy machine, use one thread (OMP_NUM_THREADS=1) and look at the processor time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from bench.evaluation import factors
from bench.paired import Result, Work, paired, show, write
from bench.reference import Published
from fss.models.backbones import ResNetBackbone
from fss.models.heads import BAM, Head, PFENet
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf
from fss.svf import merge

BASE_CLASSES = 15


class Case(NamedTuple):
    """What both ways compute; plain values, so that another process can make it."""

    method: str
    shot: int
    size: int
    extent: float


def segmenter_of(case: Case) -> FewShotSegmenter:
    """An untuned segmenter with the same random weights every time; features have the same scale at all depths."""
    torch.manual_seed(0)
    backbone = ResNetBackbone()
    channels = backbone.channels
    head: Head = PFENet(channels) if case.method == "pfenet" else BAM(channels, BASE_CLASSES, case.shot)
    for module in head.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0  # the two ways would draw different channels
    for block in backbone.modules():
        if isinstance(block, Bottleneck):
            nn.init.constant_(block.bn3.weight, 0.2)
    return FewShotSegmenter(backbone, head)


def batch_of(case: Case) -> tuple[Tensor, ...]:
    """Query, support, support masks, own class, query mask and base mask of one episode."""
    random = torch.Generator().manual_seed(1)
    s = case.size
    query = torch.randn(1, 3, s, s, generator=random)
    support = torch.randn(1, case.shot, 3, s, s, generator=random)
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, s)] * 2, indexing="ij")
    ellipse = (rows**2 + columns**2 <= case.extent**2).to(torch.uint8)
    query_mask, base_mask = ellipse[None], 3 * ellipse[None]
    masks = ellipse.expand(1, case.shot, s, s)
    return query, support, masks, torch.tensor([2]), query_mask, base_mask


def our_training(case: Case, checkpointing: bool = False) -> Work:
    segmenter = segmenter_of(case)
    segmenter.tune(partial(svf, svd=factors))
    if checkpointing:
        segmenter.keep_less()
    return training(segmenter.train(), segmenter.head, case)


def published_training(case: Case) -> Work:
    published = Published(segmenter_of(case), factors)
    return training(published, published.head, case)


def training(network: nn.Module, head: Head, case: Case) -> Work:
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 1e-3, momentum=0.9, weight_decay=1e-4)
    *given, query_mask, base_mask = batch_of(case)

    def step() -> float:
        optimizer.zero_grad()
        losses = head.losses(network(*given), query_mask, None, base_mask)
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def our_evaluation(case: Case) -> Work:
    segmenter = segmenter_of(case)
    segmenter.tune(partial(svf, svd=factors))
    return evaluation(merge(segmenter).eval(), case)


def published_evaluation(case: Case) -> Work:
    return evaluation(Published(segmenter_of(case), factors), case)


def evaluation(network: nn.Module, case: Case) -> Work:
    query, support, masks, *_ = batch_of(case)

    def episode() -> float:
        with torch.inference_mode():
            return float(network(query, support, masks).logits.abs().mean())

    return episode


WORK = {
    "training": "training step",
    "checkpointing": "training step with checkpointing",
    "evaluation": "evaluation episode",
}
TIME_GOALS = {("pfenet", 1): 0.7, ("pfenet", 5): 0.6, ("bam", 1): 0.65, ("bam", 5): 0.6}


def measure(case: Case, what: Collection[str], pairs: int) -> Iterator[Result]:
    """A training step and an evaluation episode, as far as asked for.

    Raises:
        ValueError: If the two ways find different losses.
    """
    name, shots = {"pfenet": "PFENet", "bam": "BAM"}[case.method], f"{case.shot}-shot"
    goal = TIME_GOALS.get((case.method, case.shot))
    ways: tuple[tuple[str, Callable[[], Work], Callable[[], Work], float | None, float | None], ...] = (
        ("training", partial(our_training, case), partial(published_training, case), goal, 0.5),
        ("checkpointing", partial(our_training, case, True), partial(published_training, case), None, 0.35),
        (
            "evaluation",
            partial(our_evaluation, case),
            partial(published_evaluation, case),
            0.6 if case.method == "pfenet" else None,
            None,
        ),
    )
    for work, ours, published, time_goal, memory_goal in ways:
        if work not in what:
            continue
        result = paired(f"{name} {shots}, {WORK[work]}", ours, published, pairs, time_goal, memory_goal)
        if result.apart > 1e-3:
            raise ValueError(f"{result.case}: the two ways differ by {result.apart:.1e} of their loss")
        yield result


def main() -> None:
    """Measures the chosen cases, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=("pfenet", "bam"), default=["pfenet", "bam"])
    parser.add_argument("--shots", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--what", nargs="+", choices=WORK, default=list(WORK), help="default: all")
    parser.add_argument("--size", type=int, default=473, help="pixels; default: %(default)s")
    parser.add_argument("--object", type=float, default=0.5, help="default: %(default)s")
    parser.add_argument("--pairs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="a file to write the results to")
    given = parser.parse_args()
    results: list[Result] = []
    for method in given.methods:
        for shot in given.shots:
            for result in measure(Case(method, shot, given.size, given.object), given.what, given.pairs):
                results.append(result)
                print(f"{result.case}: {result.ratio:.2f} of the published time", flush=True)
                if given.json:
                    write(results, given.json)  # after each: all take long
    show(results, f"ResNet-50 at {given.size} pixels, ours and the published way in turns")


if __name__ == "__main__":
    main()
