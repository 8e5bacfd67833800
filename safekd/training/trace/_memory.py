"""How much memory this process and its CUDA device hold."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Memory:
    """Bytes: resident now, the most ever resident, the most torch had allocated on its CUDA device.

    NaN where the system does not say, and on a device that is not CUDA.
    """

    resident: float = math.nan
    peak: float = math.nan
    cuda_peak: float = math.nan

    @classmethod
    def read(cls, device: torch.device) -> Memory:
        """Ask the system."""
        cuda = float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else math.nan
        resident, peak = _resident(), _peak()
        return cls(resident, resident if peak < resident else peak, cuda)  # some systems update the peak late


def _resident() -> float:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:  # Linux alone has this file
        return math.nan
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), math.nan)


def _peak() -> float:
    if sys.platform == "win32":  # which has no such module
        return math.nan
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, others kilobytes
