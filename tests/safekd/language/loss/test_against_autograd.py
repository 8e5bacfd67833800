"""Values and every gradient in float64 are those of autograd over whole matrices."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekd.language import JSD, ForwardKL, Head, Hidden, Logits, ReverseKL, distillation_loss
from safekd.language.loss import _memory_budget
from safekd.language.loss._head_products import HeadProducts
from safekd.pooling import LogLinearPool, PowerPool

from .plain_loss import Case, assert_same, gradients, leaf, make_case, make_teacher, set_chunks, simplex

DIVERGENCES = [ForwardKL(), ReverseKL(), JSD(0.5), JSD(0.1)]
POOLS = ["arithmetic", "geometric", "power"]


def run(case: Case, **more):
    return distillation_loss(
        case.hidden, case.head, case.teachers, weights=case.weights, labels=case.labels, mask=case.mask,
        **case.settings, **more,
    )  # fmt: skip


@pytest.fixture(params=[(1, 1), (4, 3), (64, 64)], ids=["row by row", "in chunks of blocks", "at once"])
def chunks(request, monkeypatch):
    set_chunks(monkeypatch, *request.param, vocabulary=13)
    return 1 if request.param[0] < 64 else 10**9


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("temper", ["teachers", "pool"])
def test_values_and_gradients_are_those_of_autograd(divergence, pool, temper, chunks):
    for T, share, softcap in itertools.product([1.0, 2.5], [0.0, 0.3, 1.0], [None, 3.0]):
        case = make_case(
            divergence=divergence,
            pool=pool,
            temper=temper,
            temperature=T,
            cross_entropy=share,
            softcap=softcap,
            scale=1.7,
        )
        assert_same(run(case, budget=chunks).loss, case.plain(), case.leaves)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
@pytest.mark.parametrize("pool", [PowerPool(-0.5), PowerPool(0.05), PowerPool(3.0), LogLinearPool(0.6)], ids=str)
@pytest.mark.parametrize("temper", ["teachers", "pool"])
def test_pools_with_an_exponent_or_a_temperature_of_their_own(divergence, pool, temper, chunks):
    case = make_case(divergence=divergence, pool=pool, temper=temper, temperature=1.5, cross_entropy=0.3, softcap=3.0)
    assert_same(run(case, budget=chunks).loss, case.plain(), case.leaves)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
@pytest.mark.parametrize("pool", POOLS)
def test_a_temperature_for_each_teacher(divergence, pool, chunks):
    case = make_case(divergence=type(divergence)(**{**vars(divergence), "temperature": 1.3}), pool=pool)
    case.settings["temperature"] = [0.5, 2.0, 3.0]
    assert_same(run(case, budget=chunks).loss, case.plain(), case.leaves)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=str)
def test_gradcheck(divergence):
    for pool, T in itertools.product(POOLS, [1.0, 2.0]):
        case = make_case(V=6, H=3, lead=(4,), softcap=5.0, bias=True)
        names = list(case.leaves)

        def loss(*leaves, names=names, case=case, pool=pool, T=T):
            x = dict(zip(names, leaves, strict=True))
            return distillation_loss(
                x["hidden"], Head(x["weight"], x["bias"], softcap=5.0), case.teachers, labels=case.labels,
                weights=x["weights"] / x["weights"].sum(-1, keepdim=True), divergence=divergence, pool=pool,
                temperature=T, cross_entropy=0.2,
            ).loss  # fmt: skip

        assert torch.autograd.gradcheck(loss, tuple(case.leaves.values()), eps=1e-6, atol=1e-6)


@st.composite
def cases(draw):
    """A case of any shape, any teachers, any settings; and the sizes of chunks and blocks."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    V, H = draw(st.integers(2, 17)), draw(st.integers(1, 5))
    lead = draw(st.sampled_from([(1,), (2,), (9,), (2, 5), (3, 1, 2)]))
    kinds = draw(st.lists(st.sampled_from(["logits", "hidden", "topk"]), min_size=1, max_size=4))
    divergence = draw(st.sampled_from(DIVERGENCES))
    temper = draw(st.sampled_from(["teachers", "pool"]))
    temperatures = st.floats(0.4, 4)
    several = st.lists(temperatures, min_size=len(kinds), max_size=len(kinds))
    T = draw(st.one_of(st.none(), temperatures, *([several] if temper == "teachers" else [])))
    case = make_case(
        V, H, lead, kinds,
        bias=draw(st.booleans()), scale=draw(st.sampled_from([1.0, -0.5, 3.0])),
        softcap=draw(st.sampled_from([None, 2.0])), divergence=divergence, temper=temper, temperature=T,
        pool=draw(st.sampled_from(POOLS)), cross_entropy=draw(st.sampled_from([0.0, 0.4, 1.0])),
        count=draw(st.sampled_from([None, 7])),
    )  # fmt: skip
    if draw(st.booleans()):  # student logits instead of hidden states
        case.head, case.hidden = None, leaf(*lead, V)
        case.leaves = {"hidden": case.hidden, "weights": case.weights}
    if draw(st.booleans()):
        case.mask = torch.rand(lead) < 0.6
    if draw(st.booleans()):
        case.weights = case.leaves["weights"] = simplex(len(kinds))
    if draw(st.booleans()) and not case.settings["cross_entropy"]:
        case.labels = None
    return case, draw(st.integers(1, 12)), draw(st.integers(1, 12))


@given(cases())
def test_any_shape_any_teachers_any_settings(drawn):
    case, rows, block = drawn
    with pytest.MonkeyPatch.context() as patch:
        set_chunks(patch, rows, block, case.vocabulary)
        result = run(case, budget=1)
    assert_same(result.loss, case.plain(), case.leaves)
    assert result.positions == int(case.kept().sum())
    used = case.weights.expand(*case.hidden.shape[:-1], -1)[case.kept()].detach()
    torch.testing.assert_close(result.weights, used)


