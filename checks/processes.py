"""Compares one process with two that share its batches: weights, scores and communication.

    python -m checks.processes

Both train PFENet + SVF on the CPU, without dropout (two processes draw different random numbers than one), on
masks with ignored pixels. Prints one line of JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from checks.forks import RUN, start, wait
from fss.training.meta_learner import MetaLearner

SETTINGS = [
    "trainer=ddp",
    "trainer.accelerator=cpu",
    "batch_size=8",
    "dataset.train_episodes=48",  # six steps per epoch
    "dataset.val_episodes=13",  # not the same number for both processes
    "episodes=13",
    "dataset.eval_batch_size=2",
    "tuning.head_lr=0.1",
    "tuning.backbone_lr=0.05",
    "method.foreground_weight=12",
]


def without_dropout() -> None:
    """Removes the randomness from the heads."""
    nn.Dropout2d.forward = lambda self, input: input  # type: ignore[method-assign]


def count_bytes(file: Path) -> None:
    """Writes to a file how many bytes are sent to synchronise the processes initially, and then during training.

    Gradients are sent by DistributedDataParallel itself, in buckets of the same total size.
    """
    without_dropout()
    sent = {"at the start": 0, "in training": 0, "afterwards": 0}
    when = "at the start"

    def counted(name: str, tensors: Callable[..., list[torch.Tensor]]) -> None:
        original = getattr(dist, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            sent[when] += sum(t.nbytes for t in tensors(*args))
            file.write_text(json.dumps(sent))
            return original(*args, **kwargs)

        setattr(dist, name, wrapped)

    counted("_broadcast_coalesced", lambda group, tensors, *_: tensors)
    counted("broadcast", lambda tensor, *_: [tensor])
    counted("all_reduce", lambda tensor, *_: [tensor])
    build = DistributedDataParallel.__init__

    def built(self: DistributedDataParallel, module: nn.Module, *args: Any, **kwargs: Any) -> None:
        nonlocal when
        build(self, module, *args, **kwargs)
        when = "in training"
        sent["gradients"] = sum(p.nbytes for p in module.parameters() if p.requires_grad)
        sent["parameters"] = sum(p.nbytes for p in module.parameters())

    def ended(self: MetaLearner) -> None:
        nonlocal when
        when = "afterwards"

    DistributedDataParallel.__init__ = built  # type: ignore[method-assign]
    MetaLearner.on_train_end = ended  # type: ignore[method-assign,assignment]


def main() -> int:
    """Trains with one process and with two, and compares them."""
    with tempfile.TemporaryDirectory() as place:
        alone, two, sent = Path(place) / "alone", Path(place) / "two", Path(place) / "sent.json"
        alone.mkdir()
        two.mkdir()
        codes = [wait(start(alone, *SETTINGS, "trainer.devices=1", before=without_dropout))]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "NODE_RANK": "0"}
        children = []
        for rank in ("0", "1"):
            before = partial(count_bytes, sent) if rank == "0" else without_dropout
            environment = {**known, "LOCAL_RANK": rank, "RANK": rank}
            children.append(start(two, *SETTINGS, "trainer.devices=2", environment=environment, before=before))
        codes += map(wait, children)
        if any(codes):
            print((alone / "log.txt").read_text(), (two / "log.txt").read_text(), codes, file=sys.stderr)
            return 1
        states = [torch.load(f / RUN / "checkpoints/last.ckpt", weights_only=True) for f in (alone, two)]
        pairs = [(value, states[1]["state_dict"][name]) for name, value in states[0]["state_dict"].items()]
        moved = max(
            (v - states[0]["state_dict"][f"{n}0"]).abs().max().item()
            for n, v in states[0]["state_dict"].items()
            if n.endswith(".S")
        )
        metrics = [json.loads(next((f / RUN).rglob("metrics.json")).read_text()) for f in (alone, two)]
        best = [[float(v["best_model_score"]) for k, v in s["callbacks"].items() if "Best" in k] for s in states]
        result = {
            "steps": [state["global_step"] for state in states],
            "largest_difference": max((a.double() - b.double()).abs().max().item() for a, b in pairs),
            "moved": moved,
            "classes": [m["seeds"][0]["classes"] for m in metrics],
            "val_miou": best,
            "bytes": json.loads(sent.read_text()),
        }
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
