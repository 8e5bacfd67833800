"""Thresholds that are posed until a split proves what was asked for, against the closed form of what each round trains.

Rows of free logits r with teachers q_r: at a multiplier l every row has (1 - q_r0) / (1 - p_r0) - q_r0 / p_r0 = l, so
the posed average fixes l, and l fixes what the judging split, with other shares of the rows, will show.
"""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from scipy.optimize import brentq

import safekd as kd
from safekd.errors import InvalidInput
from safekd.io.folders import write_manifest
from safekd.safety import bound_expectation
from safekd.training import ROUND_COLUMNS, interpolate_threshold
from tests.support.problems import FreeLogits, agreeing, at_least, one_each, optimal_multiplier, trainer_for

EASY, HARD = (0.9, 0.06, 0.04), (0.3, 0.5, 0.2)
EXACT = {"epochs": 1000, "tolerance": 3e-4, "trace_every": 25}
QUICK = {"epochs": 300, "tolerance": 3e-3, "trace_every": 30}


def mix(easy: int, hard: int, name: str = "train") -> kd.Split:
    """Cases of class 0, some of row 0 (easy), some of row 1 (hard)."""
    rows = torch.cat([torch.zeros(easy), torch.ones(hard)]).unsqueeze(-1)
    return kd.Split(name, rows, torch.zeros(easy + hard, dtype=torch.long))


TRAIN, VALIDATION = mix(8, 2), mix(900, 600, "validation")


class ByRow:
    """A teacher that says EASY of row 0 and HARD of row 1."""

    name = "by row"

    def log_probabilities(self, batch, split):
        q = torch.tensor([EASY, HARD], dtype=torch.float64).log()
        return q[batch.inputs[:, -1].long()]


def trainer(*constraints, **more) -> kd.ConstrainedTrainer:
    constraints = constraints or (at_least(0.8),)
    return trainer_for(*constraints, student=FreeLogits(rows=2), teachers=[ByRow()], lr=1.0, **more)


def rows_at(s: float) -> list[float]:
    """p_0 of both rows when 80 % EASY, 20 % HARD must average s."""

    def at(multiplier: float) -> list[float]:
        return [
            brentq(lambda p, q=q: optimal_multiplier(p, q) - multiplier, q[0], 1 - 1e-12, xtol=1e-15)
            if multiplier > 0
            else q[0]
            for q in (EASY, HARD)
        ]

    free = 0.8 * EASY[0] + 0.2 * HARD[0]
    if s <= free:
        return at(0.0)
    return at(brentq(lambda x: 0.8 * at(x)[0] + 0.2 * at(x)[1] - s, 1e-9, 1e3, xtol=1e-13))


def shown(s: float, level: float) -> tuple[float, float]:
    """Average and lower bound that the validation split shows of the student posed at s."""
    easy, hard = rows_at(s)
    values = torch.tensor([easy] * 900 + [hard] * 600, dtype=torch.float64)
    return float(values.mean()), bound_expectation(values, at_least(s).measure, level)[1]


def test_every_attempt_is_what_the_closed_form_says_and_the_last_before_the_first_failure_is_kept():
    rule = kd.Tighten(attempts=12, folds=0, confidence=0.9)
    seen = []
    made = trainer()
    result = made.fit(TRAIN, VALIDATION, tighten=rule, on_round=seen.append, **EXACT)
    raised = result.tightening
    rounds = raised.rounds
    assert list(rounds.columns) == list(ROUND_COLUMNS)
    assert [row["posed"] for row in seen] == rounds["posed"].tolist()
    for row in rounds.to_dict("records"):
        average, bound = shown(row["posed"], 0.9)
        assert row["judged"] == pytest.approx(average, abs=5e-4)
        assert row["lower_bound"] == pytest.approx(bound, abs=5e-4)
        assert row["cleared"] == (bound >= 0.8)
        assert (row["asked"], row["level"], row["cases"], row["status"]) == (0.8, 0.9, 1500, "converged")
    assert rounds["posed"].tolist() == pytest.approx(
        [interpolate_threshold(0.8, 0.98, 0.8**k) for k in range(len(rounds))]
    )
    assert rounds["cleared"].tolist() == [True] * (len(rounds) - 1) + [False]  # the first failure ends it
    assert 2 < len(rounds) < 12
    assert rounds["looks"].tolist() == list(range(1, len(rounds) + 1))
    (kept,) = rounds[rounds["kept"]].to_dict("records")
    assert kept["round"] == len(rounds) - 1
    assert raised.posed == {"first": kept["posed"]}
    assert (raised.status, raised.on, raised.looks) == ("cleared", "validation", len(rounds))
    assert result.status == "converged"
    assert next(result.student.parameters()) is next(made.student.parameters())
    assert [result.student.p(r)[0] for r in (0, 1)] == pytest.approx(rows_at(kept["posed"]), abs=1e-3)
    assert result.point.loss == kept["distillation_loss"]
    assert result.trace["distillation_loss"].iloc[-1] == kept["distillation_loss"]
    assert (
        f"Cleared after {len(rounds)} of at most 12 attempts on 'validation', each at confidence 0.9" in result.message
    )
    assert made.constraints[0].at_least == 0.8  # as it was


