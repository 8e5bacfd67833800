"""How gains are measured: scales off gradients, ranges off violations; no windup, no oscillation."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

from solvers.primal_dual import AugmentedLagrangian, PIGain, PrimalDual, _merit
from solvers.primal_dual._gains import SETTINGS
from solvers.primal_dual._multiplier_scale import measure_distances, read_scales
from tests.support.curves import t as vec


def noise(size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -------------------------------------------------------------------------------------------- scales off gradients


def test_the_multiplier_scale_is_the_multiplier_at_a_solution():
    """Min x^2 + y^2 with x + y >= 1: at (.5, .5) the multiplier is 1."""
    x = vec(0.5, 0.5).requires_grad_()
    scales = read_scales((x**2).sum(), (1 - x.sum()).reshape(1))
    assert scales.multiplier.tolist() == pytest.approx([1.0])
    assert scales.largest_gain.tolist() == pytest.approx([3 * 2 / 2])  # H = 2 along d, |grad g|^2 = 2


def test_rows_share_the_objective_and_a_row_without_gradient_has_no_scale():
    x = vec(2.0).requires_grad_()
    scales = read_scales(3 * x.sum(), torch.cat([x, 10 * x, vec(0.5)]))
    assert scales.multiplier[:2].tolist() == pytest.approx([3 / 2, 0.3 / 2])
    assert scales.multiplier[2].isnan()
    assert scales.largest_gain[:2].tolist() == pytest.approx([9.0, 0.09])


def test_at_the_minimum_of_the_objective_curvature_stands_in():
    """F = |x - c|^2 at c, one row x_0 + x_1 >= 1 + |c|...: to its boundary the multiplier is H |g| / |grad g|^2."""
    x = vec(1.0, 2.0).requires_grad_()
    scales = read_scales(((x - vec(1.0, 2.0)) ** 2).sum(), (4 - x.sum()).reshape(1))
    assert scales.multiplier.tolist() == pytest.approx([2 * 1 / 2])


def test_a_row_whose_gradient_cannot_make_up_its_violation_waits_for_one_that_can():
    x = vec(2.0).requires_grad_()
    rows = torch.cat([0.5 - x * 0.01 + 0.02, 1 - x + 1.5])  # both are off by .5, at slopes of .01 and 1
    near = read_scales(3 * x.sum(), rows)
    for distance, share in [(1e9, 1.0), (50.0, 1.0), (5.0, 0.1), (0.5, 0.01)]:
        far = read_scales(3 * x.sum(), rows, largest_distance=distance)
        assert float(far.multiplier[0]) == pytest.approx(float(near.multiplier[0]) * share**2)
        assert float(far.multiplier[1]) == pytest.approx(float(near.multiplier[1]))
        assert far.multiplier[0] <= 3 / 2 * distance / 0.5  # never more than the least gradient that could do it allows


def test_many_rows_share_a_scale_of_the_right_size():
    x = noise(200).requires_grad_()
    scales = read_scales(x.sum(), 5 * x)
    assert scales.multiplier.unique().numel() == 1
    assert float(scales.multiplier[0]) == pytest.approx(200**0.5 / 200 / 5, rel=1e-9)


def test_rows_without_a_gradient_yet_get_their_scale_later():
    x = vec(2.0).requires_grad_()
    engine = PrimalDual(2)
    engine.step(x.sum(), torch.cat([x, vec(0.5)]))
    assert engine.state_dict()["multiplier_scale"].tolist() == [1.0, 0.0]
    engine.step(x.sum(), torch.cat([x, 10 * x]))
    assert engine.state_dict()["multiplier_scale"].tolist() == pytest.approx(
        [0.5**0.5, 0.05]
    )  # halfway from 1 to 1/2; read at once


def test_a_met_row_is_asked_when_it_is_first_violated():
    """Met by far, the surrogate's gradient is 1e-13 of what it is at the boundary, and says nothing."""
    x = vec(30.0).requires_grad_()
    engine = PrimalDual(1)
    for _ in range(300):
        engine.step(x.sum(), 0.9 - torch.sigmoid(x))
    assert engine.state_dict()["multiplier_scale"].tolist() == [0.0]
    x = vec(1.0).requires_grad_()
    engine.step(x.sum(), 0.9 - torch.sigmoid(x))
    share = float(torch.sigmoid(vec(1.0)))
    assert engine.state_dict()["multiplier_scale"].tolist() == pytest.approx([1 / (share * (1 - share))])


@pytest.mark.parametrize("gives", ["gradient", "value"])
def test_a_batch_that_meets_a_row_by_either_value_does_not_tell_its_scale(gives):
    """A batch of examples that are all right may hold too few of them for the mean over all; and the other way."""
    x, engine = vec(1.0).requires_grad_(), PrimalDual(1)
    surrogate, measured = (x * 1e-9 + 0.1, vec(-0.1)) if gives == "gradient" else (x * 1e-9 - 0.1, vec(0.1))
    engine.step(x.sum(), surrogate, measured=measured)
    assert engine.state_dict()["multiplier_scale"].tolist() == [0.0]


