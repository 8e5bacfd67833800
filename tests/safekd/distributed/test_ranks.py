"""What processes tell each other, on two and three gloo ranks."""

from __future__ import annotations

import pytest
import torch

from safekd.distributed import Ranks, find_ranks, join_ranks
from safekd.errors import InvalidInput

from ...support.rank_worker import run_on_ranks
from . import rank_cases as cases


@pytest.fixture(scope="module")
def two_ranks():
    functions = [
        cases.add_up_vectors,
        cases.fail_on_one,
        cases.broadcast_values,
        cases.compare_hashes,
        cases.reduce_gradients,
        cases.sharded_whole,
    ]
    return {f.__name__: given for f, given in zip(functions, run_on_ranks(2, *functions), strict=True)}


def test_sums_are_the_same_bits_on_every_rank_and_a_nan_reaches_all(two_ranks):
    one, other = two_ranks["add_up_vectors"]
    assert torch.equal(one["total"], other["total"])
    assert torch.allclose(one["total"], 2 * torch.arange(4).double() / 3 + 0.1, atol=1e-15)
    assert all(given["nan"].isnan().all() for given in (one, other))
    assert (one["found"], other["found"]) == ([0, 2], [1, 2])


def test_a_failure_on_one_rank_ends_all_with_its_reason(two_ranks):
    (kind, text), (own_kind, own_text) = two_ranks["fail_on_one"]
    assert (own_kind, own_text) == ("InvalidInput", "teacher 'nurse' gave nothing.")
    assert (kind, text) == (
        "RankFailure",
        "Rank 1 of 2 stopped, and all others with it: teacher 'nurse' gave nothing.",
    )


def test_everybody_gets_what_rank_0_has(two_ranks):
    for given in two_ranks["broadcast_values"]:
        assert [x.tolist() for x in given] == [[5.0, 5.0], 3, [[0.0, 0.0], [0.0, 0.0]]]


def test_values_that_drift_apart_are_named(two_ranks):
    for text in two_ranks["compare_hashes"]:
        assert text.startswith("The multipliers are not the same on every rank: rank 1 of 2 has other ones than rank 0")


@pytest.mark.parametrize("kind", ["plain", "ddp", "fsdp"])
def test_gradients_are_those_of_one_process(two_ranks, kind):
    module = cases.small_module().eval()
    cases.loss_of(module, cases.inputs()).backward()
    for given in two_ranks["reduce_gradients"]:
        for p, start, gradient in zip(module.parameters(), given[kind]["start"], given[kind]["gradients"], strict=True):
            assert torch.equal(start, p)  # rank 0's, on all
            assert torch.allclose(gradient, p.grad, rtol=0, atol=1e-12)
        norm = torch.cat([p.grad.reshape(-1) for p in module.parameters()]).norm()
        assert given[kind]["norm"] == pytest.approx(float(norm), rel=1e-13)
    one, other = two_ranks["reduce_gradients"]
    assert all(torch.equal(a, b) for a, b in zip(one[kind]["gradients"], other[kind]["gradients"], strict=True))


def test_the_whole_copy_of_a_sharded_student_is_a_plain_module(two_ranks):
    one, other = two_ranks["sharded_whole"]
    plain = cases.small_module()
    assert list(one["state"]) == list(plain.state_dict())
    assert one["kinds"] == [type(part).__name__ for part in plain.modules()]
    assert [one["halves"], other["halves"]] == [True, True]
    assert all(torch.equal(one["state"][name], other["state"][name]) for name in one["state"])
    plain.load_state_dict(one["state"])  # one process reads what two wrote


def test_a_rank_that_is_killed_ends_the_others_with_a_message():
    (given,) = run_on_ranks(2, cases.die_in_the_middle, killed=[1])
    assert given[0].startswith("Rank 1 of 2 does not answer any more, so rank 0 stops too (")
    assert given[0].endswith("Begin again from the last checkpoint.")


@pytest.mark.slow
def test_of_three_ranks_the_one_that_died_in_its_backward_pass_is_named():
    (given,) = run_on_ranks(3, cases.die_in_backward, killed=[2])
    for text in given[:2]:
        assert text.startswith("Rank 2 of 3 does not answer any more")


def test_one_process_is_alone_and_sums_are_its_own():
    ranks = find_ranks()
    vector = torch.ones(2, dtype=torch.float64)
    assert (type(ranks), ranks.rank, ranks.size) == (Ranks, 0, 1)
    assert ranks.add_up(lambda: vector, 2) is vector
    assert ranks.gather("a") == ["a"]


def test_processes_of_torchrun_that_nobody_joined_are_refused(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InvalidInput, match=r"process 1 of 4 that torchrun started.*join_ranks"):
        find_ranks()


def test_processes_without_a_meeting_place_are_told_who_starts_them(monkeypatch):
    """As a cluster's job script leaves it that says how many there are, and not where."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    told = pytest.raises(
        InvalidInput, match=r"The 2 processes could not be joined: .*: `torchrun --nproc-per-node=N script"
    )
    with told, join_ranks():
        pass