def test_what_clears_as_asked_is_posed_as_asked():
    result = trainer(at_least(0.55)).fit(TRAIN, VALIDATION, tighten=kd.Tighten(attempts=4, folds=0), **QUICK)
    assert result.tightening.posed == {"first": 0.55}
    assert result.tightening.rounds["cleared"].tolist() == [True] * 4


def test_looks_are_written_down(tmp_path):
    result = trainer().fit(TRAIN, VALIDATION, tighten=kd.Tighten(attempts=3, folds=0), run_dir=tmp_path, **QUICK)
    looks = result.tightening.looks
    assert [use.looks for use in result.uses] == [0, looks]
    assert (
        str(result.uses[1]) == f"validation (1500 examples): readings of the trace, {looks} looks to raise thresholds"
    )
    told = json.loads((tmp_path / "verdict.json").read_text())
    assert told["data"][1]["looks"] == told["tightening"]["looks"] == looks
    assert told["tightening"]["status"] == "cleared"
    assert told["tightening"]["posed"] == result.tightening.posed
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tightening.csv"), result.tightening.rounds)
    with pytest.raises(
        InvalidInput, match=f"'validation' for readings of the trace, {looks} looks to raise thresholds"
    ):
        kd.certify(result, at_least(0.8), VALIDATION)
    (tmp_path / "tightening.csv").write_text(result.tightening.rounds.assign(cases="many").to_csv(index=False))
    (tmp_path / "manifest.json").unlink()
    write_manifest(tmp_path, "run")  # by someone who makes the hashes fit
    with pytest.raises(InvalidInput, match=r"tightening\.csv is not what was written there: .*'many'"):
        kd.FitResult.load(tmp_path, FreeLogits(rows=2))
    trainer().fit(TRAIN, epochs=1, run_dir=tmp_path)
    assert not (tmp_path / "tightening.csv").exists()
    assert "tightening" not in json.loads((tmp_path / "verdict.json").read_text())


def test_a_split_of_its_own_judges_too():
    judge = kd.Split("judge", VALIDATION.inputs, VALIDATION.labels)
    result = trainer().fit(TRAIN, splits={"judge": judge}, tighten=kd.Tighten(on="judge", attempts=3, folds=0), **QUICK)
    assert result.tightening.status == "cleared"
    assert [(use.name, use.looks > 0) for use in result.uses] == [("train", False), ("judge", True)]


def test_what_cannot_clear_says_so_and_hands_back_the_safest():
    result = trainer().fit(TRAIN, VALIDATION, tighten=kd.Tighten(folds=0, highest=0.83), **QUICK)
    rounds = result.tightening.rounds
    assert result.status == result.tightening.status == "not_cleared"
    assert rounds["cleared"].tolist() == [False]
    assert rounds["posed"].tolist() == pytest.approx([0.83])
    assert rounds["kept"].tolist() == [True]
    assert "Not cleared after 1 of at most 12 attempts on 'validation'" in result.message
    assert "posed at 0.8300 for the 0.8 asked for" in result.message
    assert "Give the judging split more examples" in result.next_move


