"""Reads the file that an offline W&B run leaves, which `wandb sync` would upload."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wandb.proto import wandb_internal_pb2

BLOCK = 32 * 1024  # the format is LevelDB's log: records in fragments that never cross a block
FILE_HEADER, FRAGMENT_HEADER = 7, struct.Struct("<IHB")  # checksum, length, and whole, first, middle or last
WHOLE, LAST = 1, 4


class OfflineRun(NamedTuple):
    """Attributes:
    name, group, project, tags: Of the run.
    config: Its configuration.
    history: Every key that was logged, with its values in order.
    exit_code: 0, or 1 if it failed.
    """

    name: str
    group: str
    project: str
    tags: list[str]
    config: dict[str, Any]
    history: dict[str, list[Any]]
    exit_code: int


def read_offline_run(path: Path) -> OfflineRun:
    """What a run logged.

    Args:
        path: Ends in `.wandb`.
    """
    run: Any = None
    exit_code = -1
    config: dict[str, Any] = {}
    history: dict[str, list[Any]] = {}
    for content in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
        elif kind == "exit":
            exit_code = record.exit.exit_code
        elif kind == "history":
            for item in record.history.item:
                key = "/".join(item.nested_key) or item.key
                history.setdefault(key, []).append(json.loads(item.value_json))
        if kind in ("run", "config"):
            for update in (record.run.config if kind == "run" else record.config).update:
                config["/".join(update.nested_key) or update.key] = json.loads(update.value_json)
    return OfflineRun(run.display_name, run.run_group, run.project, list(run.tags), config, history, exit_code)


def _records(data: bytes) -> Iterator[bytes]:
    place, record = FILE_HEADER, b""
    while place + FRAGMENT_HEADER.size <= len(data):
        left = BLOCK - place % BLOCK
        if left < FRAGMENT_HEADER.size:  # filled with zeros
            place += left
            continue
        _, length, kind = FRAGMENT_HEADER.unpack_from(data, place)
        place += FRAGMENT_HEADER.size
        record += data[place : place + length]
        place += length
        if kind in (WHOLE, LAST):
            yield record
            record = b""