def test_a_multiplier_that_was_handed_over_is_a_scale_until_one_is_read():
    engine = PrimalDual(2)
    engine.multipliers = vec(1e-3, 0.0)
    state = engine.state_dict()
    assert state["least_weight"].tolist() == pytest.approx([SETTINGS.least_scales * 1e-3, 1.0])
    assert state["largest_weight"].tolist() == pytest.approx([SETTINGS.largest_scales * 1e-3, 1.0])
    x = vec(2.0).requires_grad_()
    engine.step(x.sum(), torch.cat([x, x]))
    assert engine.state_dict()["multiplier_scale"].tolist() == pytest.approx([0.5, 0.5])
    engine.multipliers = vec(7.0, 7.0)  # which is known by now
    assert engine.state_dict()["largest_weight"].tolist() == pytest.approx([5.0, 5.0])


def test_distances_are_what_is_to_be_made_up():
    assert measure_distances(vec(-2.0, 3.0, -4.0), 2).tolist() == [0.0, 3.0, 4.0]
    assert measure_distances(vec(-2.0, 3.0), None).tolist() == [0.0, 3.0]


# ------------------------------------------------------------------------------------------ gains off violations


def fed(values, method=None, multiplier=0.0, **more):
    """Return an engine that has seen violations of a row that nothing moves; f = x, g = value - x."""
    engine = PrimalDual(1, method=method, **more)
    engine.multipliers = vec(multiplier)
    x = vec(0.0).requires_grad_()
    for value in values:
        engine.step(x.sum(), value - x)
    return engine


def test_the_first_gain_is_a_tenth_of_the_scale_over_the_violation():
    assert float(fed([10.0]).rho) == pytest.approx(SETTINGS.least_scales * 1.0 / 10.0)


def test_a_violation_that_rests_gains_weight_ever_faster_and_no_further_than_ten_scales():
    weights = [float(fed([1.0] * steps).multipliers) for steps in (50, 100, 150)]
    assert weights[2] - weights[1] > weights[1] - weights[0] > 0
    assert float(fed([1.0] * 1500).rho) <= SETTINGS.largest_scales * 1.0 + 1e-9  # scale 1, range 1


def test_a_violation_that_falls_by_itself_winds_nothing_up():
    """It falls by more than 1/20 of itself a step until it is met: no weight is called for."""
    falling = [10 * 0.9**step for step in range(60)] + [-0.1] * 20
    assert float(fed(falling).multipliers) == 0.0
    assert float(fed(falling, AugmentedLagrangian(rho=1.0)).multipliers) > 1.0  # one that sums up at any pace


def test_noise_round_a_row_that_is_met_gives_it_no_weight():
    assert float(fed((0.03 * noise(3000) - 0.3).tolist()).multipliers) == 0.0


def test_reversals_keep_the_gain_small_and_fading_lets_it_grow():
    smooth = [0.98**step for step in range(400)]
    rough = [value + 0.05 * (-1) ** step for step, value in enumerate(smooth)]
    state, loud = (fed(values, PIGain(ema=0.0)).state_dict() for values in (smooth, rough))
    assert float(state["violation_range"]) == pytest.approx(0.99**399)
    assert float(loud["violation_range"]) >= SETTINGS.reversals * 0.099


def test_oscillation_that_a_row_does_not_cause_does_not_hold_its_multiplier_back():
    """An optimizer's first steps throw the student to and fro, while the row weighs next to nothing."""
    rests = [0.05] * 400
    thrown = [0.05 + 0.1 * (-1) ** step for step in range(10)]

    def raise_by(multiplier, exact):
        engine = fed(thrown + rests, PIGain(ema=0.0), multiplier=multiplier, exact=exact)
        return float(engine.multipliers) - multiplier

    assert raise_by(0.0, exact=True) > 0.6 * float(fed(rests, PIGain(ema=0.0)).multipliers)
    assert raise_by(0.0, exact=False) < 0.1  # what may be noise keeps the gain small
    assert raise_by(1.0, exact=True) < 0.5  # a row that weighs as much as the objective may oscillate by itself


def test_the_least_range_holds_and_has_the_units_of_its_row():
    assert float(fed([1e-9] * 300, least_range=0.5).rho) <= 10 / 0.5
    engine = PrimalDual(2, least_range=[0.5, 2.0])
    assert engine.state_dict()["least_range"].tolist() == [0.5, 2.0]


# --------------------------------------------------------------------------------------------------- whole problems


