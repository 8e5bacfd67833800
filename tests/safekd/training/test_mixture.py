"""Mixtures of snapshots: linear programs by hand and by scipy, what is kept, and what a run hands back."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import safekd as kd
from safekd.training import Mixture, _mixture
from safekd.training._mixture import find_lowest_mixture
from safekd.training.checkpoints import BestIterates
from tests.support.problems import FreeLogits, at_least, one_each, same, state, trainer_for

from .diagnosis.test_endings import point, reading


def iterates(points, most=20, required=0.8):
    """A best that was shown students of these (loss, safety, ...), whose logits tell their number."""
    best = BestIterates(snapshots=most)
    for number, (loss, *safety) in enumerate(points):
        student = FreeLogits()
        torch.nn.init.constant_(student.logits, float(number))
        readings = [reading(s, required, name=f"c{m}") for m, s in enumerate(safety)]
        best.add(student, point(*readings, multipliers=[0.0] * len(safety), step=10 * number, loss=loss))
    return best


def test_a_safe_and_a_cheap_student_mixed():
    """(loss 1, safety .7) and (loss 3, safety .9), .8 wanted: half each costs 2, a multiplier of 2 / .2 = 10."""
    best = iterates([(1.0, 0.7), (3.0, 0.9)])
    mixture, note = best.mixture(FreeLogits())
    assert note == ""
    assert mixture.weights == pytest.approx([0.5, 0.5])
    assert mixture.steps == (0, 10)
    assert mixture.loss == pytest.approx(2.0)
    assert mixture.loss < 3.0  # of the best student that is safe by itself
    assert mixture.safety == {"c0": pytest.approx(0.8)}
    assert mixture.multipliers == {"c0": pytest.approx(10.0)}
    assert [student.logits[0, 0].item() for student in mixture.students] == [0.0, 1.0]
    draw = torch.Generator().manual_seed(0)
    drawn = [mixture.draw(draw) is mixture.students[1] for _ in range(400)]
    assert 0.4 < np.mean(drawn) < 0.6


def test_draws_follow_the_weights():
    mixture = Mixture((0.9, 0.1), (0, 1), (FreeLogits(), FreeLogits()), 0.0, {}, {})
    draw = torch.Generator().manual_seed(0)
    assert np.mean([mixture.draw(draw) is mixture.students[0] for _ in range(1000)]) == pytest.approx(0.9, abs=0.03)


def test_where_no_mixture_is_safe_it_says_how_far_the_safest_is():
    """(.5, .9) and (.9, .5) at best give .7 twice, .1 below."""
    mixture, note = iterates([(1.0, 0.5, 0.9), (1.0, 0.9, 0.5), (0.5, 0.1, 0.1)]).mixture(FreeLogits())
    assert mixture is None
    assert "No mixture of 3 snapshots meets every constraint: the safest is 0.1 below the threshold of 'c" in note


def test_a_violation_that_counts_as_none_is_granted():
    mixture, _ = iterates([(1.0, 0.7995), (0.5, 0.7)]).mixture(FreeLogits())
    assert mixture.weights == pytest.approx([1.0])
    assert iterates([(1.0, 0.798), (0.5, 0.7)]).mixture(FreeLogits())[0] is None


def test_nothing_asked_nothing_given_and_nothing_usable_told():
    assert BestIterates().mixture(FreeLogits()) == (None, "")
    mixture, note = iterates([(math.nan, 0.9)]).mixture(FreeLogits())
    assert mixture is None
    assert "nothing to mix" in note


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 12), st.integers(0, 3), st.integers(0, 10_000))
def test_it_is_what_scipy_finds_with_few_weights(size, rows, seed):
    draw = np.random.default_rng(seed)
    loss, g = draw.normal(size=size), draw.normal(0.2, 1.0, size=(size, rows)).round(3)
    lowest = find_lowest_mixture(loss.tolist(), g.tolist())
    q = np.array(lowest.weights)
    assert q.min() >= 0
    assert q.sum() == pytest.approx(1)
    one = {"A_eq": np.ones((1, size)), "b_eq": [1.0], "method": "highs-ipm"}
    best = linprog(loss, g.T if rows else None, np.zeros(rows) if rows else None, **one)
    assert (lowest.excess == 0) == (best.status == 0)
    if best.status == 0:
        assert loss @ q == pytest.approx(best.fun, abs=1e-7)
        assert (q @ g <= 1e-7).all()
        assert (q > 0).sum() <= rows + 1
        multiplier = np.array(lowest.multipliers)  # the dual program: nobody is below the mixture at these multipliers
        assert (multiplier >= 0).all()
        assert (loss + g @ multiplier).min() == pytest.approx(best.fun, abs=1e-6)
    else:
        rows_and_one = np.c_[g.T, -np.ones(rows)]  # min t  s.t.  q . g <= t
        sums = np.array([[*[1.0] * size, 0.0]])
        free = [(0, None)] * size + [(None, None)]
        least = linprog([*[0] * size, 1], rows_and_one, np.zeros(rows), sums, [1.0], bounds=free)
        assert lowest.excess == pytest.approx(least.fun, abs=1e-7)


def test_only_what_no_other_beats_is_kept():
    best = iterates([(1.0, 0.7), (2.0, 0.6), (1.0, 0.7), (0.9, 0.75), (3.0, 0.9)])
    assert [snapshot.point.step for snapshot in best._snapshots] == [30, 40]


@pytest.mark.parametrize("seed", range(3))
def test_dropping_snapshots_never_makes_the_best_mixture_worse(seed):
    draw = np.random.default_rng(seed)
    safety = draw.uniform(0.6, 1.0, 25)
    points = [(4 * (s - 0.6) ** 2 + 0.2 * u, s) for s, u in zip(safety, draw.random(25), strict=True)]
    losses = []
    for upto in range(5, 26, 5):
        best = iterates(points[:upto], most=4)
        assert len(best._snapshots) <= 4
        mixture, _ = best.mixture(FreeLogits())
        losses.append(math.inf if mixture is None else mixture.loss)
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(losses))
    assert math.isfinite(losses[-1])


def test_a_run_hands_its_mixture_back_and_writes_it(tmp_path):
    students = {}
    trainer = trainer_for(at_least(0.6), lr=1.0, dual=kd.AugmentedLagrangian(rho=30.0))
    result = trainer.fit(
        one_each(),
        epochs=40,
        trace_every=1,
        tolerance=1e-12,
        snapshots=6,
        on_trace=lambda p: students.update({p.step: state(trainer.student)}),
        run_dir=tmp_path,
    )
    mixture = result.mixture
    trace = result.trace.set_index("step")
    assert 1 <= len(mixture.weights) <= 2
    loss = sum(w * trace.loc[s, "distillation_loss"] for w, s in zip(mixture.weights, mixture.steps, strict=True))
    safety = sum(w * trace.loc[s, "safety_first"] for w, s in zip(mixture.weights, mixture.steps, strict=True))
    assert (mixture.loss, mixture.safety["first"]) == pytest.approx((loss, safety), rel=1e-12)
    assert safety >= 0.6 - 1e-6
    single = trace[trace["safety_first"] >= 0.6]["distillation_loss"].min()
    assert mixture.loss <= single + 1e-9
    for step, student in zip(mixture.steps, mixture.students, strict=True):
        assert same(state(student), students[step])
        assert not student.training
        assert (tmp_path / f"mixture-{step}.safetensors").is_file()
    said = json.loads((tmp_path / "verdict.json").read_text())["mixture"]
    assert said["weights"] == dict(zip(map(str, mixture.steps), mixture.weights, strict=True))
    trainer_for(at_least(0.6)).fit(one_each(), epochs=2, run_dir=tmp_path)
    assert not list(tmp_path.glob("mixture-*"))  # of an earlier run


def test_too_few_snapshots_are_refused():
    with pytest.raises(
        kd.InvalidInput, match="`snapshots` is 2; wanted at least 3, since the best mixture under 1 con"
    ):
        trainer_for(at_least(0.6)).fit(one_each(), epochs=1, snapshots=2)


def test_the_weighting_rule_is_kept_as_it_was_beside_the_student():
    """The best copies what the rule says at each student that it keeps, and not later."""
    now = {"a": torch.zeros(1)}
    best = BestIterates(lambda: {name: value.clone() for name, value in now.items()})
    for number, (loss, safety) in enumerate([(3.0, 0.9), (1.0, 0.7), (2.0, 0.85), (4.0, 0.95)]):
        now["a"].fill_(float(number))
        best.add(FreeLogits(), point(reading(safety), multipliers=[0.0], loss=loss))
    assert {name: float(kept["a"]) for name, kept in best.rule_states().items()} == {
        "best_feasible": 2.0,
        "most_feasible": 2.0,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_solve_program": lambda problem: False}, "HiGHS found no least violation of a mixture, though there is one"),
        (
            {"_clean_shares": lambda q: np.array([1.0, 0.0])},
            r"HiGHS found does not hold: it violates 0\.1, and is .* Ask",
        ),
    ],
)
def test_an_answer_of_the_solver_is_not_taken_at_its_word(change, message, monkeypatch):
    """(loss 1, .1 too unsafe) and (loss 3, .1 safer than asked): half each is right, and the first alone is not."""
    for name, wrong in change.items():
        monkeypatch.setattr(_mixture, name, wrong)
    with pytest.raises(kd.SolverFailure, match=message):
        find_lowest_mixture([1.0, 3.0], [[0.1], [-0.1]])
