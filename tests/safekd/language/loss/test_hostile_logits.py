"""Logits that are masked, padded, shifted, half as wide or no numbers at all: never a wrong number."""

from __future__ import annotations

import pytest
import torch

from safekd.errors import NotFinite
from safekd.language import JSD, ForwardKL, Head, Hidden, Logits, ReverseKL, TopK, distillation_loss
from safekd.safety import LogTruthProbability

from .plain_loss import DOUBLE, Case, assert_same, gradients, leaf, make_case, make_teacher, set_chunks, simplex

DIVERGENCES = [ForwardKL(), ReverseKL(), JSD(0.3)]
HALF_TYPES = [torch.float16, torch.bfloat16]


def run(case: Case, **more):
    settings = case.settings | more
    return distillation_loss(
        case.hidden, case.head, case.teachers, weights=case.weights, labels=case.labels, mask=case.mask, **settings
    )


# ------------------------------------------------------------------------------------------------- self-distillation


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [0.0, -10.0, -20.0, 300.0])
def test_a_model_is_at_distance_zero_from_itself_whatever_is_padded_and_shifted(divergence, dtype, shift, monkeypatch):
    V, H, padded = 300, 16, 64
    set_chunks(monkeypatch, 7, 3, V, 4)
    weight, hidden, bias = (
        torch.randn(V + padded, H, dtype=dtype),
        torch.randn(20, H, dtype=dtype),
        torch.full((V + padded,), shift, dtype=dtype),
    )
    student, teacher = hidden.clone().requires_grad_(), hidden.clone()
    head = Head(weight.clone().requires_grad_(), bias)
    for T in (1.0, 2.0):
        result = distillation_loss(
            student, head, [Hidden(teacher, Head(weight[:V].clone(), bias[:V]))], divergence=divergence, temperature=T,
            vocabulary=V, budget=1,
        )  # fmt: skip
        result.loss.backward()
        assert float(result.loss.detach()) == 0.0
        assert float(head.weight.grad[V:].abs().max()) == 0.0
        assert float(student.grad.abs().max()) < (1e-2 if dtype == torch.bfloat16 else 1e-6)


def test_a_teacher_that_is_padded_further_than_its_student():
    case = make_case(V=20, kinds=["logits", "hidden"], vocabulary=13, cross_entropy=0.2)
    case.labels = case.labels.clamp_max(12)
    case.teachers = [make_teacher("logits", (11,), 17), make_teacher("hidden", (11,), 24)]
    assert_same(run(case).loss, case.plain(), case.leaves)


def test_a_table_that_holds_padding_is_cut_like_a_head():
    case = make_case(V=13, kinds=["topk"], vocabulary=9)
    case.labels = case.labels.clamp_max(8)
    assert bool((case.teachers[0].ids >= 9).any())
    case.teachers = [TopK(case.teachers[0].ids, case.teachers[0].log_p, vocabulary=13)]
    assert_same(run(case).loss, case.plain(), case.leaves)


# -------------------------------------------------------------------------------------------------- tokens left out


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
@pytest.mark.parametrize("T", [1.0, 2.0])
def test_tokens_that_all_leave_out_change_nothing(divergence, pool, T, monkeypatch):
    set_chunks(monkeypatch, 4, 3, 13)
    logits, teachers, w = leaf(11, 13), [torch.randn(11, 13, dtype=DOUBLE) for _ in range(3)], simplex(11, 3)
    out = [1, 5, 12]
    inside = [v for v in range(13) if v not in out]
    hidden = logits.masked_fill(torch.isin(torch.arange(13), torch.tensor(out)), -torch.inf)
    masked = [t.masked_fill(torch.isin(torch.arange(13), torch.tensor(out)), -torch.inf) for t in teachers]
    settings = {"divergence": divergence, "pool": pool, "temperature": T}
    case = Case(hidden, None, [Logits(t) for t in masked], w, settings=settings)
    small = Case(logits[:, inside], None, [Logits(t[:, inside]) for t in teachers], w, settings=settings)
    assert_same(run(case, budget=1).loss, small.plain(), {"logits": logits, "weights": w})


@pytest.mark.parametrize("divergence", [ForwardKL(), JSD(0.3)], ids=str)
def test_a_teacher_may_leave_out_what_others_say(divergence):
    case = make_case(kinds=["logits", "logits"], divergence=divergence)
    case.teachers[0].logits[:, 2:6] = -torch.inf
    assert_same(run(case).loss, case.plain(), case.leaves)
    case.settings["pool"] = "geometric"  # a veto: the token is left out of the pool
    own = gradients(run(case).loss, case.leaves)
    plain = gradients(case.plain(), {name: case.leaves[name] for name in ("hidden", "weight", "bias")})
    assert torch.allclose(run(case).loss, case.plain())
    assert all(torch.allclose(own[name], plain[name]) for name in plain)
    assert bool(torch.isfinite(own["weights"]).all())


