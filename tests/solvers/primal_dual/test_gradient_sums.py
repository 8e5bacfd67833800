"""Scales of a step in parts are those of the whole: microbatches, processes, an engine that is told them."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from solvers import InvalidInput
from solvers.primal_dual import GradientSums, MultiplierScales, PrimalDual, combine_scales
from solvers.primal_dual._multiplier_scale import read_scales
from tests.support.curves import t as vec

B = 12


def set_up(rows, dtype=torch.float64):
    """Return parameters, and what gives f and g of some examples: both are means over a batch of B, plus constants."""
    torch.manual_seed(rows)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)
    frozen = nn.Parameter(torch.ones(3, dtype=dtype), requires_grad=False)
    spare = nn.Parameter(torch.ones(2, dtype=dtype))  # on which nothing depends
    x_BD, to_C = torch.randn(B, 5, dtype=dtype), torch.randn(3, rows, dtype=dtype)

    def evaluate(part):
        y = net(x_BD[part]) * frozen
        return (y**4).sum() / B, (torch.sin(y) @ to_C).sum(0) / B

    return [*net.parameters(), frozen, spare], evaluate


def read_in_parts(parameters, evaluate, parts, M, E, value_C, **more):
    distance = more.pop("largest_distance", float("inf"))
    sums = GradientSums(parameters, M, E, **more)
    for part in parts:
        sums.add(*evaluate(part))
    return sums.read(value_C, (evaluate(part)[0] for part in parts), largest_distance=distance)


def assert_same(one: MultiplierScales, other: MultiplierScales, tolerance=1e-12):
    for name, value_C in vars(other).items():
        torch.testing.assert_close(getattr(one, name), value_C, rtol=tolerance, atol=0)


PARTS = [slice(0, 5), slice(5, 6), slice(6, B)]


@pytest.mark.parametrize(("M", "E"), [(1, 0), (2, 2), (0, 3), (40, 0), (39, 5)])
@pytest.mark.parametrize("distance", [float("inf"), 0.3])
def test_microbatches_show_the_scales_of_the_whole_batch(M, E, distance):
    parameters, evaluate = set_up(M + E)
    f, rows_C = evaluate(slice(0, B))
    value_C = rows_C.detach() - 0.1
    whole = read_scales(f, rows_C - 0.1, inequalities=M, largest_distance=distance)
    parts = read_in_parts(parameters, evaluate, PARTS, M, E, value_C, largest_distance=distance)
    assert not whole.multiplier.isnan().all()
    assert_same(parts, whole)


def test_gradients_without_room_are_mixed_as_those_of_many_rows_are():
    parameters, evaluate = set_up(6)
    value_C = evaluate(slice(0, B))[1].detach()
    mixed = read_in_parts(parameters, evaluate, PARTS, 6, 0, value_C, memory_bytes=1000)
    assert mixed.multiplier.unique().numel() == 1
    one_by_one = read_in_parts(parameters, evaluate, PARTS, 6, 0, value_C)
    assert one_by_one.multiplier.unique().numel() == 6
    assert one_by_one.multiplier.min() / 3 < mixed.multiplier[0] < 3 * one_by_one.multiplier.max()


def test_half_precision_adds_up_in_single():
    parameters, evaluate = set_up(2, torch.bfloat16)
    f, rows_C = evaluate(slice(0, B))
    each = [slice(i, i + 1) for i in range(B)]
    assert_same(
        read_in_parts(parameters, evaluate, each, 2, 0, rows_C.detach()), read_scales(f, rows_C, inequalities=2), 0.03
    )


def test_two_processes_show_the_scales_of_one():
    """Each holds some of the parts; sums go through a hook, as often in both."""
    parameters, evaluate = set_up(4)
    f, rows_C = evaluate(slice(0, B))
    barrier, held, scales = threading.Barrier(2, timeout=60), [None, None], [None, None]

    def run(rank, parts):
        def reduce(tensors):
            held[rank] = [x.clone() for x in tensors]
            barrier.wait()
            for x, one, other in zip(tensors, *held, strict=True):
                x.copy_(one + other)
            barrier.wait()

        scales[rank] = read_in_parts(parameters, evaluate, parts, 3, 1, rows_C.detach(), reduce=reduce)

    threads = [threading.Thread(target=run, args=(0, PARTS[:2])), threading.Thread(target=run, args=(1, PARTS[2:]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(scales[0], read_scales(f, rows_C, inequalities=3))
    assert torch.equal(scales[0].multiplier, scales[1].multiplier)


def test_a_part_with_other_rows_is_refused():
    x = vec(1.0).requires_grad_()
    with pytest.raises(InvalidInput, match=r"A part holds rows of shape \(2,\); wanted \(3,\)"):
        GradientSums([x], 3).add(x.sum(), torch.cat([x, x]))


# ------------------------------------------------------------------------------------------ told by whoever has them


def test_an_engine_that_is_told_scales_moves_as_one_that_reads_them():
    """Values are leaves of the step, as the trainer's sums are; scales are asked for when they are due alone."""
    asked = []

    def run(told):
        x, engine = vec(2.0, 1.0).requires_grad_(), PrimalDual(2, 1, largest_distance=3.0)
        moving = torch.optim.SGD([x], lr=0.05)
        for step in range(1, 21):
            f, g, h = (x**2).sum(), 4 - x.sum() * vec(1.0, 0.5), (x[:1] - x[1:]) * 0.2
            if told:

                def scales(step=step, f=f, rows=(g, h)):
                    asked.append(step)
                    return read_scales(f, torch.cat(rows), inequalities=2, largest_distance=engine.largest_distance)

                leaves = [value.detach().requires_grad_() for value in (f, g, h)]
                engine.step(*leaves, scales=scales).backward()
                total = sum((leaf.grad * value).sum() for leaf, value in zip(leaves, (f, g, h), strict=True))
            else:
                total = engine.step(f, g, h)
            moving.zero_grad()
            total.backward()
            moving.step()
        return engine.state_dict()

    read, told = run(False), run(True)
    for name, value in read.items():
        torch.testing.assert_close(told[name], value, rtol=1e-12, atol=1e-12)
    assert asked == [1, 2, 4, 8, 16]


def test_scales_of_another_shape_are_refused():
    x, three = vec(1.0).requires_grad_(), vec(1.0, 1.0, 1.0)
    with pytest.raises(InvalidInput, match=r"`scales` gave values of shapes \(3,\) and \(3,\); wanted \(1,\) twice"):
        PrimalDual(1).step(x.sum(), 2 - x, scales=lambda: MultiplierScales(three, three))


def test_scales_from_gradients_by_hand():
    """Min x^2 + y^2 with x + y >= 1 at (.5, .5): gradients (1, 1) and -(1, 1), H = 2."""
    scales = combine_scales(vec(2.0).sqrt()[0], vec(2.0).sqrt(), vec(4.0), vec(-2.0), vec(0.0))
    assert scales.multiplier.tolist() == pytest.approx([1.0])
    assert scales.largest_gain.tolist() == pytest.approx([3.0])
