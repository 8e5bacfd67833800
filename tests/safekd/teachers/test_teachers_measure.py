"""Measuring teachers: losses a task and safety a context, against sklearn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, recall_score
from torch import nn

from safekd.data import Split
from safekd.safety import Recall, TruthProbability
from safekd.teachers import StoredTeacher, TeacherEnsemble, TorchTeacher, measure_teachers

N, V = 30, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % V
SPLIT = Split("validation", X, Y)
P_NV = torch.rand(N, V, generator=torch.Generator().manual_seed(1)).softmax(-1)


def test_measure_by_hand():
    """Two teachers, four examples, class 0 critical; contexts 0 1 1 0 and tasks 0 0 1 1."""
    one = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]], dtype=torch.float64)
    two = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], dtype=torch.float64)
    split = Split(
        "validation",
        torch.zeros(4, 1),
        torch.tensor([0, 0, 1, 0]),
        task=torch.tensor([0, 0, 1, 1]),
        context=torch.tensor([0, 1, 1, 0]),
    )
    ensemble = TeacherEnsemble([StoredTeacher("one", one), StoredTeacher("two", two)])
    evidence = measure_teachers(ensemble, split, TruthProbability([0]))
    loss_MK = [
        [-(math.log(0.8) + math.log(0.4)) / 2, -(math.log(0.6) + math.log(0.9)) / 2],
        [-(math.log(0.7) + math.log(0.5)) / 2, -(math.log(0.8) + math.log(0.7)) / 2],
    ]
    assert evidence.task_loss_MK.numpy() == pytest.approx(np.array(loss_MK), abs=1e-5)
    assert evidence.safety_CK.numpy() == pytest.approx(np.array([[0.65, 0.65], [0.4, 0.9]]), abs=1e-5)
    assert evidence.count_C.tolist() == [2, 1]
    assert evidence.performance_MK.tolist() == [[0.5, 1.0], [1.0, 1.0]]
    assert evidence.source == "validation"


def test_measure_agrees_with_sklearn():
    ensemble = TeacherEnsemble(
        [
            StoredTeacher("api", P_NV),
            StoredTeacher("other", P_NV.flip(-1)),
            TorchTeacher("net", nn.Linear(4, V)),
        ]
    )
    evidence = measure_teachers(ensemble, SPLIT, Recall([1]))
    p_NKV = ensemble.cached_log_probabilities(SPLIT, SPLIT.batch(torch.arange(N))).exp().numpy()
    for k in range(3):
        p_NV = p_NKV[:, k] / p_NKV[:, k].sum(-1, keepdims=True)
        assert float(evidence.task_loss_MK[0, k]) == pytest.approx(log_loss(Y.numpy(), p_NV), rel=1e-5)
        expected = recall_score(Y.numpy(), p_NV.argmax(-1), labels=[1], average=None)[0]
        assert float(evidence.safety_CK[0, k]) == pytest.approx(expected)


def test_an_empty_context_falls_back_to_the_average_and_says_so():
    """Context 1 has no critical example, context 2 has no example at all."""
    split = Split(
        "validation",
        X,
        Y,
        context=(Y == 1).long(),
        context_names=("day", "night", "holiday"),
    )
    evidence = measure_teachers(TeacherEnsemble([StoredTeacher("api", P_NV)]), split, TruthProbability([0]))
    overall = P_NV[Y == 0, 0].mean()
    assert evidence.safety_CK[:, 0].tolist() == pytest.approx([float(overall)] * 3, abs=1e-5)
    assert evidence.count_C.tolist() == [10, 0, 0]


def test_the_number_of_contexts_may_be_given():
    ensemble = TeacherEnsemble([StoredTeacher("api", P_NV)])
    assert measure_teachers(ensemble, SPLIT, Recall([0]), contexts=4).count_C.tolist() == [10, 0, 0, 0]


def test_with_no_critical_example_everyone_is_safe():
    """Definition VIII.2: 1 off the critical set; the count of 0 says on what that rests."""
    evidence = measure_teachers(
        TeacherEnsemble([StoredTeacher("api", P_NV)]), Split("validation", X, Y * 0), Recall([2])
    )
    assert evidence.safety_CK.tolist() == [[1.0]]
    assert evidence.count_C.tolist() == [0]


def test_measure_counts_positions():
    """Labels (N, T): every position is an example, and has its sequence's context."""
    p_NTV = torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(2)).softmax(-1)
    labels = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 1]])
    split = Split("validation", torch.zeros(4, 3), labels, context=torch.tensor([0, 0, 1, 1]))
    evidence = measure_teachers(TeacherEnsemble([StoredTeacher("lm", p_NTV)]), split, TruthProbability([0]))
    expected = [p_NTV[:2, :, 0][labels[:2] == 0].mean(), p_NTV[2:, :, 0][labels[2:] == 0].mean()]
    assert evidence.safety_CK[:, 0].tolist() == pytest.approx([float(x) for x in expected], abs=1e-5)
    assert evidence.count_C.tolist() == [2, 4]
    loss = -p_NTV.log().gather(-1, labels.unsqueeze(-1)).mean()
    assert float(evidence.task_loss_MK) == pytest.approx(float(loss), abs=1e-5)
