"""Runs that train several students go on in the round, and at the step, where they were stopped."""

from __future__ import annotations

import pandas as pd
import pytest

import safekd as kd
from benchmarks.survive import contents_but_clock, make_split, make_trainer
from safekd.training.loop.step import PrimalDualStep

TRAIN, HELD = make_split("train", 90, 1), make_split("validation", 300, 2)


class Crash(Exception):
    """Stands for a kill."""


WAYS = {  # and what is asked for
    "CrossFit": (lambda: kd.CrossFit(folds=2, rounds=2, also=["validation"], highest=0.7), 0.38),
    "Tighten": (lambda: kd.Tighten(folds=2, rounds=1, attempts=4, highest=0.6, confidence=0.6), 0.2),
    "Tighten without folds": (lambda: kd.Tighten(folds=0, attempts=3, highest=0.6, confidence=0.6), 0.2),
}


def fit(folder, way, rows, start=11):
    tighten, at_least = WAYS[way]
    trainer = make_trainer("schedule", start=start, at_least=at_least)
    return trainer.fit(
        TRAIN,
        HELD,
        epochs=4,
        trace_every=8,
        tighten=tighten(),
        run_dir=folder,
        checkpoint_every=5,
        on_round=rows.append,
    )


def crash_at(monkeypatch, steps):
    real, count = PrimalDualStep.step, iter(range(steps))

    def step(self, *given):
        if next(count, None) is None:
            raise Crash
        return real(self, *given)

    monkeypatch.setattr(PrimalDualStep, "step", step)


@pytest.fixture(scope="module", params=[*WAYS])
def whole(request, tmp_path_factory):
    """A run that is not stopped: how, its folder, its rows."""
    folder, rows = tmp_path_factory.mktemp("whole"), []
    result = fit(folder, request.param, rows)
    return request.param, folder, rows, result


@pytest.mark.parametrize("stops", [(0.15,), (0.4,), (0.9,), (0.7, 0.2)], ids=str)
def test_a_search_that_was_stopped_ends_as_if_it_had_not_been(whole, stops, tmp_path, monkeypatch):
    way, folder, all_rows, result = whole
    rows = []
    steps = int(result.tightening.rounds.groupby("round")["steps"].first().sum())
    for number, share in enumerate(stops):
        with monkeypatch.context() as patch:
            crash_at(patch, int(share * steps))
            with pytest.raises(Crash):
                fit(tmp_path, way, rows, start=11 + number)
    again = fit(tmp_path, way, rows, start=77)
    pd.testing.assert_frame_equal(again.tightening.rounds, result.tightening.rounds, check_exact=True)
    assert contents_but_clock(tmp_path) == contents_but_clock(folder)
    last = [row["round"] for row in rows]
    assert last == sorted(last)
    assert rows[-1] == all_rows[-1]
    assert again.message == result.message
    assert [use.record() for use in again.uses] == [use.record() for use in result.uses]


def test_several_rounds_were_trained(whole):
    way, _, _, result = whole  # of Tighten the first is that of the folds
    assert result.tightening.rounds["round"].max() >= (2 if way == "Tighten" else 3)
