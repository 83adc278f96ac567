"""What one visitor has shown and asked, without anything of the browser.

Shapes: h w height and width of a picture, in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from fss.data.readers.pictures import TooLargeError, read_image
from fss.display.shown import shown
from fss.files.text import is_name, printable
from fss.predictor import FewShotPredictor, Segmentation
from fss.web.examples import Example, Shown
from fss.web.why import Explanation

# What one visitor can hold: with the longest sides below, at most about a gigabyte
MOST_SUPPORTS, MOST_CLASSES, MOST_QUERIES = 20, 5, 50
MOST_PIXELS = 50_000_000  # of a picture: more than any phone's camera makes
LONGEST = 1024  # pixels: sharper than what a network sees; masks for downloads have the picture's own size
PREVIEW = 400  # pixels


def read_upload(file: str | Path) -> np.ndarray:
    """Reads a picture that somebody uploaded as (h, w, 3) uint8 RGB.

    Raises:
        ValueError: It cannot be read, or is too large; the message has its name without its folder.
    """
    path = Path(file)
    try:
        return read_image(path, MOST_PIXELS)
    except TooLargeError:
        raise ValueError(
            f"{shown(path.name)} has more than {MOST_PIXELS // 10**6} million pixels: make it smaller"
        ) from None
    except OSError:
        raise ValueError(f"{shown(path.name)}: it is gone, add it again") from None
    except ValueError as error:
        raise ValueError(shown(str(error).replace(printable(path), path.name))) from None


def reduced(image: np.ndarray, longest: int = LONGEST) -> np.ndarray:
    """The picture (h, w, 3) itself, or resized to `longest` pixels if its longer side is longer."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Query:
    """A picture to search.

    Attributes:
        name: Unique name, for captions and files.
        source: Its file, or the picture (h, w, 3) uint8 RGB itself.
        preview: The picture, at most `PREVIEW` pixels long.
    """

    name: str
    source: Path | np.ndarray
    preview: np.ndarray

    def image(self) -> np.ndarray:
        """Returns it as (h, w, 3) uint8 RGB; raises ValueError if its file cannot be read."""
        return self.source if isinstance(self.source, np.ndarray) else read_upload(self.source)


