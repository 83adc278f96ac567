"""The lists of pictures that published programs use, and whether a copy of the data gives the same ones.

`published.json` holds of each list how many entries it has and, of PASCAL-5i, a digest of them in their order (of
supports, of lines "class count digest"); the lists themselves are not needed. A list is named
"train/exclude_novel", "train/all" or "val", and its fold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fss.data.folds import FOLDS, FoldScheme, fold_classes
from fss.data.index import Index, classes_by_image, images_by_class
from fss.data.readers.reader import Reader
from fss.files.digests import digest, stem

FACTS = Path(__file__).with_name("published.json")
MIN_PIXELS = 2048


class Fact(NamedTuple):
    """What is known of a list.

    Attributes:
        entries: How many it has.
        sha256: `digest` of them; None where it is not known.
    """

    entries: int
    sha256: str | None = None


class Comparison(NamedTuple):
    """A published list and what is here.

    Attributes:
        of: The list's name; "train" and "val" are all pictures.
        part: "pictures"; "queries" in their order; "supports" by class; "query_classes", the classes that each
            query may be asked for.
        published: What the published programs have.
        found: The same here, with a digest where the published one is known.
    """

    of: str
    part: str
    published: Fact
    found: Fact

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.published == self.found


def compare(
    dataset: str,
    scheme: FoldScheme,
    min_pixels: int,
    readers: Sequence[Reader],
    indices: Sequence[Index],
    year: int | None = None,
    crowd: str | None = None,
) -> list[Comparison]:
    """Published lists beside those of a copy of the data; empty where nothing published can be compared.

    Args:
        dataset: Its name.
        scheme: Of the folds.
        min_pixels: See `build_pool`.
        readers: Of training and evaluation pictures, the latter in the order of their list.
        indices: Of the readers.
        year: Of COCO.
        crowd: How COCO's crowd regions are labelled.
    """
    known = json.loads(FACTS.read_text()).get(dataset)
    if known is None or (scheme, min_pixels) != (known["fold_scheme"], MIN_PIXELS) or year != known.get("year"):
        return []
    compared = [
        Comparison(part, "pictures", Fact(count), Fact(len(reader)))
        for (part, count), reader in zip(known["pictures"].items(), readers, strict=True)
    ]
    if crowd != known.get("crowd"):  # masks differ then, and so do lists
        return compared
    for fold in range(FOLDS):
        novel, base = fold_classes(len(readers[0].classes), fold, scheme)
        for name, (reader, index), classes, exclude in (
            ("train/exclude_novel", (readers[0], indices[0]), base, novel),
            ("train/all", (readers[0], indices[0]), base, ()),
            ("val", (readers[1], indices[1]), novel, ()),
        ):
            published = {part: Fact(*fact) for part, fact in known["lists"][f"{name}/fold{fold}"].items()}
            found = _facts(reader, index, classes, exclude)
            for part, fact in published.items():
                here = found[part] if fact.sha256 else found[part]._replace(sha256=None)
                compared.append(Comparison(f"{name}/fold{fold}", part, fact, here))
    return compared


def compare_official(reader: Reader) -> list[Comparison]:
    """The number of pictures beside that of the official archives, where a reader knows it (`Official`)."""
    official = getattr(reader, "official", None)
    return [] if official is None else [Comparison("val", "pictures", Fact(official.pictures), Fact(len(reader)))]


def _facts(reader: Reader, index: Index, classes: Iterable[int], exclude: Iterable[int]) -> dict[str, Fact]:
    """Of one fold's lists, which are made as `build_pool` makes them."""
    images_of = images_by_class(index, classes, MIN_PIXELS, exclude)
    queries = np.unique(np.concatenate(list(images_of.values())))
    stems = {number: stem(reader.name(number)) for number in queries.tolist()}
    supports = {c: [stems[number] for number in images.tolist()] for c, images in images_of.items()}
    classes_of = classes_by_image(index, queries, images_of, 1)
    asked = [f"{stems[query]} {c}" for query, shown in classes_of.items() for c in shown]
    by_class = [f"{c} {len(listed)} {digest(listed)}" for c, listed in supports.items()]
    return {
        "queries": Fact(len(stems), digest(stems.values())),
        "supports": Fact(sum(map(len, supports.values())), digest(by_class)),
        "query_classes": Fact(len(asked), digest(asked)),
    }
