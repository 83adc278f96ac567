"""Ours against numbers put out by the published programs (tests/golden/README.md says what each holds).

`FSS_GOLDEN=DIR pytest tests/test_golden.py` runs whatever cases another folder holds. Model cases are named
`{method}_{backbone}_{dataset}_{shot}shot`; a method that ends in `svf` is the SVF program's own, with
its dilation, pyramid and sums.
"""

from __future__ import annotations

import copy
import json
import os
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from golden.tensors import normal, state_dict
from torch import Tensor, nn

from fss.data.preprocessing import EvaluationTransform
from fss.evaluation.generalized import Rule, merge_maps
from fss.evaluation.results import EpisodeResult, summarize
from fss.metrics import ClassIoU, episode_integers
from fss.models.backbones import Backbone, ResNetBackbone, VGGBackbone
from fss.models.checkpoints import load_published, published_state_dict
from fss.models.heads import BAM, Baseline, Head, PFENet, Prediction
from fss.models.heads.ops import gram_matrix, masked_average_pool, prior_masks
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf
from fss.svf import exact_svd, singular_values

GOLDEN = Path(os.environ.get("FSS_GOLDEN", Path(__file__).parent / "golden"))
FILES = {path.stem: path for path in sorted(GOLDEN.glob("*.npz"))}
MODELS = [name for name in FILES if name.endswith("shot")]
RESNETS: dict[str, Callable[..., Backbone]] = {
    "resnet50": ResNetBackbone,
    "resnet101": partial(ResNetBackbone, depth=101),
}
LOSSES = {"pfenet": ("main", "inner"), "bam": ("main", "meta", "base"), "baseline": ("main",)}
# Gradients in double precision through five supports of a ResNet, for the night: the outputs and losses of these
# cases are compared every day, gradients of the same networks on one support, and of five on a VGG.
LONGEST = {
    f"{case}_5shot" for case in ("bam_resnet50_pascal", "pfenet_resnet50_pascal", "pfenetsvf_resnet50_coco")
}
SIDES, FRACTIONS = (60, 30, 15, 8), (1.0, 0.5, 0.25, 0.125)


def one(name: str) -> pytest.MarkDecorator:
    """Runs a test under the id of a golden file; without the file there is nothing to run."""
    return pytest.mark.parametrize("file", [pytest.param(FILES[name], id=name)] if name in FILES else [])


def build(case: str) -> FewShotSegmenter:
    return load(case)[0]


def load(case: str) -> tuple[FewShotSegmenter, dict[str, Tensor]]:
    method, backbone_name, dataset, shot = case.split("_")
    of_svf = method.endswith("svf")
    layout = json.loads((GOLDEN / f"{case}.layout.json").read_text())
    dilation = "after_first" if of_svf else "all"
    backbone = VGGBackbone() if backbone_name == "vgg16" else RESNETS[backbone_name](dilation=dilation)
    head: Head
    if method.startswith("pfenet"):
        head = PFENet(backbone.channels, pyramid=FRACTIONS if dataset == "coco" and not of_svf else SIDES)
    elif method == "bam":
        classes = layout["learner_base.1.4.bias"][0]
        head = BAM(backbone.channels, base_classes=classes - 1, shot=int(shot.removesuffix("shot")))
    else:
        head = Baseline(backbone.channels, shots="sum" if of_svf else "mean")
    segmenter = FewShotSegmenter(backbone, head)
    theirs = state_dict(layout)
    # as the published files are: under DataParallel's prefix
    load_published(segmenter, {f"module.{name}": value for name, value in theirs.items()})
    return segmenter.eval(), theirs


class Loaded(NamedTuple):
    """What the tests of a case share, and leave as it is.

    Attributes:
        case: Its name.
        segmenter: In eval mode, with the published program's weights.
        theirs: These weights under their published names.
    """

    case: str
    segmenter: FewShotSegmenter
    theirs: dict[str, Tensor]


@pytest.fixture(scope="module", params=MODELS)
def loaded(request: pytest.FixtureRequest) -> Loaded:
    """Made once for a case: drawing the numbers takes longer than several of the tests."""
    return Loaded(request.param, *load(request.param))


FACTORS: dict[tuple[torch.Size, int], tuple[Tensor, Tensor, Tensor]] = {}


