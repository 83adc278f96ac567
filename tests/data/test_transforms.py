"""The published augmentation and preprocessing, seen from outside: what comes of pictures made to tell.

Letters: S side of the result, h w height and width of the picture.
"""

from __future__ import annotations

import random

import albumentations as A
import cv2
import numpy as np
import pytest

from fss.data.preprocessing import EvaluationTransform
from fss.data.transforms import ObjectCrop, Rotate, TrainingTransform

MEAN_COLOR = [round(255 * mean) for mean in (0.485, 0.456, 0.406)]  # of ImageNet, RGB

SIZES = [(40, 40), (64, 64), (63, 65), (150, 100), (30, 200), (200, 30), (2, 300), (300, 2)]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def box(height: int, width: int, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """A mask (h, w) with an object from (top, left) to below (bottom, right)."""
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def blobs(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its mask, which the red channel repeats: 255 on the object, 0 elsewhere."""
    mask = np.zeros((height, width), np.uint8)
    axes = width // 4, height // 6
    cv2.ellipse(mask, (width // 3, height // 3), axes, 30, 0, 360, (1,), -1)
    mask[height // 2 : height * 3 // 4, width // 2 : width * 5 // 6] = 1
    image = noise(height, width)
    image[..., 0] = 255 * mask
    return image, mask


def eroded(region: np.ndarray, margin: int) -> np.ndarray:
    """What lies at least so many pixels inside a region, and inside the picture."""
    side = 2 * margin + 1
    return (
        cv2.erode(region.astype(np.uint8), np.ones((side, side)), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        == 1
    )


# Training: shapes, values, chance


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_any_picture_becomes_a_square_of_bytes(height: int, width: int) -> None:
    transform = TrainingTransform(64, (0.8, 1.25))
    image, mask = noise(height, width), box(height, width, 0, 0, height // 2 + 1, width // 2 + 1)
    mask[height // 2 :, width // 2 :] = 255
    for seed in range(16):
        out, out_mask = transform(image, mask, seed)
        assert out.shape == (64, 64, 3)
        assert out_mask.shape == (64, 64)
        assert out.dtype == out_mask.dtype == np.uint8
        assert out.flags.c_contiguous
        assert out_mask.flags.c_contiguous
        assert set(np.unique(out_mask)) <= {0, 1, 255}


def test_seed_alone_decides() -> None:
    image, mask = blobs(100, 90)
    kept = image.copy(), mask.copy()
    first, second = (TrainingTransform(64, (0.8, 1.25)) for _ in range(2))
    forward = []
    for seed in range(20):
        random.seed(seed)
        np.random.seed(seed)
        forward.append(first(image, mask, seed))
    for seed in reversed(range(20)):
        second(noise(30, 30), box(30, 30, 1, 1, 9, 9), seed + 3)  # another picture in between
        for a, b in zip(forward[seed], second(image, mask, seed), strict=True):
            np.testing.assert_array_equal(a, b)
    assert len({out.tobytes() for out, _ in forward}) == 20
    assert len({out_mask.tobytes() for _, out_mask in forward}) == 20
    np.testing.assert_array_equal(image, kept[0])  # the caller's picture is left as it was
    np.testing.assert_array_equal(mask, kept[1])


@pytest.mark.parametrize(("height", "width"), [(80, 120), (150, 100), (50, 60), (250, 240)])
def test_image_and_mask_stay_registered(height: int, width: int) -> None:
    image, mask = blobs(height, width)
    transform = TrainingTransform(96, (0.8, 1.25))
    inside = outside = 0
    for seed in range(40):
        out, out_mask = transform(image, mask, seed)
        red = out[..., 0]
        # labels are nearest, the image bilinear and blurred: borders may differ by a pixel, corners are rounder
        core, ground = eroded(out_mask == 1, 1), eroded(out_mask == 0, 1)
        assert red[core].min(initial=255) > 85
        assert red[ground].max(initial=0) < 170
        inside, outside = inside + core.sum(), outside + ground.sum()
    assert inside > 40 * 300
    assert outside > 40 * 300


def test_padding_has_the_mean_colour_and_is_ignored() -> None:
    image, mask = noise(40, 70), box(40, 70, 10, 10, 30, 50)
    transform = TrainingTransform(96, (0.8, 1.25), rotation=0)
    for seed in range(20):
        out, out_mask = transform(image, mask, seed)
        padding = out_mask == 255
        assert (out[padding] == MEAN_COLOR).all()
        rows, columns = (np.flatnonzero(~padding.all(axis=axis)) for axis in (1, 0))
        # the picture is whole, a rectangle in the middle
        assert not padding[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any()
        for kept in (rows, columns):
            assert abs(kept[0] - (95 - kept[-1])) <= 1
        assert (out[~padding] != MEAN_COLOR).any(axis=1).mean() > 0.99


def test_what_rotation_uncovers_has_the_mean_colour_and_is_ignored() -> None:
    image, mask = np.full((200, 200, 3), (250, 0, 0), np.uint8), box(200, 200, 60, 60, 120, 120)
    transform = TrainingTransform(200, (1, 1))
    uncovered = 0
    for seed in range(30):
        out, out_mask = transform(image, mask, seed)
        padding, picture = eroded(out_mask == 255, 4), eroded(out_mask != 255, 4)
        assert np.abs(out[padding].astype(int) - MEAN_COLOR).max(initial=0) <= 1
        assert np.abs(out[picture].astype(int) - (250, 0, 0)).max() <= 1
        uncovered += int(padding.any())
    assert uncovered > 5


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_rotation_by_way_of_four_channels_changes_no_pixel(height: int, width: int) -> None:
    fill = {"border_mode": cv2.BORDER_CONSTANT, "fill": tuple(MEAN_COLOR), "fill_mask": 255}
    ways = [A.Compose([made((-10, 10), p=1.0, **fill)]) for made in (A.Rotate, Rotate)]
    moved = 0
    for seed in range(25):
        image, mask = noise(height, width, seed), box(height, width, 0, 0, height // 2, width // 2)
        for way in ways:
            way.set_random_seed(seed)
        expected, own = (way(image=image, mask=mask) for way in ways)
        np.testing.assert_array_equal(own["image"], expected["image"])
        np.testing.assert_array_equal(own["mask"], expected["mask"])
        moved += not np.array_equal(own["image"], image)
    assert moved > 20


def test_ignored_pixels_stay_ignored() -> None:
    mask = box(64, 64, 20, 20, 40, 40)
    mask[50:60, 10:50] = 255
    for seed in range(10):
        _, out_mask = TrainingTransform(64, (1, 1), rotation=0)(noise(64, 64), mask, seed)
        assert (out_mask == 255).sum() == 400
        assert (out_mask == 1).sum() == 400


# Training: each step


@pytest.mark.parametrize("scale", [(0.9, 1.1), (0.8, 1.25)])
def test_scale(scale: tuple[float, float]) -> None:
    image, mask = noise(200, 160), box(200, 160, 60, 40, 140, 100)
    transform = TrainingTransform(256, scale, rotation=0)  # larger than any scaled picture: nothing is cut
    factors, areas = [], []
    for seed in range(120):
        _, out_mask = transform(image, mask, seed)
        rows, columns = (np.flatnonzero((out_mask != 255).any(axis=axis)) for axis in (1, 0))
        height, width = len(rows) / 200, len(columns) / 160
        assert height == pytest.approx(width, abs=0.01)
        factors.append(height)
        areas.append((out_mask == 1).sum() / mask.sum())
    smallest, largest = scale
    assert smallest - 0.005 <= min(factors) < smallest + 0.02
    assert largest + 0.005 >= max(factors) > largest - 0.02
    quarters = np.quantile(factors, (0.25, 0.5, 0.75))
    expected = smallest + (largest - smallest) * np.array([0.25, 0.5, 0.75])
    assert np.abs(quarters - expected).max() < 0.12 * (largest - smallest)  # uniform
    np.testing.assert_allclose(areas, np.square(factors), rtol=0.05)


def test_blur_is_that_of_the_published_programs() -> None:
    """At scale 1 and size S without rotation, flip and blur are the steps that are left."""
    image, mask = noise(96, 96), box(96, 96, 20, 10, 60, 40)
    transform = TrainingTransform(96, (1, 1), rotation=0)
    expected = cv2.GaussianBlur(image, (5, 5), 0)
    blurred = 0
    for seed in range(20):
        out, out_mask = transform(image, mask, seed)
        if not np.array_equal(out_mask, mask):
            out, out_mask = np.ascontiguousarray(out[:, ::-1]), out_mask[:, ::-1]
        np.testing.assert_array_equal(out_mask, mask)
        if not np.array_equal(out, image):
            blurred += 1
            assert cv2.absdiff(out, expected).max() <= 1
    assert 0 < blurred < 20


def bar() -> tuple[np.ndarray, np.ndarray]:
    """A level bar on noise; red is 0 in its left half, 255 in its right half."""
    image, mask = noise(96, 96), box(96, 96, 44, 12, 53, 84)
    image[:, :48, 0], image[:, 48:, 0] = 0, 255
    return image, mask


def angle(mask: np.ndarray) -> float:
    """Of the object's longer axis against the horizontal, in degrees."""
    moments = cv2.moments((mask == 1).astype(np.uint8), binaryImage=True)
    return float(np.degrees(0.5 * np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])))


