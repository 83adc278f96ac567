"""Runs that several processes share."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import ROOT, warm
from support.tiny import CHANNELS, TinyBackbone

from fss.data.loading import batch_size_of_each, training_batches
from fss.models.base_segmenter import BaseLearnerSegmenter
from fss.models.heads import BAM, Baseline, Head, PFENet, PSPHead
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import frozen, svf
from fss.training.base_learner import BaseLearner
from fss.training.meta_learner import MetaLearner
from fss.training.run_folder import check_processes


@pytest.mark.slow
def test_two_processes_train_as_one() -> None:
    done = warm.run("-m", "checks.processes", cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["steps"] == [12, 12]
    assert result["moved"] > 1e-3
    assert result["largest_difference"] < 1e-5
    assert result["val_miou"][0] == result["val_miou"][1] != [0.0]
    alone, shared = result["classes"]
    assert shared == alone
    assert sum(c["episodes"] for c in alone.values()) == 13
    # U, V and all else are made equal once; then only gradients travel, and a few numbers beside them
    sent = result["bytes"]
    assert sent["at the start"] >= sent["parameters"]
    assert sent["in training"] < 2000 < sent["gradients"] < sent["parameters"] / 10


@pytest.mark.parametrize(
    "head",
    [
        PFENet(CHANNELS, 8, (1.0, 0.5)),
        Baseline(CHANNELS, 8),
        BAM(CHANNELS, 3, 1, 8, base_width=8),
        BAM(CHANNELS, 3, 2, 8, base_width=8),
    ],
    ids=lambda head: f"{type(head).__name__}{getattr(head, 'shot', '')}",
)
def test_every_trained_parameter_gets_a_gradient(head: Head) -> None:
    """Without it, processes would wait for one that never comes."""
    shot = getattr(head, "shot", 1)
    segmenter = FewShotSegmenter(TinyBackbone(), head)
    segmenter.tune(lambda backbone: svf(backbone, stages=[2, 3, 4]))
    masks = torch.randint(0, 2, (2, 1 + shot, 24, 24), dtype=torch.uint8)
    images = torch.rand(2, 1 + shot, 3, 24, 24)
    prediction = segmenter(images[:, 0], images[:, 1:], masks[:, 1:], torch.tensor([0, 2]))
    losses = head.losses(prediction, masks[:, 0], torch.ones(2), masks[:, 0])
    torch.stack(list(losses.values())).sum().backward()
    trained = {name: p for name, p in segmenter.named_parameters() if p.requires_grad}
    assert any(name.endswith(".S") for name in trained)
    assert [name for name, p in trained.items() if p.grad is None] == []


def progress(rank: int, world: int, steps: int) -> Any:
    """A trainer that has taken so many steps."""
    return SimpleNamespace(world_size=world, global_rank=rank, fit_loop=SimpleNamespace(total_batch_idx=steps - 1))


@pytest.mark.parametrize(("world", "steps"), [(1, 0), (2, 0), (2, 3), (4, 5), (1, 7)])
def test_training_goes_on_where_the_run_stands(world: int, steps: int) -> None:
    shares = [training_batches(progress(rank, world, steps), 26, 4) for rank in range(world)]
    assert {size for _, size in shares} == {4 // world}
    ids = [list(sampler) for sampler, _ in shares]
    first = {part for own in ids for part in own[: 4 // world]}
    assert first == set(range(4 * steps, 4 * steps + 4))  # whatever the number of processes
    assert all(len(own) == 24 // world for own in ids)


def test_position_is_read_when_the_epoch_begins() -> None:
    trainer = progress(0, 1, 0)
    sampler, _ = training_batches(trainer, 8, 4)
    assert list(sampler) == list(range(8))
    trainer.fit_loop.total_batch_idx = 1
    assert list(sampler) == list(range(8, 16))


def test_batches_are_shared_equally_or_not_at_all() -> None:
    assert batch_size_of_each(8, 4) == 2
    with pytest.raises(ValueError, match=r"batch_size=8 cannot be divided .*multiple of 3.*trainer\.devices"):
        batch_size_of_each(8, 3)


def test_processes_that_would_train_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    alone: Any = SimpleNamespace(world_size=1)
    check_processes(alone, 8)
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ValueError, match=r"2 processes were started, but only 1 would train together: set trainer=ddp"
    ):
        check_processes(alone, 8)
    together: Any = SimpleNamespace(world_size=2)
    check_processes(together, 8)
    with pytest.raises(ValueError, match="batch_size=7"):
        check_processes(together, 7)


def test_base_learner_is_not_trained_on_norms_of_parts_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = BaseLearnerSegmenter(TinyBackbone(), PSPHead(CHANNELS.high, 3, 8))
    learner = BaseLearner(segmenter, 3, lambda groups: torch.optim.SGD(groups), 0.1, 0.1)
    for device, processes in (("cpu", 1), ("cuda", 2), ("cpu", 2)):
        strategy = SimpleNamespace(root_device=torch.device(device))
        trainer = SimpleNamespace(world_size=processes, strategy=strategy)
        monkeypatch.setattr(BaseLearner, "trainer", trainer)
        if (device, processes) == ("cpu", 2):
            with pytest.raises(ValueError, match=r"method=base .* on GPUs.*trainer=cpu"):
                learner.configure_model()
        else:
            learner.configure_model()
        norms = [type(m).__name__ for m in learner.modules() if "Norm" in type(m).__name__]
        assert set(norms) == {"BatchNorm2d" if processes == 1 else "SyncBatchNorm"}


@pytest.mark.parametrize("norms", ["eval", "batch"])
def test_norms_in_batch_mode_see_the_batch_of_all_processes(norms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = FewShotSegmenter(TinyBackbone(), PFENet(CHANNELS, 8, (3, 2)), norms)
    segmenter.tune(frozen)
    learner = MetaLearner(segmenter, lambda groups: torch.optim.SGD(groups), 0.1, 0.0)
    names = list(learner.state_dict())
    for device, processes in (("cpu", 1), ("cuda", 2), ("cpu", 2)):
        strategy = SimpleNamespace(root_device=torch.device(device))
        trainer = SimpleNamespace(world_size=processes, strategy=strategy)
        monkeypatch.setattr(MetaLearner, "trainer", trainer)
        if (device, processes, norms) == ("cpu", 2, "batch"):
            with pytest.raises(ValueError, match=r"backbone\.norms=batch .* on GPUs.*trainer=cpu"):
                learner.configure_model()
        else:
            learner.configure_model()
        found = [module for module in segmenter.backbone.modules() if "Norm" in type(module).__name__]
        shared = norms == "batch" and processes == 2
        assert {type(module).__name__ for module in found} == {"SyncBatchNorm" if shared else "BatchNorm2d"}
        assert {module.training for module in found} == {norms == "batch"}
        assert list(learner.state_dict()) == names
