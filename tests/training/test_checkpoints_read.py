"""Checkpoints that are damaged, or not what they seem."""

from __future__ import annotations

import logging
import os
import random
import zipfile
from pathlib import Path

import pytest
import torch

from fss.models.backbones.weights import read_state_dict
from fss.training.callbacks.checkpoints import BestCheckpoint
from fss.training.run_folder import newest_checkpoint


def save(path: Path, step: int = 3, **weights: torch.Tensor) -> dict[str, torch.Tensor]:
    weights = weights or {f"w{i}": torch.randn(50) for i in range(8)}
    torch.save({"state_dict": weights, "global_step": step}, path)
    return weights


def test_no_flipped_bit_gives_other_weights(tmp_path: Path) -> None:
    """Without checksums 1973 of 2000 did in a larger file."""
    path = tmp_path / "last.ckpt"
    weights = save(path)
    content, chance = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_state_dict(path)
        except ValueError as error:
            refused += str(path) in str(error)
        else:
            assert found.keys() == weights.keys()
            assert all(torch.equal(found[name], value) for name, value in weights.items())
    assert refused > 1000


def test_no_flipped_bit_of_a_directory_gives_other_weights(tmp_path: Path) -> None:
    """All bits of the part that says where a file's members are; torch and Python read it in different ways."""
    path = tmp_path / "last.ckpt"
    weights = save(path, w0=torch.randn(20), w1=torch.randn(20))
    content = path.read_bytes()
    begin = content.index(b"PK\1\2")
    for bit in range(8 * begin, 8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read_state_dict(path)
        except ValueError:
            continue
        assert found.keys() == weights.keys(), bit
        assert all(torch.equal(found[name], value) for name, value in weights.items()), bit


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([1.0, float("nan")]),
        torch.tensor([1.0, float("inf")], dtype=torch.bfloat16),
        torch.tensor([float("inf"), float("-inf")]),
        torch.tensor([1 + 1j]),
        torch.eye(3).to_sparse(),
        torch.zeros(1).expand(10**12),  # 4 TB out of four bytes
    ],
    ids=["nan", "inf", "both", "complex", "sparse", "expanded"],
)
def test_weights_are_finite_real_numbers(value: torch.Tensor, tmp_path: Path) -> None:
    save(tmp_path / "last.ckpt", good=torch.ones(2), bad=value)
    with pytest.raises(ValueError, match=r"last\.ckpt: bad hold what is not a finite real number"):
        read_state_dict(tmp_path / "last.ckpt")


def test_packed_members_are_refused(tmp_path: Path) -> None:
    """A few kilobytes can unpack to any size."""
    save(tmp_path / "stored.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "stored.ckpt") as stored,
        zipfile.ZipFile(tmp_path / "packed.ckpt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    with pytest.raises(ValueError, match=r"packed\.ckpt is damaged \(its member .* is compressed\)"):
        read_state_dict(tmp_path / "packed.ckpt")


def test_resume_goes_by_the_step_and_not_by_the_time(tmp_path: Path) -> None:
    for name, step, age in (("last", 12, 100), ("best", 6, 0), ("epoch000-step3", 3, 50)):
        save(tmp_path / f"{name}.ckpt", step)
        os.utime(tmp_path / f"{name}.ckpt", (1e9 - age, 1e9 - age))
    assert newest_checkpoint(tmp_path) == tmp_path / "last.ckpt"
    save(tmp_path / "best.ckpt", 12)
    assert newest_checkpoint(tmp_path) == tmp_path / "last.ckpt"


def test_damaged_header_takes_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "best.ckpt", 6)
    save(tmp_path / "last.ckpt", 12)
    content = (tmp_path / "last.ckpt").read_bytes()
    with caplog.at_level(logging.WARNING):
        for at in (*range(30), *range(len(content) - 60, len(content))):
            damaged = bytearray(content)
            damaged[at] ^= 0xFF
            (tmp_path / "last.ckpt").write_bytes(damaged)
            assert newest_checkpoint(tmp_path) in (tmp_path / "best.ckpt", tmp_path / "last.ckpt")
        (tmp_path / "last.ckpt").write_bytes(b"\0\0\0\0" + content[4:])
        assert newest_checkpoint(tmp_path) == tmp_path / "best.ckpt"
    assert "last.ckpt" in caplog.text
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")  # of no training
    assert newest_checkpoint(tmp_path) == tmp_path / "best.ckpt"


@pytest.mark.parametrize("name", ["..", "/", "../../somebody", "metrics.json"])
def test_checkpoint_names_only_checkpoints_to_be_removed(name: str, tmp_path: Path) -> None:
    """Lightning removes what was the best once a better one comes, whole folders too."""
    best = BestCheckpoint(tmp_path)
    state = {**best.state_dict(), "best_model_path": name}
    with pytest.raises(ValueError, match="no checkpoint's name"):
        best.load_state_dict(state)
    state = {**best.state_dict(), "best_k_models": {name: torch.tensor(0.5)}}
    with pytest.raises(ValueError, match="no checkpoint's name"):
        best.load_state_dict(state)
