"""Exported graphs answer as the model does, whatever the batch and, where it may vary, the shot."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import pytest
import torch
from support.scripts import export, metrics, start
from torch import Tensor

from fss.data.episodes import EpisodeDataset, collate
from fss.data.folds import fold_classes
from fss.data.index import build_index, build_pool
from fss.data.preprocessing import EvaluationTransform
from fss.data.readers.shapes import Shapes
from fss.export.export import export_model, read_onnx
from fss.export.graphs import example
from fss.export.onnx_graphs import OnnxGraph, quantized
from fss.export.runtime import graph_segmenter
from fss.metrics import episode_integers
from fss.models.backbones import Backbone, ResNetBackbone, TimmBackbone
from fss.models.card import ModelCard, Part
from fss.models.heads import BAM, Match, PFENet
from fss.models.model_file import read_model, save_model
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, EPISODES = 64, 12
BASE = Shapes.classes[4:]
NETWORK = {"name": "test_efficientnet", "low": 1, "mid": 2}  # timm's smallest
HEADS = {"pfenet": PFENet, "bam": BAM}
MATCH = {"maps": ["mid"], "correspondences": 0.5, "threshold": 0.0, "refine": 2}
RESNET = {"depth": 50, "stem": "torchvision"}


class Made(NamedTuple):
    """A model file and what was exported from it."""

    file: Path
    onnx: Path


def model_file(folder: Path, head: str, shot: int) -> Path:
    """A model that takes about half of every picture for foreground, with S changed as by training."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"width": 8, "dropout": 0.0}
    settings |= {"pyramid": [1.0, 0.6]} if head == "pfenet" else {"shot": shot, "base_classes": 3, "base_width": 8}
    backbone = TimmBackbone(**NETWORK)  # type: ignore[arg-type]
    segmenter = FewShotSegmenter(backbone, HEADS[head](list(backbone.channels), **settings))
    segmenter.tune(lambda backbone: svf(backbone, [2, 3]))
    given = example(SIZE, shot, 4)
    with torch.no_grad():
        for name, parameter in segmenter.named_parameters():
            if name.endswith(".S"):
                parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
            elif name.endswith(".weight") and "head." in name:
                parameter.mul_(2)
        segmenter.eval()
        normalize = backbone.normalize
        logits = segmenter(normalize(given.queries), normalize(given.images), given.masks).logits
        classifier = segmenter.head.cls[-1] if head == "pfenet" else segmenter.head.cls_meta[-1]  # type: ignore[index]
        classifier.bias[0] += (logits[:, 1] - logits[:, 0]).median()  # type: ignore[union-attr]
    told = {"dataset": "shapes", "fold": 0, "fold_scheme": "contiguous", "seed": 0}
    card = ModelCard(
        *(Part("timm", NETWORK), Part(head, settings), SIZE, "published", shot),
        classes=BASE,
        training={**told, "method": head, "backbone": "tiny", "tuning": "svf"},
    )
    save_model(folder / "model.safetensors", segmenter, card)
    return folder / "model.safetensors"


@cache
def data(shot: int) -> EpisodeDataset:
    reader = Shapes("val", SIZE, 60)
    novel, base = fold_classes(len(reader.classes), 0, "contiguous")
    pool = build_pool(build_index(reader, ""), novel, shot, 1)
    return EpisodeDataset(reader, pool, shot, 321, EvaluationTransform(SIZE), with_label=True, base_classes=base)


@torch.inference_mode()
def answers(segmenter: FewShotSegmenter, shot: int) -> tuple[Tensor, float]:
    """Predicted labels of some episodes, and their mIoU, by the protocol."""
    labels, sums = [], torch.zeros(17, 2, dtype=torch.int64)
    normalize = segmenter.backbone.normalize
    for number in range(EPISODES):
        episode = collate([data(shot)[number]])
        prediction = segmenter(normalize(episode.query), normalize(episode.support), episode.support_mask)
        labels.append(prediction.logits.argmax(1))
        integers = episode_integers(prediction.logits[0], episode.label[0], "published")
        sums[int(episode.class_id)] += torch.tensor(integers[:2])
    seen = sums[:, 1] > 0
    return torch.cat(labels), float((sums[seen, 0] / sums[seen, 1]).mean())


