"""Rows split among threads: every row once, the same answers, forks, failures, nothing kept."""

from __future__ import annotations

import multiprocessing
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from solvers import WeightPolytope, project
from solvers.projection.exact.cpu_kernels import _row_threads
from solvers.projection.exact.cpu_kernels._row_shares import LARGEST, finish_share, new_tally, take_share, wait_for_rows
from solvers.projection.exact.cpu_kernels._row_threads import run_over_rows
from tests.support import projection_properties as law


@pytest.fixture
def threads(monkeypatch):
    """Three threads, also for few rows, in small shares."""
    monkeypatch.setattr(_row_threads, "THREADS", replace(_row_threads.THREADS, worth_a_thread=64, share=64))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_rows_are_the_same_however_many_threads(threads):
    v_BK = law.normal(0, 5000, 6)
    polytope = WeightPolytope(6, 0.02, 0.5, [(0, 1), (1, 2)])
    together = project(v_BK, polytope)
    torch.set_num_threads(1)
    assert torch.equal(project(v_BK, polytope), together)


def test_every_row_is_done_once_and_the_largest_answer_comes_back(threads):
    times_B, names = np.zeros(1003, dtype=np.int64), set()

    def run(start, stop):
        times_B[start:stop] += 1
        names.add(threading.current_thread().name)
        time.sleep(5e-4)  # long enough for a helper to come
        return stop

    for _ in range(20):
        times_B[:] = 0
        assert run_over_rows(run, 1003, 4) == 1003
        assert (times_B == 1).all()
    assert len(names) > 1  # in one of twenty calls a helper came in time


def test_a_failure_in_a_helper_reaches_the_caller(threads):
    here = threading.current_thread()
    begun = threading.Event()

    def run(start, stop):
        if threading.current_thread() is not here:
            begun.set()
            raise ValueError(f"rows {start} to {stop}")
        begun.wait(60)  # until a helper has a share
        return 0

    with pytest.raises(ValueError, match=r"rows \d+ to \d+"):
        run_over_rows(run, 32, 64)
    assert run_over_rows(lambda start, stop: stop, 500, 4) == 500  # the thread that failed serves on


def test_helpers_are_no_more_than_a_call_wants_and_keep_nothing(threads):
    def ours():
        return sum(thread.name.startswith("safekd-projection") for thread in threading.enumerate())

    before = ours()
    for _ in range(50):
        v_BK = law.normal(0, 2000, 6)
        alive = weakref.ref(v_BK)
        project(v_BK, WeightPolytope(6, 0.02, 0.5))
        del v_BK
        for _ in range(10_000):  # a helper may still be on its way back to sleep
            if alive() is None:
                break
            time.sleep(1e-3)
        assert alive() is None
    assert ours() <= max(before, 2)


def test_a_tally_knows_when_all_is_done():
    tally = new_tally()
    assert [take_share(tally, 16) for _ in range(3)] == [0, 16, 32]
    finish_share(tally, 16, 3)
    assert not wait_for_rows(tally, 32)
    finish_share(tally, 16, 1)
    assert wait_for_rows(tally, 32)
    assert tally[LARGEST] == 3


def test_several_threads_may_project_at_once(threads):
    v_BK = law.normal(0, 2000, 6)
    polytope = WeightPolytope(6, 0.02, 0.5)
    expected, found = project(v_BK, polytope), []

    def work():
        found.extend(project(v_BK, polytope) for _ in range(20))

    callers = [threading.Thread(target=work) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 160
    assert all(torch.equal(w_BK, expected) for w_BK in found)


def _in_child(queue) -> None:
    queue.put(project(law.normal(0, 5000, 6), WeightPolytope(6, 0.02, 0.5)).sum().item())


def test_a_forked_worker_projects_too(threads):
    """DataLoader workers are forks: threads of the parent do not exist there."""
    project(law.normal(0, 5000, 6), WeightPolytope(6, 0.02, 0.5))  # starts the parent's threads
    fork = multiprocessing.get_context("fork")
    queue = fork.SimpleQueue()
    child = fork.Process(target=_in_child, args=(queue,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert queue.get() == pytest.approx(5000)
