"""Runs functions on several ranks, processes of their own that talk by gloo on the loopback device alone.

``run_on_ranks(2, case)`` gives back what each function returned on each rank.  Starting a process and importing torch
takes seconds, so tests of one file share one start.
"""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import torch


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start_ranks(size, *names, folder, environment=()):
    """Start the processes; each writes what the functions return, or the error's text, to rank<r>.pt."""
    shared = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        **dict(environment),
    }
    command = [sys.executable, "-m", "tests.support.rank_worker", str(folder), *names]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def run_on_ranks(size, *functions, within=120, killed=(), environment=()):
    """Return, for each function, the list of what it gave on each rank; a rank in ``killed`` may end as it likes."""
    names = [f"{function.__module__}:{function.__name__}" for function in functions]
    with tempfile.TemporaryDirectory() as folder:
        processes = start_ranks(size, *names, folder=folder, environment=environment)
        try:
            said = [process.communicate(timeout=within)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        failed = [rank for rank, process in enumerate(processes) if process.returncode != 0 and rank not in killed]
        assert not failed, "\n".join(f"rank {rank}:\n{text}" for rank, text in enumerate(said))
        given = [
            torch.load(Path(folder) / f"rank{rank}.pt", weights_only=True) if rank not in killed else None
            for rank in range(size)
        ]
    return [[None if ranks is None else ranks[name] for ranks in given] for name in names]


def main(folder, *names):
    torch.set_num_threads(1)
    from safekd.distributed import join_ranks

    given = {}
    with join_ranks(timeout=timedelta(seconds=60)) as ranks:
        for name in names:
            module, _, function = name.partition(":")
            given[name] = getattr(importlib.import_module(module), function)(ranks)
        torch.save(given, Path(folder) / f"rank{ranks.rank}.pt")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception:
        traceback.print_exc()
        sys.exit(1)
