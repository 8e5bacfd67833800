"""The benchmark of several processes: a step sends what the documentation says, and the report can be written."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from benchmarks import ranks
from safekd.distributed import Ranks
from safekd.safety import SafetyConstraint, TruthProbability
from tests.support.problems import one_each, trainer_for

SCALING = Path(__file__).resolve().parents[3] / "docs" / "scaling.md"


def test_the_bytes_of_a_step_are_those_of_the_documentation():
    text = SCALING.read_text()
    assert ranks.count_bytes(3) == 8 * (6 + 4 * 3) == 144
    assert ranks.count_bytes(10_000) == 320_048
    assert "Three constraints of one group each are 144 bytes, 10,000 are 320,048." in text


class Listening(Ranks):
    """Two ranks as seen by the first one, which reads everything; the other one adds nothing."""

    rank, size = 0, 2

    def __init__(self):
        self.lengths = []

    def take_own(self, index):
        return index

    def add_up(self, compute, length):
        self.lengths.append(length)
        return compute()

    def gather(self, value):
        return [value, value]


def test_a_step_of_two_ranks_sends_one_vector_of_that_length():
    rules = [SafetyConstraint(f"class {c}", TruthProbability([c]), 0.2) for c in range(3)]
    listening = Listening()
    trainer = trainer_for(*rules, ranks=listening)
    trainer.fit(one_each(), epochs=4, trace_every=10**6)
    of_a_step = ranks.count_bytes(3) // 8 - 3
    assert listening.lengths.count(of_a_step) == 4


def test_the_report_says_what_was_measured():
    found = {"seconds": {str(M): 1e-3 for M in ranks.COUNTS}, "step": 2e-2, "alone": 1e-3, "parameters": 301_066}
    text = ranks.markdown(found)
    assert "| 10,000 | 320,048 | 1.00 |" in text
    assert re.search(r"20\.00 ms a step, of which the vector of 144 bytes is 1\.00 ms, 5\.0%", text)
    assert torch.__version__ in text
