"""S-adapters: many fine-tunings of one network, each of them exact, and the plain network to the bit."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.tiny import cheap_svd
from torch import Tensor, nn

from fss.models.backbones import ResNetBackbone
from fss.svf import decompose, merge, plain_state_dict, singular_values
from fss.svf.adapter import Adapters, read_adapter
from fss.svf.adapter_file import AdapterFile, write_adapter

pytestmark = pytest.mark.usefixtures("one_thread")
LAYERS = ["layer2", "layer3", "layer4"]
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12 * 49, 5)).eval()


def changed(adapters: Adapters, seed: int) -> None:
    """As if S, and the head, had been trained."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapters.network.named_parameters():
            if name.endswith("S"):
                parameter.mul_(1 + 0.2 * torch.randn(parameter.shape, generator=chance))
        if adapters.head is not None:
            for parameter in adapters.head.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=chance))


@torch.no_grad()
def weights(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in merge(copy.deepcopy(module)).state_dict().items()}


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    adapters = Adapters(network())
    for seed, name in enumerate(("cats", "dogs"), start=1):
        adapters.disable()
        changed(adapters, seed)
        adapters.save_adapter(tmp_path / f"{name}.safetensors")
    return tmp_path


def loaded(files: Path) -> Adapters:
    adapters = Adapters(network())
    for name in ("cats", "dogs"):
        adapters.load_adapter(files / f"{name}.safetensors", name)
    return adapters


def test_an_adapter_is_the_fine_tuned_network(files: Path) -> None:
    tuned = decompose(network())
    state = tuned.state_dict()
    state.update(
        {
            f"{k}.S": s
            for k, s in zip(
                ("0", "3", "5"),
                torch.split(
                    read_adapter(files / "cats.safetensors").S,
                    list(read_adapter(files / "cats.safetensors").layers.values()),
                ),
                strict=True,
            )
        }
    )
    tuned.load_state_dict(state)
    adapters = loaded(files)
    adapters.set_adapter("cats")
    assert adapters.active == "cats"
    expected = plain_state_dict(tuned.state_dict())
    for name, value in weights(adapters.network).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=2e-6)
    assert not same(weights(adapters.network), weights(network()))


@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last])
def test_disabled_it_is_the_plain_network_to_the_bit(format_: torch.memory_format, files: Path) -> None:
    plain = network().to(memory_format=format_)
    images = IMAGES.contiguous(memory_format=format_)
    adapters = loaded(files)
    adapters.network.to(memory_format=format_)
    with torch.no_grad():
        expected = plain(images)
        for name in ("cats", "dogs"):
            assert torch.equal(adapters.network(images), expected)
            adapters.set_adapter(name)
            assert not torch.equal(adapters.network(images), expected)
            adapters.disable()
    assert adapters.active is None
    assert torch.equal(adapters.network(images), expected)
    assert same(weights(adapters.network), plain.state_dict())


def test_switching_is_in_place_and_exact(files: Path) -> None:
    adapters = loaded(files)
    before = {name: value.data_ptr() for name, value in adapters.network.state_dict().items()}
    found: dict[str, list[dict[str, Tensor]]] = {"cats": [], "dogs": []}
    for name in ("cats", "dogs", "cats", "dogs"):
        adapters.set_adapter(name)
        found[name].append(weights(adapters.network))
    assert {name: value.data_ptr() for name, value in adapters.network.state_dict().items()} == before
    for first, second in found.values():
        assert same(first, second)
    assert not same(found["cats"][0], found["dogs"][0])


