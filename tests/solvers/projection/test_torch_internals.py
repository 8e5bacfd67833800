"""The names of torch that are not public still mean what the projection takes them for.

If one of these fails after an update of torch: find the new name (torch/_functorch and torch/utils/_python_dispatch.py
use them) and change ``solvers/projection/_torch_internals.py``, the only file that knows it.
"""

from __future__ import annotations

import torch

from solvers.projection import _torch_internals as internals


def test_transforms_are_seen_and_left():
    seen = []

    def look(x):
        seen.append(internals.are_transforms_active())
        with internals.leave_transforms():
            seen.append((torch.ones(3) + 1).numpy().sum())  # a tensor of a transform holds no numbers
        return x.sum()

    torch.func.grad(look)(torch.ones(3))
    assert seen == [True, 6.0]
    assert not internals.are_transforms_active()


def test_constants_are_unwrapped_and_mapped_ones_told():
    constant, answers = torch.arange(3.0), []
    torch.func.grad(lambda x: (answers.append(internals.unwrap_constant(constant)), x.sum())[1])(torch.ones(3))
    torch.func.vmap(lambda x: (answers.append(internals.unwrap_constant(x)), x)[1])(torch.ones(2, 3))
    assert torch.equal(answers[0], constant)
    assert answers[1] is None


@torch.library.custom_op("safekd::gradient_of_squares", mutates_args=())
def gradient_of_squares(x: torch.Tensor) -> torch.Tensor:
    with internals.differentiate_inside_operator():
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad((leaf**2).sum(), leaf)[0].clone()


def test_autograd_works_inside_an_operator():
    assert gradient_of_squares(torch.tensor([1.0, 3.0])).tolist() == [2.0, 6.0]
