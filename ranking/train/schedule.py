"""The learning rate over a training: up in a line, then down in a cosine. Holds for any number of steps, one included.

Leslie N. Smith, Nicholay Topin, "Super-convergence" (2017); torch's own OneCycleLR divides by zero on few steps.
"""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

LOWEST = 1e-3


def one_cycle(optimizer: torch.optim.Optimizer, steps: int, rising: float) -> LambdaLR:
    """Scales the optimizer's rate over `steps`: the first share `rising` of them up to it, the rest down to none."""
    peak = max(1, round(steps * rising))

    def factor(step: int) -> float:
        if step < peak:
            return max(LOWEST, (step + 1) / (peak + 1))
        return max(LOWEST, 0.5 * (1 + math.cos(math.pi * (step - peak) / max(1, steps - peak))))

    return LambdaLR(optimizer, factor)
