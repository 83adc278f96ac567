"""Few-shot segmentation in three calls: load a model, fit classes from a few pictures with masks, predict.

Shapes: K supports, S side of the square that the network sees, N classes, h w height and width of a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, Self, get_args, overload

import numpy as np
import torch
from torch import Tensor

from fss.data.episodes import stack_pictures
from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.pictures import MAX_PIXELS
from fss.files.text import is_name
from fss.geometry import Geometry, at_original_size
from fss.labels import MAX_CLASSES
from fss.models.encodings import join, split
from fss.models.segmenter import FewShotSegmenter
from fss.predictor.loading import load_model
from fss.predictor.pictures import Picture, as_list, as_mask, as_picture, is_picture, name_of
from fss.predictor.segmentation import Segmentation
from fss.predictor.supports import Support, load_supports, save_supports
from fss.svf import merge

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Shots = Iterable[tuple[Picture, Picture]]


class FewShotPredictor:
    """Segments classes that it is shown in a few pictures with masks.

    Supports are encoded once, and a query costs one pass of the backbone, whatever the number of classes and
    supports. For pictures and supports of an episode, masks are those of `evaluate.py`, pixel by pixel.

    Args:
        segmenter: The model; its SVF layers are merged in place.
        size: Side S of the square in which pictures are seen, in pixels.
        geometry: How pictures lie in it; see `fss.geometry`.
        threshold: Probability that a pixel must exceed to be foreground, in 0..1.
        device: "auto" takes a GPU if there is one; or what torch calls a device.
        precision: "32-true", or "bf16-mixed" or "16-mixed" for autocast.
        max_pixels: Larger pictures are refused before they are decoded.

    Raises:
        ValueError: A setting is out of range, or there is no such device.
    """

    def __init__(
        self,
        segmenter: FewShotSegmenter,
        size: int,
        geometry: Geometry = "exact",
        threshold: float = 0.5,
        device: str | torch.device = "auto",
        precision: Precision = "32-true",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold}: must be in 0..1")
        if precision not in get_args(Precision):
            raise ValueError(f"precision={precision!r}: must be one of {', '.join(get_args(Precision))}")
        self.device, self.precision = _device(device), precision
        self.segmenter: FewShotSegmenter = merge(segmenter).eval().requires_grad_(False).to(self.device)
        self.threshold, self.max_pixels = threshold, max_pixels
        self._transform = EvaluationTransform(size, geometry)
        self._supports: dict[str, list[Support]] = {}
        self._encoded: dict[str, list[Any]] = {}
        self._joined: dict[str, Any] = {}  # of all supports of a class

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str | torch.device = "auto",
        precision: Precision = "32-true",
        max_pixels: int = MAX_PIXELS,
    ) -> Self:
        """Makes a predictor from a trained model.

        Args:
            model: A run folder of `train.py`, a model file, or "prior": the prior mask, which is training-free.
            device: See `FewShotPredictor`.
            precision: See `FewShotPredictor`.
            max_pixels: See `FewShotPredictor`.

        Raises:
            FileNotFoundError: There is no such model.
            ValueError: It cannot be used.
        """
        loaded = load_model(model)
        return cls(loaded.segmenter, loaded.size, loaded.geometry, loaded.threshold, device, precision, max_pixels)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the fitted classes in alphabetical order, which is that of their labels, from 1."""
        return tuple(sorted(self._supports))

    @property
    def size(self) -> int:
        """Side S of the square in which pictures are seen, in pixels."""
        return self._transform.size

    @property
    def geometry(self) -> Geometry:
        """How pictures lie in the square."""
        return self._transform.geometry

    def supports(self, name: str) -> tuple[Support, ...]:
        """The supports of a class, as the network sees them.

        Raises:
            ValueError: There is no such class.
        """
        self._check_fitted([name])
        return tuple(self._supports[name])

    def fit(
        self,
        images: Picture | Iterable[Picture] | Mapping[str, Shots],
        masks: Picture | Iterable[Picture] | None = None,
        name: str = "object",
    ) -> Self:
        """Learns classes from supports, or adds supports to classes.

        Neither the order in which classes are fitted nor the number of calls matters.

        Args:
            images: One picture or several (see `as_picture`); or, in one call, {name: [(picture, mask), ...]}.
            masks: A mask for each picture (see `as_mask`).
            name: Name of the class.

        Returns:
            The predictor itself.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A picture or mask cannot be used, or numbers differ. Nothing has been added then.
        """
        if isinstance(images, Mapping):
            if masks is not None:
                raise ValueError("fit takes {name: [(picture, mask), ...]} alone, or pictures and masks")
            return self._add({each: self._read(shots, each) for each, shots in images.items()})
        if masks is None:
            raise ValueError("fit needs a mask for every picture")
        pictures, marks = as_list(images), as_list(masks)
        if len(pictures) != len(marks):
            raise ValueError(f"{len(pictures)} pictures with {len(marks)} masks: every picture needs one mask")
        return self._add({name: self._read(zip(pictures, marks, strict=True), name)})

    def forget(self, name: str) -> Self:
        """Removes a class.

        Raises:
            ValueError: There is no such class.
        """
        self._check_fitted([name])
        for kept in (self._supports, self._encoded, self._joined):
            kept.pop(name, None)
        return self

    def save_supports(self, path: str | Path) -> None:
        """Writes all supports into one safetensors file: the pictures at the network's size, and masks.

        Raises:
            OSError: The file cannot be written.
            ValueError: Nothing has been fitted.
        """
        self._check_fitted()
        save_supports(Path(path).expanduser(), self._supports, self.size, self.geometry)

    def load_supports(self, path: str | Path) -> Self:
        """Adds the supports of a file of `save_supports`; answers are those of the predictor that wrote it.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or made for a model that sees pictures at another size.
        """
        return self._add(load_supports(Path(path).expanduser(), self.size, self.geometry))

    @overload
    def predict(self, image: Picture, batch_size: int = 1) -> Segmentation: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, image: Iterable[Picture], batch_size: int = 1) -> Iterator[Segmentation]: ...

    def predict(
        self, image: Picture | Iterable[Picture], batch_size: int = 1
    ) -> Segmentation | Iterator[Segmentation]:
        """Segments all fitted classes in one picture, or in several, one after another.

        Args:
            image: A picture (see `as_picture`), or any number of them.
            batch_size: Pictures in one pass of the backbone. 1 is exact; more are faster on a GPU and change
                results by rounding.

        Returns:
            The answer, or an iterator over the answers in the order of the pictures.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A picture cannot be used, nothing has been fitted, or the model needs another number of
                supports.
        """
        self._check_fitted()
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        for name in self.classes:
            self._check_shots(name)
        if is_picture(image):
            return next(self._predict([image], 1))  # type: ignore[list-item]
        return self._predict(image, batch_size)  # type: ignore[arg-type]

    def _predict(self, images: Iterable[Picture], batch_size: int) -> Iterator[Segmentation]:
        numbered = zip(count(1), images)  # one is endless
        while batch := list(islice(numbered, batch_size)):
            pictures = [as_picture(picture, self.max_pixels) for _, picture in batch]
            names = [name_of(picture, number) for number, picture in batch]
            queries = self._encode_queries([self._square(picture) for picture in pictures])
            for name, picture, query in zip(names, pictures, queries, strict=True):
                yield self._answer(name, picture, query)

    @torch.inference_mode()
    def _answer(self, name: str, picture: np.ndarray, query: Any) -> Segmentation:
        classes = self.classes
        height, width = picture.shape[:2]
        margins, presence = torch.empty(len(classes), height, width), {}
        for index, each in enumerate(classes):
            logits = at_original_size(self._decode(query, each), height, width, self.geometry)
            margins[index] = logits[1] - logits[0]
            presence[each] = _presence(margins[index])
        return Segmentation(picture, classes, margins.numpy(), presence, self.threshold, name=name)

    def _decode(self, query: Any, name: str) -> Tensor:
        """Logits (2, S, S) of an encoded query."""
        if name not in self._joined:
            self._joined[name] = join(self._encoded[name], dim=1)
        novel = torch.tensor([-1], device=self.device)
        with self._autocast():
            prediction = self.segmenter.decode(query, self._joined[name], (self.size, self.size), novel)
        return prediction.logits[0]

    @torch.inference_mode()
    def _encode_queries(self, squares: Sequence[Tensor]) -> list[Any]:
        images = self._normalized(squares)
        with self._autocast():
            return split(self.segmenter.encode_query(images), len(squares))

    @torch.inference_mode()
    def _encode_support(self, support: Support) -> Any:
        images = self._normalized([support.image])
        with self._autocast():
            return self.segmenter.encode_support(images[:, None], support.mask[None, None].to(self.device))

    def _normalized(self, squares: Sequence[Tensor]) -> Tensor:
        return self.segmenter.backbone.normalize(stack_pictures(squares).to(self.device))

    def _square(self, picture: np.ndarray) -> Tensor:
        """A picture (h, w, 3) as (3, S, S) float32."""
        square, _ = self._transform(picture, np.zeros(picture.shape[:2], np.uint8))
        return torch.from_numpy(square).permute(2, 0, 1)

    def _read(self, shots: Shots, name: str) -> list[Support]:
        if not isinstance(name, str) or not is_name(name):
            raise ValueError(f"a class cannot be named {name!r:.100}: give printable text")
        found = []
        for number, (picture, mask) in enumerate(shots, start=1):
            try:
                image = as_picture(picture, self.max_pixels)
                marks = as_mask(mask, image.shape[:2], self.max_pixels)
            except ValueError as error:
                raise ValueError(f"support {number} of {name!r}: {error}") from error
            square, small = self._transform(image, marks)
            if not (small == 1).any():
                raise ValueError(
                    f"support {number} of {name!r}: its object of {np.count_nonzero(marks == 1)} pixels vanishes "
                    f"at the {self.size} pixels that the model sees: crop the picture around it"
                )
            found.append(Support(torch.from_numpy(square).permute(2, 0, 1), torch.from_numpy(small)))
        if not found:
            raise ValueError(f"no supports for {name!r}: give at least one picture with a mask")
        return found

    def _add(self, supports: Mapping[str, Sequence[Support]]) -> Self:
        if len(self._supports.keys() | supports.keys()) > MAX_CLASSES:
            raise ValueError(f"more than {MAX_CLASSES} classes: labels are 8-bit numbers")
        encoded = {name: [self._encode_support(s) for s in shots] for name, shots in supports.items()}
        for name, shots in supports.items():
            self._supports.setdefault(name, []).extend(shots)
            self._encoded.setdefault(name, []).extend(encoded[name])
            self._joined.pop(name, None)
        return self

    def _check_fitted(self, names: Sequence[str] = ()) -> None:
        if not self._supports:
            raise ValueError("nothing has been fitted yet: call fit with pictures and masks first")
        if unknown := [name for name in names if name not in self._supports]:
            raise ValueError(f"no class {unknown[0]!r}; fitted are {', '.join(self.classes)}")

    def _check_shots(self, name: str) -> None:
        try:
            self.segmenter.head.check_shot(len(self._supports[name]))
        except ValueError as error:
            raise ValueError(f"class {name!r}: {error}") from error

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "32-true":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if "bf16" in self.precision else torch.float16)


def _presence(margins: Tensor) -> float:
    """How sure a class is to be shown, in 0..1: mean probability of the most likely hundredth of the pixels."""
    count = max(1, margins.numel() // 100)
    return float(margins.flatten().topk(count).values.sigmoid().mean())


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={device}: torch has no such device here ({error})") from error
    return found
