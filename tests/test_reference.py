"""The published way, as restated for the benchmarks, gives the published programs' own numbers and ours."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from test_golden import FILES, LOSSES, build, close, inputs, remembered_svd

from bench.reference import Published
from fss.models.tuning import svf
from fss.svf import singular_values

CASES = [name for name in FILES if name.split("_")[0] in ("pfenet", "pfenetsvf", "bam") and "resnet50" in name]


@pytest.mark.slow
@pytest.mark.nightly  # minutes in all; the benchmark compares losses of both ways whenever it is run
@pytest.mark.parametrize("case", CASES)
def test_golden_outputs(case: str) -> None:
    golden, query, support, support_mask, _ = inputs(case, torch.float32)
    published = Published(build(case), remembered_svd)
    with torch.no_grad():
        prediction = published(query, support, support_mask)
    if "final" in golden:
        close(prediction.inner[0], golden["meta"], 1e-4)
    close(prediction.logits, golden["final" if "final" in golden else "logits"], 1e-4)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("case", [c for c in CASES if c.endswith("_1shot")])
def test_golden_gradients_and_ours(case: str) -> None:
    golden, *batch = inputs(case, torch.float64)
    query, support, support_mask, query_mask = batch
    base_mask, own_class = (
        torch.from_numpy(golden[name]) if name in golden else None for name in ("base_mask", "train_cat")
    )
    ours = build(case).double()
    published = Published(ours, remembered_svd)
    ours.tune(partial(svf, svd=remembered_svd))
    for network, head in ((published, published.head), (ours, ours.head)):
        losses = head.losses(network(query, support, support_mask, own_class), query_mask, None, base_mask)
        named = [losses[name] for name in LOSSES[case.split("_")[0].removesuffix("svf")]]
        for loss, expected in zip(named, golden["svf_train_losses"], strict=True):
            assert loss.item() == pytest.approx(float(expected), rel=1e-5)
        torch.stack(named).sum().backward()
    theirs = [p.grad for name, p in published.named_parameters() if name.endswith(".S") and p.requires_grad]
    gradients = torch.cat([grad.flatten() for grad in theirs if grad is not None])
    names = [f"{value.name}.S" for value in singular_values(ours.backbone)]
    mine = torch.cat([ours.backbone.get_parameter(name).grad for name in names])  # type: ignore[misc]
    assert gradients.shape == torch.Size([12544])
    close(mine, gradients.numpy(), 1e-9)
    close(gradients, golden["svf_grad"], 1e-5)
