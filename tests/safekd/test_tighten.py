"""Thresholds that rise until new data show what was asked for, against the closed form of what each round trains.

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
from safekd.safety import lower_bound
from safekd.teachers import StoredTeacher
from safekd.trainer import ROUND_COLUMNS
from safekd.trainer._climb import between

from .problems import FreeLogits, agreeing, at_least, one_each, price, same, state, trainer_for

EASY, HARD = (0.9, 0.06, 0.04), (0.3, 0.5, 0.2)
EXACT = {"epochs": 600, "tolerance": 3e-4, "trace_every": 25}
QUICK = {"epochs": 300, "tolerance": 3e-3, "trace_every": 30}


def mix(easy: int, hard: int, name: str = "train") -> kd.Split:
    """Cases of class 0, some of row 0 (easy), some of row 1 (hard)."""
    rows = torch.cat([torch.zeros(easy), torch.ones(hard)]).unsqueeze(-1)
    return kd.Split(name, rows, torch.zeros(easy + hard, dtype=torch.long))


TRAIN, AUDIT = mix(8, 2), mix(900, 600, "audit")


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
            brentq(lambda p, q=q: price(p, q) - multiplier, q[0], 1 - 1e-12, xtol=1e-15) if multiplier > 0 else q[0]
            for q in (EASY, HARD)
        ]

    free = 0.8 * EASY[0] + 0.2 * HARD[0]
    if s <= free:
        return at(0.0)
    return at(brentq(lambda x: 0.8 * at(x)[0] + 0.2 * at(x)[1] - s, 1e-9, 1e3, xtol=1e-13))


def shown(s: float, level: float) -> tuple[float, float]:
    """Average and lower bound that the audit split shows of the student posed at s."""
    easy, hard = rows_at(s)
    values = torch.tensor([easy] * 900 + [hard] * 600, dtype=torch.float64)
    return float(values.mean()), lower_bound(values, at_least(s).measure, level)[1]


def test_every_round_is_what_the_closed_form_says_and_the_last_that_clears_is_kept():
    rule = kd.Tighten(looks=5, back=2, confidence=0.9)
    seen = []
    made = trainer()
    result = made.fit(TRAIN, AUDIT, tighten=rule, on_round=seen.append, **EXACT)
    raised = result.tightening
    rounds = raised.rounds
    assert list(rounds.columns) == list(ROUND_COLUMNS)
    assert [row["posed"] for row in seen] == rounds["posed"].tolist()
    assert rule.level == pytest.approx(0.98)
    for row in rounds.to_dict("records"):
        average, bound = shown(row["posed"], 0.98)
        assert row["judged"] == pytest.approx(average, abs=5e-4)
        assert row["lower_bound"] == pytest.approx(bound, abs=5e-4)
        assert row["cleared"] == (bound >= 0.8)
        assert (row["asked"], row["level"], row["cases"], row["status"]) == (0.8, rule.level, 1500, "converged")
    up = [between(0.8, 0.98, r / 4) for r in range(5)]
    first = rounds["cleared"].idxmax()
    assert rounds["posed"].tolist()[: first + 1] == pytest.approx(up[: first + 1], abs=1e-4)
    assert first > 0  # some had to fail, or nothing is tested
    assert rounds["looks"].tolist() == list(range(1, len(rounds) + 1))
    (kept,) = rounds[rounds["kept"]].to_dict("records")
    assert kept["cleared"]
    assert kept["posed"] == rounds[rounds["cleared"]]["posed"].min() < up[first]
    assert raised.posed == {"first": kept["posed"]}
    assert (raised.status, raised.on, raised.looks) == ("cleared", "audit", len(rounds))
    assert result.status == "converged"
    assert result.student is made.student
    assert [result.student.p(r)[0] for r in (0, 1)] == pytest.approx(rows_at(kept["posed"]), abs=1e-3)
    assert result.point.loss == kept["distillation_loss"]
    assert result.trace["distillation_loss"].iloc[-1] == kept["distillation_loss"]
    assert f"Cleared after {len(rounds)} of at most 7 looks at 'audit', each at level 0.98" in result.message
    assert made.constraints[0].at_least == 0.8  # as it was


def test_looks_are_written_down(tmp_path):
    result = trainer().fit(TRAIN, AUDIT, tighten=kd.Tighten(looks=3), run_dir=tmp_path, **QUICK)
    looks = result.tightening.looks
    assert [use.looks for use in result.uses] == [0, looks]
    assert str(result.uses[1]) == f"audit (1500 examples): readings of the trace, {looks} looks to raise thresholds"
    told = json.loads((tmp_path / "verdict.json").read_text())
    assert told["data"][1]["looks"] == told["tightening"]["looks"] == looks
    assert told["tightening"]["status"] == "cleared"
    assert told["tightening"]["posed"] == result.tightening.posed
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "tightening.csv"), result.tightening.rounds)
    with pytest.raises(InvalidInput, match=f"'audit' for readings of the trace, {looks} looks to raise thresholds"):
        kd.certify(result, at_least(0.8), AUDIT)
    trainer().fit(TRAIN, epochs=1, run_dir=tmp_path)
    assert not (tmp_path / "tightening.csv").exists()
    assert "tightening" not in json.loads((tmp_path / "verdict.json").read_text())


def test_a_split_of_its_own_judges_too():
    judge = kd.Split("judge", AUDIT.inputs, AUDIT.labels)
    result = trainer().fit(TRAIN, splits={"judge": judge}, tighten=kd.Tighten(on="judge", looks=3), **QUICK)
    assert result.tightening.status == "cleared"
    assert [(use.name, use.looks > 0) for use in result.uses] == [("train", False), ("judge", True)]


def test_what_cannot_clear_says_so_and_hands_back_the_best():
    result = trainer().fit(TRAIN, AUDIT, tighten=kd.Tighten(looks=3, highest=0.83), **QUICK)
    rounds = result.tightening.rounds
    assert result.status == result.tightening.status == "not_cleared"
    assert not rounds["cleared"].any()
    assert rounds["posed"].tolist() == pytest.approx([0.8, between(0.8, 0.83, 0.5), 0.83], abs=1e-3)
    assert rounds["kept"].tolist() == [False, False, True]
    assert "Not cleared after 3 of at most 4 looks at 'audit'" in result.message
    assert "posed at 0.8300 for the 0.8 asked for" in result.message
    assert "Give the judging split more examples" in result.next_move


def test_too_few_cases_are_told_before_any_look_with_the_number_needed():
    few = mix(12, 6, "audit")
    result = trainer().fit(TRAIN, few, tighten=kd.Tighten(looks=4), **QUICK)
    assert result.status == "not_cleared"
    assert result.tightening.looks == 0
    assert [use.looks for use in result.uses] == [0, 0]
    assert "holds 18 examples of 'first'" in result.message
    assert "It was not looked at" in result.message
    needed = int(result.next_move.split("at least ")[1].split()[0])
    level = kd.Tighten(looks=4).level
    best = [lower_bound(torch.ones(n), at_least(0.8).measure, level)[1] for n in (18, needed - 1, needed)]
    assert best[0] < 0.8
    assert best[1] < 0.8 <= best[2]
    assert result.student.p(1)[0] == pytest.approx(rows_at(0.8)[1], abs=1e-2)  # trained as asked


def test_what_training_exceeds_by_itself_costs_one_look():
    """Unconstrained, 0.78: the rung after the first lies above it, not between."""
    result = trainer(at_least(0.7)).fit(TRAIN, AUDIT, tighten=kd.Tighten(looks=3, back=0), **QUICK)
    posed = result.tightening.rounds["posed"].tolist()
    assert posed[0] == 0.7
    assert posed[1] > 0.78


def test_several_rise_together_and_all_must_clear():
    two = (at_least(0.6, name="easy", contexts=[0]), at_least(0.6, name="hard", contexts=[1]))
    split = [kd.Split(s.name, s.inputs, s.labels, context=s.inputs[:, 0].long()) for s in (TRAIN, AUDIT)]
    result = trainer(*two).fit(*split, tighten=kd.Tighten(looks=3, back=0, constraints=["hard"]), **QUICK)
    assert set(result.tightening.rounds["constraint"]) == {"hard"}
    both = trainer(*two).fit(*split, tighten=kd.Tighten(looks=3, back=0), **QUICK)
    by_round = both.tightening.rounds.groupby("round")["cleared"].agg(list)
    assert by_round.iloc[0] == [True, False]  # 0.9 of the easy ones was never in doubt
    assert by_round.iloc[-1] == [True, True]
    assert set(both.tightening.posed) == {"easy", "hard"}


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
        AUDIT,
        epochs=10,
        trace_every=10,
        tighten=kd.Tighten(looks=3),
        on_trace=lambda point: rates.append(optimizer.param_groups[0]["lr"]) if point.step == 0 else None,
    )
    assert len(rates) == result.tightening.rounds["round"].max() > 1
    assert rates == [1.0] * len(rates)


def test_a_diverged_round_is_not_looked_at():
    made = trainer()
    with torch.no_grad():
        made.student.logits[0, 0] = float("nan")
    result = made.fit(TRAIN, AUDIT, tighten=kd.Tighten(looks=3), **QUICK)
    assert result.status == "diverged"
    assert result.tightening.status == "not_cleared"
    assert result.tightening.looks == 0
    assert len(result.tightening.rounds) == 1


def test_teachers_measured_on_the_judging_split_are_a_doubt_that_is_told():
    ensemble = kd.teachers.TeacherEnsemble([ByRow()])
    evidence = kd.teachers.measure(ensemble, AUDIT, at_least(0.8).measure)
    result = trainer(at_least(0.7), evidence=evidence).fit(TRAIN, AUDIT, tighten=kd.Tighten(looks=3), **QUICK)
    assert "The teachers were measured on that split, so its bound is no guarantee." in result.message
    assert "measuring the teachers" in str(result.uses[1])


# ---- cross-fitting ----


def noisy(seed: int = 0, size: int = 60) -> tuple[kd.Split, list[StoredTeacher]]:
    """Few cases and many inputs, so that students overfit; teachers say their stored rows."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (size,), generator=draw)
    inputs = torch.randn(size, 8, generator=draw, dtype=torch.float64)
    inputs[:, 0] += 1.5 * (1 - 2 * labels)
    truth = torch.nn.functional.one_hot(labels, 2).double()
    return kd.Split("train", inputs, labels), [StoredTeacher("s", 0.25 + 0.5 * truth)]


