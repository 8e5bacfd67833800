"""Traces in files, read back bit for bit, and whoever is told of a run while it lasts."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import safekd as kd
from safekd.training.trace import (
    Callback,
    ConstraintReading,
    JsonlWriter,
    StopTraining,
    Trace,
    TracePoint,
    read_trace,
)
from solvers.kkt import KKTResiduals
from tests.support.problems import at_least, one_each, trainer_for

ANY = st.floats(allow_nan=True, allow_infinity=True)


def trace_of(numbers, names=("a",), split="train") -> Trace:
    """A trace whose every float is one of the numbers."""
    take = iter(numbers)
    trace = Trace()
    for step in range(3):
        readings = [ConstraintReading(n, split, next(take), next(take), next(take), 5, next(take)) for n in names]
        residuals = KKTResiduals(*(next(take) for _ in range(4)))
        more = {"capped": [step == 1] * len(names), "running": [next(take) for _ in names], "sampled": step == 2}
        multipliers, rho = [next(take) for _ in names], [10.0] * len(names)
        trace.record(TracePoint(step, 1, next(take), readings, multipliers, rho, residuals, next(take), 0.5, **more))
    return trace


@settings(deadline=None, max_examples=12)
@given(st.lists(ANY, min_size=60, max_size=60), st.sampled_from(["train", "=1+1", "NA", "'quoted", "ward, 2"]))
def test_both_files_give_back_every_bit_and_every_type(tmp_path_factory, numbers, split):
    trace, folder = trace_of(numbers, split=split), tmp_path_factory.mktemp("trace")
    trace.to_csv(folder / "trace.csv")
    trace.to_jsonl(folder / "trace.jsonl")
    for name in ("trace.csv", "trace.jsonl"):
        pd.testing.assert_frame_equal(read_trace(folder / name), trace.table(), check_exact=True)
    for line in (folder / "trace.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_whole_numbers_stay_floats_where_they_are_floats(tmp_path):
    trace = trace_of([1.0] * 60)
    trace.to_csv(tmp_path / "trace.csv")
    assert read_trace(tmp_path / "trace.csv").dtypes.equals(trace.table().dtypes)


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    file = tmp_path / "trace.jsonl"
    trace_of([0.25] * 60).to_jsonl(file)
    file.write_bytes(file.read_bytes()[:-10])
    assert read_trace(file)["step"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("trace.txt", "", "Cannot tell what .*; wanted a name that ends in .csv or .jsonl"),
        ("none.jsonl", None, "Cannot read .*none.jsonl"),
        ("trace.jsonl", "{broken\n", "line 1: no readable JSON"),
        ("trace.jsonl", "3\n", "line 1: found a int; wanted an object"),
        ("trace.jsonl", '{"step": 1}\n{"steps": 1}\n', "line 2: its names are not those of line 1 .'step'"),
        ("trace.jsonl", '{"step": 1}\n', "is no trace: columns epoch, distillation_loss"),
        ("trace.csv", "step,epoch,distillation_loss,kkt_stationarity,wall_s\n1,1,x,0,0\n", "row 1, column 'dist.*'x'"),
        ("trace.csv", "step,epoch,distillation_loss,kkt_stationarity,wall_s\n1.5,1,1,0,0\n", "column 'step': .*'1.5'"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(kd.InvalidInput, match=message):
        read_trace(tmp_path / name)


class Diary(Callback):
    """Notes what it is told, and does something at a point of its choice."""

    def __init__(self, at: int = -1, error: BaseException | None = None) -> None:
        self.said, self.at, self.error = [], at, error

    def on_start(self, run):
        self.run = run
        self.said.append("start")

    def on_trace(self, point):
        self.said.append(point.step)
        if point.step == self.at:
            raise self.error

    def on_end(self, result):
        self.said.append(result.status)


def fit(*callbacks, **more):
    return trainer_for(at_least(0.6), lr=1e-3).fit(one_each(), epochs=30, trace_every=10, callbacks=callbacks, **more)


def test_callbacks_are_told_in_order():
    heard, diary = [], Diary()
    fit(diary, on_trace=heard.append, tolerance=1e-5)
    assert diary.said == ["start", 0, 10, 20, 30, "budget_spent"]
    assert [point.step for point in heard] == [0, 10, 20, 30]
    run = diary.run
    assert (run.steps, run.epochs, run.trace_every, run.tolerance) == (30, 30, 10, 1e-5)
    assert (run.constraints, run.required, run.splits, run.examples) == (["first"], [0.6], ["train"], 3)


@pytest.mark.parametrize("at", [0, 10])
def test_a_callback_may_stop_the_run(at):
    diary, other = Diary(at, StopTraining("good enough")), Diary()
    result = fit(diary, other)
    assert result.status == "budget_spent"
    assert result.message.startswith(f"Diary stopped the run: good enough (step {at} of 30: stationarity 0.")
    assert "warm_start=kd.WarmStart.from_result(result)" in result.next_move
    assert other.said[-2:] == [at, "budget_spent"]  # told of the last point all the same
    assert result.point.step == at


def test_a_stop_at_the_point_that_shows_convergence_does_not_hide_it():
    rule = at_least(0.6)
    seen = trainer_for(rule).fit(one_each(), epochs=500, trace_every=10)
    last = Diary(seen.point.step, StopTraining("enough"))
    assert trainer_for(rule).fit(one_each(), epochs=500, trace_every=10, callbacks=[last]).status == "converged"


def test_a_callback_that_fails_is_named():
    with pytest.raises(ZeroDivisionError) as caught:
        fit(Diary(10, ZeroDivisionError("oops")))
    assert caught.value.__notes__ == ["Raised in on_trace of callback Diary."]

    def broken(point):
        raise KeyError("no")

    with pytest.raises(KeyError) as caught:
        fit(on_trace=broken)
    assert "broken" in caught.value.__notes__[0]


def test_what_is_no_callback_is_refused():
    class Deaf:
        def on_start(self, run):
            pass

    with pytest.raises(kd.InvalidInput, match=r"Callback .*Deaf has no method on_trace; derive it from"):
        fit(Deaf())


def test_a_killed_run_leaves_the_lines_it_wrote(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(Diary(20, KeyboardInterrupt()), run_dir=tmp_path / "run")
    assert read_trace(tmp_path / "run" / "trace.jsonl")["step"].tolist() == [0, 10, 20]
    result = fit(run_dir=tmp_path / "run")  # begins the file anew
    pd.testing.assert_frame_equal(read_trace(tmp_path / "run" / "trace.jsonl"), result.trace, check_exact=True)


def test_a_writer_of_ones_own(tmp_path):
    result = fit(JsonlWriter(tmp_path / "deep" / "t.jsonl"))
    pd.testing.assert_frame_equal(read_trace(tmp_path / "deep" / "t.jsonl"), result.trace, check_exact=True)
    assert math.isnan(result.trace["ema_first"][0])
    (tmp_path / "file").write_text("")
    with pytest.raises(kd.InvalidInput, match="Cannot write"):
        fit(JsonlWriter(tmp_path / "file" / "t.jsonl"))


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.csv"])
def test_a_trace_of_a_finished_run_that_was_changed_is_refused(name, tmp_path):
    result = fit(run_dir=tmp_path)
    file = tmp_path / name
    pd.testing.assert_frame_equal(read_trace(file), result.trace, check_exact=True)
    text = file.read_text()
    file.write_text(text.replace("exact", "exacT", 1))
    assert file.read_text() != text
    with pytest.raises(kd.InvalidInput, match=f"{name} is not what was written"):
        read_trace(file)