def test_a_mix_is_linear_in_the_weights(files: Path) -> None:
    adapters = loaded(files)
    found = {}
    for name, mix in {"plain": {}, "cats": {"cats": 1.0}, "dogs": {"dogs": 1.0}, "mix": {"cats": 0.7, "dogs": 0.3},
                      "beyond": {"cats": 2.0, "dogs": -0.5}}.items():  # fmt: skip
        adapters.mix(mix)
        found[name] = weights(adapters.network)
    assert same(found["plain"], network().state_dict())
    for name, plain in found["plain"].items():
        if plain.is_floating_point():
            cats, dogs = found["cats"][name] - plain, found["dogs"][name] - plain
            torch.testing.assert_close(found["mix"][name], plain + 0.7 * cats + 0.3 * dogs, rtol=0, atol=2e-6)
            torch.testing.assert_close(found["beyond"][name], plain + 2 * cats - 0.5 * dogs, rtol=0, atol=2e-6)
    adapters.set_adapter("cats")
    for name, value in weights(adapters.network).items():
        torch.testing.assert_close(found["cats"][name], value, rtol=0, atol=1e-6)
    for mix, message in (
        ({"mice": 1.0}, "no adapter 'mice'; there are cats, dogs"),
        ({"cats": float("nan")}, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            adapters.mix(mix)


def test_merged_it_is_a_plain_network(files: Path) -> None:
    adapters = loaded(files)
    adapters.mix({"cats": 0.5, "dogs": 0.5})
    expected = weights(adapters.network)
    with torch.no_grad():
        answer = adapters.network(IMAGES)
    merged = adapters.merge()
    assert same(dict(merged.state_dict()), expected)
    assert [type(module) for module in merged] == [type(module) for module in network()]  # type: ignore[attr-defined]
    with torch.no_grad():
        torch.testing.assert_close(merged(IMAGES), answer)


@pytest.mark.parametrize("by", ["Adapters", "fss.svf"])
def test_once_merged_nothing_can_be_set_or_saved(by: str, files: Path) -> None:
    adapters = loaded(files)
    if by == "Adapters":
        adapters.merge()
    else:
        merge(adapters.network)
    calls: list[Callable[[], None]] = [
        lambda: adapters.add_adapter("now"),
        lambda: adapters.save_adapter(files / "now.safetensors"),
        lambda: adapters.load_adapter(files / "cats.safetensors", "cats"),
        lambda: adapters.set_adapter("cats"),
        lambda: adapters.mix({"cats": 0.5}),
        adapters.disable,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="merged already and has no S any more: make new Adapters"):
            call()


def test_s_is_trained_with_the_gradients_of_svf() -> None:
    ours, theirs = Adapters(network()).network, decompose(network())
    for model in (ours, theirs):
        model(IMAGES).square().sum().backward()
    for name, parameter in ours.named_parameters():
        assert parameter.requires_grad == theirs.get_parameter(name).requires_grad
        if name.endswith("S"):
            torch.testing.assert_close(parameter.grad, theirs.get_parameter(name).grad, rtol=1e-4, atol=1e-4)


def test_other_weights_are_refused(files: Path) -> None:
    other = network()
    with torch.no_grad():
        other.get_buffer("1.running_mean").add_(1)
    with pytest.raises(ValueError, match=r"cats\.safetensors belongs to a network with other weights"):
        Adapters(other).load_adapter(files / "cats.safetensors", "cats")
    with pytest.raises(ValueError, match="of 3 layers, this network is factored in 1"):
        Adapters(network(), only=["3"]).load_adapter(files / "cats.safetensors", "cats")
    adapters = Adapters(network(), only=read_adapter(files / "cats.safetensors").layers)
    adapters.load_adapter(files / "cats.safetensors", "cats")
    with pytest.raises(ValueError, match="factored already"):
        Adapters(decompose(network()))


def test_a_layer_in_two_places_and_layers_in_another_order(tmp_path: Path) -> None:
    def twice() -> nn.Sequential:
        torch.manual_seed(0)
        layer = nn.Linear(4, 4)
        return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(4, 2))

    adapters = Adapters(twice())
    changed(adapters, 1)
    adapters.save_adapter(tmp_path / "a.safetensors")
    found = read_adapter(tmp_path / "a.safetensors")
    assert found.layers == {"0": 4, "3": 2}
    turned = AdapterFile(found.weights, {"3": 2, "0": 4}, torch.cat([found.S[4:], found.S[:4]]), {})
    write_adapter(tmp_path / "b.safetensors", turned)
    again = Adapters(twice())
    for name in ("a", "b"):
        again.load_adapter(tmp_path / f"{name}.safetensors", name)
        again.set_adapter(name)
        assert same(weights(again.network), weights(adapters.network))
        again.disable()


@pytest.mark.parametrize("name", ["0.bias", "0.U", "0.V", "0.S0", "0.plain"])
def test_more_than_s_is_no_adapter(name: str, tmp_path: Path) -> None:
    adapters = Adapters(network())
    tensor = dict([*adapters.network.named_parameters(), *adapters.network.named_buffers()])[name]
    before = tensor.detach().clone()
    with torch.no_grad():
        tensor.mul_(2)
    with pytest.raises(ValueError, match="S alone is not enough"):
        adapters.save_adapter(tmp_path / "a.safetensors")
    with torch.no_grad():
        tensor.copy_(before)
        adapters.network.get_parameter("3.S")[0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        adapters.save_adapter(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("apart", [False, True], ids=["with the adapter", "in a file of its own"])
def test_a_head_travels_along(apart: bool, tmp_path: Path) -> None:
    trained = Adapters(network(), head=nn.Linear(5, 2))
    changed(trained, 1)
    trained.save_adapter(tmp_path / "a.safetensors", with_head=not apart)
    trained.save_head(tmp_path / "h.safetensors")
    torch.manual_seed(9)
    head = nn.Linear(5, 2)
    at_first = copy.deepcopy(head)
    adapters = Adapters(network(), head=head)
    adapters.load_adapter(tmp_path / "a.safetensors", "a", head=tmp_path / "h.safetensors" if apart else None)
    assert torch.equal(head.weight, at_first.weight)
    adapters.set_adapter("a")
    assert trained.head is not None
    assert torch.equal(head.weight, trained.head.get_parameter("weight"))
    assert same(weights(adapters.network), weights(trained.network))
    adapters.disable()
    assert torch.equal(head.weight, at_first.weight)
    with pytest.raises(ValueError, match="a head of another kind"):
        Adapters(network(), head=nn.Linear(5, 3)).load_adapter(
            tmp_path / "a.safetensors", "a", head=tmp_path / "h.safetensors"
        )
    with pytest.raises(ValueError, match="holds no head for this network"):
        Adapters(network(4), head=head)._head_of(tmp_path / "h.safetensors")


@pytest.mark.parametrize("type_", [torch.bfloat16, torch.float16, torch.float64])
def test_a_head_of_any_usual_type_comes_back(type_: torch.dtype, tmp_path: Path) -> None:
    def head() -> nn.Module:
        made = nn.BatchNorm1d(5).to(type_)
        made.register_buffer("seen", torch.tensor([True, False]))
        made.register_buffer("counts", torch.tensor([3, 4], dtype=torch.int32))
        return made

    trained, adapters = (Adapters(network(), head=head()) for _ in range(2))
    assert trained.head is not None
    assert adapters.head is not None
    trained.head.get_parameter("weight").data.fill_(0.3)
    trained.head.get_buffer("counts").add_(1)
    trained.save_adapter(tmp_path / "a.safetensors")
    trained.save_head(tmp_path / "h.safetensors")
    for apart in (None, tmp_path / "h.safetensors"):
        adapters.disable()
        adapters.load_adapter(tmp_path / "a.safetensors", "a", head=apart)
        adapters.set_adapter("a")
        assert same(adapters.head.state_dict(), trained.head.state_dict())


def test_a_head_that_would_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    adapters = Adapters(network(), head=nn.Linear(5, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"a\.safetensors is not written: it holds torch\.complex64"):
        adapters.save_adapter(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_folders_are_made_for_an_adapter(tmp_path: Path) -> None:
    Adapters(network()).save_adapter(tmp_path / "new/folder/a.safetensors")
    assert read_adapter(tmp_path / "new/folder/a.safetensors").layers == {"0": 8, "3": 12, "5": 5}


def test_one_name_of_a_layer_is_a_name() -> None:
    assert Adapters(network(), only="3")._sizes == {"3": 12}
    deep = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    assert [each.name for each in singular_values(decompose(deep, only="0.1"))] == ["0.1"]
    with pytest.raises(ValueError, match=r"no submodule named features\.3; at the top are 0, 1"):
        decompose(deep, only="features.3")


def test_what_the_network_has_now_can_be_kept() -> None:
    adapters = Adapters(network())
    changed(adapters, 1)
    adapters.add_adapter("now")
    expected = weights(adapters.network)
    adapters.disable()
    adapters.set_adapter("now")
    assert adapters.names == ("now",)
    assert same(weights(adapters.network), expected)


def test_a_resnet50_takes_52_kib(tmp_path: Path) -> None:
    adapters = Adapters(ResNetBackbone(stem="torchvision"), LAYERS, svd=cheap_svd)
    changed(adapters, 1)
    adapters.save_adapter(tmp_path / "a.safetensors")
    assert read_adapter(tmp_path / "a.safetensors").S.numel() == 12_544
    assert (tmp_path / "a.safetensors").stat().st_size <= 52 * 1024


def test_no_flipped_bit_gives_another_adapter(files: Path) -> None:
    file = files / "cats.safetensors"
    content, expected, chance = file.read_bytes(), read_adapter(file), random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        try:
            found = read_adapter(file)
        except ValueError as error:
            refused += file.name in str(error)
        else:
            assert found.layers == expected.layers
            assert torch.equal(found.S, expected.S)
    assert refused > 300
    for end in (0, 7, 9, 100, -1):
        file.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"cats\.safetensors cannot be used as an adapter"):
            read_adapter(file)


def test_weights_of_others_are_no_adapter(tmp_path: Path) -> None:
    save_file({"S": torch.zeros(4)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no adapter of version 1"):
        read_adapter(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="no adapter"):
        read_adapter(tmp_path / "absent.safetensors")