def fresh(teachers: list[StoredTeacher], s: float) -> kd.ConstrainedTrainer:
    torch.manual_seed(1)
    student = torch.nn.Linear(8, 2).double()
    return trainer_for(at_least(s), student=student, teachers=teachers, lr=0.3)


def test_out_of_fold_is_what_students_show_that_never_saw_the_fold():
    """Every fold again, by a trainer of its own, on what is left without it."""
    from safekd.trainer._crossfit import folds

    train, teachers = noisy()
    rule = kd.CrossFit(folds=3, rounds=1)
    result = fresh(teachers, 0.8).fit(train, epochs=70, trace_every=35, tighten=rule)
    fold_N, values = folds(train, 3, 0), []
    for k in range(3):
        alone = fresh(teachers, 0.8).fit(train.part(torch.arange(60)[fold_N != k]), epochs=70, trace_every=35)
        out = train.part(torch.arange(60)[fold_N == k])
        p = torch.softmax(alone.student(out.inputs), -1)[:, 0]
        values.append(p[out.labels == 0].detach())
    (row,) = result.tightening.rounds.to_dict("records")
    assert row["judged"] == pytest.approx(float(torch.cat(values).mean()), abs=1e-12)
    assert row["cases"] == int((train.labels == 0).sum())
    assert row["judged"] < 0.79 < row["measured"]  # overfitted: this is the gap that a constraint does not see


