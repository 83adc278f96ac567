"""A loss that is not finite ends the run and names its episodes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.scripts import SMALL, run_folder, start

from fss.training.callbacks.finite_loss import FiniteLoss

INF, NAN = float("inf"), float("nan")
TRAINER: Any = SimpleNamespace(current_epoch=3, global_step=7)


def module(device: str, *weights: torch.nn.Parameter) -> Any:
    named = [(f"weight {number}", weight) for number, weight in enumerate(weights)]
    return SimpleNamespace(device=SimpleNamespace(type=device), named_parameters=lambda: named)


def take(guard: FiniteLoss, device: str, step: int, loss: float) -> None:
    batch = SimpleNamespace(
        id=torch.tensor([2 * step, 2 * step + 1]), names=[[f"q{step}.jpg", "s.jpg"], "one.png"]
    )
    guard.on_train_batch_end(TRAINER, module(device), {"loss": torch.tensor(loss)}, batch, step)


@pytest.mark.parametrize("loss", [INF, -INF, NAN])
def test_episodes_are_named_at_once_on_a_cpu(loss: float) -> None:
    guard = FiniteLoss(10)
    take(guard, "cpu", 0, 1.0)
    with pytest.raises(FloatingPointError) as raised:
        take(guard, "cpu", 1, loss)
    message = str(raised.value)
    assert f"the loss of step 1 of epoch 3 is {loss}" in message
    assert "\n  2: q1.jpg, s.jpg\n  3: one.png\n" in message


def test_steps_on_a_gpu_are_looked_at_together() -> None:
    guard = FiniteLoss(3)
    for step in range(3):
        take(guard, "cuda", step, 1.0)
    take(guard, "cuda", 3, 1.0)
    take(guard, "cuda", 4, NAN)
    with pytest.raises(FloatingPointError, match="step 4 of epoch 3"):  # the first, not the last
        take(guard, "cuda", 5, INF)


def test_no_checkpoint_holds_what_is_not_finite() -> None:
    guard = FiniteLoss(100)
    take(guard, "cuda", 0, 1.0)
    guard.on_save_checkpoint(TRAINER, module("cuda"), {})
    take(guard, "cuda", 1, NAN)
    with pytest.raises(FloatingPointError, match="step 1"):
        guard.on_save_checkpoint(TRAINER, module("cuda"), {})


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_no_checkpoint_holds_weights_that_are_not_finite(value: float) -> None:
    guard, fine = FiniteLoss(100), torch.nn.Parameter(torch.ones(2))
    frozen = torch.nn.Parameter(torch.tensor([1.0, value]), requires_grad=False)  # not this training's doing
    guard.on_save_checkpoint(TRAINER, module("cpu", fine, frozen), {})
    odd = torch.nn.Parameter(torch.tensor([1.0, value]))
    with pytest.raises(FloatingPointError, match=r"weight 1 holds NaN or infinite values after step 7: reduce"):
        guard.on_save_checkpoint(TRAINER, module("cpu", fine, odd), {})


def test_a_run_that_explodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FloatingPointError, match=r"(?s)the loss of step 1 of epoch 0 is .*\n  4: shapes/train/\d+"
    ):
        start("train", *SMALL, "save_minutes=0", "tuning.head_lr=3e38", "tuning.backbone_lr=3e38")
    check_last(tmp_path)


def test_weights_that_explode_behind_a_finite_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FloatingPointError, match=r"holds NaN or infinite values.*reduce tuning\.head_lr"):
        start("train", *SMALL, "save_minutes=0", "tuning.head_lr=1e30", "tuning.backbone_lr=1e30")
    check_last(tmp_path)


def check_last(folder: Path) -> None:
    """The last checkpoint is from before the step that went wrong."""
    last = torch.load(run_folder(folder) / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 1
    assert all(value.isfinite().all() for value in last["state_dict"].values())
