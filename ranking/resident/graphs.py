"""CUDA graphs: a run of kernels recorded once and started as one.

By https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs: warmed up on a side stream, captured there,
replayed on the current one. All graphs of one `Graphs` share a memory pool: they are replayed one at a time, from one
thread, and what they leave behind lies in memory that is not the pool's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

log = logging.getLogger(__name__)

Run = Callable[[], None]
Capture = Callable[[Run], Run]

WARM_UP = 2


class Graphs:
    """Makes a run one that is replayed, until that fails once; from then on runs stay as they are."""

    def __init__(self, device: torch.device, capture: Capture | None = None) -> None:
        """`capture` makes one run a replayed one, or raises RuntimeError; by default torch's, on CUDA only."""
        self.capture = capture or (CudaCapture() if device.type == "cuda" else None)

    def of(self, run: Run) -> Run:
        if self.capture is None:
            return run
        try:
            return self.capture(run)
        except RuntimeError as error:
            said = " ".join(str(error).split())[:200]
            log.warning("no CUDA graph can be captured of this model, its batches start kernel by kernel: %s", said)
            self.capture = None
            return run


class CudaCapture:
    """For one thread and one CUDA device."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.side = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, run: Run) -> Run:
        current, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
        try:
            self.side.wait_stream(current)
            with torch.cuda.stream(self.side):
                for _ in range(WARM_UP):
                    run()
                # A run that waits for the device cannot be captured, and a capture that breaks off is hard to leave.
                torch.cuda.set_sync_debug_mode("error")
                run()
            torch.cuda.set_sync_debug_mode("default")
            current.wait_stream(self.side)
            with torch.cuda.graph(graph, pool=self.pool, stream=self.side):
                run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
            torch.cuda.set_stream(current)  # torch leaves the side stream in place where a capture fails
        return graph.replay
