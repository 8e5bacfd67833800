"""How a run ends, and which students it keeps: verdicts against closed forms."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import safekd as kd
from safekd.safety import Recall, TruthProbability
from safekd.teachers import StoredTeacher
from safekd.training.diagnosis import bound_feasibility
from tests.support.problems import (
    FreeLogits,
    Q,
    agreeing,
    at_least,
    one_each,
    optimal_multiplier,
    same,
    state,
    trainer_for,
)


def test_too_few_steps_are_told():
    result = trainer_for(at_least(0.6), lr=0.001).fit(one_each(), epochs=5)
    assert result.status == "budget_spent"
    assert "a constraint is still violated" in result.message
    assert "Train longer" in result.next_move
    assert not result.feasible


def test_contradictory_requirements_are_infeasible_with_evidence():
    """One distribution cannot give .9 to each of two classes; the least violation is (.5, .5)."""
    rules = at_least(0.9, "zero"), at_least(0.9, "one", critical=1)
    result = trainer_for(*rules, lr=0.1).fit(one_each(), epochs=2000)
    assert result.status == "infeasible", result.message
    assert "No student of any size meets these thresholds" in result.message
    assert "0.5 'zero' + 0.5 'one' can be at most 0.5, and 0.9 is asked for" in result.message
    assert "some constraint stays 0.4 or more below its threshold" in result.message
    assert "Best safety reached: zero 0.5, one 0.5" in result.message
    assert "Lower 'zero' to 0.4" in result.next_move
    assert result.verdict.evidence["farkas"] == pytest.approx([0.5, 0.5], abs=1e-6)
    assert result.verdict.evidence["least_violation"] == pytest.approx(0.4, abs=1e-6)
    assert result.best_feasible is None
    assert result.most_feasible.p()[:2] == pytest.approx([0.5, 0.5], abs=0.001)
    assert result.most_feasible.p()[:2] == pytest.approx(result.verdict.evidence["best_safety"], abs=1e-12)
    assert result.point.step < 2000  # it stops once nobody could do better


def test_a_cap_that_binds_is_named():
    result = trainer_for(at_least(0.6), dual=kd.AugmentedLagrangian(cap=0.1)).fit(one_each(), epochs=500)
    assert result.status == "cap_active"
    assert "The multiplier of first stands at its cap" in result.message
    assert result.multipliers == {"first": 0.1}
    enough = trainer_for(at_least(0.6), dual=kd.AugmentedLagrangian(cap=10.0)).fit(one_each(), epochs=500)
    assert enough.status == "converged"


def test_a_growing_multiplier_alone_is_not_infeasible():
    """So slow a student that its multiplier outgrows the optimal one long before it gets there."""
    hasty = kd.AugmentedLagrangian(rho=10.0)  # by hand: by itself it waits for the student
    result = trainer_for(at_least(0.6), lr=1e-4, dual=hasty).fit(one_each(), epochs=200)
    assert (result.trace["lambda_first"].diff().dropna() > 0).all()
    assert result.multipliers["first"] > 10 * optimal_multiplier(0.6)
    assert not result.feasible
    assert result.status == "budget_spent"


def test_a_constraint_without_a_multiplier_is_not_called_infeasible():
    """p_0 >= 1 is met in the limit only; its multiplier diverges while the violation still falls."""
    result = trainer_for(at_least(1.0)).fit(one_each(), epochs=500)
    assert result.status == "no_multiplier"
    assert "only with probabilities of exactly 0" in result.message
    assert "Lower the threshold a little" in result.next_move
    assert result.verdict.evidence["boundary"] == ["first"]
    assert result.trace["violation_first"].iloc[-1] < 0.1


def test_a_threshold_that_leaves_no_room_can_still_have_a_multiplier():
    """(.6, .4) is all that meets both, and an ordinary distribution."""
    rules = at_least(0.6, "zero"), at_least(0.4, "one", critical=1)
    student = FreeLogits(classes=2)
    result = trainer_for(*rules, student=student, teachers=agreeing([0.5, 0.5], 2)).fit(one_each(2), epochs=1000)
    assert result.status == "converged"
    assert student.p() == pytest.approx([0.6, 0.4], abs=2e-3)


def test_results_in_the_corner_do_not_pass_for_unable():
    """Sure of a wrong class, the student has no gradient left; what it lacks is a way out, not the ability."""
    student = FreeLogits()
    with torch.no_grad():
        student.logits[0] = torch.tensor([-40.0, 40.0, 0.0])
    result = trainer_for(at_least(0.6), student=student, lr=0.1).fit(one_each(), epochs=60)
    assert result.status == "budget_spent"
    assert "A student that meets them exists" in result.message
    assert result.most_feasible.p()[0] >= 0.6 - 1e-3
    assert result.best_feasible is None  # no iterate of the run met it
    assert student.p()[0] < 1e-3  # the final student is what training left
    deaf = FreeLogits(dtype=torch.float32)
    with torch.no_grad():
        deaf.logits[0] = torch.tensor([-200.0, 200.0, 0.0])
    result = trainer_for(at_least(0.6), student=deaf, lr=0.1).fit(one_each(), epochs=60)
    assert result.status == "budget_spent"
    assert "100% of the examples have lost all gradient to a wrong class" in result.message


class Shy(FreeLogits):
    """Free logits within a bound: two of them cannot be further apart than twice that."""

    def __init__(self, bound: float) -> None:
        super().__init__(classes=2)
        self.bound = bound

    def forward(self, inputs):
        return self.bound * torch.tanh(super().forward(inputs))


def test_a_student_too_small_has_local_evidence_and_a_larger_one_meets_the_same():
    """Logits within +-1 give at most 1 / (1 + e^-2) = 0.8808."""
    teachers, most = agreeing([0.5, 0.5], 2), 1 / (1 + math.exp(-2))

    def fitted(bound, lr, epochs):
        trainer = trainer_for(at_least(0.95), student=Shy(bound), teachers=teachers, lr=lr)
        return trainer.fit(one_each(2), epochs=epochs)

    result = fitted(1.0, lr=0.5, epochs=1000)
    assert result.status == "infeasible", result.message
    assert "'first' stays 0.0692 below its threshold 0.95" in result.message
    assert "This evidence is local: students near this one cannot, others may" in result.message
    assert "Lower 'first' to 0.8807" in result.next_move
    assert "more capacity or better inputs" in result.next_move
    assert result.verdict.evidence["proof"] == "local"
    assert result.verdict.evidence["violation_gradient_norm"] < 1e-3
    assert result.verdict.evidence["best_safety"] == pytest.approx([most], abs=1e-4)
    logits = result.most_feasible(torch.zeros(1, 1))
    assert torch.softmax(logits, -1)[0, 0].item() == pytest.approx(most, abs=1e-4)
    assert fitted(4.0, lr=0.1, epochs=1500).feasible


def xor() -> tuple[kd.Split, list[StoredTeacher]]:
    inputs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    labels = torch.tensor([0, 1, 1, 0])
    says = torch.where(labels[:, None] == torch.arange(2), 0.9, 0.1).double()
    return kd.Split("train", inputs, labels), [StoredTeacher("t", says)]


@pytest.mark.parametrize(("zeros", "rules"), [("both", []), ("first", []), ("both", [at_least(0.8)])])
def test_a_saddle_is_not_called_converged(zeros, rules):
    """Layers of zeros have no gradient on symmetric data, and learn nothing for ever."""
    data, teachers = xor()
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    with torch.no_grad():
        for layer in [student[0]] + [student[2]] * (zeros == "both"):
            layer.weight.zero_()
            layer.bias.zero_()
    before = state(student)
    result = trainer_for(*rules, student=student, teachers=teachers).fit(data, epochs=1000)
    assert result.status == "stationary_unverified", result.message
    assert result.residuals.holds(1e-3)
    if zeros == "both":
        assert "no output depends on 0.weight, 0.bias, 2.weight" in result.message
        assert result.verdict.evidence["decrease_after_perturbation"] > 0.1
    else:
        assert "curves down" in result.message or "depends on 0.weight" in result.message
    assert torch.allclose(before["0.weight"], student[0].weight, atol=1e-12)  # looking round left it where it was
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    assert trainer_for(*rules, student=student, teachers=teachers).fit(data, epochs=300).status == "converged"


class _Once(torch.autograd.Function):
    """Tanh with a first derivative only."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (1 - x.tanh() ** 2)


