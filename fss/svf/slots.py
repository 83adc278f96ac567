"""Finding the layers of a network, and putting others in their places."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

Slot = tuple[str, nn.Module, str, nn.Module]  # dotted name, parent, attribute, layer


def _is_plain(layer: nn.Module) -> bool:
    # Exact types only: a subclass may use its weight differently (standardised, "same"-padded, read by
    # a surrounding attention layer), and replacing it would change the result.
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)


def slots_of(module: nn.Module) -> list[Slot]:
    """Every position of every layer in the network; a shared layer is listed once per position."""
    return [
        (f"{path}.{attribute}" if path else attribute, parent, attribute, child)
        for path, parent in module.named_modules(remove_duplicate=False)
        for attribute, child in parent._modules.items()
        if child is not None
    ]


def plain_slots(module: nn.Module) -> list[Slot]:
    """Every position of every layer that can be factored."""
    return [slot for slot in slots_of(module) if _is_plain(slot[3])]


def replace(slots: Iterable[Slot], new: Callable[[str, nn.Module], nn.Module]) -> None:
    """Puts another layer into each position, the same one for a layer that has several."""
    # The map keeps the replaced layers alive, so that no id is reused.
    done: dict[int, tuple[nn.Module, nn.Module]] = {}
    for name, parent, attribute, layer in slots:
        if id(layer) not in done:
            done[id(layer)] = (layer, new(name, layer).train(layer.training))
        setattr(parent, attribute, done[id(layer)][1])