def test_a_target_that_has_what_the_student_leaves_out_is_infinitely_far():
    z = torch.zeros(2, 4, dtype=DOUBLE)
    z[1, 3] = -torch.inf
    teacher = [Logits(torch.zeros(2, 4, dtype=DOUBLE))]
    assert float(distillation_loss(z, None, teacher).loss) == torch.inf
    assert float(distillation_loss(z, None, teacher, divergence=JSD(0.5)).loss) < 1
    assert float(distillation_loss(torch.zeros(2, 4), None, [Logits(z)], divergence=ReverseKL()).loss) == torch.inf


def test_a_teacher_of_weight_zero_says_nothing_even_where_others_are_silent():
    case = make_case(kinds=["logits", "logits"])
    case.teachers[1].logits[:, 2:6] = -torch.inf
    alone = Case(case.hidden, case.head, [case.teachers[0]], torch.ones(1), case.labels, leaves=case.leaves)
    for pool in ("arithmetic", "geometric"):
        for divergence in DIVERGENCES:
            case.weights = torch.tensor([1.0, 0.0], dtype=DOUBLE)
            case.settings = alone.settings = {"pool": pool, "divergence": divergence}
            leaves = {name: case.leaves[name] for name in ("hidden", "weight", "bias")}
            assert_same(run(case).loss, alone.plain(), leaves)


# -------------------------------------------------------------------------------------------------------- no numbers


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", [(0, 0), (4, 12), (10, 5)])
@pytest.mark.parametrize("learns", [False, True])
def test_a_teacher_that_is_no_number_is_named(bad, where, learns, monkeypatch):
    set_chunks(monkeypatch, 4, 3, 13)
    case = make_case(kinds=["logits"] * 3)
    case.labels = None
    case.weights = case.weights if learns else case.weights.detach()
    case.teachers[1].logits[where] = bad
    with pytest.raises(NotFinite, match=f"Berta gives no distribution at position {where[0]}: its logits hold NaN"):
        run(case, names=["Anna", "Berta", "Carl"], budget=1)


@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
def test_a_teacher_that_leaves_out_every_token_is_named(pool):
    case = make_case(kinds=["logits"] * 2, pool=pool)
    case.teachers[0].logits[5] = -torch.inf
    with pytest.raises(NotFinite, match="teacher 0 gives no distribution at position 5"):
        run(case)


def test_teachers_that_leave_out_every_token_between_them_have_no_geometric_pool():
    case = make_case(kinds=["logits"] * 2, pool="geometric")
    case.teachers[0].logits[5, :6] = -torch.inf
    case.teachers[1].logits[5, 6:] = -torch.inf
    with pytest.raises(NotFinite, match="the pool of the teachers gives no distribution at position 5"):
        run(case)


def test_a_student_that_is_no_number_is_named_after_the_position_among_all():
    case = make_case(lead=(3, 4), kinds=["logits"])
    case.labels[0] = -100
    with torch.no_grad():
        case.hidden[1, 2, 0] = torch.nan
    with pytest.raises(NotFinite, match="the student gives no distribution at position 6"):
        run(case)


def test_a_head_of_which_one_row_is_no_number_is_named():
    case = make_case(kinds=["hidden", "logits"])
    case.teachers[0].head.weight[7] = torch.nan
    with pytest.raises(NotFinite, match="teacher 0 gives no distribution at position 0"):
        run(case)


def test_a_table_that_is_no_number_is_named():
    case = make_case(kinds=["topk", "logits"])
    case.teachers[0].log_p[2, 1] = torch.nan
    with pytest.raises(NotFinite, match="teacher 0 gives no distribution at position 2"):
        run(case)


def test_logits_of_any_size_are_compared(monkeypatch):
    """Where exp would overflow, and where a pool of probabilities in float32 would vanish."""
    set_chunks(monkeypatch, 4, 3, 13, 4)
    for divergence in DIVERGENCES:
        case = make_case(kinds=["logits"] * 2, divergence=divergence)
        for teacher in case.teachers:
            teacher.logits.mul_(60)
        with torch.no_grad():
            case.hidden.mul_(20)
        single = make_single(case)
        torch.testing.assert_close(run(single, budget=1).loss.double(), case.plain(), rtol=2e-6, atol=2e-6)


