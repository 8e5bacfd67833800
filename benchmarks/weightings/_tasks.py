"""Two tasks with something at stake: teachers of unequal worth, and a context in which it matters who is heard.

digits          8 x 8 pictures of digits (Alpaydin and Kaynak 1998, in scikit-learn); some are degraded: half the
                contrast, noise, and two rows blanked.  5 % of those a student learns from, 60 % of those it meets in
                use.  What matters is the degraded ones.
breast cancer   the demo's cases and teachers.  What matters is malignant ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from safekd.data import Split
from safekd.demo import load_demo_config
from safekd.experiment import build_experiment, build_mlp
from safekd.safety import SafetyMeasure, TruthProbability
from safekd.teachers import SklearnTeacher, Teacher, TeacherEnsemble, measure_domain_distances, measure_teachers
from safekd.weights import TeacherEvidence

CLEAN, DEGRADED = 0, 1
_IN_TRAINING, _IN_VALIDATION, _IN_USE = 0.05, 0.5, 0.6


@dataclass(frozen=True)
class Task:
    """What students are trained on and judged by.

    use: the split that stands for deployment.  matters: of its positions, bool, those that safety is read on.
    critical_contexts, critical_classes: where the orderings of safety apply.
    """

    name: str
    train: Split
    use: Split
    ensemble: TeacherEnsemble
    evidence: TeacherEvidence
    safety: SafetyMeasure
    matters: Tensor
    critical_contexts: Sequence[int]
    critical_classes: Sequence[int]
    student: Callable[[], nn.Module]


def digits(seed: int) -> Task:
    """Return the digits task: a split, four teachers and their evidence, all from the seed."""
    random = np.random.default_rng(seed)
    x_ND, y_N = load_digits(return_X_y=True)
    x_ND = x_ND / 16
    rest, use = train_test_split(np.arange(len(y_N)), test_size=0.4, stratify=y_N, random_state=seed)
    train, validation = train_test_split(rest, test_size=0.25, stratify=y_N[rest], random_state=seed)
    splits = {
        name: _degraded_split(name, x_ND[rows], y_N[rows], share, random)
        for name, rows, share in (
            ("train", train, _IN_TRAINING),
            ("validation", validation, _IN_VALIDATION),
            ("use", use, _IN_USE),
        )
    }
    clean_ND, labels_N = x_ND[train], y_N[train]
    degraded_ND = _degrade(clean_ND, random)
    few = random.choice(len(train), 150, replace=False)
    noisy_N = np.where(random.random(len(train)) < 0.4, random.integers(0, 10, len(train)), labels_N)
    both_ND, both_N = np.concatenate([clean_ND, degraded_ND]), np.concatenate([labels_N, labels_N])
    sets = {
        "clean": (LogisticRegression(C=100, max_iter=2000), clean_ND, labels_N),
        "robust": (RandomForestClassifier(200, random_state=seed, n_jobs=1), both_ND, both_N),
        "few": (KNeighborsClassifier(5), clean_ND[few], labels_N[few]),
        "mislabeled": (RandomForestClassifier(50, random_state=seed, n_jobs=1), clean_ND, noisy_N),
    }
    teachers: list[Teacher] = [SklearnTeacher(name, made.fit(x, y), 10) for name, (made, x, y) in sets.items()]
    ensemble, safety = TeacherEnsemble(teachers), TruthProbability()
    evidence = measure_teachers(ensemble, splits["validation"], safety, contexts=2)
    distance_CK = measure_domain_distances(
        splits["validation"], [torch.as_tensor(x) for _, x, _ in sets.values()], contexts=2
    )
    return Task(
        "digits",
        splits["train"],
        splits["use"],
        ensemble,
        _with_distances(evidence, distance_CK),
        safety,
        splits["use"].batch().context == DEGRADED,
        [DEGRADED],
        [],
        lambda: build_mlp(64, [48], 10, seed),
    )


def breast_cancer(seed: int) -> Task:
    """Return the demo's task; the test split stands for use."""
    _, config = load_demo_config(seed)
    experiment = build_experiment(config, Path("."))
    rule = experiment.constraints[0]
    use = experiment.splits["test"]
    train = experiment.train
    shown = [getattr(teacher, "contexts", None) or list(experiment.table.contexts) for teacher in config.teachers]
    numbers = [torch.tensor(experiment.table.context_numbers(names)) for names in shown]
    domains = [train.inputs[torch.isin(train.batch().context, here)] for here in numbers]
    distance_CK = measure_domain_distances(experiment.validation, domains, len(experiment.table.contexts))
    return Task(
        "breast cancer",
        train,
        use,
        experiment.ensemble,
        _with_distances(experiment.evidence, distance_CK),
        rule.measure,
        rule.measure.is_critical(use.labels),
        experiment.critical_contexts,
        sorted(rule.measure.critical or ()),
        experiment.student,
    )


TASKS: dict[str, Callable[[int], Task]] = {"digits": digits, "breast cancer": breast_cancer}


def _with_distances(evidence: TeacherEvidence, distance_CK: Tensor) -> TeacherEvidence:
    return replace(evidence, distance_CK=distance_CK)


def _degraded_split(name: str, x_ND: np.ndarray, y_N: np.ndarray, share: float, random: np.random.Generator) -> Split:
    context_N = (random.random(len(y_N)) < share).astype(np.int64)
    shown_ND = np.where(context_N[:, None] == DEGRADED, _degrade(x_ND, random), x_ND)
    return Split(
        name,
        torch.as_tensor(shown_ND, dtype=torch.float32),
        torch.as_tensor(y_N, dtype=torch.long),
        context=torch.as_tensor(context_N),
        context_names=("clean", "degraded"),
    )


def _degrade(x_ND: np.ndarray, random: np.random.Generator) -> np.ndarray:
    picture = 0.5 * x_ND.reshape(-1, 8, 8) + 0.2 * random.standard_normal((len(x_ND), 8, 8))
    first = random.integers(0, 7, len(x_ND))
    rows = np.arange(8)
    blank = (rows >= first[:, None]) & (rows < first[:, None] + 2)
    return np.clip(np.where(blank[:, :, None], 0.0, picture), 0, 1).reshape(len(x_ND), -1)