@dataclass
class Session:
    """Supports, queries and answers of one visitor.

    Attributes:
        supports: In the order in which they were shown.
        queries: In the order in which they came.
        found: Answers for `queries`, at most `LONGEST` pixels long; empty before the first search and when
            supports or queries have changed since.
        waiting: Files of pictures that are to become supports, once somebody has painted them.
        painting: The picture (h, w, 3) uint8 RGB that is being painted; None if none is.
        chosen: Position in `queries` of the picture that is looked at closely.
        threshold: Probability in 0..1 that a pixel must exceed to be foreground; None for the model's own.
        presence: Presence in 0..1 below which a class is taken to be absent; None for the predictor's thresholds.
        archive: The file that was downloaded last.
        to_remove: Position in `supports` of the one that was clicked; -1 for none.
    """

    supports: list[Shown] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    found: list[Segmentation] = field(default_factory=list)
    waiting: list[Path] = field(default_factory=list)
    painting: np.ndarray | None = None
    chosen: int = 0
    to_remove: int = -1
    threshold: float | None = None
    presence: float | None = None
    archive: Path | None = None
    _predictor: FewShotPredictor | None = None
    _explained: dict[tuple[int, str], Explanation] = field(default_factory=dict)  # at most one

    def offer(self, files: Iterable[str | Path]) -> None:
        """Lets pictures wait to be painted.

        Raises:
            ValueError: There are too many; then none waits.
        """
        paths = [Path(file) for file in files]
        if len(self.supports) + len(self.waiting) + len(paths) > MOST_SUPPORTS:
            raise ValueError(
                f"{len(paths)} pictures are too many: the page takes {MOST_SUPPORTS} examples. Few are enough: "
                "one to five of each thing."
            )
        self.waiting += paths

    def next_to_paint(self) -> list[str]:
        """Sets `painting` to the next waiting picture; returns what is wrong with those that cannot be used."""
        wrong, self.painting = [], None
        while self.waiting and self.painting is None:
            try:
                self.painting = reduced(read_upload(self.waiting.pop(0)))
            except ValueError as error:
                wrong.append(str(error))
        return wrong

    def show(self, support: Shown, model: FewShotPredictor) -> None:
        """Adds a support.

        Args:
            support: Its picture is kept as `reduced`.
            model: The loaded model, which is shared with other visitors and stays as it is.

        Raises:
            ValueError: The support cannot be used, or there are too many; then nothing has been added.
        """
        name = " ".join(support.name.split())
        if not name or len(name) > 60 or not is_name(name):
            raise ValueError("Give the thing a short name, such as mug.")
        if len(self.supports) >= MOST_SUPPORTS:
            raise ValueError(f"The page takes {MOST_SUPPORTS} examples: remove one first.")
        if name not in self.classes and len(self.classes) >= MOST_CLASSES:
            raise ValueError(f"The page takes {MOST_CLASSES} different things: remove one first.")
        image = reduced(support.image)
        mask = support.mask
        if image.shape != support.image.shape:
            small = cv2.resize(mask.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            mask = small > 0
        if self._predictor is None:
            self._predictor = alike(model)
        self._predictor.fit(image, mask, name=name)
        self.supports.append(Shown(name, image, mask))
        self._forget_answers()

    def remove(self, number: int) -> None:
        """Removes a support, given its position in `supports`; raises ValueError if there is none."""
        if not 0 <= number < len(self.supports):
            raise ValueError("Choose an example to remove by clicking it.")
        assert self._predictor is not None
        removed = self.supports.pop(number)
        self._predictor.forget(removed.name)
        if rest := self.supports_of(removed.name):
            self._predictor.fit([s.image for s in rest], [s.mask for s in rest], name=removed.name)
        self.to_remove = -1
        self._forget_answers()

    def ask(self, files: Iterable[str | Path]) -> list[str]:
        """Adds pictures to search; returns what is wrong with those that cannot be used.

        Raises:
            ValueError: There are too many; then none has been added.
        """
        paths = [Path(file) for file in files]
        if len(self.queries) + len(paths) > MOST_QUERIES:
            already = f", and there are {len(self.queries)} already" if self.queries else ""
            raise ValueError(
                f"{len(paths)} pictures are too many: the page takes {MOST_QUERIES} at a time{already}. For more, "
                "use python predict.py."
            )
        wrong = []
        for path in paths:
            try:
                preview = reduced(read_upload(path), PREVIEW)
            except ValueError as error:
                wrong.append(str(error))
            else:
                self.queries.append(Query(self._unique(path.stem), path, preview))
                self._forget_answers()
        return wrong

    def take(self, example: Example, model: FewShotPredictor) -> None:
        """Starts over with a worked example."""
        self.clear()
        for support in example.supports:
            self.show(support, model)
        self.queries = [Query(name, image, reduced(image, PREVIEW)) for name, image in example.queries.items()]

    def clear(self) -> None:
        """Forgets everything."""
        self.supports, self.queries, self.waiting = [], [], []
        self.painting, self.to_remove, self._predictor = None, -1, None
        self.threshold, self.presence = None, None
        self._forget_answers()

    def search(self, told: Callable[[float], object] = lambda share: None) -> None:
        """Fills `found`.

        Args:
            told: Called with the share that is done, in 0..1.

        Raises:
            ValueError: Nothing has been shown or asked, or the model needs another number of supports.
        """
        if not self.queries:
            raise ValueError("Add the pictures to search first (step 2).")
        found = []
        for done, query in enumerate(self.queries):
            told(done / len(self.queries))
            found.append(replace(self.predictor.predict(reduced(query.image())), name=query.name))
        self.found, self._explained = found, {}

    def explain(self, name: str) -> Explanation:
        """Why the chosen picture was answered as it was, for one class; computed once.

        Raises:
            ValueError: Nothing has been found yet, or there is no such class.
        """
        if self.chosen >= len(self.found):
            raise ValueError("Find something first (step 2).")
        if name not in self.classes:
            raise ValueError(f"There are no examples of {shown(name)}.")
        key = (self.chosen, name)
        if key not in self._explained:
            image = self.found[self.chosen].image
            self._explained = {key: Explanation(self.predictor, self.supports_of(name), image)}
        return self._explained[key]

    def supports_of(self, name: str) -> list[Shown]:
        """The supports of a class, in the order in which they were shown."""
        return [support for support in self.supports if support.name == name]

    def answers(self) -> list[Segmentation]:
        """`found` with the visitor's own `threshold` and `presence`."""
        return [self._adjusted(found) for found in self.found]

    def at_own_size(self, number: int) -> Segmentation:
        """An answer at the size of its picture; raises ValueError if that cannot be read any more."""
        found, image = self.found[number], self.queries[number].image()
        if image.shape != found.image.shape:
            found = replace(self.predictor.predict(image), name=found.name)
        return self._adjusted(found)

    def _adjusted(self, found: Segmentation) -> Segmentation:
        threshold, absent = self.threshold, found.absent
        if self.presence is not None:
            absent = frozenset(name for name, value in found.presence.items() if value < self.presence)
        return replace(found, threshold=found.threshold if threshold is None else threshold, absent=absent)

    @property
    def predictor(self) -> FewShotPredictor:
        """The visitor's own predictor, with the supports fitted; raises ValueError if there are none."""
        if self._predictor is None or not self.supports:
            raise ValueError("Show an example of the thing first (step 1).")
        return self._predictor

    @property
    def classes(self) -> list[str]:
        """Names of what has been shown, in that order."""
        return list(dict.fromkeys(support.name for support in self.supports))

    def _forget_answers(self) -> None:
        self.found, self.chosen, self._explained = [], 0, {}

    def _unique(self, stem: str) -> str:
        name, taken, number = shown(stem)[:60] or "picture", {query.name for query in self.queries}, 2
        wanted = name
        while wanted in taken:
            wanted, number = f"{name} ({number})", number + 1
        return wanted


def alike(model: FewShotPredictor) -> FewShotPredictor:
    """A predictor with the same network and settings, and without supports."""
    return FewShotPredictor(
        model.segmenter,
        model.size,
        model.geometry,
        model.threshold,
        model.presence_threshold,
        model.device,
        model.network.precision,
        MOST_PIXELS,
    )
