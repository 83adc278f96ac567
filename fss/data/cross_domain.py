"""Cross-domain evaluation: finds the classes of one data set that a model trained on another has never seen.

As in Boudiaf et al., RePRI (CVPR 2021): a model trained on a fold of COCO-20i is evaluated on those PASCAL classes
that are not among the fold's base classes: 6, 4, 6 and 4 of the 20.
"""

from __future__ import annotations

from collections.abc import Sequence

from fss.data.folds import FoldScheme, fold_classes
from fss.data.readers import pascal
from fss.data.readers.coco_classes import COCO_CLASSES

KNOWN = {"coco20i": COCO_CLASSES, "pascal5i": pascal.CLASSES}
# PASCAL names -> COCO names for the same classes.
SYNONYMS = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "diningtable": "dining table",
    "pottedplant": "potted plant",
    "tvmonitor": "tv",
}


def base_class_names(dataset: str, fold: int, scheme: FoldScheme) -> list[str]:
    """Returns the names of a fold's base classes, ordered by class id.

    Raises:
        ValueError: If the data set's class names are unknown.
    """
    if dataset not in KNOWN:
        raise ValueError(f"trained_on={dataset}: must be a data set with known class names, {' or '.join(KNOWN)}")
    names = KNOWN[dataset]
    return [names[class_id - 1] for class_id in fold_classes(len(names), fold, scheme).base]


def unseen_classes(names: Sequence[str], seen: Sequence[str]) -> list[int]:
    """Returns the 1-based ids of the classes that are not among those seen, allowing for synonyms.

    Raises:
        ValueError: If all of them have been seen.
    """
    known = {_common(name) for name in seen}
    unseen = [class_id for class_id, name in enumerate(names, start=1) if _common(name) not in known]
    if not unseen:
        raise ValueError("every class of this data set is a base class of the fold that the model was trained on")
    return unseen


def _common(name: str) -> str:
    return SYNONYMS.get(name.lower(), name.lower())