def test_rotation_blur_and_flip_half_of_the_time_each_on_its_own() -> None:
    image, mask = bar()
    roughness = np.std(image[..., 1])
    transform = TrainingTransform(96, (1, 1))
    angles, seen = [], []
    for seed in range(240):
        out, out_mask = transform(image, mask, seed)
        angles.append(angle(out_mask))
        flipped = out[40:56, 12:36, 0].mean() > out[40:56, -36:-12, 0].mean()
        # blur leaves 0.27 of white noise, rotation 0.67 or more, both 0.23 or so
        blurred = np.std(out[30:66, 30:66, 1]) < 0.45 * roughness
        seen.append((abs(angles[-1]) > 0.25, blurred, flipped))
    assert max(map(abs, angles)) < 10.5
    steps = np.array(seen)
    straight = np.array(angles)[~steps[:, 2]]  # a flip would turn an angle round
    assert straight.min() < -8
    assert straight.max() > 8
    assert np.abs(steps.mean(axis=0) - 0.5).max() < 0.13
    for a, b in ((0, 1), (0, 2), (1, 2)):
        # two of 240 draws that know nothing of each other: standard deviation 0.065
        assert abs(np.corrcoef(steps[:, a], steps[:, b])[0, 1]) < 0.25
    turned = np.abs(angles)[steps[:, 0]]
    assert turned.mean() == pytest.approx(5, abs=1)


