"""The batched back end: the same answers with Moreau and without it, and proposals that are never taken on trust."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from solvers import certify_projection, project
from solvers.projection.general import _canonical_form, _general_solve
from solvers.projection.general.backends import _moreau_backend
from tests.support import projection_properties as law

from .test_laws import KINDS

GENERAL = ["own bounds, partial order", "margin", "linear"]  # what has no exact path
each_general_kind = pytest.mark.parametrize("kind", GENERAL)
needs_moreau = pytest.mark.skipif(find_spec("moreau") is None, reason="needs moreau")


@pytest.fixture
def fresh(monkeypatch):
    """No compiled problem from before."""
    monkeypatch.setattr(_canonical_form, "_cache", OrderedDict())


@pytest.fixture
def absent(monkeypatch, fresh):
    """A machine without Moreau."""
    monkeypatch.setitem(sys.modules, "moreau", None)


def count_walks(monkeypatch) -> list[object]:
    walked: list[object] = []
    plain = _general_solve.solve_row

    def counted(v_K, form, start_K=None):
        walked.append(start_K)
        return plain(v_K, form, start_K)

    monkeypatch.setattr(_general_solve, "solve_row", counted)
    return walked


def test_solvers_import_and_project_where_moreau_is_missing():
    code = (
        "import sys; sys.modules['moreau'] = None; from solvers import *;"
        "print(project([0.9, 0.3, -1.0], WeightPolytope(3, 0.1, 0.6, [(0, 1)])).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("[0.6")


@each_general_kind
def test_without_moreau_rows_go_to_cvxpy(kind, absent, monkeypatch):
    walked = count_walks(monkeypatch)
    v_BK = law.normal(1, 5, 4)
    w_BK = project(v_BK, KINDS[kind])
    assert walked == [None] * 5
    assert certify_projection(v_BK, w_BK, KINDS[kind]).holds(1e-12)


@needs_moreau
@each_general_kind
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e2, 1e6])
def test_with_and_without_moreau_agree(kind, scale, monkeypatch, fresh):
    """Weights, and gradients through them."""
    v_BK, grad_BK = scale * law.normal(2, 40, 4), law.normal(3, 40, 4)
    answers = []
    for found in (sys.modules.get("moreau"), None):
        if found is None and answers:
            monkeypatch.setitem(sys.modules, "moreau", None)
            monkeypatch.setattr(_canonical_form, "_cache", OrderedDict())
        leaf_BK = v_BK.clone().requires_grad_()
        w_BK = project(leaf_BK, KINDS[kind])
        w_BK.backward(grad_BK)
        assert (_canonical_form.find_canonical_form(KINDS[kind], "euclidean").batch is None) == bool(answers)
        answers.append((w_BK.detach(), leaf_BK.grad))
    (with_BK, slope_BK), (without_BK, other_BK) = answers
    law.assert_conforms(with_BK, KINDS[kind])
    # scores of size 1e6 tell weights apart to 1e-9
    torch.testing.assert_close(with_BK, without_BK, atol=1e-13 + 1e-15 * scale, rtol=0)
    torch.testing.assert_close(slope_BK, other_BK, atol=1e-9, rtol=0)


@needs_moreau
@pytest.mark.parametrize("rows", [1, 7, 64, 65, 1100])
def test_every_batch_size_is_solved_at_once(rows, monkeypatch):
    """Random scores of the size of weights need no walk_active_set, whatever block they fall into."""
    walked = count_walks(monkeypatch)
    for seed in range(3):
        polytope = law.random_general_polytope(10 + seed)
        v_BK = law.normal(seed, rows, polytope.n_teachers)
        w_BK = project(v_BK, polytope)
        assert certify_projection(v_BK, w_BK, polytope).holds(1e-12)
    assert len(walked) <= rows // 100


@needs_moreau
def test_ties_and_degenerate_corners():
    """Tied scores, scores on the polytope and one-point polytopes put more rules on an answer than it has room for."""
    polytope = KINDS["partial order"]
    v_BK = law.normal(4, 60, 4).mul(2).round().div(2)
    v_BK = torch.cat([v_BK, project(v_BK, polytope), torch.full((1, 4), 0.25, dtype=torch.float64)])
    w_BK = project(v_BK, polytope)
    law.assert_conforms(w_BK, polytope)
    assert certify_projection(v_BK, w_BK, polytope).holds(1e-12)
    torch.testing.assert_close(project(w_BK, polytope), w_BK, atol=1e-13, rtol=0)


class Liar:
    """A back end that solves every row and is wrong in a way of its own."""

    def __init__(self, inner, lie):
        self._inner, self._lie = inner, lie

    def solve(self, v_BK):
        return self._lie(self._inner.solve(v_BK))


LIES = {
    "status": lambda found: replace(found, solved=np.zeros_like(found.solved)),
    "weights": lambda found: replace(found, w=np.roll(found.w, 1, axis=0)),
    "no rules": lambda found: replace(found, active=found.active & (np.arange(found.active.shape[1]) == 0)),
    "all rules": lambda found: replace(found, active=np.ones_like(found.active)),
    "another row's rules": lambda found: replace(found, active=np.roll(found.active, 1, axis=0)),
}


@needs_moreau
@each_general_kind
@pytest.mark.parametrize("lie", LIES)
def test_a_back_end_that_lies_changes_nothing(kind, lie, monkeypatch, fresh):
    v_BK = law.normal(5, 12, 4)
    honest_BK = project(v_BK, KINDS[kind])
    form = _canonical_form.find_canonical_form(KINDS[kind], "euclidean")
    key = next(iter(_canonical_form._cache))
    _canonical_form._cache[key] = replace(form, batch=Liar(form.batch, LIES[lie]))
    torch.testing.assert_close(project(v_BK, KINDS[kind]), honest_BK, atol=1e-13, rtol=0)


@needs_moreau
def test_a_row_that_moreau_does_not_solve_goes_to_cvxpy(monkeypatch, fresh):
    v_BK = law.normal(6, 9, 4)
    expected_BK = project(v_BK, KINDS["margin"])
    plain = _moreau_backend.MoreauModel._solve_block

    def fails_on_third(self, block_BK):
        w_BK, z_BM, solved_B = plain(self, block_BK)
        w_BK[2], solved_B[2] = np.nan, False
        return w_BK, z_BM, solved_B

    monkeypatch.setattr(_moreau_backend.MoreauModel, "_solve_block", fails_on_third)
    walked = count_walks(monkeypatch)
    torch.testing.assert_close(project(v_BK, KINDS["margin"]), expected_BK, atol=1e-13, rtol=0)
    assert walked == [None]