def test_tied_weights_get_both_gradients():
    """The embedding that made the hidden states is the head."""
    weight = leaf(13, 7)
    ids = torch.randint(13, (4, 5))
    case = Case(torch.tanh(weight[ids]), Head(weight), [make_teacher("logits", (4, 5), 13)], torch.ones(1))
    assert_same(run(case).loss, case.plain(), {"tied": weight})


def test_a_loss_that_is_scaled_scales_its_gradients():
    case = make_case()
    assert_same(3.5 * run(case).loss + 1, 3.5 * case.plain() + 1, case.leaves)


def test_weights_that_come_out_of_a_network_hand_their_gradient_on():
    case = make_case()
    parameter = leaf(3)
    case.weights = torch.softmax(parameter + torch.zeros(11, 3), -1)
    assert_same(run(case).loss, case.plain(), {"parameter": parameter})


@pytest.mark.parametrize("frozen", ["hidden", "weight", "bias", "weights"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(frozen):
    case = make_case(cross_entropy=0.2)
    expected = gradients(case.plain(), case.leaves)
    case.leaves[frozen].requires_grad_(False)
    run(case).loss.backward()
    for name, x in case.leaves.items():
        assert x.grad is None if name == frozen else torch.allclose(x.grad, expected[name], atol=1e-12)


def test_without_gradients_the_value_is_the_same():
    case = make_case(temperature=2.0, cross_entropy=0.5)
    with torch.no_grad():
        result = run(case)
    assert not result.loss.requires_grad
    torch.testing.assert_close(result.loss, case.plain().detach(), rtol=1e-12, atol=1e-12)


def test_losses_of_microbatches_add_up_to_that_of_the_batch():
    case = make_case(lead=(6, 4), temperature=2.0, cross_entropy=0.25)
    whole = case.plain()
    total, count = 0.0, int(case.kept().sum())
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        teachers = [cut(output, rows) for output in case.teachers]
        total = total + distillation_loss(
            case.hidden[rows], case.head, teachers, weights=case.weights[rows], labels=case.labels[rows], count=count,
            **case.settings,
        ).loss  # fmt: skip
    assert_same(total, whole, case.leaves)


def cut(output, rows):
    if isinstance(output, Hidden):
        return Hidden(output.hidden[rows], output.head)
    return (
        Logits(output.logits[rows])
        if isinstance(output, Logits)
        else type(output)(output.ids[rows], output.log_p[rows])
    )


def test_the_parts_of_the_loss_are_told_apart():
    case = make_case(temperature=2.0, cross_entropy=0.3)
    result = run(case)
    case.settings["cross_entropy"] = 1.0
    torch.testing.assert_close(result.cross_entropy, case.plain().detach(), rtol=1e-12, atol=1e-12)
    case.settings["cross_entropy"] = 0.0
    torch.testing.assert_close(result.distillation, case.plain().detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.loss.detach(), 0.7 * result.distillation + 0.3 * result.cross_entropy)


def test_a_batch_of_padding_alone_has_loss_zero_and_gradient_zero():
    case = make_case(cross_entropy=0.5)
    case.labels[:] = -100
    result = run(case)
    assert float(result.loss.detach()) == 0
    assert result.positions == 0
    assert result.weights.shape == (0, 3)
    result.loss.backward()
    assert all(bool((x.grad == 0).all()) for x in case.leaves.values())


def test_positions_that_do_not_count_may_hold_anything():
    case = make_case()
    case.mask = torch.arange(11) != 5
    with torch.no_grad():
        case.hidden[5] = torch.nan
        case.teachers[0].logits[5] = torch.nan
        case.weights[5] = 1 / 3
    result = run(case)
    result.loss.backward()
    assert bool(torch.isfinite(result.loss))
    assert bool(torch.isfinite(case.leaves["weight"].grad).all())
    assert bool((case.hidden.grad[5] == 0).all())


def test_backward_runs_again_where_the_graph_is_retained():
    case = make_case(cross_entropy=0.5)
    expected = gradients(case.plain(), case.leaves)
    loss = run(case).loss
    factors = (0.0, 0.5, 0.5, 1.0, -3.0)
    for factor in factors:
        (factor * loss).backward(retain_graph=True)
    for name, x in case.leaves.items():
        torch.testing.assert_close(x.grad, sum(factors) * expected[name], rtol=1e-12, atol=1e-12)


def test_backward_runs_once_where_it_is_not():
    case = make_case()
    loss = run(case).loss
    loss.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


def test_a_parameter_takes_its_gradient_without_a_copy(monkeypatch):
    made = []
    add = HeadProducts.add_weight_gradient
    monkeypatch.setattr(
        HeadProducts,
        "add_weight_gradient",
        lambda self, total, *more: (made.append(total.data_ptr()), add(self, total, *more)),
    )
    case = make_case()
    (0.5 * run(case).loss).backward()
    assert case.leaves["weight"].grad.data_ptr() == made[0]


def test_the_gradient_of_the_hidden_states_can_be_kept():
    case = make_case()
    result = run(case, keep_hidden_gradient=True)
    result.loss.backward()
    torch.testing.assert_close(result.hidden_gradient, case.hidden.grad[case.kept()])


def test_chunks_are_as_large_as_the_budget():
    size = _memory_budget.choose_chunk(5000, 64 * 2**20, 2, 49152, torch.float32, torch.device("cpu"))
    assert size.rows == 170
    assert [c.stop - c.start for c in size.chunks(1024)] == [147] * 6 + [142]
    assert sum(b.stop - b.start for b in size.blocks(147)) == 147
