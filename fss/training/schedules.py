"""Learning rate schedules, updated at every step."""

from __future__ import annotations

from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    PolynomialLR,
    SequentialLR,
)

ScheduleName = Literal["constant", "cosine", "poly"]


def build_schedule(name: ScheduleName, optimizer: Optimizer, steps: int, warmup_steps: int = 0) -> LRScheduler:
    """Builds a schedule for all parameter groups of an optimiser, to be stepped after every optimiser step.

    Args:
        name: "constant" (the actual behaviour of the published SVF program, which recreates its schedule at every
            step), "cosine" (what that program intends) or "poly" (power 0.9, published programs without SVF).
        optimizer: The optimiser whose learning rates are scaled.
        steps: Number of optimiser steps in the whole run.
        warmup_steps: Number of steps in which the rate first rises linearly from a tenth.

    Raises:
        ValueError: If the name is unknown, or if no step is left after the warm-up.
    """
    rest = steps - warmup_steps
    if rest < 1 or warmup_steps < 0:
        raise ValueError(
            f"tuning.warmup_steps={warmup_steps}: must be 0 or more and less than the run's {steps} steps"
        )
    schedule: LRScheduler
    if name == "constant":
        schedule = ConstantLR(optimizer, factor=1.0)
    elif name == "cosine":
        schedule = CosineAnnealingLR(optimizer, T_max=rest)
    elif name == "poly":
        schedule = PolynomialLR(optimizer, total_iters=rest, power=0.9)
    else:
        raise ValueError(f"tuning.schedule={name!r}: must be 'constant', 'cosine' or 'poly'")
    if warmup_steps == 0:
        return schedule
    rise = LinearLR(optimizer, start_factor=0.1, total_iters=warmup_steps)
    return SequentialLR(optimizer, [rise, schedule], milestones=[warmup_steps])