def test_thresholds_rise_until_out_of_fold_clears_and_the_student_is_trained_on_everything():
    train, teachers = noisy()
    rows = []
    rule = kd.CrossFit(folds=3, rounds=5, excess=0.01)
    result = fresh(teachers, 0.8).fit(train, epochs=70, trace_every=35, tighten=rule, on_round=rows.append)
    raised = result.tightening
    (kept,) = raised.rounds[raised.rounds["kept"]].to_dict("records")
    assert (raised.status, raised.on, raised.looks) == ("cleared", "crossfit", 0)
    assert kept["judged"] >= 0.8
    assert kept["posed"] == raised.rounds[raised.rounds["cleared"]]["posed"].min() > 0.8
    assert len(rows) == len(raised.rounds) <= 5
    assert raised.rounds["lower_bound"].isna().all()
    alone = fresh(teachers, kept["posed"]).fit(train, epochs=70, trace_every=35)
    assert same(state(result.student), state(alone.student))  # begun afresh, not where a fold ended
    assert "An average, not a bound." in result.message
    assert f"cross-fitting, 3 folds x {len(rows)} rounds" in str(result.uses[0])


def test_cross_fitting_that_cannot_clear_says_so():
    train, teachers = noisy()
    result = fresh(teachers, 0.8).fit(
        train, epochs=40, trace_every=20, tighten=kd.CrossFit(folds=2, rounds=4, highest=0.801)
    )
    assert result.status == "not_cleared"
    assert result.tightening.rounds["posed"].tolist() == pytest.approx([0.8, 0.801])  # no higher one is allowed
    assert "Raise `highest`" in result.next_move


