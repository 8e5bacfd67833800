"""The benchmark of counted measures: its judge can say no, and a short run of two classes."""

from __future__ import annotations

import dataclasses

from benchmarks.counted.__main__ import find_faults, main, write_report
from benchmarks.counted._cells import list_cells
from benchmarks.counted._runs import Row

FINE = Row(
    10, "fresh", "SGD 0.5", "full", "recall", "right", 0, 0.98, 0.985, 0.95, 0.95, 1.0, 0.1, 0.1, 1.0, "converged", 60
)


def test_the_judge_can_say_no():
    assert find_faults(FINE) == ""
    assert find_faults(dataclasses.replace(FINE, accuracy=0.97)) == "accuracy"
    assert find_faults(dataclasses.replace(FINE, measured=0.88)) == "missed"
    assert find_faults(dataclasses.replace(FINE, measured=0.885)) == ""  # one count of 60
    assert find_faults(dataclasses.replace(FINE, measured=0.5, free_measured=0.5, reachable=0.6)) == ""
    text = write_report([FINE, dataclasses.replace(FINE, accuracy=0.9)], 600)
    assert "| 1 of 2; at most 0.0850 below |" in text


def test_the_cells_are_all_of_the_question():
    cells = list_cells([2, 10, 22, 100, 1000])
    assert len(cells) == len(set(cells)) == (4 * 2 - 1) * 2 * 3 * 2 * 2 + 2 * 2 * 3 * 2
    assert {cell.classes for cell in cells if cell.measure == "top 3"} == {10, 22, 100, 1000}


def test_a_short_run(tmp_path, capsys):
    out = tmp_path / "counted.md"
    code = main(["--classes", "2", "--steps", "4", "--jobs", "1", "--out", str(out)])
    assert code in (0, 1)
    assert out.read_text().count("\n| 2 | ") == len(list_cells([2]))
    assert (tmp_path / "counted.csv").read_text().count("\n") == len(list_cells([2])) + 1