def make_single(case: Case, dtype=torch.float32) -> Case:
    """Return the same case in another type."""
    leaves = {name: x.detach().to(dtype).requires_grad_() for name, x in case.leaves.items()}
    head = Head(leaves["weight"], leaves.get("bias"), case.head.scale, case.head.softcap)
    teachers = [
        Logits(t.logits.to(dtype)) if isinstance(t, Logits)
        else Hidden(t.hidden.to(dtype), Head(t.head.weight.to(dtype), softcap=t.head.softcap)) if isinstance(t, Hidden)
        else TopK(t.ids, t.log_p.to(dtype))
        for t in case.teachers
    ]  # fmt: skip
    return Case(leaves["hidden"], head, teachers, leaves["weights"], case.labels, case.mask, case.settings, leaves)


# -------------------------------------------------------------------------------------------------------- half types


@pytest.mark.parametrize("dtype", [torch.float32, *HALF_TYPES])
@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
@pytest.mark.parametrize("pool", ["arithmetic", "geometric"])
def test_half_types_give_the_loss_of_the_same_numbers_in_float64(dtype, divergence, pool, monkeypatch):
    """All arithmetic is float32: what is rounded is what was given and what is handed back."""
    set_chunks(monkeypatch, 4, 3, 13, 4)
    case = make_case(divergence=divergence, pool=pool, temperature=2.0, cross_entropy=0.2)
    narrow = make_single(case, dtype)
    wide = make_single(narrow, DOUBLE)
    wide.weights = wide.leaves["weights"] = wide.leaves["weights"].detach().requires_grad_()
    result = run(narrow, budget=1)
    assert result.loss.dtype == torch.float32
    torch.testing.assert_close(result.loss.double(), wide.plain(), rtol=3e-6, atol=3e-6)
    own, plain = gradients(result.loss, narrow.leaves), gradients(wide.plain(), wide.leaves)
    for name, g in own.items():
        assert g.dtype == dtype
        rounding = max(4 * torch.finfo(dtype).eps, 1e-5)
        torch.testing.assert_close(g.double(), plain[name], rtol=rounding, atol=rounding)


def test_types_may_differ_between_student_head_and_teachers():
    case = make_case(kinds=["hidden", "logits", "topk"])
    mixed = make_single(case)
    mixed.hidden = mixed.leaves["hidden"] = case.hidden.detach().half().requires_grad_()
    first, second, third = mixed.teachers
    mixed.teachers = [
        Hidden(first.hidden.bfloat16(), Head(first.head.weight, softcap=4.0)),
        Logits(second.logits.double()),
        third,
    ]
    wide = make_single(mixed, DOUBLE)
    torch.testing.assert_close(run(mixed).loss.double(), wide.plain(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_autocast_changes_nothing(dtype):
    case = make_single(make_case(kinds=["hidden", "logits"], cross_entropy=0.3), torch.float32)
    plain = run(case)
    with torch.autocast("cpu", dtype=dtype):
        result = run(case)
    assert torch.equal(result.loss, plain.loss)
    own, other = gradients(result.loss, case.leaves), gradients(plain.loss, case.leaves)
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_measures_of_a_probability_of_zero_have_a_finite_gradient():
    z = torch.zeros(2, 4, dtype=DOUBLE)
    z[0, 1] = -torch.inf
    z.requires_grad_()
    teachers = [Logits(z.detach().clone())]
    result = distillation_loss(
        z, None, teachers, labels=torch.tensor([1, 2]), measures=[LogTruthProbability([1, 2])], multipliers=[2.0]
    )
    result.loss.backward()
    assert bool(torch.isfinite(z.grad).all())
    assert result.sums[0].measured_G.tolist() == [0.25]


def test_a_loss_that_is_scaled_up_keeps_gradients_that_float16_cannot_hold():
    hidden, weight = torch.randn(64, 8).half().requires_grad_(), torch.randn(50, 8).half().requires_grad_()
    teacher, count = Logits(torch.randn(64, 50)), 2**25

    def scaled(*inputs):
        loss = distillation_loss(inputs[0], Head(inputs[1]), teacher, count=count).loss
        return torch.autograd.grad(loss * 2**20, inputs)

    own = scaled(hidden, weight)
    exact = scaled(hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_())
    for one, other in zip(own, exact, strict=True):
        assert one.dtype == torch.float16
        torch.testing.assert_close(one.double(), other, rtol=2e-3, atol=1e-4)
