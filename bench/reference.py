"""The published way to compute PFENet + SVF and BAM + SVF, restated in our own words to be measured beside ours.

As the SVF program does it: every convolution of layers 0 to 4 is a k x k convolution V, a scale S and a 1x1
convolution U; norms and ReLUs are operations of their own; supports pass through the backbone one after another;
the prior mask divides the matrix of all products of query and support locations by that of all products of norms;
BAM's base learner runs a whole frozen backbone of its own; maps are in torch's default memory format. Results
equal ours up to rounding, which `tests/test_reference.py` shows with the golden vectors.

Shapes: B batch, K shots, S image side, C channels, h w feature height and width, N base classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from fss.models.heads import BAM, PFENet, Prediction
from fss.models.segmenter import FewShotSegmenter
from fss.svf import SVD, exact_svd

AREA, TINY = 0.0005, 1e-7


class Factored(nn.Module):
    """A convolution as published: V, then S, then U.

    Args:
        conv: The plain convolution.
        svd: How its weight is factored.
        trained: Whether S is trained.
    """

    def __init__(self, conv: nn.Conv2d, svd: SVD, trained: bool) -> None:
        super().__init__()
        U, S, V = svd(conv.weight)
        self.V = nn.Parameter(V.contiguous(), requires_grad=False)
        self.S = nn.Parameter(S.reshape(1, -1, 1, 1).clone(), requires_grad=trained)
        self.U = nn.Parameter(U[..., None, None].contiguous(), requires_grad=False)
        self.stride, self.padding, self.dilation = conv.stride, conv.padding, conv.dilation

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.V, None, self.stride, self.padding, self.dilation)
        return F.conv2d(x * self.S, self.U)


class Block(nn.Module):
    """A bottleneck block: three convolutions, each with a norm, and a skip connection."""

    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.parts: Bottleneck = block

    def forward(self, x: Tensor) -> Tensor:
        parts = self.parts
        skipped = x
        if parts.downsample is not None:
            for part in parts.downsample:
                skipped = part(skipped)
        out = F.relu(parts.bn1(parts.conv1(x)), inplace=True)
        out = F.relu(parts.bn2(parts.conv2(out)), inplace=True)
        out = parts.bn3(parts.conv3(out))
        out += skipped
        return F.relu(out, inplace=True)


class Published(nn.Module):
    """The published forward pass on the weights of a segmenter that is not tuned, a ResNet.

    Args:
        segmenter: PFENet or BAM on a ResNet; copied.
        svd: How weights are factored.

    Attributes:
        head: The copied head, whose `losses` apply to this module's predictions.
    """

    def __init__(self, segmenter: FewShotSegmenter, svd: SVD = exact_svd) -> None:
        super().__init__()
        if not isinstance(segmenter.head, PFENet | BAM):
            raise ValueError(f"the published way of {type(segmenter.head).__name__} is not restated")
        self.head = copy.deepcopy(segmenter.head).to(memory_format=torch.contiguous_format)
        backbone = copy.deepcopy(segmenter.backbone).to(memory_format=torch.contiguous_format)
        layers = [getattr(backbone, f"layer{i}") for i in range(5)]
        self.base_layers = _layers(copy.deepcopy(layers)) if isinstance(self.head, BAM) else None
        for stage, layer in enumerate(layers):
            _factor(layer, svd, trained=stage >= 2)
        self.layers = _layers(layers)
        self.eval()

    def forward(
        self, query: Tensor, support: Tensor, support_masks: Tensor, own_class: Tensor | None = None
    ) -> Prediction:
        """Predicts the masks of queries; arguments as those of `FewShotSegmenter`."""
        low, mid, high = self._features(query)
        size = query.shape[-2:]
        reduced = self.head.down_query(torch.cat([mid, low], 1))
        prototypes, priors, grams = [], [], []
        for k in range(support.shape[1]):
            mask = (support_masks[:, k : k + 1] == 1).to(query.dtype)  # (B, 1, S, S)
            support_low, support_mid, support_high = self._features(support[:, k], mask)
            small = _resized(mask, support_mid.shape[-2:])
            supports = self.head.down_supp(torch.cat([support_mid, support_low], 1))
            area = small.sum((2, 3), keepdim=True) + AREA
            prototypes.append((supports * small).sum((2, 3), keepdim=True) / area)
            priors.append(_resized(_prior(high, support_high * small), reduced.shape[-2:]))
            grams.append(_gram(support_low))
        if isinstance(self.head, PFENet):
            return self._pfenet(reduced, prototypes, priors, size)
        assert self.base_layers is not None
        base = query
        for layer in self.base_layers:
            base = layer(base)
        pooling, classify = self.head.learner_base
        base = classify(torch.cat([_resized(part, base.shape[-2:]) for part in pooling(base)], 1))
        return self._bam(reduced, prototypes, priors, (_gram(low), grams), base, own_class, size)

    def _features(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        x = self.layers[1](self.layers[0](images))
        low = self.layers[2](x)
        mid = self.layers[3](low)
        masked = mid if mask is None else mid * _resized(mask, mid.shape[-2:])
        return low, mid, self.layers[4](masked)

    def _pfenet(
        self, query: Tensor, prototypes: Sequence[Tensor], priors: Sequence[Tensor], size: torch.Size
    ) -> Prediction:
        head = self.head
        assert isinstance(head, PFENet)
        prototype = torch.stack(list(prototypes)).mean(0)
        prior = torch.cat(list(priors), 1).mean(1, keepdim=True)
        grid = query.shape[-2:]
        pyramid: list[Tensor] = []
        inner: list[Tensor] = []
        for i, scale in enumerate(head.pyramid):
            side = head._side(scale, grid)
            merged = torch.cat(
                [F.adaptive_avg_pool2d(query, side), prototype.expand(-1, -1, *side), _resized(prior, side)], 1
            )
            merged = head.init_merge[i](merged)
            if i > 0:
                finer = _resized(pyramid[-1], side)
                merged = head.alpha_conv[i - 1](torch.cat([merged, finer], 1)) + merged
            merged = head.beta_conv[i](merged) + merged
            inner.append(head.inner_cls[i](merged))
            pyramid.append(_resized(merged, grid))
        x = head.res1(torch.cat(pyramid, 1))
        x = head.res2(x) + x
        return Prediction(_resized(head.cls(x), size), prior, tuple(_resized(logits, size) for logits in inner))

    def _bam(
        self,
        query: Tensor,
        prototypes: Sequence[Tensor],
        priors: Sequence[Tensor],
        grams: tuple[Tensor, Sequence[Tensor]],
        base: Tensor,
        own_class: Tensor | None,
        size: torch.Size,
    ) -> Prediction:
        head = self.head
        assert isinstance(head, BAM)
        channels = grams[0].shape[-1]
        apart = torch.stack([(grams[0] - gram).norm(dim=(1, 2)) / channels for gram in grams[1]], 1)  # (B, K)
        weights = torch.ones_like(apart)
        if head.shot > 1:
            nearest, order = apart.sort(1)
            scores = head.kshot_rw(nearest[..., None, None])[..., 0, 0]
            weights = scores.gather(1, order.sort(1).indices).softmax(1)
        prototype, prior, distance = query.new_zeros(1), query.new_zeros(1), query.new_zeros(1)
        for k, weight in enumerate(weights.unbind(1)):
            own = weight[:, None, None, None]
            prototype = prototype + own * prototypes[k]
            prior = prior + own * priors[k]
            distance = distance + own * apart[:, k, None, None, None]
        merged = head.init_merge(torch.cat([query, prototype.expand_as(query), prior], 1))
        x = head.res1_meta(torch.cat([branch.expand_as(merged) for branch in head.ASPP_meta(merged)], 1))
        x = head.res2_meta(x) + x
        meta = head.cls_meta(x)
        chances = _resized(base, meta.shape[-2:]).softmax(1)
        if own_class is not None:  # the episode's own class is not to be taken for background
            chances = torch.stack(
                [
                    torch.cat([maps[: 1 + own], maps[2 + own :]]) if own >= 0 else maps
                    for maps, own in zip(chances, own_class.tolist(), strict=True)
                ]
            )
        base_map = chances[:, 1:].sum(1, keepdim=True)
        background, foreground = meta.softmax(1).chunk(2, 1)
        far = distance.expand_as(background)
        background = head.gram_merge(torch.cat([background, far], 1))
        foreground = head.gram_merge(torch.cat([foreground, far], 1))
        background = head.cls_merge(torch.cat([background, base_map], 1))
        final = _resized(torch.cat([background, foreground], 1), size)
        return Prediction(final, prior, (_resized(meta, size),), _resized(base, size))


def _factor(layer: nn.Module, svd: SVD, trained: bool) -> None:
    for parent in list(layer.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, Factored(child, svd, trained))


def _layers(layers: Sequence[nn.Module]) -> nn.ModuleList:
    stem, *stages = layers
    made = [
        nn.Sequential(*stem.children()),
        *(nn.Sequential(*(Block(b) for b in stage.children() if isinstance(b, Bottleneck))) for stage in stages),
    ]
    for layer in made:
        for name, parameter in layer.named_parameters():
            if not name.endswith("S"):
                parameter.requires_grad_(False)
    return nn.ModuleList(made)


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    if maps.shape[-2:] == torch.Size(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)


def _prior(query: Tensor, support: Tensor) -> Tensor:
    """Prior mask (B, 1, h, w) through the whole matrix of similarities (B, n, n)."""
    b, _, h, w = query.shape
    q, s = query.flatten(2), support.flatten(2).permute(0, 2, 1)
    q_norm, s_norm = torch.norm(q, 2, 1, True), torch.norm(s, 2, 2, True)
    similarity = torch.bmm(s, q) / (torch.bmm(s_norm, q_norm) + TINY)
    best = similarity.max(1)[0]
    least, most = best.min(1)[0][:, None], best.max(1)[0][:, None]
    return ((best - least) / (most - least + TINY)).view(b, 1, h, w)


def _gram(features: Tensor) -> Tensor:
    """Cosine similarities (B, C, C) of channels."""
    maps = features.flatten(2)
    norms = torch.norm(maps, 2, 2, True)
    return torch.bmm(maps, maps.permute(0, 2, 1)) / (torch.bmm(norms, norms.permute(0, 2, 1)) + TINY)
