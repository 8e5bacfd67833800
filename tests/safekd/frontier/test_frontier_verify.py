"""verify: stored students against their rows.  It must be able to say no, for each number and each file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import safekd as kd
from safekd.frontier import VerifyReport
from tests.support.problems import FreeLogits, agreeing, at_least, one_each, trainer_for


def make(threshold, q=(0.3, 0.5, 0.2)):
    return trainer_for(at_least(threshold), at_least(0.2, "second", critical=1), teachers=agreeing(q))


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verified") / "run"
    return kd.trace_frontier(
        make, one_each(), targets=[0.4, 0.5], held={"second": [0.2, 0.4]}, epochs=80, tolerance=1e-3, run_dir=folder
    ), folder


@pytest.fixture
def frontier(traced):
    made = traced[0]
    return kd.Frontier(made.table.copy(), made.constraint, made.meta, made.students)


def test_every_student_is_read_again_to_the_last_bit(traced, frontier):
    for what in (frontier, traced[1]):
        report = kd.verify(what, make, one_each())
        assert report.holds()
        assert report.table["verified"].all()
        assert (report.table["difference"] == 0).all()
        assert str(report) == "6 students evaluated anew: as their rows say, to 0."
    assert str(frontier.verify(make, one_each())) == str(report)
    assert frontier.table["held_second"].tolist() == [0.2] * 3 + [0.4] * 3


@pytest.mark.parametrize("column", ["distillation_loss", "safety_first", "violation_first", "safety_second"])
@pytest.mark.parametrize("off", [3e-9, -0.1, np.nan])
def test_a_number_that_is_not_the_students_is_told_with_its_row(column, off, frontier):
    frontier.table.loc[4, column] += off
    report = kd.verify(frontier, make, one_each())
    assert not report.holds()
    assert report.failed.tolist() == [False] * 4 + [True, False]
    assert str(report).startswith(f"1 of 6 rows are not what their students are:\nrow 4 (target 0.4): {column} is ")


def test_a_number_within_the_tolerance_is_not_told(frontier):
    frontier.table.loc[4, "distillation_loss"] += 1e-10
    assert kd.verify(frontier, make, one_each()).holds()
    assert not kd.verify(frontier, make, one_each(), tolerance=1e-12).holds()
    with pytest.raises(kd.InvalidInput, match="`tolerance` is 0; wanted a number above 0"):
        kd.verify(frontier, make, one_each(), tolerance=0)


def test_students_of_other_rows_are_found_out(frontier):
    changed = {row: frontier.students[row] for row in frontier.students}
    changed[1], changed[2] = changed[2], changed[1]
    swapped = kd.Frontier(frontier.table, frontier.constraint, frontier.meta, changed)
    assert kd.verify(swapped, make, one_each()).failed.tolist() == [False, True, True, False, False, False]


def test_other_data_and_other_teachers_are_found_out(frontier):
    assert not kd.verify(frontier, lambda s: make(s, (0.31, 0.49, 0.2)), one_each()).holds()
    assert not kd.verify(frontier, make, (torch.zeros(4, 1), torch.tensor([0, 1, 2, 2])), tolerance=1e-9).holds()


def test_a_student_that_does_not_fit_and_one_that_is_missing_are_told(frontier):
    wrong = dict.fromkeys(range(6), FreeLogits(classes=4))
    report = kd.verify(kd.Frontier(frontier.table, "first", frontier.meta, wrong), make, one_each())
    assert report.failed.all()
    assert "the student cannot be evaluated: " in report.table["wrong"][0]
    none = kd.verify(kd.Frontier(frontier.table, "first", frontier.meta), make, one_each())
    assert not none.holds()
    assert "the row is called feasible and has no student" in str(none)


def test_a_report_without_students_does_not_hold(frontier):
    infeasible = frontier.table.assign(feasible=False)
    report = kd.verify(kd.Frontier(infeasible, "first", frontier.meta), make, one_each())
    assert isinstance(report, VerifyReport)
    assert not report.holds()
    assert str(report) == "No row has a student, so nothing was verified."


def test_a_table_of_another_file_can_be_compared(traced, frontier, tmp_path):
    frontier.table.loc[0, "distillation_loss"] += 1e-6
    frontier.to_csv(tmp_path / "edited.csv")
    report = kd.verify(traced[1], make, one_each(), table=tmp_path / "edited.csv")
    assert report.failed.tolist() == [True] + [False] * 5


def test_a_folder_without_a_finished_sweep_is_refused(tmp_path):
    with pytest.raises(kd.InvalidInput, match="holds no finished sweep; finish it with resume='auto'"):
        kd.verify(tmp_path, make, one_each())


def test_safety_on_the_validation_split_stands_beside_that_of_training(tmp_path):
    """Three validation examples, two of them critical: the student of each row is read on them as well."""
    held = (torch.zeros(3, 1), torch.tensor([0, 1, 0]))
    data = {"validation": held}
    made = kd.trace_frontier(make, one_each(), targets=[0.4, 0.5], epochs=80, tolerance=1e-3, **data)
    column = made.table["validation_safety_first"]
    for row, student in made.students.items():
        with torch.no_grad():
            assert column[row] == pytest.approx(float(student(held[0]).softmax(-1)[0, 0]), abs=1e-6)
    made.to_csv(tmp_path / "frontier.csv")
    read = kd.Frontier.from_csv(tmp_path / "frontier.csv", made.students)
    assert read.table["validation_safety_first"].equals(column)
    assert kd.verify(read, make, one_each(), **data).holds()
    read.table.loc[1, "validation_safety_first"] += 0.01
    report = kd.verify(read, make, one_each(), **data)
    assert report.failed.tolist() == [False, True, False]
    assert "row 1 (target 0.4): validation_safety_first is" in str(report)


def test_without_a_validation_split_the_table_has_no_such_column(frontier):
    assert not [name for name in frontier.table.columns if name.startswith("validation_")]
