"""A run that early stopping has ended stays ended when it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from fss.training.callbacks.early_stopping import EarlyStopping


class NeverBetter(lightning.LightningModule):
    """One weight, and a validation that stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight - batch).square().sum()

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/miou", 0.5)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def train(folder: Path, patience: int, epochs: int = 9, resume: bool = False) -> int:
    """Trains epochs of two steps. Returns how many steps the checkpoint then has behind it."""
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=[
            EarlyStopping("val/miou", mode="max", patience=patience, check_on_train_epoch_end=False),
            ModelCheckpoint(folder, save_last=True, save_top_k=0),
        ],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader: DataLoader[torch.Tensor] = DataLoader(torch.ones(2, 1))  # type: ignore[arg-type]
    checkpoint = folder / "last.ckpt" if resume else None
    trainer.fit(NeverBetter(), loader, loader, ckpt_path=checkpoint, weights_only=True)
    return int(torch.load(folder / "last.ckpt", weights_only=True)["global_step"])


@pytest.mark.filterwarnings("ignore")
def test_an_ended_run_stays_ended(tmp_path: Path) -> None:
    assert train(tmp_path, patience=2) == 6  # the first validation is the best one
    before = (tmp_path / "last.ckpt").read_bytes()
    for _ in range(2):
        assert train(tmp_path, patience=2, resume=True) == 6
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert train(tmp_path, patience=4, resume=True) == 10  # larger: goes on, to its own end
    assert train(tmp_path, patience=4, resume=True) == 10


@pytest.mark.filterwarnings("ignore")
def test_a_stopped_run_goes_on_to_the_same_end(tmp_path: Path) -> None:
    assert train(tmp_path, patience=3, epochs=2) == 4
    assert train(tmp_path, patience=3, resume=True) == 8