def remembered_svd(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The exact factors; cases share their backbones' weights, and factoring those takes longest."""
    key = weight.shape, zlib.crc32(weight.detach().contiguous().numpy().tobytes())
    if key not in FACTORS:
        FACTORS[key] = exact_svd(weight)
    return FACTORS[key]


def inputs(case: str, dtype: torch.dtype) -> tuple[dict[str, np.ndarray], Tensor, Tensor, Tensor, Tensor]:
    """All of the file, and query, support, their masks."""
    golden = dict(np.load(FILES[case]))
    b, k, *size = golden["support_mask"].shape
    prefix = str(golden["prefix"])
    query = normal(f"{prefix}/query", (b, 3, *size)).to(dtype)
    support = normal(f"{prefix}/support", (b, k, 3, *size)).to(dtype)
    masks = torch.from_numpy(golden["support_mask"]), torch.from_numpy(golden["query_mask"])
    return golden, query, support, masks[0], masks[1]


def gradient(module: nn.Module, name: str) -> Tensor:
    found = module.get_parameter(name).grad
    assert found is not None
    return found


def close(ours: Tensor, theirs: np.ndarray, relative: float) -> None:
    """Largest difference within a fraction of the largest value."""
    expected = torch.as_tensor(theirs, dtype=ours.dtype)
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() <= relative * expected.abs().max()


def own_class(golden: dict[str, Any]) -> Tensor | None:
    """What a base map leaves out while training; None where there is no such map."""
    return torch.from_numpy(golden["train_cat"]) if "train_cat" in golden else None


def losses(
    case: str, head: Head, prediction: Prediction, golden: dict[str, Any], query_mask: Tensor
) -> list[Tensor]:
    """The training losses, in the order of the file."""
    base_mask = torch.from_numpy(golden["base_mask"]) if "base_mask" in golden else None
    named = head.losses(prediction, query_mask, None, base_mask)
    return [named[name] for name in LOSSES[case.split("_")[0].removesuffix("svf")]]


def test_outputs_and_losses(loaded: Loaded) -> None:
    case, segmenter, _ = loaded
    golden, *batch = inputs(case, torch.float32)
    query, support, support_mask, query_mask = batch
    own = own_class(golden)
    trained = segmenter(query, support, support_mask, own)  # losses look at more than answers
    with torch.no_grad():
        at_once = trained if own is None else segmenter(query, support, support_mask)
        parts = segmenter.decode(
            segmenter.encode_query(query),
            segmenter.encode_support(support, support_mask),
            (query.shape[-2], query.shape[-1]),
        )
        found = losses(case, segmenter.head, trained, golden, query_mask)
        for loss, expected in zip(found, golden["train_losses"], strict=True):
            assert loss.item() == pytest.approx(float(expected), rel=1e-4)
    for prediction in (at_once, parts):
        if "final" in golden:
            stride = int(golden["base_stride"])
            close(prediction.logits, golden["final"], 1e-4)
            close(prediction.inner[0], golden["meta"], 1e-4)
            assert prediction.base is not None
            close(prediction.base[..., ::stride, ::stride], golden["base"], 1e-4)
        else:
            close(prediction.logits, golden["logits"], 1e-4)


def test_layout_goes_in_and_out_unchanged(loaded: Loaded) -> None:
    _, segmenter, theirs = loaded
    back = published_state_dict(segmenter)
    unused = {name for name in theirs if name.split(".")[0] in segmenter.head.unused_parts}
    assert back.keys() == theirs.keys() - unused
    assert all(torch.equal(value, theirs[name]) for name, value in back.items())


@pytest.mark.parametrize(
    "loaded",
    [pytest.param(case, marks=pytest.mark.nightly if case in LONGEST else ()) for case in MODELS],
    indirect=True,
)
def test_singular_values_and_gradients(loaded: Loaded) -> None:
    case, segmenter = loaded.case, copy.deepcopy(loaded.segmenter).double()
    golden, *batch = inputs(case, torch.float64)
    segmenter.tune(partial(svf, svd=remembered_svd))
    values = singular_values(segmenter.backbone)
    assert [value.name for value in values] == list(golden["svf_grad_names"])
    assert [len(value.S) for value in values] == list(golden["svf_sizes"])
    close(torch.cat([value.S for value in values]), golden["svf_singular_values"], 1e-5)

    query, support, support_mask, query_mask = batch
    prediction = segmenter(query, support, support_mask, own_class(golden))
    found = losses(case, segmenter.head, prediction, golden, query_mask)
    for loss, expected in zip(found, golden["svf_train_losses"], strict=True):
        assert loss.item() == pytest.approx(float(expected), rel=1e-5)
    torch.stack(found).sum().backward()
    close(torch.cat([gradient(segmenter.backbone, f"{v.name}.S") for v in values]), golden["svf_grad"], 1e-5)
    trained = {name for name, parameter in segmenter.head.named_parameters() if parameter.requires_grad}
    assert trained == set(golden["head_grad_names"])
    for name, expected in zip(golden["head_grad_names"], golden["head_grad_norms"], strict=True):
        assert float(gradient(segmenter.head, str(name)).norm()) == pytest.approx(float(expected), rel=1e-5)


@one("parts")
def test_prior_prototype_and_gram_matrix(file: Path) -> None:
    golden = {name: torch.from_numpy(value) for name, value in np.load(file).items()}
    masked = golden["support"] * golden["mask"]
    close(prior_masks(golden["query"], masked[:, None]), golden["prior"].numpy(), 1e-4)
    close(masked_average_pool(golden["support"], golden["mask"]), golden["prototype"].numpy(), 1e-4)
    close(gram_matrix(golden["support"]), golden["gram"].numpy(), 1e-4)


@one("eval_resize")
def test_evaluation_resize(file: Path) -> None:
    golden = np.load(file)
    backbone = VGGBackbone()  # for its ImageNet normalisation
    n = sum(name.startswith("image") for name in golden)
    assert n > 0
    for i in range(n):
        transform = EvaluationTransform(size=int(golden[f"size{i}"]))
        image, label = transform(golden[f"image{i}"], golden[f"label{i}"])
        normalised = backbone.normalize(torch.from_numpy(image).permute(2, 0, 1))
        assert np.abs(normalised.numpy() - golden[f"out_image{i}"]).max() < 1e-4
        np.testing.assert_array_equal(label, golden[f"out_label{i}"])


@one("episode_metrics")
def test_episode_metrics(file: Path) -> None:
    golden = np.load(file)
    metric = ClassIoU(classes=range(len(golden["class_iou"])))
    for i, class_id in enumerate(golden["class"]):
        logits, label = torch.from_numpy(golden[f"logits{i}"]), torch.from_numpy(golden[f"label{i}"])
        metric.update(logits, label, int(class_id))
    scores = metric.compute()
    np.testing.assert_array_equal(metric.intersection[:, 1], golden["intersection"])
    np.testing.assert_array_equal(metric.union[:, 1], golden["union"])
    np.testing.assert_allclose(scores["class_iou"], golden["class_iou"], atol=1e-6)
    assert float(scores["miou"]) == pytest.approx(float(golden["miou"]), abs=1e-6)
    assert float(scores["fb_iou"]) == pytest.approx(float(golden["fb_iou"]), abs=1e-6)

    episodes = []
    for i, class_id in enumerate(golden["class"].tolist()):
        logits, label = torch.from_numpy(golden[f"logits{i}"]), torch.from_numpy(golden[f"label{i}"])
        integers = episode_integers(logits, label)
        episodes.append(EpisodeResult(321, i, class_id, f"class {class_id}", "query", ("support",), *integers))
    summary = summarize(episodes)
    for scores in summary["seeds"][0]["classes"].values():
        row = scores["id"]
        assert (scores["intersection"], scores["union"]) == (golden["intersection"][row], golden["union"][row])
        assert scores["iou"] == pytest.approx(float(golden["class_iou"][row]), abs=1e-6)
    # a class without episodes counts as 0 there, and not at all here
    counted = len(summary["classes"]) / len(golden["class_iou"])
    assert summary["miou"] * counted == pytest.approx(float(golden["miou"]), abs=1e-6)
    assert summary["fb_iou"] == pytest.approx(float(golden["fb_iou"]), abs=1e-6)


@one("gfss_merge")
def test_generalized_merge(file: Path) -> None:
    golden = {name: torch.from_numpy(value) for name, value in np.load(file).items()}
    rules: tuple[Rule, ...] = ("final", "base")
    for rule in rules:
        merged = merge_maps(golden["final_logits"], golden["base_logits"], rule, float(golden["tau"]))
        assert torch.equal(merged, golden[f"merged_{rule}"].long())
