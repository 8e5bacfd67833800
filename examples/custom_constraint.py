"""A constraint of your own: the student must be sure where it says "stop".

    python examples/custom_constraint.py

``Counted`` takes an event by its log-odds and counts it; the student follows a surrogate that has a gradient.
``Custom`` takes any two functions.  A constraint then asks for an average, here on the examples of one class.
"""

import torch

import safekd as kd

GO, WAIT, STOP = range(3)


def odds_against_go(log_p_V: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-odds of the event "stop is at least twice as probable as go", above 0 where it happens.

    Args:
        log_p_V: Log-probabilities, (..., V).
        labels: The truth, (...); not needed here.
    """
    return log_p_V[..., STOP] - log_p_V[..., GO] - torch.tensor(2.0).log()


def not_go(log_p_V: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """One minus the probability of "go": smooth, so it is its own surrogate.

    Args:
        log_p_V: Log-probabilities, (..., V).
        labels: The truth, (...); not needed here.
    """
    return 1 - log_p_V[..., GO].exp()


def main(epochs: int = 1000) -> kd.FitResult:
    """Train under both constraints.

    Args:
        epochs: Passes over the training data at most.

    Returns:
        The result of the training.
    """
    torch.manual_seed(0)
    inputs = torch.randn(300, 2)
    train = kd.Split("train", inputs, torch.bucketize(inputs[:, 0].contiguous(), torch.tensor([-0.5, 0.5])))
    hasty = kd.teachers.CallableTeacher(
        "hasty", lambda x: torch.stack([0.5 - 2 * x[:, 0], torch.zeros(len(x)), 2 * x[:, 0] - 1], 1), gives="logits"
    )
    constraints = [
        kd.SafetyConstraint(
            "stop beats go",
            measure=kd.safety.Counted(odds_against_go, critical=[STOP], name="StopBeatsGo"),
            at_least=0.95,
        ),
        kd.SafetyConstraint(
            "no go at stop",
            measure=kd.safety.Custom(not_go, not_go, critical=[STOP], name="NotGo"),
            at_least=0.95,
        ),
    ]
    student = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    adam = torch.optim.Adam(student.parameters(), lr=0.02)
    trainer = kd.ConstrainedTrainer(student, [hasty], constraints=constraints, optimizer=adam)
    return trainer.fit(train, epochs=epochs)


if __name__ == "__main__":
    result = main()
    print(result.message)
    print(result.trace[["step", "safety_stop beats go", "safety_no go at stop"]].tail(3).to_string(index=False))
