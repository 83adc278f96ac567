"""SBD's MATLAB files: what is read is what SciPy reads, and nothing ends the process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_matrix

from fss.data.prepare.matlab import struct_field
from fss.data.prepare.pascal import read_sbd


def write(path: Path, mask: np.ndarray, compressed: bool) -> Path:
    """As SBD has them: boundaries of 20 classes as sparse matrices come before the segmentation."""
    chance = np.random.default_rng(0)
    boundaries = np.empty((20, 1), object)
    for i in range(20):
        boundaries[i, 0] = csc_matrix(chance.random(mask.shape) > 0.9)
    content = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": np.array([1, 2])}
    savemat(path, {"before": np.arange(3), "GTcls": content}, do_compression=compressed)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_as_scipy_reads_it(tmp_path: Path, compressed: bool, dtype: type) -> None:
    chance = np.random.default_rng(1)
    for shape in ((1, 1), (3, 50), (41, 7)):
        path = write(tmp_path / "a.mat", chance.integers(0, 256, shape).astype(dtype), compressed)
        expected = loadmat(path)["GTcls"]["Segmentation"][0, 0]
        found = read_sbd(path)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mat", np.ones((3, 4), np.uint8), True)
    for variable, field, message in (
        ("other", "Segmentation", "no variable other"),
        ("GTcls", "other", "GTcls has no field other"),
        ("before", "Segmentation", "before is no struct"),
    ):
        with pytest.raises(ValueError, match=message):
            struct_field(path.read_bytes(), variable, field)


@pytest.mark.parametrize("value", [256, -1, 0.5])
def test_other_numbers_are_refused(tmp_path: Path, value: float) -> None:
    """300 became 44."""
    path = write(tmp_path / "a.mat", np.full((3, 4), value), True)
    with pytest.raises(ValueError, match=r"a\.mat cannot be read \(it holds numbers other than 0 to 255\)"):
        read_sbd(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_every_cut_is_named(tmp_path: Path, compressed: bool) -> None:
    content = write(tmp_path / "a.mat", np.ones((3, 4), np.uint8), compressed).read_bytes()
    for end in range(0, len(content) - 1, 7):
        (tmp_path / "cut.mat").write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"cut\.mat cannot be read"):
            read_sbd(tmp_path / "cut.mat")