class Stubborn(nn.Module):
    """A small net that cannot be differentiated twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 8).double(), nn.Linear(8, 2).double()

    def forward(self, inputs):
        return self.last(_Once.apply(self.first(inputs)))


def test_curvature_is_read_by_differences_where_nothing_else_can():
    torch.manual_seed(0)
    data, teachers = xor()
    student = Stubborn()
    with torch.no_grad():
        student.first.weight.zero_()
        student.first.bias.zero_()
    same_as = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    same_as.load_state_dict(dict(zip(same_as.state_dict(), student.state_dict().values(), strict=True)))
    one, two = (trainer_for(student=s, teachers=teachers).fit(data, epochs=200) for s in (student, same_as))
    assert one.status == two.status == "stationary_unverified"
    for what in ("least_curvature", "largest_curvature"):
        assert one.verdict.evidence[what] == pytest.approx(two.verdict.evidence[what], rel=1e-4)


def test_curvature_is_that_of_the_whole_hessian():
    """Along the active constraint of FreeLogits, against autograd's own second derivatives."""
    trainer = trainer_for(at_least(0.6))
    result = trainer.fit(one_each(), epochs=500)
    q, price_ = torch.tensor(Q, dtype=torch.float64), result.multipliers["first"]

    def lagrangian(z):
        log_p = torch.log_softmax(z, -1)
        return (q * (q.log() - log_p)).sum() + price_ * (0.6 - log_p[0].exp())

    z = result.student.logits.detach()[0]
    hessian = torch.autograd.functional.hessian(lagrangian, z)
    p = torch.softmax(z, -1)
    normal = p[0] * (torch.eye(3).double()[0] - p)
    along = torch.eye(3).double() - torch.outer(normal, normal) / (normal @ normal)
    values = torch.linalg.eigvalsh(along @ hessian @ along)
    assert result.verdict.evidence["largest_curvature"] == pytest.approx(float(values[-1]), rel=1e-6)
    assert result.verdict.evidence["least_curvature"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("asked", "reached"), [(0.75, 0.8), (0.8, 0.8), (0.95, 1.0), (1.0, 1.0)])
