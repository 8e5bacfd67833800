"""Asking teachers again with noise, and how far contexts lie from what they know."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from safekd.data import Split
from safekd.errors import InvalidInput
from safekd.teachers import (
    CallableTeacher,
    Perturbation,
    StoredTeacher,
    TeacherEnsemble,
    TorchTeacher,
    measure_domain_distances,
)
from safekd.weights import InverseVariance, Signals


def split(rows: int = 50) -> Split:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 10.0, 0.0])
    return Split("train", inputs, torch.zeros(rows, dtype=torch.long))


def steady(inputs):
    return torch.full((len(inputs), 2), 0.5, dtype=torch.float64)


def nervous(inputs):
    return torch.stack([torch.sigmoid(50 * inputs[:, 0]), torch.sigmoid(-50 * inputs[:, 0])], dim=1)


def test_a_steady_teacher_counts_more_than_a_nervous_one():
    ensemble, data = TeacherEnsemble([CallableTeacher("steady", steady), CallableTeacher("nervous", nervous)]), split()
    log_p_NPKV = Perturbation(passes=5)(ensemble, data)
    assert log_p_NPKV.shape == (50, 5, 2, 2)
    signals = Signals(log_p=log_p_NPKV[:, 0], log_p_passes=log_p_NPKV)
    assert (signals.variance[:, 0] < 1e-20).all()
    assert signals.variance[:, 1].mean() > 1e-3
    scores_NK = InverseVariance()(signals)
    assert (scores_NK[:, 0] >= scores_NK[:, 1]).all()


def test_noise_is_in_units_of_each_input():
    """An input that never changes gets none; one that scatters ten times as much gets ten times as much."""
    seen = []
    spy = CallableTeacher("spy", lambda inputs: (seen.append(inputs), steady(inputs))[1])
    data = split(4000)
    Perturbation(passes=2, noise=0.5)(TeacherEnsemble([spy]), data)
    moved_ND = torch.cat(seen)[:4000] - data.inputs
    assert moved_ND.std(dim=0).tolist() == pytest.approx([0.5, 5.0, 0.0], rel=0.1)


def test_the_same_seed_shakes_alike_and_another_does_not():
    module = nn.Linear(3, 2).double()
    ensemble, data = TeacherEnsemble([TorchTeacher("linear", module)]), split()
    first, again, other = (Perturbation(seed=seed)(ensemble, data) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_stored_teacher_cannot_be_shaken():
    stored = StoredTeacher("api", torch.full((50, 2), 0.5))
    with pytest.raises(InvalidInput, match="Teacher 'api' is stored; what it says of perturbed inputs is not known"):
        Perturbation()(TeacherEnsemble([stored]), split())


def test_whole_numbers_cannot_be_shaken():
    tokens = Split("train", torch.zeros(4, 3, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    with pytest.raises(InvalidInput, match=r"Inputs of split 'train' are torch.int64; noise needs floating inputs"):
        Perturbation()(TeacherEnsemble([CallableTeacher("steady", steady)]), tokens)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"passes": 1}, "`passes` is 1; it takes at least 2"), ({"noise": 0.0}, "`noise` is 0.0; it must be above 0")],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InvalidInput, match=message):
        Perturbation(**settings)


def test_distances_by_hand():
    """Inputs scatter by 1 around 0 in context 0 and around 4 in context 1; the split as a whole by sqrt(5)."""
    inputs = torch.tensor([[-1.0], [1.0], [3.0], [5.0]], dtype=torch.float64)
    data = Split("validation", inputs, torch.zeros(4, dtype=torch.long), context=torch.tensor([0, 0, 1, 1]))
    distance_CK = measure_domain_distances(data, [inputs[:2], inputs[2:], inputs], contexts=3)
    near, half, far = 0.0, 2 / 5**0.5, 4 / 5**0.5
    expected = torch.tensor([[near, far, half], [far, near, half], [half, half, near]], dtype=torch.float64)
    torch.testing.assert_close(distance_CK, expected)


def test_an_input_that_never_changes_is_no_distance_of_its_own():
    assert measure_domain_distances(split(), [split().inputs]).tolist() == [[0.0]]


@pytest.mark.parametrize("domain", [torch.zeros(0, 3), torch.zeros(4, 2), torch.zeros(3)])
def test_a_domain_of_another_kind_is_named(domain):
    with pytest.raises(InvalidInput, match=r"Domain 1 has shape .*; wanted at least one example of shape \(3,\)"):
        measure_domain_distances(split(), [split().inputs, domain])


# ---- dictionaries of inputs, and positions that do not count ----


def padded(name="train"):
    """Sequences of three positions, the last of the second one not counted, and what they are without it."""
    x = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    return Split(name, x, torch.zeros(2, 3).long(), mask=mask), x, mask


def test_noise_is_as_large_as_what_counts_scatters():
    data, x, mask = padded()
    shifted = Split("train", x + 1e6 * ~mask[..., None], data.labels, mask=mask)
    ensemble = TeacherEnsemble([CallableTeacher("t", lambda inputs: inputs, gives="logits")])
    ours, far = (Perturbation(noise=0.5).variance(ensemble, split)[mask] for split in (data, shifted))
    assert torch.equal(ours, far)
    assert float(ours[2]) == 0.0  # its position counts in one example alone, which scatters by nothing
    assert bool((ours[[0, 1, 3, 4]] > 0).all())


def test_noise_is_added_to_the_floats_of_a_dictionary():
    data, x, mask = padded()
    kinds = torch.arange(6).reshape(2, 3)
    named = Split("train", {"x": x, "kinds": kinds}, data.labels, mask=mask)
    ensemble = TeacherEnsemble([CallableTeacher("t", lambda inputs: inputs, gives="logits")])
    seen = []

    def answer(inputs):
        seen.append(inputs["kinds"])
        return inputs["x"]

    by_name = TeacherEnsemble([CallableTeacher("t", answer, gives="logits")])
    assert torch.equal(Perturbation().variance(ensemble, data), Perturbation().variance(by_name, named))
    assert all(torch.equal(one, kinds) for one in seen)
    with pytest.raises(InvalidInput, match=r"Inputs of split 'train' are torch.int64; noise needs floating inputs"):
        Perturbation().variance(by_name, Split("train", {"kinds": kinds}, data.labels))


def test_distances_leave_out_what_does_not_count():
    data, x, mask = padded()
    shifted = Split("train", x + 1e6 * ~mask[..., None], data.labels, context=torch.tensor([0, 1]), mask=mask)
    distance_CK = measure_domain_distances(shifted, [x[:1], x[1:] + 1e6 * ~mask[1:, :, None] * 0])
    assert bool((distance_CK < 10).all())
    named = Split("train", {"x": shifted.inputs}, data.labels, context=torch.tensor([0, 1]), mask=mask)
    assert torch.equal(distance_CK, measure_domain_distances(named, [{"x": x[:1]}, {"x": x[1:]}]))
    with pytest.raises(
        InvalidInput, match=r"Domain 0 has inputs\['y'\] of shape \(2, 3, 2\); wanted .* inputs\['x'\] of"
    ):
        measure_domain_distances(named, [{"y": x}])
