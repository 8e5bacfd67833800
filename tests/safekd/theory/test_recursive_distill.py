"""Generations of students on digits, with scikit-learn's teachers: anchored ones come to rest, others drift."""

from __future__ import annotations

import math
from itertools import pairwise

import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import safekd as kd
from safekd.errors import InvalidInput
from safekd.safety import TruthProbability, evaluate_groups
from safekd.teachers import SklearnTeacher, TorchTeacher
from safekd.weights import GradientMinNorm

RULE = kd.SafetyConstraint("eights", TruthProbability(critical=[8]), at_least=0.9)


def make_student():
    return nn.Linear(64, 10)


def make_optimizer(student):
    return torch.optim.Adam(student.parameters(), lr=0.05)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    x = x / 16
    teachers = [
        SklearnTeacher("regression", LogisticRegression(max_iter=500).fit(x[600:], y[600:]), 10),
        SklearnTeacher("neighbors", KNeighborsClassifier(5).fit(x[600:], y[600:]), 10),
    ]
    train = kd.Split("digits", torch.tensor(x[:400], dtype=torch.float32), torch.tensor(y[:400]))
    held = kd.Split("held", torch.tensor(x[400:600], dtype=torch.float32), torch.tensor(y[400:600]))
    return teachers, train, held


def recurse(digits, **more):
    teachers, train, held = digits
    options = {"epochs": 100, "generations": 7, "fixed_point": 0.0, "optimizer": make_optimizer}
    return kd.recursive_distill(make_student, teachers, train, held, **{**options, **more})


@pytest.fixture(scope="module")
def anchored(digits):
    return recurse(digits, anchor=0.4, constraints=[RULE])


@pytest.fixture(scope="module")
def unanchored(digits):
    return recurse(digits, anchor=0.0, constraints=[RULE])


def test_anchored_students_contract_and_the_band_leaves_out_one(anchored):
    assert anchored.ending == "contracting"
    low, high = anchored.contraction.factor_band
    assert low < anchored.contraction.factor < high < 1
    assert anchored.contraction.factor < 0.7
    assert "contracting" in str(anchored)


def test_unanchored_students_drift_away_from_the_base_teachers(anchored, unanchored):
    assert unanchored.ending == "drifting"
    assert unanchored.growth.low > 0
    paths = [[one.kl_to_anchor for one in run.generations] for run in (anchored, unanchored)]
    assert paths[0][0] == paths[1][0]  # both begin with the base teachers
    assert all(later > before for before, later in pairwise(paths[1]))
    assert paths[1][-1] - paths[1][0] > 2 * (paths[0][-1] - paths[0][0])


def test_every_generation_keeps_the_constraint(anchored, unanchored, digits):
    for run in (anchored, unanchored):
        assert run.safe
        assert all(one.safety["eights"] >= 0.9 - 1e-3 for one in run.generations)
    read = float(evaluate_groups(anchored.student, RULE, digits[1])[0].mean)
    assert read == pytest.approx(anchored.generations[-1].safety["eights"], abs=1e-6)


def test_the_divergence_in_the_table_is_that_of_the_pool(anchored, digits):
    teachers, train, held = digits
    for split, name in ((train, "kl_to_anchor"), (held, "kl_to_anchor_validation")):
        p = sum(torch.as_tensor(t.classifier.predict_proba(split.inputs.double().numpy())) for t in teachers) / 2
        p = p.clamp_min(1e-6 / 2)  # teachers are let fall to 1e-6 and no further
        q = torch.log_softmax(anchored.student(split.inputs).double(), -1).detach()
        divergence = float((p * (p.log() - q)).sum(-1).mean())
        assert anchored.table[name].iloc[-1] == pytest.approx(divergence, rel=1e-3)


def test_it_stops_where_students_come_to_rest(digits):
    run = recurse(digits, anchor=0.5, fixed_point=5e-3, epochs=60)
    assert run.ending == "fixed_point"
    assert len(run.generations) < 7
    assert run.generations[-1].moved <= 5e-3 < run.generations[-2].moved or len(run.generations) == 2


