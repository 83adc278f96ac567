"""Several fine-tunings of one network, each as its singular values alone: 50 kB for a ResNet-50.

adapters = Adapters(network, only=["layer2", "layer3", "layer4"])  # plain weights stay, U and V are shared
...                                                 # train every parameter named S
adapters.save_adapter("cats.safetensors")
adapters.load_adapter("cats.safetensors", "cats")   # the same on another copy of the network
adapters.load_adapter("dogs.safetensors", "dogs")
adapters.set_adapter("cats")                        # in place
adapters.mix({"cats": 0.7, "dogs": 0.3})
adapters.disable()                                  # the plain network, to the bit
adapters.merge()                                    # what is set now, as a plain network

Needs safetensors besides torch, which `fss.svf` itself does without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fss.svf.adapter_file import AdapterFile, read_adapter, write_adapter
from fss.svf.decompose import decompose
from fss.svf.digest import weights_digest
from fss.svf.layers import SVD, SVFConv2d, SVFLinear, exact_svd
from fss.svf.plain import merge
from fss.svf.slots import Slot

__all__ = ["Adapters", "read_adapter"]


class Adapters:
    """Sets of singular values for one network, of which one, or a mix, is in use.

    Every set is as large as S; U, V and the plain weights are there once. Setting one copies numbers into the
    parameters that the network has, so a compiled network stays compiled.

    Args:
        network: A plain network; its chosen layers are factored in place. Until an adapter is set, it computes
            what it did before, to the bit.
        only: Which layers, see `decompose`; of an adapter that exists: `read_adapter(path).layers`, whose numbers
            of values also tell weights that were factored as several matrices (`split_svd`).
        head: What stands on the network and was trained with S, if anything: it is saved and set along with it.
        progress: See `decompose`.
        svd: See `decompose`.

    Attributes:
        active: Name of the adapter in use; None where there is none, or a mix.

    Raises:
        ValueError: The network is factored already, so that its plain weights are gone; or see `decompose`.
    """

    def __init__(
        self,
        network: nn.Module,
        only: Mapping[str, int] | str | Iterable[str] | Callable[[str, nn.Module], bool] | None = None,
        head: nn.Module | None = None,
        progress: Callable[[Sequence[Slot]], Iterable[Slot]] = iter,
        svd: SVD = exact_svd,
    ) -> None:
        if any(isinstance(module, SVFConv2d | SVFLinear) for module in network.modules()):
            raise ValueError(
                "the network is factored already: adapters need its plain weights, so give it as it was"
            )
        chosen = only if only is None or callable(only) or isinstance(only, str) else list(only)
        plain = {name: value.detach() for name, value in network.state_dict().items()}
        self._digest = weights_digest(plain)
        sizes = only if isinstance(only, Mapping) else {}
        self.network, self.head = decompose(network, chosen, progress, svd, _parts(sizes)), head
        self._layers = {
            name: module for name, module in network.named_modules() if isinstance(module, SVFConv2d | SVFLinear)
        }
        for name, layer in self._layers.items():
            layer.plain = plain[f"{name}.weight"]
        self._sizes = {name: len(layer.S) for name, layer in self._layers.items()}
        self._frozen = self._frozen_digest()
        self._first_head = _copied(head)
        self._adapters: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}
        self.active: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters that can be set."""
        return tuple(self._adapters)

    def add_adapter(self, name: str) -> None:
        """Keeps the singular values that the network has now, and its head, under a name; it is then in use.

        Raises:
            ValueError: The network has been merged.
        """
        self._check_factored()
        self._adapters[name] = self._now(), _copied(self.head)
        self.active = name

    def save_adapter(self, path: str | Path, with_head: bool = True) -> None:
        """Writes the singular values that the network has now, and its head if there is one.

        Args:
            path: The file, `.safetensors`.
            with_head: Write the head too; without, `save_head` writes it into a file of its own.

        Raises:
            OSError: The file cannot be written.
            ValueError: Something else than S was trained, so that S alone would not bring it back; S is not
                finite; or the network has been merged.
        """
        self._check_factored()
        self._check_rest()
        head = _copied(self.head) if with_head else {}
        write_adapter(path, AdapterFile(self._digest, self._sizes, self._now().cpu(), head))

    def save_head(self, path: str | Path) -> None:
        """Writes the head alone.

        Raises:
            OSError: The file cannot be written.
            ValueError: There is none.
        """
        if self.head is None:
            raise ValueError("there is no head to save: give it to Adapters(network, head=...)")
        write_adapter(path, AdapterFile(self._digest, {}, torch.empty(0), _copied(self.head)))

    def load_adapter(self, path: str | Path, name: str, head: str | Path | None = None) -> None:
        """Reads an adapter and keeps it under a name; `set_adapter` then uses it.

        Args:
            path: A file of `save_adapter`.
            name: Its name from now on.
            head: A file of `save_head`, if the head is in a file of its own.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, belongs to other weights or layers, or its head does not fit; or the network
                has been merged.
        """
        self._check_factored()
        found = read_adapter(path)
        self._check_fits(found, Path(path))
        state = found.head
        if head is not None:
            state = self._head_of(Path(head))
        self._check_head(state, Path(path) if head is None else Path(head))
        device = next(iter(self._layers.values())).S.device
        parts = dict(zip(found.layers, found.S.split(list(found.layers.values())), strict=True))
        S = torch.cat([parts[layer] for layer in self._sizes])  # in the network's order
        self._adapters[name] = S.to(device), {key: value.to(device) for key, value in state.items()}

    @torch.no_grad()
    def set_adapter(self, name: str) -> None:
        """Uses an adapter, and its head if it has one.

        Raises:
            ValueError: There is none of that name, or the network has been merged.
        """
        self._check_factored()
        values, head = self._adapter(name)
        self._set(values)
        self._set_head(head)
        self.active = name

    @torch.no_grad()
    def disable(self) -> None:
        """Makes the network the plain one again, to the bit; the head gets the weights that it had at first.

        Raises:
            ValueError: The network has been merged.
        """
        self._check_factored()
        for layer in self._layers.values():
            layer.S.copy_(layer.S0)
        self._set_head(self._first_head)
        self.active = None

    @torch.no_grad()
    def mix(self, weights: Mapping[str, float]) -> None:
        """Uses a mix: S0 + sum of w (S - S0), so that every weight of the network is linear in the mix.

        The head stays as it is.

        Args:
            weights: A finite weight for each adapter, by name; {"cats": 1.0} is `set_adapter("cats")` up to
                rounding, and {} the plain network.

        Raises:
            ValueError: There is no adapter of a name, a weight is not finite, or the network has been merged.
        """
        self._check_factored()
        if odd := [name for name, weight in weights.items() if not math.isfinite(weight)]:
            raise ValueError(f"the weight of {odd[0]!r} is {weights[odd[0]]}: must be a finite number")
        first = torch.cat([layer.S0 for layer in self._layers.values()])
        mixed = first.clone()
        for name, weight in weights.items():
            mixed += weight * (self._adapter(name)[0] - first)
        self._set(mixed)
        self.active = None

    def merge(self) -> nn.Module:
        """Makes what is in use a plain network, in place, and returns it; no adapter can be set any more."""
        merge(self.network)
        self._layers, self._adapters = {}, {}
        return self.network

    def _check_factored(self) -> None:
        """Raises ValueError where the network has been merged, by `merge` here or that of `fss.svf`."""
        first = next(iter(self._layers.items()), None)
        if first is None or self.network.get_submodule(first[0]) is not first[1]:
            raise ValueError(
                "the network is merged already and has no S any more: make new Adapters of a network with the "
                "plain weights"
            )

    def _now(self) -> Tensor:
        return torch.cat([layer.S.detach() for layer in self._layers.values()])

    def _set(self, values: Tensor) -> None:
        parts = values.split(list(self._sizes.values()))
        torch._foreach_copy_([layer.S for layer in self._layers.values()], list(parts))

    def _set_head(self, state: Mapping[str, Tensor]) -> None:
        if self.head is not None and state:
            self.head.load_state_dict(dict(state))

    def _adapter(self, name: str) -> tuple[Tensor, dict[str, Tensor]]:
        if name not in self._adapters:
            raise ValueError(f"no adapter {name!r}; there are {', '.join(self._adapters) or 'none'}")
        return self._adapters[name]

    def _head_of(self, path: Path) -> dict[str, Tensor]:
        found = read_adapter(path)
        if found.weights != self._digest or not found.head:
            raise ValueError(f"{path} holds no head for this network")
        return found.head

    def _check_head(self, state: Mapping[str, Tensor], path: Path) -> None:
        if not state:
            return
        own = {} if self.head is None else {name: value.shape for name, value in self.head.state_dict().items()}
        if own != {name: value.shape for name, value in state.items()}:
            raise ValueError(f"{path} holds a head of another kind: give Adapters(network, head=...) one like it")

    def _check_fits(self, found: AdapterFile, path: Path) -> None:
        if found.weights != self._digest:
            raise ValueError(
                f"{path} belongs to a network with other weights (digest {found.weights[:12]}, this one has "
                f"{self._digest[:12]}): load the weights that it was trained on"
            )
        if found.layers != self._sizes:
            raise ValueError(
                f"{path} has singular values of {len(found.layers)} layers, this network is factored in "
                f"{len(self._sizes)}, not all the same: factor those, only=read_adapter({str(path)!r}).layers"
            )

    def _check_rest(self) -> None:
        """Raises ValueError where anything but S differs from the plain network and its factors."""
        state = dict(self.network.state_dict())
        for name, module in self.network.named_modules(remove_duplicate=False):
            if isinstance(module, SVFConv2d | SVFLinear):
                assert module.plain is not None
                for factor in ("U", "S", "V", "S0"):
                    del state[f"{name}.{factor}"]
                state[f"{name}.weight"] = module.plain
        if weights_digest(state) != self._digest or self._frozen_digest() != self._frozen:
            raise ValueError(
                "other weights of the network than S have changed (norms, biases, U, V): S alone is not enough"
            )

    def _frozen_digest(self) -> str:
        """Digest of what stands beside S in the factored layers."""
        return weights_digest(
            {
                f"{name}.{factor}": getattr(layer, factor)
                for name, layer in self._layers.items()
                for factor in ("U", "V", "S0")
            }
        )


def _parts(sizes: Mapping[str, int]) -> Callable[[str, nn.Module], int]:
    """Of how many matrices each layer is made, by how many singular values it is to have; see `decompose`."""

    def parts(name: str, layer: nn.Module) -> int:
        weight = layer.get_parameter("weight").flatten(1)
        return max(1, sizes.get(name, 0) // min(weight.shape))

    return parts


def _copied(module: nn.Module | None) -> dict[str, Tensor]:
    return {} if module is None else {name: value.clone() for name, value in module.state_dict().items()}
