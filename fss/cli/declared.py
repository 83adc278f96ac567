"""Settings compared with the types that the constructors they go to declare, before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from fss.cli import kinds
from fss.cli.decided import POINTER


def check_declared(cfg: DictConfig) -> None:
    """Looks whether settings are of the types that what is built from them declares.

    Every node with a `_target_` is compared with the parameters of that class or function and their annotations.
    Words of which one is to be chosen are left to whoever is built; types that no text can be, and annotations
    that cannot be read, are passed over, as are settings without a value yet.

    Raises:
        ValueError: One is not, or nothing takes it; it is named as it was typed, and the message says what it
            must be.
    """
    written: Any = OmegaConf.to_container(cfg, resolve=False)
    for path, target in _built(written):
        taken, hints = _signature(target)
        for name in _at(written, path):
            if taken is not None and name not in taken and not str(name).startswith("_"):
                raise ValueError(
                    f"{'.'.join((*path, str(name)))}: {target} takes no such setting; it takes {', '.join(taken)}"
                )
        for name in hints.keys() & _at(written, path).keys():
            setting = ".".join((*path, str(name)))
            try:
                value = OmegaConf.select(cfg, setting, throw_on_missing=True)
            except OmegaConfBaseException:
                continue
            if mend := _mend(hints[name], value):
                raise ValueError(f"{source(cfg, setting)}={kinds.typed(value)}: must be {mend}")


def _built(written: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where something is built, and what."""
    if isinstance(written, dict):
        if isinstance(target := written.get("_target_"), str):
            yield path, target
        for name, value in written.items():
            yield from _built(value, (*path, str(name)))


def _at(written: Any, path: Sequence[str]) -> Any:
    for name in path:
        written = written[name] if isinstance(written, dict) and name in written else None
    return written


def source(cfg: DictConfig, setting: str) -> str:
    """The setting from which one has its value: itself, or the one at the end of its interpolations."""
    written: Any = OmegaConf.to_container(cfg, resolve=False)
    while isinstance(value := _at(written, setting.split(".")), str) and (found := POINTER.fullmatch(value)):
        setting = found[1]
    return setting


def _signature(target: str) -> tuple[list[str] | None, dict[str, Any]]:
    """What a `_target_` takes: names of its parameters, None if it takes any; and the types of some of them.

    A target that is not found is told when it is built, and annotations may name what is not imported at run time.
    """
    try:
        made = get_object(target)
        parameters = inspect.signature(made).parameters.values()
    except (ImportError, AttributeError, ValueError, TypeError):
        return None, {}
    names = None if any(p.kind is p.VAR_KEYWORD for p in parameters) else [p.name for p in parameters]
    try:
        return names, get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except (NameError, AttributeError, TypeError):
        return names, {}


def _mend(declared: Any, value: Any) -> str | None:
    """What a value must be; None if it may be of a type, or "" for types that no setting can be."""
    origin, of = get_origin(declared), get_args(declared)
    if origin in (Union, UnionType):
        mends = [_mend(one, value) for one in of if one is not int or float not in of]  # a number may be whole
        return None if None in mends else " or ".join(mend for mend in mends if mend)
    if inspect.isclass(origin) and issubclass(origin, Collection) and not issubclass(origin, Mapping):
        return _mend_list(of, value)
    simple: dict[Any, kinds.Kind] = {
        bool: kinds.flag,
        int: kinds.whole(None),
        float: kinds.number(None),
        str: lambda value: None if isinstance(value, str) else "a text",
        Path: kinds.path,
        NoneType: lambda value: None if value is None else "null",
        Tensor: lambda value: "",
    }
    return simple[declared](value) if declared in simple else None


def _mend_list(declared: tuple[Any, ...], value: Any) -> str | None:
    if not isinstance(value, ListConfig | list):  # what a resolver returns may be a plain one
        return "a list, such as [1,2]"
    alike = len(declared) == 1 or declared[1:] == (Ellipsis,)
    each = declared[:1] * len(value) if alike else declared
    mends = (mend for one, kind in zip(value, each, strict=False) if (mend := _mend(kind, one)))
    return next((f"a list of which each is {mend}" for mend in mends), None)