@pytest.fixture(scope="module")
def pfenet(tmp_path_factory: pytest.TempPathFactory) -> Made:
    file = model_file(tmp_path_factory.mktemp("pfenet"), "pfenet", 1)
    out = file.with_suffix(".onnx")
    exported = export_model(file, out, "onnx")
    assert exported.shot is None
    assert exported.agreement.relative < 1e-5
    return Made(file, out)


def check_same_masks(made: Made, shot: int) -> None:
    """The acceptance: mIoU within 1e-4, at most 1e-4 of the pixels flipped."""
    model, _ = read_model(made.file)
    (ours, miou), (theirs, exported_miou) = answers(model, shot), answers(read_onnx(made.onnx)[0], shot)
    assert 0.2 < ours.float().mean() < 0.8  # there is something to flip
    assert (ours != theirs).float().mean() <= 1e-4
    assert abs(miou - exported_miou) <= 1e-4


@pytest.mark.parametrize("shot", [1, 5])
def test_pfenet_for_any_number_of_supports(shot: int, pfenet: Made) -> None:
    check_same_masks(pfenet, shot)


@pytest.mark.slow
@pytest.mark.nightly  # torch and onnxscript take longest for BAM; the day has PFENet's graphs
@pytest.mark.parametrize("shot", [1, 5])
def test_bam_for_the_supports_that_it_was_trained_with(shot: int, tmp_path: Path) -> None:
    file = model_file(tmp_path, "bam", shot)
    exported = export_model(file, tmp_path / "bam.onnx", "onnx")
    assert exported.shot == shot
    check_same_masks(Made(file, tmp_path / "bam.onnx"), shot)
    with pytest.raises(ValueError, match=rf"shot=3: this graph takes {shot} supports"):
        read_onnx(tmp_path / "bam.onnx")[0].head.check_shot(3)


def test_several_queries_at_a_time(pfenet: Made) -> None:
    model, _ = read_model(pfenet.file)
    exported, _ = read_onnx(pfenet.onnx)
    for batch, shot in ((1, 1), (3, 2)):
        given = example(SIZE, shot, batch)
        with torch.inference_mode():
            ours, theirs = (
                m(m.backbone.normalize(given.queries), m.backbone.normalize(given.images), given.masks)
                for m in (model, exported)
            )
        torch.testing.assert_close(theirs.logits, ours.logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(theirs.prior, ours.prior, rtol=0, atol=1e-5)


def test_evaluated_by_the_same_protocol(pfenet: Made) -> None:
    found = []
    for file in (pfenet.file, pfenet.onnx):
        start(
            "evaluate", f"model={file}", "trainer=cpu", "dataset.eval_reader.images=60", "pictures=1", "episodes=8"
        )
        own = file.name if file == pfenet.onnx else "model"
        found.append(metrics(file.with_name(f"{own}-evaluation")))
    assert found[0]["miou"] > 0.01
    assert abs(found[0]["miou"] - found[1]["miou"]) <= 1e-4
    assert found[0]["drawing"] == found[1]["drawing"]
    assert [f["checkpoint"] for f in found] == [str(pfenet.file), str(pfenet.onnx)]
    with pytest.raises(ValueError, match="answers for novel classes alone"):
        start("evaluate", f"model={pfenet.onnx}", "trainer=cpu", "dataset.eval_classes=base")


def test_graphs_say_what_they_take(pfenet: Made) -> None:
    shapes = {}
    for file in (pfenet.onnx, pfenet.onnx.with_name("model-support.onnx")):
        graph = onnx.load(file).graph
        for value in (*graph.input, *graph.output):
            shapes[value.name] = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
    assert shapes["masks"] == ["batch", "shots", SIZE, SIZE]
    assert shapes["support.prototypes"] == ["batch", "shots", 8, 1, 1]
    assert shapes["logits"] == ["batch", 2, SIZE, SIZE]
    told = json.loads((pfenet.onnx.with_name("model.onnx.json")).read_text())
    assert told["use"]["threshold"] == 0.5
    assert told["use"]["size"] == SIZE
    assert json.loads(told["card"]) == json.loads(read_model(pfenet.file)[1].to_json())


def test_integers_are_smaller_and_near(pfenet: Made) -> None:
    plain = [pfenet.onnx.with_name(name).read_bytes() for name in ("model.onnx", "model-support.onnx")]
    small = [quantized(content) for content in plain]
    assert sum(map(len, small)) < 0.6 * sum(map(len, plain))
    (ours, _), (theirs, _) = (
        answers(model, 1) for model in (read_model(pfenet.file)[0], graph_segmenter(*map(OnnxGraph, small)))
    )
    assert 0 < (ours != theirs).float().mean() < 0.25


def test_torch_export_is_compared_and_written(pfenet: Made, capsys: pytest.CaptureFixture[str]) -> None:
    out = pfenet.onnx.with_name("model.pt2")
    export(model=pfenet.file, format="torch")
    said = capsys.readouterr().out
    assert "0 of" in said
    assert "Supports: 1; any number of queries" in said
    given = example(SIZE, 1, 1)
    support = torch.export.load(out.with_name("model-support.pt2")).module()
    logits, _ = torch.export.load(out).module()(given.queries, tuple(support(given.images, given.masks)))
    model, _ = read_model(pfenet.file)
    with torch.inference_mode():
        normalize = model.backbone.normalize
        expected = model(normalize(given.queries), normalize(given.images), given.masks).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="only format=onnx has it"):
        export_model(pfenet.file, out, "torch", "int8")


