"""Pictures of episodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fss.visualize import TRUTH_COLOR, EpisodePicture, contact_sheet, outline, save_sheet


def picture(shots: int, side: int = 64) -> EpisodePicture:
    mask = torch.zeros(side, side, dtype=torch.uint8)
    mask[16:48, 16:48] = 1
    mask[:, 60:] = 255
    grey = torch.full((3, side, side), 100.0)
    return EpisodePicture(
        title="star",
        iou=0.5,
        query=grey,
        query_mask=mask,
        support=grey.expand(shots, -1, -1, -1),
        support_mask=mask.expand(shots, -1, -1),
        prediction=(mask == 1).long(),
        prior=torch.linspace(0, 1, 64).reshape(8, 8),
    )


def test_outline_marks_the_object_and_darkens_what_is_ignored() -> None:
    image = np.full((64, 64, 3), 100, np.uint8)
    mask = picture(1).query_mask.numpy()
    shown = outline(image, mask, TRUTH_COLOR)
    assert (image == 100).all(), "the picture given is left as it is"
    assert (shown[:10, :10] == 100).all()
    assert (shown[:, 62:] < 50).all()
    assert shown[32, 32, 1] > 110
    # smooth lines mix a little of the picture in
    assert np.abs(shown[16, 32].astype(int) - TRUTH_COLOR).max() < 30
    assert np.abs(shown[32, 32].astype(int) - TRUTH_COLOR).max() > 30


@pytest.mark.parametrize("shots", [1, 5])
def test_sheet_has_a_tile_for_everything(shots: int, tmp_path: Path) -> None:
    sheet = np.array(contact_sheet([picture(shots)] * 3, tile=64))
    columns = shots + 4
    assert sheet.shape[1] == columns * 70 + 6
    tiles = [sheet[26:90, 6 + 70 * i : 70 + 70 * i] for i in range(columns)]
    assert (tiles[shots] == 100).mean() > 0.99  # the query as it is
    for i in (*range(shots), shots + 1, shots + 2):
        assert (tiles[i] != 100).mean() > 0.1
    prior = tiles[-1].astype(int)
    assert prior[-1, -1].sum() > prior[0, 0].sum()  # brighter where the prior is high

    save_sheet([picture(shots)], tmp_path / "new/sheet.png")
    assert Image.open(tmp_path / "new/sheet.png").size[0] == columns * 198 + 6
