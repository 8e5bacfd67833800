"""Teachers and targets that the experiments share.  Axes: N inputs, K teachers, V classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from safekd import Split, WeightPolytope
from safekd.pooling import arithmetic_pool
from safekd.teachers import SklearnTeacher
from safekd.weights import Conforming, EntropyDecay, EntropyInverse, Rule, Signals, Uniform

K, V = 3, 3
BOX = WeightPolytope(n_teachers=K, lower=0.1, upper=0.6)
WIDE = WeightPolytope(n_teachers=K, lower=0.02, upper=0.96)
# three inputs, each with a confident, a middling and a hesitant teacher
_TEACHERS = np.array(
    [
        [[0.86, 0.09, 0.05], [0.5, 0.3, 0.2], [0.36, 0.34, 0.3]],
        [[0.25, 0.4, 0.35], [0.08, 0.82, 0.1], [0.3, 0.45, 0.25]],
        [[0.3, 0.3, 0.4], [0.2, 0.25, 0.55], [0.06, 0.06, 0.88]],
    ]
)
OPERATORS: dict[str, Callable[[], Rule]] = {
    "uniform": Uniform,
    "entropy decay": lambda: Conforming(EntropyDecay(rate=3.0), BOX),
    "inverse entropy": lambda: Conforming(EntropyInverse(), BOX),
    "entropy decay, wide bounds": lambda: Conforming(EntropyDecay(rate=6.0), WIDE),
}


def make_signals(rows: int, seed: int, classes: int = 5) -> Signals:
    """Return random signals of three teachers with everything that the families of Theorem V.2 look at."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    log_p = torch.log_softmax(2 * torch.randn(rows, K, classes, generator=g, dtype=torch.float64), -1)
    student = torch.log_softmax(torch.randn(rows, classes, generator=g, dtype=torch.float64), -1)
    return Signals(
        log_p=log_p,
        student_log_p=student,
        labels=torch.randint(0, classes, (rows,), generator=g),
        variance=0.01 + draw(rows, K),
        task_loss=0.1 + draw(rows, K),
        performance=draw(rows, K),
        distance=draw(rows, K),
        safety=draw(K).expand(rows, K),
    )


def weigh(operator: str) -> np.ndarray:
    """Return the weights that an operator gives the teachers above, (N, K)."""
    log_p = torch.as_tensor(_TEACHERS).log()
    return OPERATORS[operator]()(Signals(log_p=log_p)).numpy()


def pool_targets(weights_NK: np.ndarray) -> np.ndarray:
    """Return the pooled targets of the teachers above, (N, V)."""
    pooled = arithmetic_pool(torch.as_tensor(_TEACHERS).log(), torch.as_tensor(weights_NK)).exp().numpy()
    return pooled / pooled.sum(-1, keepdims=True)


def teachers() -> np.ndarray:
    """Return the teachers above, (N, K, V)."""
    return _TEACHERS.copy()


def make_digits(seed: int, dtype: torch.dtype) -> tuple[list[SklearnTeacher], Split]:
    """Return three teachers of scikit-learn, fitted on 900 digits, and 600 others for students."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    fitted, shown = order[:900], order[900:1500]
    models = {
        "logistic regression": LogisticRegression(max_iter=500),
        "forest": RandomForestClassifier(50, random_state=seed, n_jobs=1),
        "neighbors": KNeighborsClassifier(5),
    }
    made = [SklearnTeacher(name, one.fit(x[fitted] / 16, y[fitted]), 10) for name, one in models.items()]
    return made, Split("train", torch.tensor(x[shown] / 16, dtype=dtype), torch.tensor(y[shown]))
