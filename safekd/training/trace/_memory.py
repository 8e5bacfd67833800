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
    """How much memory a process holds, in bytes; NaN where the system does not say.

    Attributes:
        resident: Resident now.
        peak: The most ever resident.
        cuda_peak: The most torch had allocated on its CUDA device; NaN on another device.
    """

    resident: float = math.nan
    peak: float = math.nan
    cuda_peak: float = math.nan

    @classmethod
    def read(cls, device: torch.device) -> Memory:
        """Ask the system.

        Args:
            device: Of the run.
        """
        cuda = float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else math.nan
        resident, peak = _resident_bytes(), _peak_bytes()
        return cls(resident, resident if peak < resident else peak, cuda)  # some systems update the peak late


def _resident_bytes() -> float:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:  # Linux alone has this file
        return math.nan
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")), math.nan)


def _peak_bytes() -> float:
    if sys.platform == "win32":  # which has no such module
        return math.nan
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, others kilobytes