def test_recall_between_two_counts_rests_on_the_upper_one(asked, reached):
    """Of ten examples, 0.75 is 0.8: there the multiplier rests, and the run converges."""
    draw = torch.Generator().manual_seed(3)
    inputs, labels = torch.randn(20, 3, generator=draw).double(), torch.arange(20) % 2
    inputs[:, 0] += 2 * labels - 1.0
    gradients, offset = (
        torch.tensor([[-0.5, 0.5], [0.0, 0.0], [0.2, -0.2]]).double(),
        torch.tensor([1.0, -1.0]).double(),
    )
    teachers = [StoredTeacher("t", torch.softmax(inputs @ gradients + offset, -1))]
    rule = kd.SafetyConstraint("recall", Recall(critical=[1]), asked)
    torch.manual_seed(0)
    student = nn.Linear(3, 2).double()
    result = trainer_for(rule, student=student, teachers=teachers, lr=0.2).fit(
        kd.Split("train", inputs, labels), epochs=1000
    )
    assert result.status == "converged", result.message
    assert result.point.readings[0].measured == reached
    assert result.point.readings[0].required == asked
    assert result.multipliers["recall"] > 0
    assert result.residuals.complementarity <= 1e-3


def test_two_recalls_of_one_input_conflict():
    """One input is given one class; half of each label is the most."""
    data = kd.Split("train", torch.zeros(4, 1), torch.tensor([0, 0, 1, 1]))
    rules = [kd.SafetyConstraint(f"recall {k}", Recall(critical=[k]), 0.8) for k in (0, 1)]
    result = trainer_for(*rules, student=FreeLogits(2), teachers=agreeing([0.5, 0.5], 4)).fit(data, epochs=100)
    assert result.status == "infeasible"
    assert result.verdict.evidence["proof"] == "farkas"
    assert result.verdict.evidence["least_violation"] == pytest.approx(0.5, abs=1e-6)  # 0.8 of two is 2 of 2


def test_a_measure_that_wrongly_calls_itself_concave_gives_no_proof():
    """The square of p_0 lies above its tangents: near 0 they would forbid what is easy."""

    class Squared(TruthProbability):
        def _measured(self, log_p_V, labels):
            return super()._measured(log_p_V, labels) ** 2

    student, rules = FreeLogits(), [kd.SafetyConstraint("squared", Squared(critical=[0]), 0.5)]
    with torch.no_grad():
        student.logits[0, 0] = -2.0
    assert bound_feasibility(trainer_for(*rules, student=student).objective, {"train": one_each()}, rules) is None
    fine = [at_least(0.5)]
    bound = bound_feasibility(trainer_for(*fine, student=student).objective, {"train": one_each()}, fine)
    assert bound.least == pytest.approx(-0.5, abs=1e-7)