def test_a_full_anchor_repeats_the_first_student(digits):
    run = recurse(digits, anchor=1.0, generations=3, epochs=20, fixed_point=1e-12)
    assert len(run.generations) == 2
    assert run.generations[1].moved <= 1e-12


@pytest.mark.parametrize("form", ["arithmetic", "geometric"])
def test_both_forms_and_shares_that_change_are_taken(digits, form):
    run = recurse(digits, anchor=[1.0, 0.5, 0.25], generations=3, epochs=15, form=form)
    assert run.form == form
    assert tuple(run.anchors) == (1.0, 0.5, 0.25)


def test_a_rule_of_the_base_teachers_changes_the_anchor(digits):
    one = recurse(
        digits, generations=1, epochs=5, trainer={"weights": lambda s: torch.tensor([1.0, 0.0]).expand(s.shape)}
    )
    both = recurse(digits, generations=1, epochs=5)
    assert one.generations[0].kl_to_anchor != both.generations[0].kl_to_anchor


# --------------------------------------------------------------------------------------------------- folders and files


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def count_fits(monkeypatch):
    fits, fit = [], kd.ConstrainedTrainer.fit

    def counted(self, *args, **more):
        fits.append(1)
        return fit(self, *args, **more)

    monkeypatch.setattr(kd.ConstrainedTrainer, "fit", counted)
    return fits


def test_a_recursion_goes_on_where_it_stopped_and_ends_as_if_it_never_had(digits, tmp_path, monkeypatch):
    short = {"anchor": 0.4, "epochs": 12, "constraints": [RULE]}
    whole = recurse(digits, generations=4, **short)
    recurse(digits, generations=2, run_dir=tmp_path, **short)
    fits = count_fits(monkeypatch)
    longer = recurse(digits, generations=4, run_dir=tmp_path, **short)
    assert len(fits) == 2
    assert same(whole.student, longer.student)
    pd.testing.assert_frame_equal(whole.table, longer.table)
    assert len(pd.read_csv(tmp_path / "recursion.csv")) == 4
    assert recurse(digits, generations=4, run_dir=tmp_path, **short).student is not None
    assert len(fits) == 2


def test_a_generation_that_is_interrupted_goes_on_within_it(digits, tmp_path):
    short = {"anchor": 0.4, "epochs": 12, "generations": 3, "trace_every": 3}
    whole = recurse(digits, **short)

    def interrupt(point):
        if point.step == 6 and (tmp_path / "generation-001").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recurse(digits, run_dir=tmp_path, checkpoint_every=3, on_trace=interrupt, **short)
    again = recurse(digits, run_dir=tmp_path, checkpoint_every=3, resume="must", on_trace=lambda _: None, **short)
    assert same(whole.student, again.student)


def test_a_damaged_generation_is_trained_again_with_those_after_it(digits, tmp_path, monkeypatch):
    short = {"anchor": 0.4, "epochs": 8, "generations": 3}
    first = recurse(digits, run_dir=tmp_path, **short)
    file = tmp_path / "generation-001" / "student.safetensors"
    file.write_bytes(file.read_bytes()[:-8] + b"damaged!")
    fits = count_fits(monkeypatch)
    again = recurse(digits, run_dir=tmp_path, **short)
    assert len(fits) == 2
    assert same(first.student, again.student)


