"""Model files: the same model again, and nothing else."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.predictors import verifier
from torch import Tensor

from fss.models.backbones import ResNetBackbone, TimmBackbone
from fss.models.card import ModelCard, Part, part_of
from fss.models.heads import BAM, PFENet
from fss.models.model_file import _sha256, read_card, read_model, save_model
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf
from fss.svf import merge, singular_values
from fss.svf.digest import weights_digest

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORK = {"name": "tf_efficientnet_lite0", "low": 1, "mid": 2}
PFENET = {"width": 8, "pyramid": [1.0, 0.5], "dropout": 0.0}
BAM_HEAD = {"base_classes": 3, "shot": 2, "width": 8, "dropout": 0.0, "base_width": 8}


def segmenter_of(head: str, tuned: bool = True) -> FewShotSegmenter:
    backbone = TimmBackbone(**NETWORK)  # type: ignore[arg-type]
    channels = list(backbone.channels)
    model = FewShotSegmenter(
        backbone,
        PFENet(channels, **PFENET) if head == "pfenet" else BAM(channels, **BAM_HEAD),  # type: ignore[arg-type]
    )
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as after training
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
    if tuned:
        model.tune(lambda backbone: svf(backbone, [2, 3]))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(".S"):
                    parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
    return model.eval()


def card_of(head: str, **changed: Any) -> ModelCard:
    settings = PFENET if head == "pfenet" else BAM_HEAD
    card = ModelCard(
        Part("timm", NETWORK), Part(head, settings), 64, "published", 2, classes=("ant", "bee", "cat")
    )
    return replace(card, **changed)


@torch.inference_mode()
def answer(model: FewShotSegmenter) -> Tensor:
    torch.manual_seed(7)
    query, support = torch.rand(1, 3, 64, 64), torch.rand(1, 2, 3, 64, 64)
    return model(query, support, (torch.rand(1, 2, 64, 64) > 0.6).to(torch.uint8)).logits


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_model(tmp_path / "model.safetensors", segmenter_of("pfenet"), card_of("pfenet"))
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("head", ["pfenet", "bam"])
@pytest.mark.parametrize("tuned", [False, True], ids=["frozen", "svf"])
def test_the_same_bits_again(head: str, tuned: bool, tmp_path: Path) -> None:
    model = segmenter_of(head, tuned)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    card = card_of(head, threshold=0.4, training={"dataset": "shapes", "fold": 0}, results=({"miou": 0.5},))
    written = save_model(tmp_path / "a.safetensors", model, card)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    again, found = read_model(tmp_path / "a.safetensors")
    assert found == written == replace(card, digest=written.digest)
    assert read_card(tmp_path / "a.safetensors") == written
    assert (again.base_backbone is None) == (model.base_backbone is None)
    assert torch.equal(answer(again), answer(merge(model)))
    assert not singular_values(again)
    assert not again.training


@pytest.mark.parametrize("head", ["pfenet", "bam"])
def test_factors_are_kept_on_request(head: str, tmp_path: Path) -> None:
    model = segmenter_of(head)
    save_model(tmp_path / "f.safetensors", model, card_of(head), factored=True)
    again, _ = read_model(tmp_path / "f.safetensors")
    for ours, theirs in zip(singular_values(again), singular_values(model), strict=True):
        assert ours.name == theirs.name
        assert torch.equal(ours.S, theirs.S)
        assert torch.equal(ours.S0, theirs.S0)
        assert not torch.equal(ours.S, ours.S0)
    trained = [name for name, parameter in again.backbone.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(name.endswith(".S") for name in trained)
    assert torch.equal(answer(merge(again)), answer(merge(model)))


def test_what_base_classes_have_taught_travels_along(tmp_path: Path) -> None:
    model, path = segmenter_of("pfenet"), tmp_path / "model.safetensors"
    channels = sum(model.backbone.channels[:2])
    taught = model.verifier = verifier(channels, threshold=0.4)
    card = save_model(path, model, card_of("pfenet"))
    assert card.presence == {"weights": list(taught.weights), "threshold": 0.4}
    again, found = read_model(path)
    assert found == card
    assert again.verifier is not None
    for name in ("mean", "directions", "kept", "classes"):
        assert torch.equal(getattr(again.verifier, name), getattr(taught, name))
    assert (again.verifier.weights, again.verifier.threshold) == (taught.weights, taught.threshold)
    model.verifier = verifier(channels + 1)
    with pytest.raises(ValueError, match=r"of another size: presence\.mean"):
        save_model(path, model, card_of("pfenet"))


def test_files_of_the_first_format_are_read(file: Path) -> None:
    tensors, told = load_file(file), json.loads(read_card(file).to_json())
    assert (told.pop("presence"), told["version"]) == ({}, 2)
    text = json.dumps({**told, "version": 1})
    save_file(tensors, file, {"card": text, "sha256": _sha256(text)})
    again, card = read_model(file)
    assert (again.verifier, card.presence) == (None, {})


@pytest.mark.parametrize(
    "odd",
    [
        {"weights": [1, 2, 3, 4]},
        {"weights": [1, 2, 3], "threshold": 0.5},
        {"weights": [1, 2, 3, "4"], "threshold": 0.5},
        {"weights": [1, 2, 3, 4], "threshold": 2},
        {"weights": [1, 2, 3, 4], "threshold": 0.5},  # without its tensors
        [],
    ],
)
def test_a_presence_that_none_has_is_refused(odd: Any, file: Path) -> None:
    text = json.dumps({**json.loads(read_card(file).to_json()), "presence": odd})
    save_file(load_file(file), file, {"card": text, "sha256": _sha256(text)})
    with pytest.raises(ValueError, match="presence"):
        read_model(file)


def test_a_base_learners_backbone_is_stored_once_where_it_is_the_same(tmp_path: Path) -> None:
    sizes = {}
    for tuned in (False, True):
        path = tmp_path / f"{tuned}.safetensors"
        save_model(path, segmenter_of("bam", tuned), card_of("bam"))
        sizes[tuned] = {name for name in load_file(path) if name.startswith("base_backbone.")}
        again, _ = read_model(path)
    assert not sizes[False]
    assert sizes[True]
    assert all(".weight" in name and "conv" in name for name in sizes[True])  # no norm was tuned
    assert again.base_backbone is not None
    stems = [n.network.model.conv_stem for n in (again.base_backbone, again.backbone)]  # type: ignore[union-attr]
    assert stems[0] is stems[1]


def test_resnet_by_its_name(tmp_path: Path) -> None:
    backbone = ResNetBackbone(stem="torchvision", high="low+mid")
    settings = {"depth": 50, "stem": "torchvision", "high": "low+mid", "weights": "IMAGENET1K_V1"}
    part = part_of("backbone", ResNetBackbone, settings)
    assert part == Part("resnet", {"depth": 50, "stem": "torchvision", "high": "low+mid"})
    model = FewShotSegmenter(backbone, PFENet(list(backbone.channels), **PFENET)).eval()  # type: ignore[arg-type]
    save_model(tmp_path / "r.safetensors", model, replace(card_of("pfenet"), backbone=part))
    assert torch.equal(answer(read_model(tmp_path / "r.safetensors")[0]), answer(model))


def test_no_flipped_bit_gives_another_model(file: Path) -> None:
    content, chance = file.read_bytes(), random.Random(0)
    header = int.from_bytes(content[:8], "little") + 8
    places = [chance.randrange(header) for _ in range(30)] + [
        chance.randrange(header, len(content)) for _ in range(10)
    ]
    card, digest = read_card(file), weights_digest(load_file(file))
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        try:
            model, found = read_model(file)
        except ValueError as error:
            assert file.name in str(error)  # noqa: PT017
        else:  # an escape or a blank that says the same
            assert found == card
            assert weights_digest(model.state_dict()) == digest


@pytest.mark.parametrize("kept", [0, 7, 8, 200, 20_000, -1])
def test_cut_short(kept: int, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(
        ValueError, match=r"model\.safetensors cannot be used as a model file: .*format=safetensors"
    ):
        read_model(file)


def test_a_header_as_large_as_a_memory_is_not_read(file: Path) -> None:
    with file.open("wb") as out:
        out.write((2**40).to_bytes(8, "little"))
        out.truncate(2**41)  # of nothing
    with pytest.raises(ValueError, match="cut short, or no safetensors file"):
        read_model(file)


def forged(file: Path, state: dict[str, Tensor] | None = None, **changed: Any) -> None:
    """Writes the file again with other tensors or entries of its card, all its digests right."""
    state = state or load_file(file)
    told = {**json.loads(read_card(file).to_json()), "digest": weights_digest(state), **changed}
    text = json.dumps(told)
    save_file(state, file, metadata={"card": text, "sha256": _sha256(text)})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"version": 3}, "format 3, and this version reads up to 2"),
        (
            {"head": {"name": "os.system", "settings": {}}},
            "head 'os.system' is unknown; this version has pfenet, bam",
        ),
        ({"head": {"name": "pfenet", "settings": {**PFENET, "_target_": "x"}}}, "no setting _target_"),
        ({"head": {"name": "pfenet", "settings": {**PFENET, "channels": [1, 2, 3]}}}, "no setting channels"),
        ({"head": {"name": "pfenet", "settings": {**PFENET, "width": "wide"}}}, "cannot be made"),
        ({"head": {"name": "pfenet", "settings": {**PFENET, "width": 10**9}}}, "setting width is 1000000000"),
        ({"head": {"name": "pfenet", "settings": {**PFENET, "width": 65536}}}, "of another size"),
        ({"head": {"name": "pfenet", "settings": {**PFENET, "pyramid": [1.0] * 101}}}, "setting pyramid is"),
        ({"backbone": {"name": "timm", "settings": {**NETWORK, "weights": "/etc/passwd"}}}, "no setting weights"),
        ({"backbone": {"name": "timm", "settings": {"name": "hf-hub:somebody/x"}}}, "timm has no network"),
        ({"backbone": {"name": "resnet", "settings": {}}}, "missing: .*unexpected: "),
        ({"size": 10**6}, "its size is 1000000"),
        ({"geometry": "bent"}, "must be 'published' or 'exact'"),
        ({"shot": 0}, "its shot is 0"),
        ({"threshold": 1.0}, "its threshold is 1.0"),
        ({"classes": ["\x1b[31m"]}, "its classes is"),
        ({"training": {"a": {"a": {"a": {"a": {"a": {}}}}}}}, "its training is"),
        ({"more": 1}, "other entries than this version writes: more"),
        ({"digest": "0" * 64}, "not those that its card was written for"),
    ],
)
def test_what_no_model_of_this_program_has_is_refused(changed: dict[str, Any], message: str, file: Path) -> None:
    forged(file, **changed)
    with pytest.raises(ValueError, match=rf"model\.safetensors cannot be used as a model file: .*{message}"):
        read_model(file)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head.cls.0.weight", None, "missing: head.cls.0.weight"),
        ("head.more", torch.zeros(2), "unexpected: head.more"),
        ("base_backbone.more", torch.zeros(2), "unexpected: base_backbone.more"),
        ("backbone.more.S0", torch.zeros(2), "no layer 'backbone.more.' that could be factored"),
        ("head.cls.0.weight", torch.zeros(2), "of another size: head.cls.0.weight"),
        ("head.cls.0.weight", torch.full((8, 8, 3, 3), torch.nan), "head.cls.0.weight hold NaN or infinity"),
        ("head.cls.0.weight", torch.zeros(8, 8, 3, 3, dtype=torch.float16), "is of type F16"),
    ],
)
def test_other_tensors_are_refused(name: str, value: Tensor | None, message: str, file: Path) -> None:
    state = load_file(file)
    state.pop(name, None)
    forged(file, state if value is None else {**state, name: value})
    with pytest.raises(ValueError, match=rf"model\.safetensors cannot be used as a model file: .*{message}"):
        read_model(file)


def test_weights_of_others_are_no_model_file(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors .*holds no card of a model"):
        read_model(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="no model file"):
        read_model(tmp_path / "absent.safetensors")


def test_a_card_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of another size"):
        save_model(
            tmp_path / "m.safetensors",
            segmenter_of("pfenet"),
            replace(card_of("pfenet"), head=Part("pfenet", {**PFENET, "width": 9})),
        )
    with pytest.raises(ValueError, match="is no head of this program"):
        part_of("head", torch.nn.Conv2d, {})
    assert not list(tmp_path.iterdir())
