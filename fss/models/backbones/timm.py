"""Any timm network that provides intermediate features, by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from fss.models.backbones.backbone import Backbone, Channels, Lower, masked_stack
from fss.models.backbones.timm_weights import check_name, load_timm_weights
from fss.resize import resize


class TimmBackbone(Backbone):
    """Two feature maps of a timm network, resized to a common resolution.

    low and mid are two of the network's features (`timm.create_model(name, features_only=True)
    .feature_info` lists them); all layers after mid are pruned. Each location is scaled to unit length:
    the magnitude of features differs between networks by orders of magnitude, and a head that is given large
    ones memorises them instead of using the prior mask.

    The prior mask is computed from the maps named by `high`: the last stage of a classification network is too
    abstract for it. With `grid="low"`, mid is resized to low's resolution, which gives the heads the fine grid
    of a dilated network without its cost.

    Args:
        name: timm's name for the network, with or without the tag of its weights.
        low: Index of the low feature, treated as stage 2.
        mid: Index of the mid feature, treated as stage 3.
        high: The maps from which the prior mask is computed: "low", "mid" or both.
        grid: The feature whose resolution is used for both maps.
        weights: See `load_timm_weights`; None leaves the weights random.
        mean, std: Image statistics that the weights expect, as fractions of 255; None uses timm's values.
        image_size: Image side in pixels, for networks built for a fixed size (ViT, Swin); otherwise None.

    Raises:
        ValueError: If the name is unknown, the network lacks those features, or the weights do not fit.
    """

    def __init__(
        self,
        name: str,
        low: int = 2,
        mid: int = 3,
        high: Sequence[Literal["low", "mid"]] = ("low", "mid"),
        grid: Literal["low", "mid"] = "low",
        weights: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        image_size: int | None = None,
    ) -> None:
        check_name(name)
        if not 0 <= low < mid:
            raise ValueError(f"backbone.low ({low}) must come before backbone.mid ({mid}), and neither below 0")
        if not high or set(high) - {"low", "mid"} or grid not in ("low", "mid"):
            raise ValueError(f"backbone.high is {list(high)} and backbone.grid {grid!r}: both name 'low' or 'mid'")
        sized: dict[str, Any] = {} if image_size is None else {"img_size": image_size}
        try:
            network: Any = timm.create_model(
                name, features_only=True, feature_cls="getter", out_indices=(low, mid), **sized
            )
        except (AssertionError, IndexError) as error:
            raise ValueError(f"{name} has no features {low} and {mid} (backbone.low, backbone.mid)") from error
        except TypeError as error:
            if image_size is None or "img_size" not in str(error):
                raise
            raise ValueError(f"{name} takes pictures of any size: leave backbone.image_size out") from error
        channels = dict(zip(("low", "mid"), network.feature_info.channels(), strict=True))
        config = network.pretrained_cfg
        super().__init__(
            Channels(channels["low"], channels["mid"], sum(channels[m] for m in high)),
            mean=config["mean"] if mean is None else mean,
            std=config["std"] if std is None else std,
        )
        self.network = network
        self.high, self.grid = tuple(high), grid
        self.high_rms = math.sqrt(len(self.high) / self.channels.high)
        self._stages = _stages(network.model, network.feature_info.info, low, mid)
        if weights is not None:
            load_timm_weights(network.model, name, weights, "network.model.", sized)

    def after_stem(self, stem: Tensor, mask: Tensor | None = None) -> Lower:
        low, mid = self.network(stem)  # timm networks have no common cut, so the stem is empty
        size = (low if self.grid == "low" else mid).shape[-2:]
        return Lower(*(F.normalize(resize(maps, size), dim=1) for maps in (low, mid)))

    def upper(self, lower: Lower, mask: Tensor | None = None) -> Tensor:
        return masked_stack([getattr(lower, m) for m in self.high], mask)

    def stage_of(self, name: str) -> int:
        name = name.removeprefix("network.model.")
        if name not in self._stages:  # a parameter: its module's stage, or 0 if it has none (position embeddings)
            name = name.rpartition(".")[0]
        return self._stages.get(name, 0)


def _stages(network: nn.Module, features: Sequence[dict[str, Any]], low: int, mid: int) -> dict[str, int]:
    """Assigns a stage to every submodule: 2 up to the low feature, 3 up to mid, 0 and 1 before, 4 after."""
    modules = [name for name, _ in network.named_modules() if name]  # timm defines them in execution order
    stages = dict.fromkeys(modules, 4)
    for index in range(mid, -1, -1):
        end = features[index]["module"]
        last = max(at for at, name in enumerate(modules) if name == end or name.startswith(end + "."))
        stage = 3 if index > low else max(0, index - low + 2)
        stages.update(dict.fromkeys(modules[: last + 1], stage))
    return stages