def test_rotation_limit_is_the_one_asked_for() -> None:
    image, mask = bar()
    transform = TrainingTransform(96, (1, 1), rotation=25)
    angles = [abs(angle(transform(image, mask, seed)[1])) for seed in range(60)]
    assert 18 < max(angles) < 25.5
    still = TrainingTransform(96, (1, 1), rotation=0)
    assert max(abs(angle(still(image, mask, seed)[1])) for seed in range(20)) < 1e-6


def test_scale_and_flip_know_nothing_of_each_other() -> None:
    image, mask = bar()
    transform = TrainingTransform(128, (0.8, 1.25), rotation=0)
    factors, flips = [], []
    for seed in range(200):
        out, out_mask = transform(image, mask, seed)
        factors.append(np.sqrt((out_mask != 255).sum()) / 96)
        flips.append(out[60:68, 40:60, 0].mean() > out[60:68, -60:-40, 0].mean())
    assert abs(np.corrcoef(factors, flips)[0, 1]) < 0.25


def test_crops_lie_anywhere_whatever_the_other_steps() -> None:
    image, mask = np.zeros((160, 200, 3), np.uint8), np.zeros((160, 200), np.uint8)
    image[..., 0], image[..., 1] = np.arange(200), np.arange(160)[:, None]
    transform = TrainingTransform(100, (1, 1), rotation=0)
    tops, lefts, flips = [], [], []
    for seed in range(200):
        out, _ = transform(image, mask, seed)
        flips.append(bool(out[0, 0, 0] > out[0, -1, 0]))
        tops.append(int(out[..., 1].min()))
        lefts.append(int(out[..., 0].min()))
    for places, room in ((tops, 60), (lefts, 100)):
        assert min(places) < 0.1 * room
        assert max(places) > 0.9 * room
        assert np.mean(places) == pytest.approx(room / 2, abs=0.12 * room)
        assert abs(np.corrcoef(places, flips)[0, 1]) < 0.25
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.25


def test_crop_keeps_the_object_where_it_can() -> None:
    # 12 % of all crops hold enough of an object at the left border
    image, mask = noise(200, 200), box(200, 200, 85, 10, 115, 40)
    transform = TrainingTransform(100, (1, 1), rotation=0)
    kept = np.array([(transform(image, mask, seed)[1] == 1).sum() for seed in range(150)]) / mask.sum()
    assert (kept >= 0.85).mean() > 0.9
    assert (kept < 1).any()  # as little as 85 % will do


def test_crop_of_what_does_not_fit() -> None:
    image, mask = noise(200, 200), box(200, 200, 5, 5, 195, 195)
    transform = TrainingTransform(64, (1, 1), rotation=0)
    for seed in range(10):
        out, out_mask = transform(image, mask, seed)
        assert out.shape == (64, 64, 3)
        assert (out_mask == 1).mean() > 0.5


@pytest.mark.parametrize("value", [0, 255])
def test_crop_without_an_object(value: int) -> None:
    mask = np.full((90, 120), value, np.uint8)
    out, out_mask = TrainingTransform(64, (0.9, 1.1))(noise(90, 120), mask, seed=1)
    assert out.shape == (64, 64, 3)
    assert set(np.unique(out_mask)) <= {value, 255}