def test_too_few_cases_are_told_before_any_look_with_the_number_needed():
    few = mix(12, 6, "validation")
    result = trainer().fit(TRAIN, few, tighten=kd.Tighten(confidence=0.99), **QUICK)
    assert result.status == "not_cleared"
    assert result.tightening.looks == 0
    assert [use.looks for use in result.uses] == [0, 0]
    assert "holds 18 examples of 'first'" in result.message
    assert "It was not looked at" in result.message
    needed = int(result.next_move.split("at least ")[1].split()[0])
    best = [bound_expectation(torch.ones(n), at_least(0.8).measure, 0.99)[1] for n in (18, needed - 1, needed)]
    assert best[0] < 0.8
    assert best[1] < 0.8 <= best[2]
    assert result.student.p(1)[0] == pytest.approx(rows_at(0.8)[1], abs=1e-2)  # trained as asked


def two_constraints(hard: float = 0.6) -> tuple[list[kd.SafetyConstraint], list[kd.Split]]:
    """Row 0 exceeds 0.6 by itself, row 1 does not."""
    rules = [at_least(0.6, name="easy", contexts=[0]), at_least(hard, name="hard", contexts=[1])]
    parts = (mix(40, 30), VALIDATION)
    return rules, [kd.Split(s.name, s.inputs, s.labels, context=s.inputs[:, 0].long()) for s in parts]


def test_each_constraint_is_raised_by_itself():
    """What clears out of fold stays as asked; the other one is searched from above."""
    rules, splits = two_constraints()
    result = trainer(*rules).fit(*splits, tighten=kd.Tighten(attempts=6, folds=2, rounds=2), **QUICK)
    rounds = result.tightening.rounds
    easy, hard = (rounds[rounds["constraint"] == name] for name in ("easy", "hard"))
    assert easy["posed"].tolist() == [0.6] * len(easy)
    assert hard["posed"].max() > 0.6 == hard["posed"].iloc[0]
    assert result.tightening.posed["easy"] == 0.6
    assert "cross-fitting, 2 folds x" in str(result.uses[0])


def test_only_those_named_are_raised_and_all_that_are_raised_must_clear():
    rules, splits = two_constraints()
    named = trainer(*rules).fit(*splits, tighten=kd.Tighten(folds=0, attempts=3, constraints=["hard"]), **QUICK)
    assert set(named.tightening.rounds["constraint"]) == {"hard"}
    rules, splits = two_constraints(hard=0.85)
    tighten = kd.Tighten(folds=0, attempts=3, highest=0.851)
    both = trainer(*rules).fit(*splits, tighten=tighten, **QUICK)
    assert both.tightening.rounds["cleared"].tolist() == [True, False]  # 0.9 of the easy ones was never in doubt
    assert both.status == "not_cleared"


def test_every_round_begins_with_optimizer_and_schedule_as_they_were_given():
    student = FreeLogits(rows=2)
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0, momentum=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    rates = []
    made = kd.ConstrainedTrainer(
        student,
        [ByRow()],
        constraints=[at_least(0.8)],
        optimizer=optimizer,
        scheduler=scheduler,
        dual=kd.AugmentedLagrangian(rho=10.0, step=1.0),
    )
    result = made.fit(
        TRAIN,
        VALIDATION,
        epochs=10,
        trace_every=10,
        tighten=kd.Tighten(attempts=3, folds=0),
        on_trace=lambda point: rates.append(optimizer.param_groups[0]["lr"]) if point.step == 0 else None,
    )
    assert len(rates) == result.tightening.rounds["round"].max() > 1
    assert rates == [1.0] * len(rates)


def test_a_diverged_round_is_not_looked_at():
    made = trainer()
    with torch.no_grad():
        made.student.logits[0, 0] = float("nan")
    result = made.fit(TRAIN, VALIDATION, tighten=kd.Tighten(folds=0), **QUICK)
    assert result.status == "diverged"
    assert result.tightening.status == "not_cleared"
    assert result.tightening.looks == 0
    assert len(result.tightening.rounds) == 1


def test_teachers_measured_on_the_judging_split_are_a_doubt_that_is_told():
    ensemble = kd.teachers.TeacherEnsemble([ByRow()])
    evidence = kd.teachers.measure_teachers(ensemble, VALIDATION, at_least(0.8).measure)
    result = trainer(at_least(0.7), evidence=evidence).fit(TRAIN, VALIDATION, tighten=kd.Tighten(folds=0), **QUICK)
    assert "The teachers were measured on that split, so its bound is no guarantee." in result.message
    assert "measuring the teachers" in str(result.uses[1])


