"""Few-shot segmentation in three calls: load a model, fit classes from a few pictures with masks, predict.

Shapes: K supports, S side of the square that the network sees, N classes, h w height and width of a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import torch
from torch import Tensor

from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.pictures import MAX_PIXELS
from fss.files.text import is_name
from fss.geometry import Geometry, at_original_size, fitted
from fss.labels import MAX_CLASSES
from fss.models.encodings import join
from fss.models.segmenter import FewShotSegmenter
from fss.predictor.loading import load_model
from fss.predictor.network import Encoded, Network, Precision
from fss.predictor.pictures import Picture, as_list, as_mask, as_picture, is_picture, name_of
from fss.predictor.segmentation import Segmentation
from fss.predictor.supports import Support, load_supports, save_supports

PRESENCE = 0.45  # chosen on base classes of the embedded data; see docs/own_pictures.md
SLACK = 0.95
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
        presence_threshold: Presence in 0..1 below which a class of one support is taken to be absent; see
            `presence_thresholds`.
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
        presence_threshold: float = PRESENCE,
        device: str | torch.device = "auto",
        precision: Precision = "32-true",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        for given in (threshold, presence_threshold):
            if not 0 <= given <= 1:
                raise ValueError(f"a threshold of {given}: must be in 0..1")
        self.network = Network(segmenter, device, precision)
        self.threshold, self.presence_threshold, self.max_pixels = threshold, presence_threshold, max_pixels
        self._transform = EvaluationTransform(size, geometry)
        self._supports: dict[str, list[Support]] = {}
        self._encoded: dict[str, list[Encoded]] = {}
        self._joined: dict[str, Any] = {}  # what the head made of all supports of a class
        self._left_out: dict[str, float] = {}  # thresholds by leave-one-out

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
        segmenter, card = load_model(model)
        return cls(
            segmenter,
            card.size,
            card.geometry,
            card.threshold,
            device=device,
            precision=precision,
            max_pixels=max_pixels,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the fitted classes in alphabetical order, which is that of their labels, from 1."""
        return tuple(sorted(self._supports))

    @property
    def segmenter(self) -> FewShotSegmenter:
        """The model, in eval mode on its device."""
        return self.network.segmenter

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.network.device

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
        for kept in (self._supports, self._encoded, self._joined, self._left_out):
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
    def predict(  # type: ignore[overload-overlap]  # a picture is one, even where it can be iterated
        self, image: Picture, batch_size: int = 1, abstain: bool = False
    ) -> Segmentation: ...

    @overload
    def predict(
        self, image: Iterable[Picture], batch_size: int = 1, abstain: bool = False
    ) -> Iterator[Segmentation]: ...

    def predict(
        self, image: Picture | Iterable[Picture], batch_size: int = 1, abstain: bool = False
    ) -> Segmentation | Iterator[Segmentation]:
        """Segments all fitted classes in one picture, or in several, one after another.

        Args:
            image: A picture (see `as_picture`), or any number of them.
            batch_size: Pictures in one pass of the backbone. 1 is exact; more are faster on a GPU and change
                results by rounding.
            abstain: Leave out classes whose presence is below their threshold (`presence_thresholds`). Without it,
                every class is looked for as in an evaluation, which only asks for what is there.

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
            return next(self._predict([image], 1, abstain))  # type: ignore[list-item]
        return self._predict(image, batch_size, abstain)  # type: ignore[arg-type]

    def presence_thresholds(self) -> dict[str, float]:
        """For each class the presence in 0..1 below which `predict(..., abstain=True)` takes it to be absent.

        With one support, or a head that needs a fixed number of them, it is `presence_threshold`. With more, each
        is left out once and looked for with the others; the threshold is the mean of `presence_threshold` and
        `SLACK` times the lowest presence found so, since a few supports are too few to go by alone.
        """
        return {name: self._threshold_of(name) for name in self.classes}

    def _threshold_of(self, name: str) -> float:
        shots = self._supports[name]
        if not self.network.takes(len(shots) - 1):
            return self.presence_threshold
        if name not in self._left_out:
            self._left_out[name] = SLACK * min(self.network.left_out(shots, self._encoded[name]))
        return (self._left_out[name] + self.presence_threshold) / 2

    def _predict(self, images: Iterable[Picture], batch_size: int, abstain: bool) -> Iterator[Segmentation]:
        numbered = zip(count(1), images)  # one is endless
        while batch := list(islice(numbered, batch_size)):
            pictures = [as_picture(picture, self.max_pixels) for _, picture in batch]
            names = [name_of(picture, number) for number, picture in batch]
            queries = self.network.encode_queries([self._square(picture) for picture in pictures])
            for name, picture, query in zip(names, pictures, queries, strict=True):
                yield self._answer(name, picture, query, abstain)

    @torch.inference_mode()
    def _answer(self, name: str, picture: np.ndarray, query: Encoded, abstain: bool) -> Segmentation:
        classes = self.classes
        height, width = picture.shape[:2]
        rows, columns = fitted(height, width, self.size, self.geometry)
        covered = torch.zeros(self.size, self.size, dtype=torch.bool)
        covered[:rows, :columns] = True
        margins, found = torch.empty(len(classes), height, width), {}
        for index, each in enumerate(classes):
            if each not in self._joined:
                self._joined[each] = join([one.head for one in self._encoded[each]], dim=1)
            logits = self.network.decode(query, self._joined[each], self.size)
            found[each] = self.network.presence(query, self._encoded[each], logits, covered)
            logits = at_original_size(logits, height, width, self.geometry)
            margins[index] = logits[1] - logits[0]
        cuts = self.presence_thresholds() if abstain else {}
        absent = frozenset(each for each, cut in cuts.items() if found[each] < cut)
        return Segmentation(picture, classes, margins.numpy(), found, self.threshold, absent, name)

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
        encoded = {name: [self.network.encode_support(s) for s in shots] for name, shots in supports.items()}
        for name, shots in supports.items():
            self._supports.setdefault(name, []).extend(shots)
            self._encoded.setdefault(name, []).extend(encoded[name])
            self._joined.pop(name, None)
            self._left_out.pop(name, None)
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