def test_object_crop_counts_object_pixels_alone() -> None:
    mask = np.zeros((80, 80), np.uint8)
    mask[:, :38] = 255  # to be ignored, and far from the object
    mask[30:50, 60:76] = 1
    compose = A.Compose([ObjectCrop(40, keep=1.0, tries=200)])
    for seed in range(20):
        compose.set_random_seed(seed)
        assert (compose(image=noise(80, 80), mask=mask)["mask"] == 1).sum() == (mask == 1).sum()


def test_object_crop_cuts_image_and_mask_alike() -> None:
    image = noise(50, 70)
    compose = A.Compose([ObjectCrop(30)])
    for seed in range(10):
        compose.set_random_seed(seed)
        result = compose(image=image, mask=image[..., 0])
        np.testing.assert_array_equal(result["image"][..., 0], result["mask"])
        assert result["mask"].shape == (30, 30)


@pytest.mark.parametrize("scale", [(1.1, 0.9), (0, 1), (-0.5, 1.0), (0.9, float("nan")), (1, float("inf"))])
def test_bad_scale(scale: tuple[float, float]) -> None:
    with pytest.raises(
        ValueError, match=r"train_transform\.scale=\[.*\]: give the smallest and largest factor, both above 0"
    ):
        TrainingTransform(64, scale)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rotation": -1.0}, r"train_transform\.rotation=-1\.0: give degrees"),
        ({"rotation": float("nan")}, "rotation=nan"),
        ({"keep": 1.5}, r"train_transform\.keep=1\.5: give a fraction"),
    ],
)
def test_bad_rotation_and_crop(settings: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        TrainingTransform(64, (0.9, 1.1), **settings)


# Evaluation


@pytest.mark.parametrize("size", [64, 75, 473])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_evaluation_places_the_picture_top_left(height: int, width: int, size: int) -> None:
    image = np.full((height, width, 3), (10, 200, 77), np.uint8)
    mask = box(height, width, 0, 0, height // 2 + 1, width)
    out, out_mask = EvaluationTransform(size)(image, mask)
    assert out.shape == (size, size, 3)
    assert out_mask.shape == (size, size)
    assert out.dtype == np.float32
    assert out_mask.dtype == np.uint8

    picture = out_mask != 255
    rows, columns = int(picture[:, 0].sum()), int(picture[0].sum())
    assert picture.sum() == rows * columns == picture[:rows, :columns].sum()
    assert rows % 8 == columns % 8 == 0
    for side, original in ((rows, height), (columns, width)):
        exact = original * size / max(height, width)
        assert exact - 8 < side <= exact + 1e-6 or (side == 8 and exact < 8)
    assert np.abs(out[picture] - (10, 200, 77)).max() < 1e-3
    assert not out[~picture].any()
    assert set(np.unique(out_mask[picture])) <= {0, 1}
    assert (out_mask[:rows, 0] == 1).mean() == pytest.approx((height // 2 + 1) / height, abs=0.1)


@pytest.mark.parametrize("size", [64, 320, 480])
def test_evaluation_fills_a_side_that_is_a_multiple_of_eight(size: int) -> None:
    """The longer side becomes S for any length, also where S / length * length is less than S in floats."""
    transform = EvaluationTransform(size)
    short = []
    for length in (*range(8, 120), 154, 161, 214, 308, 427, 500, 612, 640):
        _, out_mask = transform(np.zeros((8, length, 3), np.uint8), np.zeros((8, length), np.uint8))
        if (out_mask[0] != 255).sum() != size:
            short.append(length)
    assert short == []


def test_evaluation_image_is_interpolated_and_not_rounded_and_labels_are_not_mixed() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, 5:] = 255
    mask = np.repeat([[0] * 5 + [1] * 3 + [255] * 2], 10, axis=0).astype(np.uint8)
    out, out_mask = EvaluationTransform(64)(image, mask)
    across = out[30, :, 0]
    assert (np.diff(across) >= 0).all()
    assert across[0] == 0
    assert across[-1] == 255
    between = across[(across > 0) & (across < 255)]
    assert len(between) >= 5
    assert (between != np.round(between)).any()
    assert out_mask[30].tolist() == [0] * 32 + [1] * 20 + [255] * 12


@pytest.mark.parametrize(("height", "width"), [(100, 73), (33, 57)])
def test_evaluation_has_no_chance_in_it(height: int, width: int) -> None:
    image, mask = blobs(height, width)
    first = EvaluationTransform(64)(image, mask, seed=1)
    second = EvaluationTransform(64)(image, mask, seed=2)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [7, 0, -473])
def test_evaluation_of_too_small_a_size(size: int) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.size={size}: must be a whole number of pixels, at least 8"):
        EvaluationTransform(size)
    EvaluationTransform(8)