def test_multipliers_do_not_wind_up_on_a_long_way():
    """Adam at .01 needs a thousand steps to these minima; the multipliers wait, and do not have to come back."""
    random = np.random.default_rng([0, 10, 5])
    root = random.standard_normal((10, 10))
    P, q = root @ root.T / 10 + 0.1 * np.eye(10), random.standard_normal(10)
    G = random.standard_normal((5, 10)) / 10**0.5
    d = G @ -np.linalg.solve(P, q) + 0.5 * random.standard_normal(5)
    x = cp.Variable(10)
    rows = G @ x <= d
    cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, cp.psd_wrap(P)) + q @ x), [rows]).solve(solver=cp.CLARABEL)
    P, q, G, d = (torch.from_numpy(part) for part in (P, q, G, d))

    def far_off(method):
        engine = PrimalDual(5, method=method)
        at = torch.zeros(10, dtype=torch.float64, requires_grad=True)
        moving = torch.optim.Adam([at], lr=0.01)
        for _ in range(2400):
            engine.step_with(lambda: (0.5 * at @ (P @ at) + q @ at, G @ at - d), moving)
        ended = torch.cat([at.detach(), engine.multipliers]).numpy()
        return abs(ended - np.concatenate([x.value, rows.dual_value])).max()

    assert far_off(PIGain()) < 5e-3
    assert far_off(AugmentedLagrangian(rho=10.0)) > 0.1  # a step of rho / 20 at any pace


@pytest.mark.parametrize("method", [PIGain(), AugmentedLagrangian()])
def test_a_start_at_the_answer_stays_there(method):
    """Gradient descent at .5 next to a softmax's constraint: a gain read off nothing would throw it off."""
    engine = PrimalDual(1, method=method, least_range=0.006)
    engine.multipliers = vec(1.25)
    q = vec(0.3, 0.5, 0.2)
    z = vec(0.6, 0.5 * 0.4 / 0.7, 0.2 * 0.4 / 0.7).log().requires_grad_()
    moving = torch.optim.SGD([z], lr=0.5)
    for _ in range(300):
        p = torch.softmax(z, -1)
        engine.step_with(
            lambda: ((q * (q.log() - torch.softmax(z, -1).log())).sum(), 0.6 - torch.softmax(z, -1)[:1]), moving
        )
        assert abs(float(p[0]) - 0.6) < 1e-6
    assert float(engine.multipliers) == pytest.approx(1.25, abs=1e-6)


def test_nothing_that_has_settled_is_thrown_off_again_in_five_thousand_noisy_steps():
    """A softmax on noisy batches under p_0 >= .6 stays within .03 from step 1,000 on, at powers of two as elsewhere."""
    engine = PrimalDual(1, method=PIGain(ema=0.9))
    q, draw = vec(0.3, 0.5, 0.2), torch.Generator().manual_seed(0)
    z = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam, seen, weights = torch.optim.Adam([z], lr=0.003), [], []
    for _ in range(5000):
        jitter = 0.3 * torch.randn(64, 3, generator=draw, dtype=torch.float64)

        def evaluate(jitter=jitter):
            p_B3 = torch.softmax(z + jitter, -1)
            return (q * (q.log() - p_B3.log())).sum(-1).mean(), 0.6 - p_B3[:20, 0].mean().reshape(1)

        engine.step_with(evaluate, adam)
        seen.append(float(torch.softmax(z.detach(), -1)[0]))
        weights.append(float(engine.multipliers))
    settled = torch.tensor(seen[1000:])
    assert settled.max() - settled.min() < 0.06
    assert max(weights[1000:]) < 2 * sum(weights[1000:]) / 4000


@pytest.mark.parametrize("method", [PIGain(), AugmentedLagrangian()])
def test_no_weight_grows_while_primal_steps_raise_the_merit_function(method, monkeypatch):
    """Min |x|^2 / 2 with x_0 >= 1 + 5 x_1^2 has the multiplier 1; gradient descent at .1 is stable in x_1 below 1.9.

    From a multiplier of 3 x_1 grows, the violation with it, and a controller alone adds weight without end.
    """

    def last(excess):
        monkeypatch.setattr(_merit, "MERIT_SETTINGS", _merit.MeritCheckSettings(excess=excess))
        engine = PrimalDual(1, method=method)
        engine.multipliers = vec(3.0)
        x = vec(0.0, 0.1).requires_grad_()
        moving = torch.optim.SGD([x], lr=0.1)
        for _ in range(1500):
            engine.step_with(lambda: (0.5 * (x**2).sum(), (1 - x[0] + 5 * x[1] ** 2).reshape(1)), moving)
        return [*x.tolist(), float(engine.multipliers)]

    assert last(_merit.MeritCheckSettings().excess) == pytest.approx([1.0, 0.0, 1.0], abs=0.3)
    assert not all(abs(value) < 1e6 for value in last(float("inf")))