def test_another_recursion_is_refused_by_what_differs(digits, tmp_path):
    recurse(digits, anchor=0.4, epochs=3, generations=1, run_dir=tmp_path)
    with pytest.raises(InvalidInput, match=r"another recursion.*anchor"):
        recurse(digits, anchor=0.2, epochs=3, generations=1, run_dir=tmp_path)
    with pytest.raises(InvalidInput, match="constraints"):
        recurse(digits, anchor=0.4, epochs=3, generations=1, run_dir=tmp_path, constraints=[RULE])
    assert recurse(digits, anchor=0.2, epochs=3, generations=1, run_dir=tmp_path, resume="never").folder == tmp_path
    with pytest.raises(InvalidInput, match="no recursion to go on with"):
        recurse(digits, epochs=3, generations=1, run_dir=tmp_path / "other", resume="must")


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_recursion_is_drawn(anchored, unanchored, tmp_path, ending):
    anchored.plot(tmp_path / f"one.{ending}")
    both = {"anchored": anchored.table, "unanchored": unanchored.table}
    kd.theory.draw_generations(both, tmp_path / f"both.{ending}")
    assert (tmp_path / f"one.{ending}").stat().st_size > 1000
    with pytest.raises(InvalidInput, match=r"Choose a name that ends in \.png"):
        anchored.plot(tmp_path / "one.picture")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"anchor": 1.5}, "`anchor` is 1.5"),
        ({"anchor": [0.5, 0.5]}, "2 shares for 7 generations"),
        ({"generations": 0}, "`generations` is 0"),
        ({"form": "harmonic"}, "'harmonic'; wanted 'arithmetic' or 'geometric'"),
        ({"fixed_point": -1}, "`fixed_point` is -1"),
        ({"warm_start": None}, "`warm_start` .* the recursion decides"),
        ({"epoch": 3}, "`epoch` .* check the spelling"),
        ({"trainer": {"weights": GradientMinNorm()}}, "their pool moves"),
        ({"trainer": {"batchsize": 3}}, "`batchsize` .*in `trainer`.* check the spelling"),
        ({"trainer": {"constraints": []}}, "`constraints` .* the recursion decides"),
        ({"optimizer": 3}, "`optimizer` is a int; wanted a function from a student"),
        ({"resume": "perhaps", "run_dir": "x"}, "`resume` is 'perhaps'"),
    ],
)
def test_what_does_not_fit_is_refused(digits, more, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=text):
        recurse(digits, **more)


def test_a_student_in_place_of_a_factory_is_refused(digits):
    teachers, train, _ = digits
    with pytest.raises(InvalidInput, match="wanted a function that makes a new student"):
        kd.recursive_distill(3, teachers, train)
    with pytest.raises(InvalidInput, match="gives a int; wanted a torch module"):
        kd.recursive_distill(lambda: 3, teachers, train)
    moving = TorchTeacher("moving", nn.Linear(64, 10), moving=True)
    with pytest.raises(InvalidInput, match="moving=True"):
        kd.recursive_distill(make_student, [moving], train, epochs=1)


def test_thresholds_that_no_student_meets_are_told_of(digits):
    rule = kd.SafetyConstraint("all", TruthProbability(), at_least=0.9999)
    run = recurse(digits, generations=2, epochs=10, constraints=[rule])
    assert not run.safe
    assert "0 of 2 meet every constraint" in str(run)


def test_positions_that_do_not_count_change_nothing():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(20, 4, 3, generator=g), torch.randint(0, 5, (20, 4), generator=g)
    y[:, 3] = -100
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        teachers = [TorchTeacher(f"t{k}", nn.Linear(3, 5)) for k in range(2)]
    runs = []
    for last in (0.0, 100.0):
        x[:, 3] = last
        made = {"generations": 3, "epochs": 10, "fixed_point": 0.0}
        runs.append(kd.recursive_distill(lambda: nn.Linear(3, 5), teachers, kd.Split("train", x.clone(), y), **made))
    pd.testing.assert_frame_equal(runs[0].table, runs[1].table)


def test_generation_0_has_moved_from_nowhere(anchored):
    assert math.isnan(anchored.generations[0].moved)
    assert anchored.table["number"].tolist() == list(range(7))
    moved = [one.moved for one in anchored.generations]
    factors = [later / before for before, later in pairwise(moved[1:])]
    assert anchored.table["factor"].tolist()[2:] == pytest.approx(factors)
