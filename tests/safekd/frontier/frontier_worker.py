"""A small sweep in a process of its own, to be killed: this module by ``python -m``, and a folder a line.

Each line is answered by a fork of a process that has everything imported and has trained nothing: it says its number,
then every target as its row lands.
"""

from __future__ import annotations

import os
import sys

import torch

import safekd as kd
from tests.support.problems import FreeLogits, agreeing, at_least, one_each


def make(threshold):
    student = FreeLogits()
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    return kd.ConstrainedTrainer(student, agreeing(), constraints=[at_least(threshold)], optimizer=optimizer)


def run(folder: str) -> None:
    torch.set_num_threads(1)
    kd.trace_frontier(
        make,
        one_each(),
        targets=[0.35, 0.4, 0.45, 0.5],
        epochs=60,
        tolerance=1e-5,
        run_dir=folder,
        resume="auto",
        on_point=lambda row: print(row["target"], flush=True),
    )


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(line.strip())
            print("done", flush=True)
            os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)
