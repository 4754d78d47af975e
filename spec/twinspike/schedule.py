"""The learning rate as a closed form of the position in the run, in float64 on the host (clauses SCH-*)."""

from __future__ import annotations

import math

from twinspike.config import Cosine, Schedule
from twinspike.errors import require


def learning_rate(schedule: Schedule, base: float, epoch: int, step: int, epochs: int, steps_per_epoch: int) -> float:
    """Learning rate of one optimizer step.

    Args:
        schedule: its form.
        base: the peak learning rate, > 0.
        epoch: of the step, counted from 0.
        step: within its epoch, counted from 0.
        epochs: length of the run.
        steps_per_epoch: optimizer steps in each epoch, >= 1.
    """
    require(0 <= epoch < epochs, "epoch", expected=f"0 to {epochs - 1}", got=epoch)
    require(0 <= step < steps_per_epoch, "step", expected=f"0 to {steps_per_epoch - 1}", got=step)
    position = epoch + step / steps_per_epoch
    if position < schedule.warmup_epochs:
        return base * min(1.0, (position + 1.0 / steps_per_epoch) / schedule.warmup_epochs)
    if not isinstance(schedule, Cosine):
        return base
    if schedule.unit == "epoch":
        position = float(epoch)
    length = epochs - schedule.warmup_epochs
    progress = max(0.0, position - schedule.warmup_epochs) / length if length > 0 else 0.0
    return schedule.floor + (base - schedule.floor) * (1.0 + math.cos(math.pi * progress)) / 2.0
