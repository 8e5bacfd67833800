"""A training loop that you have already: two lines project the teachers' weights, two pose the constraint.

    python examples/existing_loop.py

Model, optimizer, data and logging stay yours.  ``kd.project`` takes any scores; ``PrimalDual.step`` takes the loss and
the violations and returns the scalar to differentiate.
"""

import torch
from torch.nn import functional

import safekd as kd
import solvers


def main(epochs: int = 100) -> tuple[torch.nn.Module, float, float]:
    """Train.

    Args:
        epochs: Passes over the data.

    Returns:
        The student, its safety over all data, and the multiplier.
    """
    torch.manual_seed(0)
    inputs = torch.randn(512, 2)
    labels = (inputs[:, 0] + 0.3 * torch.randn(512) > 0).long()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(inputs, labels), batch_size=64, shuffle=True, generator=torch.Generator()
    )
    teachers = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    for teacher, slope in zip(teachers, (3.0, 1.0), strict=True):  # teachers as you have them, here set by hand
        teacher.weight.data = slope * torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        teacher.bias.data = torch.tensor([-0.5, 0.5])

    student = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    polytope = kd.WeightPolytope(n_teachers=2, lower=0.2)
    # A batch's safety is noise around that of the data; the engine sees that, and averages over some ten batches.
    engine = solvers.PrimalDual(inequalities=1)

    for _ in range(epochs):
        for x, y in loader:
            with torch.no_grad():
                p_BKV = torch.stack([teacher(x).softmax(-1) for teacher in teachers], dim=1)
            entropy_BK = -(p_BKV * p_BKV.clamp_min(1e-12).log()).sum(-1)
            w_BK = kd.project(torch.exp(-entropy_BK), polytope)  # sure teachers count more, within the rules
            target = (w_BK[..., None] * p_BKV).sum(1)

            log_p = student(x).log_softmax(-1)
            loss = functional.kl_div(log_p, target, reduction="batchmean")
            safety = log_p[y == 0, 0].exp().mean()  # what the student gives the truth where it is class 0
            lagrangian = engine.step(loss, inequality=(0.85 - safety).reshape(1))  # g <= 0: safety is at least 0.85

            optimizer.zero_grad()
            lagrangian.backward()
            optimizer.step()

    with torch.no_grad():
        reached = float(student(inputs)[labels == 0].softmax(-1)[:, 0].mean())
    return student, reached, float(engine.multipliers)


if __name__ == "__main__":
    _, reached, multiplier = main()
    print(f"safety {reached:.3f}, wanted 0.85; multiplier {multiplier:.3f}")
