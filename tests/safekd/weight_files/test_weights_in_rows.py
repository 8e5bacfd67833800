"""Weights whose rows stay in a .npy or .safetensors file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import safekd as kd
from safekd.errors import InvalidInput
from safekd.weights import Signals, Stored

N, K = 40, 3
W_NK = torch.softmax(torch.randn(N, K, generator=torch.Generator().manual_seed(0)), -1)
NAMES = ["a", "b", "c"]
SPLIT = kd.Split("train", torch.zeros(N, 1), torch.zeros(N, dtype=torch.long))


def store(path, rows=W_NK):
    np.save(path, rows.numpy()) if path.suffix == ".npy" else save_file({"w": rows.contiguous()}, path)
    return path


def weigh(rule, index, teachers=NAMES):
    return rule(Signals(entropy=torch.ones(len(index), K), index=index, teachers=teachers))


@pytest.mark.parametrize("name", ["w.npy", "w.safetensors"])
def test_rows_are_found_by_example_and_columns_by_teacher(name, tmp_path):
    rule, place = Stored(store(tmp_path / name)), torch.tensor([5, 0, 39, 5])
    rule.require_rows({"train": SPLIT}, NAMES)
    assert torch.equal(weigh(rule, place), W_NK[place])
    named = Stored(tmp_path / name, teachers=["c", "a", "b"])
    assert torch.equal(weigh(named, place), W_NK[place][:, [1, 2, 0]])
    assert repr(rule) == repr(Stored(tmp_path / name))


def test_what_does_not_fit_is_refused(tmp_path):
    path = store(tmp_path / "w.npy")
    rule = Stored(path)
    with pytest.raises(InvalidInput, match=r"w.npy have no row for example 40"):
        weigh(rule, torch.tensor([40]))
    with pytest.raises(InvalidInput, match=r"w.npy have 40 rows, split 'train' has 39 examples"):
        rule.require_rows({"train": kd.Split("train", torch.zeros(39, 1), torch.zeros(39, dtype=torch.long))}, NAMES)
    with pytest.raises(InvalidInput, match="have 3 columns for 2 `teachers`"):
        Stored(path, teachers=["a", "b"])
    with pytest.raises(InvalidInput, match="a tensor has no columns of names"):
        Stored(path, by="id")
    weigh(rule, torch.tensor([1]))
    bad = W_NK.clone()
    bad[7, 1] = torch.nan
    store(path, bad)
    with pytest.raises(InvalidInput, match=r"w.npy was changed while it was in use"):
        weigh(rule, torch.tensor([1]))
    rule.require_rows({"train": SPLIT}, NAMES)  # a fit begins by reading anew
    with pytest.raises(InvalidInput, match=r"w.npy, row 7: found a weight that is not finite"):
        weigh(rule, torch.tensor([0, 7]))


@pytest.mark.parametrize("kind", ["an object", "a folder"])
def test_a_hostile_file_is_refused_when_it_is_named(kind, tmp_path):
    path = tmp_path / "w.npy"
    np.save(path, np.array([[print]]), allow_pickle=True) if kind == "an object" else path.mkdir()
    with pytest.raises(InvalidInput, match=r"w.npy"):
        Stored(path)
