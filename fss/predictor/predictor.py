"""Few-shot segmentation in three calls: load a model, fit classes from a few pictures with masks, predict.

Shapes: K supports, S side of the square that the network sees, N classes, h w height and width of a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Self, overload

import numpy as np
import torch
from torch import Tensor

from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.pictures import MAX_PIXELS
from fss.geometry import Geometry, at_original_size, fitted
from fss.models.segmenter import FewShotSegmenter
from fss.predictor.adaptation import Adapted
from fss.predictor.adaptation import adapt as adapt_to
from fss.predictor.fitted import Fitted
from fss.predictor.inputs import Picture, as_list, as_picture, is_picture, name_of, several
from fss.predictor.loading import is_training_free, load_model
from fss.predictor.marked import Annotation, MarkedPictures, Shots
from fss.predictor.marks import Box, Points
from fss.predictor.network import Encoded, Network, Precision, check_precision, find_device
from fss.predictor.refusals import as_path, check_count, check_flag, check_share, named
from fss.predictor.segmentation import Segmentation
from fss.predictor.supports import Shots as Shown
from fss.predictor.supports import Support, load_supports, save_supports
from fss.predictor.tiles import SMALLEST, blend, tiles

PRESENCE = 0.45  # where a model has no verifier; chosen on base classes of the embedded data
UNTRAINED = 0.32  # of training-free models, whose similarities are lower; chosen on photographs of base classes
SLACK = 0.95
ABSENT = -4.0  # highest log-odds of a class in a tile that abstains: a probability of 0.018


class FewShotPredictor:
    """Segments classes that it is shown in a few pictures with masks.

    Supports are encoded once, and a query costs one pass of the backbone, whatever the number of classes and
    supports. For pictures and supports of an episode, masks are those of `evaluate.py`, pixel by pixel.

    Args:
        segmenter: The model; its SVF layers are merged in place.
        size: Side S of the square in which pictures are seen, in pixels.
        geometry: How pictures lie in it; see `fss.geometry`.
        threshold: Probability that a pixel must exceed to be foreground, in 0..1.
        presence_threshold: Presence in 0..1 below which a class is taken to be absent; None for the model's own.
            See `presence_thresholds`.
        device: "auto" takes a GPU if there is one; or what torch calls a device.
        precision: "32-true", or "bf16-mixed" or "16-mixed" for autocast.
        max_pixels: Larger pictures are refused before they are decoded.

    Attributes:
        adapted: What became of `fit(..., adapt=True)`; None before.

    Raises:
        ValueError: A setting is out of range, or there is no such device.
    """

    def __init__(
        self,
        segmenter: FewShotSegmenter,
        size: int,
        geometry: Geometry = "exact",
        threshold: float = 0.5,
        presence_threshold: float | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "32-true",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if not isinstance(segmenter, FewShotSegmenter):
            raise ValueError(f"segmenter={segmenter!r:.100}: must be a FewShotSegmenter; load() reads one")
        verifier = segmenter.verifier
        if presence_threshold is None:
            presence_threshold = PRESENCE if verifier is None else verifier.threshold
        check_count("max_pixels", max_pixels)
        self.threshold, self.presence_threshold, self.max_pixels = threshold, presence_threshold, max_pixels
        self.network = Network(segmenter, device, precision)
        self._transform = EvaluationTransform(size, geometry)
        self._marked = MarkedPictures(self.network, self._transform, max_pixels)
        self.adapted: Adapted | None = None
        self._fitted = Fitted(self.network)

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
            model: A run folder of `train.py`, a model file, or "match" or "prior", which need no training.
            device: See `FewShotPredictor`.
            precision: See `FewShotPredictor`.
            max_pixels: See `FewShotPredictor`.

        Raises:
            FileNotFoundError: There is no such model.
            ValueError: It cannot be used, or a setting is out of range; the latter is told before it is read.
        """
        device = find_device(device)
        check_precision(precision)
        check_count("max_pixels", max_pixels)
        segmenter, card = load_model(model)
        return cls(
            segmenter,
            card.size,
            card.geometry,
            card.threshold,
            UNTRAINED if is_training_free(model) else None,
            device,
            precision,
            max_pixels,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the fitted classes in alphabetical order, which is that of their labels, from 1."""
        return self._fitted.classes

    @property
    def segmenter(self) -> FewShotSegmenter:
        """The model, in eval mode on its device."""
        return self.network.segmenter

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.network.device

    @property
    def threshold(self) -> float:
        """Probability that a pixel must exceed to be foreground, in 0..1."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        check_share("threshold", value)
        self._threshold = value

    @property
    def presence_threshold(self) -> float:
        """Presence in 0..1 below which a class is taken to be absent; see `presence_thresholds`."""
        return self._presence_threshold

    @presence_threshold.setter
    def presence_threshold(self, value: float) -> None:
        check_share("presence_threshold", value)
        self._presence_threshold = value

    @property
    def refine(self) -> int:
        """How answers follow the edges of a picture: the radius of `fss.models.heads.Head`; 0: not at all."""
        return self.segmenter.head.radius

    @refine.setter
    def refine(self, value: int) -> None:
        check_count("refine", value, least=0)
        self.segmenter.head.radius = int(value)  # numpy's would count for nothing in a fingerprint

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
        self._fitted.check(name)
        return tuple(self._fitted.supports[name])

    def negatives(self, name: str) -> tuple[Support, ...]:
        """The pictures that are known not to show a class, as the network sees them.

        Raises:
            ValueError: There is no such class.
        """
        self._fitted.check(name)
        return tuple(self._fitted.negatives.get(name, ()))

    def fit(
        self,
        images: Picture | Iterable[Picture] | Mapping[str, Shots],
        masks: Annotation | Iterable[Annotation] | None = None,
        name: str = "object",
        adapt: bool = False,
        negatives: Picture | Iterable[Picture] = (),
    ) -> Self:
        """Learns classes from supports, or adds supports to classes.

        Neither the order in which classes are fitted nor the number of calls matters.

        Args:
            images: One picture or several (see `as_picture`); or, in one call, {name: [(picture, mask), ...]}.
            masks: For each picture a mask (see `as_mask`), a `Box`, or `Points`, which are grown on the features.
            name: Name of the class.
            adapt: Also tune the singular values of the backbone on all supports of this class, three or more, if
                that helps supports that are held out (`adaptation`). For a predictor of one class; takes minutes.
            negatives: Pictures that show none of these classes, for a model that base classes have taught when a
                class is absent: what is found in them counts as something else from now on.

        Returns:
            The predictor itself.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A picture or mask cannot be used, or numbers differ. Nothing has been added then.
        """
        check_flag("adapt", adapt)
        if isinstance(images, Mapping):
            if masks is not None:
                raise ValueError("fit takes {name: [(picture, mask), ...]} alone, or pictures and masks")
            if not images:
                raise ValueError("fit({}) names no class: give {name: [(picture, mask), ...]}")
            read = {each: self._marked.read(shots, each) for each, shots in images.items()}
            return self._add(read, dict.fromkeys(read, self._without(negatives)), adapt)
        if masks is None:
            raise ValueError("fit needs a mask for every picture")
        pictures = as_list(images)
        marks = [masks] if isinstance(masks, Box | Points) else as_list(masks, "mask")
        if len(pictures) != len(marks):
            raise ValueError(f"{len(pictures)} pictures with {len(marks)} masks: every picture needs one mask")
        read = {name: self._marked.read(zip(pictures, marks, strict=True), name)}
        return self._add(read, {name: self._without(negatives)}, adapt)

    def _without(self, pictures: Picture | Iterable[Picture]) -> list[Support]:
        """Negatives as the network sees them."""
        given = as_list(pictures, "picture of negatives=")
        if given and self.segmenter.verifier is None:
            raise ValueError(
                "negatives= needs a model that base classes have taught when a class is absent: the model file of "
                "a run, not a training-free one"
            )
        found = []
        for number, picture in enumerate(given, start=1):
            with named(f"negative {number}"):
                found.append(self._marked.negative(as_picture(picture, self.max_pixels)))
        return found

    def forget(self, name: str) -> Self:
        """Removes a class.

        Raises:
            ValueError: There is no such class.
        """
        self._fitted.check(name)
        self._fitted.forget(name)
        return self

    def save_supports(self, path: str | Path) -> None:
        """Writes supports and negatives into one safetensors file: pictures at the network's size, and masks.

        Raises:
            OSError: The file cannot be written.
            ValueError: Nothing has been fitted, or the path is none.
        """
        fitted = self._fitted
        fitted.check()
        save_supports(as_path("path", path), fitted.supports, fitted.negatives, self.size, self.geometry)

    def load_supports(self, path: str | Path) -> Self:
        """Adds the supports of a file of `save_supports`; answers are those of the predictor that wrote it.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or made for a model that sees pictures at another size.
        """
        return self._add(*load_supports(as_path("path", path), self.size, self.geometry))

    @overload
    def predict(  # type: ignore[overload-overlap]  # a picture is one, even where it can be iterated
        self, image: Picture, batch_size: int = 1, abstain: bool = False, tile: int | None = None
    ) -> Segmentation: ...

    @overload
    def predict(
        self, image: Iterable[Picture], batch_size: int = 1, abstain: bool = False, tile: int | None = None
    ) -> Iterator[Segmentation]: ...

    def predict(
        self,
        image: Picture | Iterable[Picture],
        batch_size: int = 1,
        abstain: bool = False,
        tile: int | None = None,
    ) -> Segmentation | Iterator[Segmentation]:
        """Segments all fitted classes in one picture, or in several, one after another.

        Args:
            image: A picture (see `as_picture`), or any number of them.
            batch_size: Pictures in one pass of the backbone. 1 is exact; more are faster on a GPU and change
                results by rounding.
            abstain: Leave out classes whose presence is below their threshold (`presence_thresholds`). Without it,
                every class is looked for as in an evaluation, which only asks for what is there.
            tile: Side in pixels of overlapping tiles in which a larger picture is seen, for objects that would be
                too small otherwise. Each tile costs a pass, and what its answers blend into is another answer than
                that for the whole; a picture that fits into one tile is answered as without.

        Returns:
            The answer, or an iterator over the answers in the order of the pictures.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: A picture cannot be used, nothing has been fitted, or the model needs another number of
                supports.
        """
        self._fitted.check()
        check_count("batch_size", batch_size)
        check_flag("abstain", abstain)
        if tile is not None:
            check_count("tile", tile, least=SMALLEST)
        self._fitted.check_shots()
        if is_picture(image):
            return next(self._predict([image], 1, abstain, tile))  # type: ignore[list-item]
        return self._predict(several(image), batch_size, abstain, tile)

    def presence_thresholds(self) -> dict[str, float]:
        """For each class the presence in 0..1 below which `predict(..., abstain=True)` takes it to be absent.

        It is `presence_threshold`, which base classes have chosen when the model file was written. Only where they
        have not, as for training-free models, and there are two or more supports, each is left out once and looked
        for with the others; the threshold is then the mean of `presence_threshold` and `SLACK` times the lowest
        presence found so, since a few supports are too few to go by alone.
        """
        return {name: self._threshold_of(name) for name in self.classes}

    def _threshold_of(self, name: str) -> float:
        if self.segmenter.verifier is not None or not (found := self._fitted.left_out(name)):
            return self.presence_threshold
        return (SLACK * min(found) + self.presence_threshold) / 2

    def _predict(
        self, images: Iterable[Picture], batch_size: int, abstain: bool, tile: int | None
    ) -> Iterator[Segmentation]:
        numbered = zip(count(1), images)  # one is endless
        while batch := list(islice(numbered, batch_size)):
            pictures = [self._picture(picture, number) for number, picture in batch]
            names = [name_of(picture, number) for number, picture in batch]
            whole = [tile is None or max(picture.shape[:2]) <= tile for picture in pictures]
            squares = [self._marked.square(picture) for picture, fits in zip(pictures, whole, strict=True) if fits]
            queries = iter(self.network.encode_queries(squares) if squares else ())
            for name, picture, fits in zip(names, pictures, whole, strict=True):
                yield self._answer(name, picture, next(queries) if fits else None, abstain, tile)

    def _picture(self, given: Picture, number: int) -> np.ndarray:
        with named(f"picture {number}"):
            return as_picture(given, self.max_pixels)

    def _answer(
        self, name: str, picture: np.ndarray, query: Encoded | None, abstain: bool, tile: int | None
    ) -> Segmentation:
        """The answer for a picture, from its encoding or, where it is seen in tiles, None."""
        cuts = self.presence_thresholds() if abstain else {}
        if query is not None:
            margins, found = self._look_for_classes(query, *picture.shape[:2])
        else:
            margins, found = self._look_in_tiles(picture, tile or 0, cuts)
        absent = frozenset(each for each, cut in cuts.items() if found[each] < cut)
        return Segmentation(picture, self.classes, margins.numpy(), found, self.threshold, absent, name)

    @torch.inference_mode()
    def _look_for_classes(self, query: Encoded, height: int, width: int) -> tuple[Tensor, dict[str, float]]:
        """Margins (N, h, w) and presences of all classes, from one encoded picture."""
        rows, columns = fitted(height, width, self.size, self.geometry)
        covered = torch.zeros(self.size, self.size, dtype=torch.bool)
        covered[:rows, :columns] = True
        margins, found = torch.empty(len(self.classes), height, width), {}
        for index, name in enumerate(self.classes):
            logits = self.network.decode(query, self._fitted.joined(name), self.size)
            encoded, mistaken = self._fitted.encoded(name), self._fitted.mistaken(name)
            found[name] = self.network.presence(query, encoded, logits, covered, mistaken)
            logits = at_original_size(logits, height, width, self.geometry)
            margins[index] = logits[1] - logits[0]
        return margins, found

    @torch.inference_mode()
    def _look_in_tiles(
        self, picture: np.ndarray, side: int, cuts: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, float]]:
        """Margins (N, h, w) and the highest presences of a picture's tiles, each of which abstains on its own."""
        height, width = picture.shape[:2]
        found = dict.fromkeys(self.classes, 0.0)
        parts = []
        for part in tiles(height, width, side):
            crop = picture[part.top : part.bottom, part.left : part.right]
            [query] = self.network.encode_queries([self._marked.square(crop)])
            margins, here = self._look_for_classes(query, *crop.shape[:2])
            for index, name in enumerate(self.classes):
                if here[name] < cuts.get(name, 0):
                    margins[index].clamp_(max=ABSENT)
                found[name] = max(found[name], here[name])
            parts.append((part, margins))
        return blend(parts, height, width), found

    def _add(self, supports: Shown, negatives: Shown, adapt: bool = False) -> Self:
        if adapt:
            together = self._fitted.with_more(supports)
            if len(together) > 1:
                raise ValueError("adapt=True tunes the backbone for one class: take a predictor for each class")
            self._adapt(*together.values())
        self._fitted.add(supports, negatives, self.network)
        return self

    def _adapt(self, supports: Sequence[Support]) -> None:
        self.adapted = adapt_to(self.segmenter, supports)
        if self.adapted.segmenter is not None:
            self.network = Network(self.adapted.segmenter, self.device, self.network.precision)
            self._marked = MarkedPictures(self.network, self._transform, self.max_pixels)