# ---- what is refused ----

REFUSED = {
    "no such split": (
        kd.Tighten(on="judge"),
        {},
        "split 'judge' shows .* not given; there is \\['train', 'validation'\\]",
    ),
    "the training split": (kd.Tighten(on="train"), {}, "the training split cannot judge"),
    "posed there": (
        kd.Tighten(),
        {"split": "validation"},
        "'first' is posed on split 'validation', which is also to judge",
    ),
    "no such constraint": (kd.Tighten(constraints=["x"]), {}, r"no constraint 'x' to tighten; there is \['first'\]"),
    "a mix": (
        kd.Tighten(),
        {"mix": {0: 1.0}},
        "'first' is an equality, a mix or a budget.* wanted one average",
    ),
    "no room": (kd.Tighten(highest=0.8), {}, "asks for 0.8, and `highest` is 0.8; wanted 0.8 < highest < 1"),
    "all of it": (kd.Tighten(highest=1.0), {}, "`highest` is 1; wanted 0.8 < highest < 1"),
    "nobody covered": (kd.Tighten(), {"contexts": [0]}, "No example of 'validation' is covered by 'first'"),
    "cross-fitted elsewhere": (
        kd.CrossFit(),
        {"split": "validation"},
        "posed on split 'validation'; only one posed on 'train'",
    ),
    "also not given": (
        kd.CrossFit(also=["x"]),
        {},
        r"split 'x' shows .* not given; there is \['train', 'validation'\]",
    ),
    "more folds than cases": (kd.CrossFit(folds=11), {}, "10 examples cannot make 11 folds"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    tighten, changed, message = REFUSED[case]
    train = kd.Split("train", TRAIN.inputs, TRAIN.labels, context=torch.zeros(10, dtype=torch.long))
    validation = kd.Split(
        "validation", VALIDATION.inputs, VALIDATION.labels, context=torch.ones(1500, dtype=torch.long)
    )
    with pytest.raises(InvalidInput, match=message):
        trainer(at_least(0.8, **changed)).fit(train, validation, tighten=tighten, **QUICK)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kd.Tighten(confidence=1.0), "`confidence` is 1.0"),
        (lambda: kd.Tighten(attempts=0), "`attempts` is 0, .*wanted at least 1 attempt"),
        (lambda: kd.Tighten(folds=1), "`folds` is 1, .*at least 2 folds, or 0 for no cross-fitting"),
        (lambda: kd.Tighten(rounds=0), "`rounds` is 0; .*at least 1 round"),
        (lambda: kd.CrossFit(folds=1), "`folds` is 1, .*wanted at least 2 folds"),
        (lambda: kd.CrossFit(rounds=0), "`rounds` is 0"),
        (lambda: kd.CrossFit(excess=float("nan")), "`excess` is nan"),
        (lambda: kd.CrossFit(confidence=1.0), "`confidence` is 1.0; .*such as 0.975, or 0.5 for the average"),
        (
            lambda: kd.CrossFit(also="validation"),
            r"`also` is 'validation'; wanted a list of names of splits, such as \['validation'\]",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()


def test_without_a_constraint_there_is_nothing_to_raise():
    with pytest.raises(InvalidInput, match="no constraint to tighten; give the trainer at least one"):
        trainer_for().fit(one_each(), one_each(name="validation"), epochs=5, tighten=kd.Tighten())


def test_a_sweep_does_not_tighten_and_says_what_its_data_were_used_for():
    make = lambda s: trainer_for(at_least(s), teachers=agreeing())  # noqa: E731
    with pytest.raises(InvalidInput, match="every target would look at the same data again"):
        kd.trace_frontier(make, one_each(), targets=[0.5, 0.6], epochs=5, tighten=kd.CrossFit())
    frontier = kd.trace_frontier(make, one_each(), targets=[0.5, 0.6], epochs=50)
    (use,) = frontier.meta["data"]
    assert (use["split"], use["roles"]) == ("train", ["gradient steps", "constraint 'first'"])
