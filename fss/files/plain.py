"""JSON and YAML of plain values, out of files that anybody may have written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fss.files.text import read_text
from fss.files.whole import whole

LARGEST = 64 * 2**20  # bytes: a metrics.json of many seeds of a thousand classes has a few MiB


class _Loader(yaml.SafeLoader):
    """Plain values alone, each written out: references to others can make a few lines as large as a memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("it refers to itself (*)")
        return super().compose_node(parent, index)


def read_json(path: Path) -> Any:
    """The values of a JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON, too deeply nested or too large.
    """
    text = _text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file ({_reason(error)})") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    with whole(path) as unfinished:
        unfinished.write_text(as_json(content), encoding="utf-8")


def as_json(content: Mapping[str, Any], indent: int | None = 2) -> str:
    """Values as the text of a JSON file; numbers that are not finite, which JSON does not have, become null."""
    return json.dumps(_finite(content), indent=indent, allow_nan=False) + "\n"


def read_yaml(path: Path) -> Any:
    """The values of a YAML file; tags of objects and references are refused.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no YAML of plain values, too deeply nested or too large.
    """
    text = _text(path)
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"{path} is no YAML file of plain values ({_reason(error)})") from error


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(path: Path) -> str:
    if path.is_file() and path.stat().st_size > LARGEST:
        raise ValueError(f"{path} is larger than {LARGEST // 2**20} MiB, which no file of this kind is")
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError(f"{path} is not a file")
    return read_text(path)


def _reason(error: Exception) -> str:
    return str(error).replace("\n", " ")[:300] or type(error).__name__
