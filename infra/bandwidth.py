"""How fast memory is: what any search and any copy can at best reach on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

REPEATS = 10


def limits(device: torch.device, size: int) -> dict[str, float]:
    """Bytes a second with blocks of `size` bytes, the best of ten: to the device and back through pinned memory, and on
    the device by a copy, which reads and writes each byte once."""
    cuda = device.type == "cuda"
    host = torch.zeros(size, dtype=torch.uint8, pin_memory=cuda)
    one, other = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return {
        "to_device_bytes_per_s": size / fastest(lambda: one.copy_(host, non_blocking=cuda), cuda),
        "to_host_bytes_per_s": size / fastest(lambda: host.copy_(one, non_blocking=cuda), cuda),
        "device_bytes_per_s": 2 * size / fastest(lambda: other.copy_(one), cuda),
    }


def fastest(work: Callable[[], object], cuda: bool) -> float:
    """Seconds, from a quiet device to a quiet device."""
    taken = []
    for _ in range(REPEATS):
        settle(cuda)
        began = time.perf_counter()
        work()
        settle(cuda)
        taken.append(time.perf_counter() - began)
    return min(taken)


def settle(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()