def test_files_that_do_not_belong_together_are_refused(pfenet: Made, tmp_path: Path) -> None:
    names = ("model.onnx", "model-support.onnx", "model.onnx.json")
    contents = {name: pfenet.onnx.with_name(name).read_bytes() for name in names}

    def put(**changed: bytes | None) -> Path:
        for name, content in {**contents, **changed}.items():
            (tmp_path / name).unlink(missing_ok=True)
            if content is not None:
                (tmp_path / name).write_bytes(content)
        return tmp_path / "model.onnx"

    assert read_onnx(put())[1].size == SIZE
    for name in names:
        with pytest.raises(FileNotFoundError, match="model"):
            read_onnx(put(**{name: None}))
        with pytest.raises(ValueError, match=r"model.*\.onnx"):
            read_onnx(put(**{name: contents[name][:-2]}))
    damaged = contents["model.onnx.json"].replace(b"published", b"exact", 1)
    with pytest.raises(ValueError, match="its card is damaged"):
        read_onnx(put(**{"model.onnx.json": damaged}))


def test_weights_in_other_files_are_refused(pfenet: Made, tmp_path: Path) -> None:
    """Their place may be any file of the computer."""
    model = onnx.load(pfenet.onnx)
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location="/etc/passwd")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(ValueError, match="its weights are in other files"):
        OnnxGraph(model.SerializeToString())
    with pytest.raises(ValueError, match=r"it is no ONNX file|cannot load it"):
        OnnxGraph(b"no graph")


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["match", "resnet50"])
def test_matching_and_networks_of_published_size(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts: tuple[Part, Part]
    if name == "match":
        backbone: Backbone = TimmBackbone(**NETWORK)  # type: ignore[arg-type]
        parts, size = (Part("timm", NETWORK), Part("match", MATCH)), SIZE
        segmenter = FewShotSegmenter(backbone, Match(list(backbone.channels), **MATCH))  # type: ignore[arg-type]
    else:
        parts, size = (Part("resnet", RESNET), Part("pfenet", {})), 473
        backbone = ResNetBackbone(**RESNET)  # type: ignore[arg-type]
        segmenter = FewShotSegmenter(backbone, PFENet(list(backbone.channels)))
    file = tmp_path / "model.safetensors"
    save_model(file, segmenter.eval(), ModelCard(*parts, size, "published", 1))
    exported = export_model(file, file.with_suffix(".onnx"), "onnx")
    assert exported.shot is None
    assert exported.agreement.relative < 1e-4
    assert exported.agreement.flipped <= 1e-4 * exported.agreement.pixels
