"""Vision transformers of timm as a backbone: DINOv2 and DINOv3, DeiT, CLIP, MAE, SAM and their like, by name.

Shapes: B batch, S image side, C channels, p patch side, h w number of patches down and across.
"""

from __future__ import annotations

import math
from typing import Any

import timm
import torch.nn.functional as F
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor

from fss.models.backbones.backbone import Backbone, Channels, Lower
from fss.models.backbones.timm_weights import check_name, load_timm_weights
from fss.resize import resize

FAMILIES = (VisionTransformer, Eva, VisionTransformerSAM)
_PREFIX = "network."


class ViTBackbone(Backbone):
    """The patch tokens after three blocks of a plain vision transformer, each location scaled to unit length.

    Class and register tokens take part in attention and are then dropped. Position embeddings are resized to the
    picture's patches; rotary ones are computed for them. A picture whose sides are no multiples of the patch is
    resized to the nearest ones, so that maps always cover all of it: 473 pixels are 34 patches of 14. A location
    is the middle of its patch, while masks are resized with aligned corners, as everywhere in this program:
    towards the border of a picture, the two drift apart by up to half a patch.

    `high` is masked after its block rather than before it: attention would look past the mask anyway.

    Args:
        name: timm's name for the network, with or without the tag of its weights
            ("vit_small_patch14_dinov2.lvd142m"); without, timm's first tag.
        low: Block of the low features, from 0; None for the last of the second quarter.
        mid: Block of the mid features; None for the last of the third quarter.
        high: Block of the features for the prior mask; None for the last. Those after it are pruned.
        norm: Apply the network's final norm to all three, as DINOv2's own `get_intermediate_layers` does. SAM's
            encoder has none.
        weights: See `load_timm_weights`; None leaves the weights random.

    Raises:
        FileNotFoundError: If there are no such weights.
        ValueError: If the name is unknown or none of a plain transformer, the network lacks those blocks, or the
            weights do not fit.
    """

    def __init__(
        self,
        name: str,
        low: int | None = None,
        mid: int | None = None,
        high: int | None = None,
        norm: bool = True,
        weights: str | None = None,
    ) -> None:
        check_name(name)
        network = _create(name)
        depth = len(network.blocks)
        second, third, last = (math.ceil(quarter * depth / 4) - 1 for quarter in (2, 3, 4))
        low = second if low is None else low
        mid = third if mid is None else mid
        high = last if high is None else high
        if not 0 <= low < mid <= high < depth:
            raise ValueError(
                f"backbone.low={low}, backbone.mid={mid}, backbone.high={high}: must be blocks of {name} from 0 "
                f"to {depth - 1}, low before mid, and high not before mid"
            )
        config = network.pretrained_cfg
        width = network.embed_dim
        super().__init__(Channels(width, width, width), mean=config["mean"], std=config["std"])
        self.low, self.mid, self.high, self.depth = low, mid, high, depth
        self.high_rms = width**-0.5
        self.norm = norm and not isinstance(network, VisionTransformerSAM)  # whose neck is one and convolutions
        network.prune_intermediate_layers([high], prune_norm=not self.norm, prune_head=True)
        self.network = network
        patch = network.patch_embed.patch_size
        self.patch: tuple[int, int] = (int(patch[0]), int(patch[1]))
        if weights is not None:
            load_timm_weights(network, name, weights, _PREFIX)

    def after_stem(self, stem: Tensor, mask: Tensor | None = None) -> Lower:
        whole = [max(1, round(side / p)) * p for side, p in zip(stem.shape[-2:], self.patch, strict=True)]
        blocks = sorted({self.low, self.mid, self.high})
        found = self.network.forward_intermediates(
            resize(stem, tuple(whole)), indices=blocks, norm=self.norm, intermediates_only=True
        )
        maps = {block: F.normalize(features, dim=1) for block, features in zip(blocks, found, strict=True)}
        return Lower(maps[self.low], maps[self.mid], maps[self.high])

    def upper(self, lower: Lower, mask: Tensor | None = None) -> Tensor:
        assert lower.rest is not None
        return lower.rest if mask is None else lower.rest * resize(mask, lower.rest.shape[-2:])

    def stage_of(self, name: str) -> int:
        """Returns 1 to 4 for the quarters of the blocks, 4 for the final norm, 0 for what is before the blocks."""
        part, *rest = name.removeprefix(_PREFIX).split(".")
        if part == "blocks" and rest:
            return 1 + int(rest[0]) * 4 // self.depth
        return 4 if part == "norm" else 0


def _create(name: str) -> Any:
    try:
        network = timm.create_model(name, dynamic_img_size=True)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
        network = timm.create_model(name)  # SAM's encoder resizes its position embeddings anyway
    if not isinstance(network, FAMILIES):
        raise ValueError(
            f"{name} (backbone.name) is a {type(network).__name__}, no plain vision transformer: take it as "
            f"backbone=timm backbone.name={name}"
        )
    return network
