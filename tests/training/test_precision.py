"""Lower precision and compiled networks.

Letters: B batch, K shots, S image side.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from support.scripts import ROOT, SMALL, metrics, run_folder, start
from support.tiny import CHANNELS, TinyBackbone
from torch import Tensor, nn

from fss.cli import build
from fss.models.heads import BAM, Baseline, Head, PFENet
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf
from fss.svf import merge
from fss.svf.layers import SVFConv2d

B, K, S = 2, 2, 24
HEADS = [PFENet(CHANNELS, 8, (1.0, 0.5), 0.0), Baseline(CHANNELS, 8, 0.0), BAM(CHANNELS, 3, K, 8, 0.0, 8)]


def tuned(head: Head) -> FewShotSegmenter:
    segmenter = FewShotSegmenter(TinyBackbone(), copy.deepcopy(head))
    segmenter.tune(lambda backbone: svf(backbone, stages=[2, 3, 4]))
    for module in segmenter.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return segmenter


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries (B, 3, S, S), supports (B, K, 3, S, S), masks (B, 1 + K, S, S), own classes (B,)."""
    masks = torch.randint(0, 2, (B, 1 + K, S, S), dtype=torch.uint8)
    return torch.rand(B, 3, S, S), torch.rand(B, K, 3, S, S), masks, torch.tensor([0, 2])


def losses(segmenter: FewShotSegmenter, query: Tensor, support: Tensor, masks: Tensor, own: Tensor) -> Tensor:
    prediction = segmenter(query, support, masks[:, 1:], own)
    return torch.stack(list(segmenter.head.losses(prediction, masks[:, 0], torch.ones(2), masks[:, 0]).values()))


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_losses_are_float32_under_autocast(head: Head) -> None:
    segmenter, given = tuned(head), batch()
    with torch.autocast("cpu", torch.bfloat16):
        lower = losses(segmenter, *given)
    assert lower.dtype == torch.float32
    torch.testing.assert_close(lower, losses(segmenter, *given), rtol=0.03, atol=0.0)
    lower.sum().backward()
    gradients = [p.grad for name, p in segmenter.named_parameters() if name.endswith(".S")]
    assert all(g is not None and g.dtype == torch.float32 and g.isfinite().all() for g in gradients)


def test_weights_are_composed_in_float32_under_autocast() -> None:
    layer = SVFConv2d(nn.Conv2d(8, 12, 3))
    with torch.autocast("cpu", torch.bfloat16):
        under = layer.weight
    assert under.dtype == torch.float32
    assert torch.equal(under, layer.weight)


def test_compiled_segmenter() -> None:
    """In one piece, with the plain one's gradients and names, and still to be merged."""
    plain, given = tuned(HEADS[2]), batch()
    compiled = copy.deepcopy(plain)
    compiled.compile(backend="eager", fullgraph=True, dynamic=False)
    for segmenter in (plain, compiled):
        losses(segmenter, *given).sum().backward()
    for (name, p), (other, q) in zip(plain.named_parameters(), compiled.named_parameters(), strict=True):
        assert name == other
        if p.grad is not None:
            torch.testing.assert_close(q.grad, p.grad)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    evaluated = merge(copy.deepcopy(compiled)).eval()
    with torch.no_grad():
        answers = [s(*given[:2], given[2][:, 1:]).logits for s in (evaluated, compiled.eval())]
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("compile_", "expected"), [(True, None), ("cuda_graphs", "reduce-overhead")])
def test_how_a_network_is_compiled(
    compile_: bool | str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(FewShotSegmenter, "compile", lambda self, **how: asked.append(how))
    segmenter = tuned(HEADS[0])
    build.compile_network(OmegaConf.create({"compile": False}), segmenter)
    build.compile_network(OmegaConf.create({"compile": compile_}), segmenter)
    assert asked == [{"dynamic": False, "mode": expected}]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_fused_optimiser_takes_the_same_steps(name: str) -> None:
    """On equal gradients: those of its own steps differ by rounding, and Adam divides gradients by their size."""
    settings = OmegaConf.load(ROOT / f"conf/optimizer/{name}.yaml")
    segmenter, given = tuned(HEADS[0]), batch()
    plain = [p for p in segmenter.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in plain]
    fused = [p.clone().requires_grad_() for p in before]
    optimizers = []
    for parameters, choice in ((plain, None), (fused, True)):
        settings.fused = choice
        optimizers.append(instantiate(settings)(parameters, lr=1e-2))
        assert all(group["fused"] is choice for group in optimizers[-1].param_groups)
    for _ in range(3):
        optimizers[0].zero_grad()
        losses(segmenter, *given).sum().backward()
        for p, q in zip(plain, fused, strict=True):
            q.grad = None if p.grad is None else p.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for p, q, first in zip(plain, fused, before, strict=True):
        torch.testing.assert_close(q, p, rtol=1e-5, atol=1e-6)
        assert p.grad is None or not torch.equal(p, first)


@pytest.mark.slow
@pytest.mark.nightly  # the longest run that is compiled; the day has the compiled segmenter and precisions apart
def test_a_compiled_run_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compiled = []

    def compile_(self: nn.Module, **how: Any) -> None:
        compiled.append(type(self))
        nn.Module.compile(self, backend="eager", **how)  # the default backend takes minutes on a CPU

    monkeypatch.setattr(FewShotSegmenter, "compile", compile_)
    start("train", *SMALL, "precision=bf16-mixed", "compile=true")
    assert compiled == [FewShotSegmenter]
    before = metrics(tmp_path)["classes"]
    state = torch.load(run_folder(tmp_path) / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())
    assert not any("_orig_mod" in name for name in state)
    start("evaluate", *SMALL, "precision=bf16-mixed")
    assert metrics(tmp_path)["classes"] == before
