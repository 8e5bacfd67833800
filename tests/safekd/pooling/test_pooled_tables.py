"""Pools of top-k tables: what the dense pool of the same tables is, and how far from that of the whole teachers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safekd.errors import InvalidInput
from safekd.pooling import POOLS, bound_table_error, pool_tables

from .random_teachers import draw_teachers, draw_weights

KINDS = ["arithmetic", "geometric"]


def cut(log_p, k):
    """Return tables of the k most probable classes, and the dense distributions that they say."""
    kept, ids = log_p.topk(k)
    V = log_p.shape[-1]
    tail = (1 - kept.exp().sum(-1)).clamp_min(0) if k < V else torch.zeros_like(kept[..., 0])
    each = (tail / max(V - k, 1)).log()[..., None].expand_as(log_p)
    return ids, kept, tail, each.scatter(-1, ids, kept)


@given(
    seed=st.integers(0, 10**6), K=st.integers(1, 5), k=st.integers(1, 12), pool=st.sampled_from(KINDS),
)  # fmt: skip
def test_it_is_the_dense_pool_of_the_tables(seed, K, k, pool):
    log_p, w = draw_teachers(seed, 4, 2, K, 12), draw_weights(seed, 4, 2, K)
    ids, kept, tail, dense = cut(log_p, k)
    found = pool_tables(ids, kept, tail, w, 12, pool=pool)
    wanted = POOLS[pool](dense, w).exp()
    torch.testing.assert_close(found.to_dense().exp(), wanted, rtol=0, atol=1e-9)
    union = torch.zeros(4, 2, 12).scatter(-1, ids.flatten(-2), 1.0)
    torch.testing.assert_close(found.tail, (wanted * (1 - union)).sum(-1), rtol=0, atol=1e-9)
    assert found.ids_M.shape[-1] == K * k


@pytest.mark.parametrize("pool", KINDS)
def test_gradients_in_the_weights_are_those_of_the_dense_pool(pool):
    log_p, score = draw_teachers(3, 2, 3, 8), draw_weights(3, 2, 3).requires_grad_()
    ids, kept, tail, dense = cut(log_p, 3)

    def pooled(score):
        return pool_tables(ids, kept, tail, score / score.sum(-1, keepdim=True), 8, pool=pool).to_dense()

    assert torch.autograd.gradcheck(pooled, (score,))
    own = torch.autograd.grad(pooled(score).exp().square().sum(), score)[0]
    whole = POOLS[pool](dense, score / score.sum(-1, keepdim=True)).exp().square().sum()
    torch.testing.assert_close(own, torch.autograd.grad(whole, score)[0])


def test_tables_without_a_tail_have_a_veto():
    ids = torch.tensor([[0, 1], [1, 2]])
    log_p = torch.tensor([[0.6, 0.4], [0.5, 0.3]], dtype=torch.float64).log()
    tail, w = torch.tensor([0.0, 0.2], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    found = pool_tables(ids, log_p, tail, w, 10, pool="geometric").to_dense().exp()
    dense = torch.full((2, 10), 0.0, dtype=torch.float64)
    dense[0, :2], dense[1] = log_p[0].exp(), 0.2 / 8
    dense[1, 1:3] = log_p[1].exp()
    torch.testing.assert_close(found, POOLS["geometric"](dense.log(), w).exp())
    assert (found > 0).tolist() == [True, True] + [False] * 8
    unheard = torch.tensor([0.0, 1.0], dtype=torch.float64)  # no weight, no veto
    torch.testing.assert_close(pool_tables(ids, log_p, tail, unheard, 10, pool="geometric").to_dense().exp(), dense[1])


@given(seed=st.integers(0, 10**6), K=st.integers(1, 4), k=st.integers(1, 20), scale=st.floats(0.1, 6))
def test_the_bound_holds(seed, K, k, scale):
    log_p, w = draw_teachers(seed, 6, K, 20, scale=scale), draw_weights(seed, 6, K)
    ids, kept, tail, _ = cut(log_p, k)
    pooled = pool_tables(ids, kept, tail, w, 20).to_dense().exp()
    off = (POOLS["arithmetic"](log_p, w).exp() - pooled).abs().sum(-1) / 2
    bound = bound_table_error(kept[..., -1].exp(), tail, w, k, 20)
    assert bool((off <= bound + 1e-9).all())


def test_the_bound_is_reached():
    """Two teachers whose tails lie on the same five of sixteen classes, as heavy as the lightest that is kept."""
    p = torch.zeros(2, 20, dtype=torch.float64)
    p[:, :4], p[:, 4:9] = 0.1875, 0.05
    p[0, 3], p[1, 2] = 0.05, 0.05
    p[0, :3] = p[1, [0, 1, 3]] = 0.7 / 3
    w = torch.tensor([0.4, 0.6], dtype=torch.float64)
    ids, kept, tail, _ = cut(p.log(), 4)
    ids = torch.tensor([[0, 1, 2, 3], [0, 1, 3, 2]])
    kept = p.log().gather(-1, ids)
    pooled = pool_tables(ids, kept, tail, w, 20).to_dense().exp()
    off = (w @ p - pooled).abs().sum() / 2
    bound = bound_table_error(kept[:, -1].exp(), tail, w, 4, 20)
    assert float(bound) == pytest.approx(0.25 * (1 - 5 / 16))
    assert float(off) == pytest.approx(float(bound), rel=1e-12)


def test_the_gradient_of_the_student_is_off_by_twice_the_bound_at_most():
    log_p, w = draw_teachers(5, 8, 3, 50, scale=2.0), draw_weights(5, 8, 3)
    ids, kept, tail, _ = cut(log_p, 10)
    logits = torch.zeros(8, 50, dtype=torch.float64, requires_grad=True)

    def gradient(log_q):
        loss = (log_q.exp() * (log_q - logits.log_softmax(-1))).sum()
        return torch.autograd.grad(loss, logits)[0]

    off = gradient(POOLS["arithmetic"](log_p, w)) - gradient(pool_tables(ids, kept, tail, w, 50).to_dense())
    assert bool((off.abs().sum(-1) <= 2 * bound_table_error(kept[..., -1].exp(), tail, w, 10, 50) + 1e-12).all())


IDS, LOG_P = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0.6, 0.3], [0.5, 0.4]]).log()
TAIL, W = torch.tensor([0.1, 0.1]), torch.tensor([0.5, 0.5])
REFUSED = {
    "pool": (lambda: pool_tables(IDS, LOG_P, TAIL, W, 9, pool="power"), "`pool` is 'power'; wanted 'arithmetic' or"),
    "shapes": (lambda: pool_tables(IDS, LOG_P, TAIL[:1], W, 9), r"tails \(1,\) and weights \(2,\) do not fit"),
    "vocabulary": (lambda: pool_tables(IDS, LOG_P, TAIL, W, 1), "`vocabulary` is 1 for tables of 2"),
    "class": (
        lambda: pool_tables(IDS + 8, LOG_P, TAIL, W, 9),
        "a class that is none; wanted whole numbers from 0",
    ),
    "twice": (lambda: pool_tables(IDS * 0, LOG_P, TAIL, W, 9), "holds a class twice"),
    "mass": (lambda: pool_tables(IDS, LOG_P, TAIL + 1, W, 9), "sum to 2; wanted log-probabilities and a tail"),
    "weights": (lambda: pool_tables(IDS, LOG_P, TAIL, W * 2, 9), "do not sum to 1; project them first"),
    "no class": (
        lambda: pool_tables(torch.tensor([[0], [1]]), torch.zeros(2, 1), TAIL * 0, W, 9, pool="geometric"),
        "leave out every class between them",
    ),
    "bound": (lambda: bound_table_error(TAIL, TAIL, W, 5, 4), "`kept` is 5 of `vocabulary` 4"),
    "bound's shapes": (lambda: bound_table_error(TAIL[:1], TAIL, W, 2, 4), "wanted one number a teacher each"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_message_that_helps(case):
    call, message = REFUSED[case]
    with pytest.raises(InvalidInput, match=message):
        call()
