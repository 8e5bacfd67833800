"""The trainer under torchrun on two processes: the same as one process, the same bits on both, and after a stop."""

from __future__ import annotations

import pytest
import torch

from ....support.rank_worker import run_on_ranks
from .process_cases import (
    FOLDER,
    stop_and_go_on,
    train_alone,
    train_on_both,
    train_on_both_in_float32,
    write_and_go_on,
)

pytestmark = pytest.mark.processes

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    environment = {FOLDER: str(tmp_path_factory.mktemp("both"))}
    cases = (train_on_both, train_on_both_in_float32, stop_and_go_on, write_and_go_on)
    given = run_on_ranks(2, *cases, environment=environment, within=240)
    return dict(zip((case.__name__ for case in cases), given, strict=True))


@pytest.mark.timeout(300)
def test_both_processes_have_the_same_bits(ran):
    for first, second in (ran[name] for name in ran if name != "write_and_go_on"):
        assert torch.equal(first["multipliers"], second["multipliers"])
        assert torch.equal(first["weights"], second["weights"])
        assert first["evaluation"] == second["evaluation"]
        assert first["residuals"] == second["residuals"]
        assert first["certificates"] == second["certificates"]
        assert bool((first["multipliers"] > 0).all())


@pytest.mark.parametrize(
    ("case", "dtype", "tolerance"),
    [("train_on_both", torch.float64, 1e-10), ("train_on_both_in_float32", torch.float32, 1e-6)],
)
def test_two_processes_do_what_one_does(ran, case, dtype, tolerance):
    alone, both = train_alone(dtype), ran[case][0]
    assert torch.allclose(alone["multipliers"], both["multipliers"], rtol=0, atol=tolerance)
    assert torch.allclose(alone["weights"], both["weights"], rtol=0, atol=10 * tolerance)
    for name, value in alone["evaluation"].items():  # eleven rows: what fills up the last batch counts for nothing
        assert both["evaluation"][name] == pytest.approx(value, rel=1e-5), name
    for one, other in zip(alone["residuals"], both["residuals"], strict=True):
        assert other == pytest.approx(one, rel=1e-5)
    for one, other in zip(alone["certificates"], both["certificates"], strict=True):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)


def test_a_stop_and_a_new_start_change_no_bit(ran):
    for name in ("multipliers", "weights"):
        assert torch.equal(ran["train_on_both"][0][name], ran["stop_and_go_on"][0][name])
    assert ran["train_on_both"][0]["residuals"] == ran["stop_and_go_on"][0]["residuals"]


def test_each_process_writes_texts_of_its_own_and_goes_on_with_them(ran):
    (first, first_again), (second, second_again) = ran["write_and_go_on"]
    assert torch.equal(first[0], second[0])
    assert first[1:3] == second[1:3]
    assert not torch.equal(first[3], second[3])
    for whole, again in ((first, first_again), (second, second_again)):
        assert torch.equal(whole[0], again[0])
        assert whole[1:3] == again[1:3]
        assert torch.equal(whole[3], again[3])