def test_a_concave_measure_that_is_not_linear_is_bounded_by_its_tangents():
    """The root of p: two classes can have sqrt(1/2) each, and no student more of both."""

    class Root(TruthProbability):
        def _measured(self, log_p_V, labels):
            return super()._measured(log_p_V, labels) ** 0.5

    rules = [kd.SafetyConstraint(f"{k}", Root(critical=[k]), 0.8) for k in (0, 1)]
    student = FreeLogits()
    with torch.no_grad():
        student.logits[0] = torch.tensor([20.0, 20.0, 0.0])
    bound = bound_feasibility(trainer_for(*rules, student=student).objective, {"train": one_each()}, rules)
    assert bound.infeasible
    assert bound.least == pytest.approx(0.8 - 0.5**0.5, abs=1e-4)
    with torch.no_grad():
        student.logits[0] = torch.tensor([3.0, -1.0, 0.0])
    elsewhere = bound_feasibility(trainer_for(*rules, student=student).objective, {"train": one_each()}, rules)
    assert elsewhere.least <= bound.least + 1e-9  # tangents elsewhere prove less, never more


def test_different_inputs_do_not_conflict():
    """What one distribution cannot give to both, two can."""
    rules = at_least(0.9, "zero"), at_least(0.9, "one", critical=1)
    apart = kd.Split("train", torch.arange(3.0)[:, None], torch.arange(3))
    student = FreeLogits(rows=3)
    alike, other = (
        bound_feasibility(trainer_for(*rules, student=student).objective, {"train": data}, rules)
        for data in (one_each(), apart)
    )
    assert alike.least == pytest.approx(0.4, abs=1e-7)
    assert other.least == pytest.approx(-0.1, abs=1e-7)


def test_evidence_is_written_beside_the_verdict(tmp_path):
    rules = at_least(0.9, "zero"), at_least(0.9, "one", critical=1)
    result = trainer_for(*rules).fit(one_each(), epochs=50, run_dir=tmp_path)
    written = json.loads((tmp_path / "verdict.json").read_text())
    assert written["status"] == "infeasible"
    assert written["evidence"] == result.verdict.evidence
    assert written["evidence"]["farkas"] == pytest.approx([0.5, 0.5], abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_a_converged_verdict_survives_an_independent_check(seed):
    """Random problems, random budgets: whoever is called converged meets every threshold and is stationary."""
    draw = torch.Generator().manual_seed(seed)
    q = torch.softmax(torch.randn(3, generator=draw, dtype=torch.float64), -1)
    s = 0.2 + 0.7 * torch.rand(2, generator=draw).double()
    rules = at_least(float(s[0]), "zero"), at_least(float(s[1]), "one", critical=1)
    result = trainer_for(*rules, teachers=agreeing(q.tolist()), lr=0.2).fit(one_each(), epochs=(100, 1000)[seed % 2])
    p = torch.softmax(result.student.logits.detach()[0], -1)
    possible = bool(s.sum() < 1)
    met = bool(p[0] >= s[0] - 1e-3) and bool(p[1] >= s[1] - 1e-3)
    assert result.feasible == met
    if result.status == "converged":
        assert possible
        assert met
        price_V = torch.tensor([*result.multipliers.values(), 0.0]).double()
        gain_V = q / p + price_V  # d(-L)/dp_k; at a KKT point alike for every class
        assert float((p * (gain_V - (p * gain_V).sum())).norm()) < 2e-3
    assert result.status != "infeasible" or not possible


def test_best_feasible_and_most_feasible_are_the_evaluated_ones():
    students, points = [], []
    trainer = trainer_for(at_least(0.6), lr=1.0, dual=kd.AugmentedLagrangian(rho=30.0))

    def remember(point):
        points.append(point)
        students.append(state(trainer.student))

    result = trainer.fit(one_each(), epochs=40, trace_every=1, tolerance=1e-12, on_trace=remember)
    violations = [point.readings[0].violation for point in points]
    assert any(v > 1e-3 for v in violations)
    feasible = [i for i, v in enumerate(violations) if v <= 1e-3]
    best = min(feasible, key=lambda i: points[i].loss)
    assert best != len(points) - 1  # the test means something
    assert same(state(result.best_feasible), students[best])
    assert same(state(result.most_feasible), students[best])
    assert same(state(result.student), students[-1])
    for own, trained in zip(result.student.parameters(), trainer.student.parameters(), strict=True):
        assert own is trained
    assert result.best_feasible is not result.student


def test_without_a_feasible_iterate_the_least_violation_is_kept():
    result = trainer_for(at_least(0.9), dual=kd.AugmentedLagrangian(rho=3.0)).fit(one_each(), epochs=10, trace_every=1)
    least = result.trace["violation_first"].min()
    assert result.best_feasible is None
    assert 0.9 - result.most_feasible.p()[0] == pytest.approx(least, abs=1e-12)