def test_folds_are_even_in_every_class_and_each_example_is_in_one():
    from safekd.trainer._crossfit import folds

    labels = torch.tensor([0] * 20 + [1] * 7 + [2] * 3)
    train = kd.Split("train", torch.zeros(30, 1), labels)
    fold_N = folds(train, 3, 0)
    assert torch.bincount(fold_N).tolist() == [10, 10, 10]
    for c in range(3):
        counts = torch.bincount(fold_N[labels == c], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert not torch.equal(fold_N, folds(train, 3, 1))
    assert torch.bincount(folds(kd.Split("t", torch.zeros(8, 5), torch.zeros(8, 5).long()), 4, 0)).tolist() == [2] * 4


# ---- what is refused ----

REFUSED = {
    "no such split": (kd.Tighten(on="judge"), {}, "split 'judge' shows .* not given; there is \\['train', 'audit'\\]"),
    "the training split": (kd.Tighten(on="train"), {}, "the training split cannot judge"),
    "posed there": (kd.Tighten(), {"split": "audit"}, "'first' is posed on split 'audit', which is also to judge"),
    "no such constraint": (kd.Tighten(constraints=["x"]), {}, r"no constraint 'x' to tighten; there is \['first'\]"),
    "no room": (kd.Tighten(highest=0.8), {}, "asks for 0.8, and `highest` is 0.8; wanted 0.8 < highest < 1"),
    "all of it": (kd.Tighten(highest=1.0), {}, "`highest` is 1; wanted 0.8 < highest < 1"),
    "nobody covered": (kd.Tighten(), {"contexts": [0]}, "No example of 'audit' is covered by 'first'"),
    "cross-fitted elsewhere": (kd.CrossFit(), {"split": "audit"}, "posed on split 'audit'; only one posed on 'train'"),
    "more folds than cases": (kd.CrossFit(folds=11), {}, "10 examples cannot make 11 folds"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    tighten, changed, message = REFUSED[case]
    train = kd.Split("train", TRAIN.inputs, TRAIN.labels, context=torch.zeros(10, dtype=torch.long))
    audit = kd.Split("audit", AUDIT.inputs, AUDIT.labels, context=torch.ones(1500, dtype=torch.long))
    with pytest.raises(InvalidInput, match=message):
        trainer(at_least(0.8, **changed)).fit(train, audit, tighten=tighten, **QUICK)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kd.Tighten(confidence=1.0), "`confidence` is 1.0"),
        (lambda: kd.Tighten(looks=0), "`looks` is 0, `back` is 1; wanted at least 1 look"),
        (lambda: kd.Tighten(back=-1), "`back` is -1"),
        (lambda: kd.CrossFit(folds=1), "`folds` is 1, .*wanted at least 2 folds"),
        (lambda: kd.CrossFit(rounds=0), "`rounds` is 0"),
        (lambda: kd.CrossFit(excess=float("nan")), "`excess` is nan"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()


def test_without_a_constraint_there_is_nothing_to_raise():
    with pytest.raises(InvalidInput, match="no constraint to tighten; give the trainer at least one"):
        trainer_for().fit(one_each(), one_each(name="audit"), epochs=5, tighten=kd.Tighten())


def test_a_sweep_does_not_tighten_and_says_what_its_data_were_used_for():
    make = lambda s: trainer_for(at_least(s), teachers=agreeing())  # noqa: E731
    with pytest.raises(InvalidInput, match="every target would look at the same data again"):
        kd.trace_frontier(make, one_each(), targets=[0.5, 0.6], epochs=5, tighten=kd.CrossFit())
    frontier = kd.trace_frontier(make, one_each(), targets=[0.5, 0.6], epochs=50)
    (use,) = frontier.meta["data"]
    assert (use["split"], use["roles"]) == ("train", ["gradient steps", "constraint 'first'"])


def test_a_fold_that_diverges_ends_the_search_with_what_was_found_before():
    train, teachers = noisy()
    made = fresh(teachers, 0.8)
    made.optimizer = torch.optim.SGD(made.student.parameters(), lr=0.3)
    before = made.optimizer.step
    steps = [0]

    def step(*args, **kwargs):
        before(*args, **kwargs)
        steps[0] += 1
        if steps[0] == 20:  # in the second round
            with torch.no_grad():
                made.student.bias.fill_(float("nan"))

    made.optimizer.step = step
    tighten = kd.CrossFit(folds=2, rounds=3)
    result = made.fit(train, epochs=8, trace_every=8, tighten=tighten)
    rounds = result.tightening.rounds
    assert "diverged" in rounds["status"].iloc[-1]
    assert len(rounds) == 2
    assert rounds["kept"].tolist() == [True, False]
    assert result.status == "not_cleared"
    assert torch.isfinite(result.student.bias).all()  # the one handed back was trained afresh
