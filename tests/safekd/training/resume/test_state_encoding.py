"""State as JSON and tensors: everything that optimizers, schedulers and generators hold, back to the last bit."""

from __future__ import annotations

import json
import math
import random
import struct
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import safekd as kd
from safekd.training.resume import decode_state, encode_state, read_random_states, set_random_states
from safekd.training.resume._tensor_files import read_tensor_file, write_tensor_file


def through(state, folder):
    """What state is after it was written and read."""
    encoded = encode_state(state)
    tensors = {}
    for part, held in encoded.tensors.items():
        write_tensor_file(held, folder / f"{part}.safetensors")
        tensors[part] = read_tensor_file(folder / f"{part}.safetensors")
    return decode_state(json.loads(json.dumps(encoded.record, allow_nan=False)), tensors)


def same(one, other):
    """Whether two states are alike to the last bit, types included."""
    if isinstance(one, torch.Tensor):
        bits = [x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (one, other)]
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)
    if isinstance(one, (np.ndarray, np.generic)):
        alike = type(one) is type(other) and one.dtype == other.dtype and one.shape == other.shape
        return alike and one.tobytes() == other.tobytes()
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    if isinstance(one, complex):
        return same([one.real, one.imag], [other.real, other.imag])
    return one == other


VALUES = {
    "plain": [None, True, False, 0, -1, 2**200, "", "text \u2028 \ud800 $", 0.1, -0.0, 5e-324, 1.7e308],
    "not finite": [math.nan, -math.nan, math.inf, -math.inf, struct.unpack("d", b"\x01\0\0\0\0\0\xf8\x7f")[0]],
    "containers": {"a": (1, (2.0, [])), "b": {}, "c": [{}, ()], "size": torch.Size([2, 3])},
    "sets": [{1, 2}, frozenset({"a"}), set()],
    "keys": {0: "number", "0": "text", (1, "a"): None, None: 1, True: 2},
    "a key that is taken": {"$": "tensor", "name": 5},
    "ordered": OrderedDict([("b", 1), ("a", 2)]),
    "counted": Counter({30: 1, 60: 2}),
    "others": [1 + 2j, complex(math.nan, -0.0), b"\0\xff", torch.bfloat16, torch.device("cpu")],
    "many floats": [0.1 * i for i in range(99)] + [math.nan, -0.0, math.inf],
    "many whole numbers": [[-(2**63), 2**63 - 1, *range(99)], [2**63, *range(99)], [True, False] * 50],
    "many of two kinds": [[1, 1.0, True] * 50, [None] * 50, [0.5] * 50 + [None]],
    "arrays": [
        np.arange(6).reshape(2, 3),
        np.zeros((0, 3), np.float32),
        np.array(1.5),
        np.array([True]),
        np.arange(3)[::-1],
    ],
    "numpy's numbers": [np.float64(0.1), np.int8(-3), np.float32(math.nan), np.bool_(True)],
}


@pytest.mark.parametrize("name", VALUES)
def test_what_is_kept_comes_back_to_the_last_bit(name, tmp_path):
    assert same(through({"run": VALUES[name]}, tmp_path), {"run": VALUES[name]})


TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool, torch.int8, torch.int16, torch.int32]
TYPES += [torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.complex128]
TYPES += [torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_tensors_of_every_type_and_shape_come_back(dtype, tmp_path):
    raw = torch.arange(96, dtype=torch.uint8) % 2 if dtype == torch.bool else torch.randint(0, 256, (96,)).byte()
    whole = raw.view(dtype)
    tensors = [whole, whole[0], whole[:0], whole[:6].reshape(2, 3), whole[:6].reshape(3, 2).t(), whole[::2]]
    assert same(through({"run": tensors}, tmp_path), {"run": tensors})


def test_conjugates_parameters_and_large_tensors_come_back(tmp_path):
    z = torch.randn(4, dtype=torch.complex64)
    tensors = {"conj": z.conj(), "neg": z.conj().imag, "p": nn.Parameter(torch.randn(3)), "big": torch.randn(3_000_000)}
    back = through({"run": tensors}, tmp_path)["run"]
    assert same(back["conj"], z.conj().resolve_conj())
    assert same(back["neg"], z.conj().imag.resolve_neg())
    assert type(back["p"]) is torch.Tensor
    assert same(back["big"], tensors["big"])


def test_a_tensor_that_stands_in_two_places_is_one_tensor_again(tmp_path):
    tied = torch.randn(5)
    back = through({"run": [tied, tied.view(5), tied.clone()], "more": tied}, tmp_path)
    assert back["run"][0] is back["run"][1] is back["more"]
    assert back["run"][2] is not back["run"][0]


def test_names_in_a_file_are_those_of_the_state(tmp_path):
    student = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    encoded = encode_state({"student": student.state_dict(), "odd": {"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)}})
    assert list(encoded.tensors["student"]) == list(student.state_dict())
    assert list(encoded.tensors["odd"]) == ["a.b", "a.b#1"]
    back = through({"odd": {"__metadata__": torch.ones(2), "tensor": torch.zeros(2)}}, tmp_path)
    assert same(back["odd"], {"__metadata__": torch.ones(2), "tensor": torch.zeros(2)})


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, torch.tensor(0.1), amsgrad=True),
    "AdamW, two groups": lambda p: torch.optim.AdamW([{"params": p[:1], "lr": 0.2}, {"params": p[1:]}], 0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.1, centered=True, momentum=0.5),
    "NAdam": lambda p: torch.optim.NAdam(p, 0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, 0.1),
    "Adafactor": lambda p: torch.optim.Adafactor(p, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_go_on_as_if_nothing_had_happened(name, tmp_path):
    def make():
        torch.manual_seed(3)
        model = nn.Linear(4, 3)
        return model, OPTIMIZERS[name]([*model.parameters()])

    def step(model, optimizer, seed):
        optimizer.zero_grad()
        model(torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        optimizer.step()

    one, its = make()
    for seed in range(3):
        step(one, its, seed)
    back = through({"student": one.state_dict(), "optimizer": its.state_dict()}, tmp_path)
    other, optimizer = make()
    other.load_state_dict(back["student"])
    optimizer.load_state_dict(back["optimizer"])
    for seed in range(3, 6):
        step(one, its, seed)
        step(other, optimizer, seed)
    assert same(one.state_dict(), other.state_dict())
    assert same(its.state_dict(), optimizer.state_dict())


S = torch.optim.lr_scheduler
SCHEDULERS = {
    "StepLR": lambda o: S.StepLR(o, 2),
    "MultiStepLR": lambda o: S.MultiStepLR(o, [2, 4, 4]),
    "LambdaLR": lambda o: S.LambdaLR(o, lambda step: 0.9**step),
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o: S.OneCycleLR(o, 1.0, total_steps=20),
    "CyclicLR": lambda o: S.CyclicLR(o, 0.1, 1.0, cycle_momentum=False),
    "SequentialLR": lambda o: S.SequentialLR(o, [S.LinearLR(o), S.ExponentialLR(o, 0.9)], [3]),
    "ChainedScheduler": lambda o: S.ChainedScheduler([S.ConstantLR(o), S.ExponentialLR(o, 0.9)]),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_go_on_as_if_nothing_had_happened(name, tmp_path):
    def make():
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.5)
        return optimizer, SCHEDULERS[name](optimizer)

    def advance(optimizer, scheduler):
        optimizer.step()
        scheduler.step()
        return optimizer.param_groups[0]["lr"]

    optimizer, scheduler = make()
    for _ in range(4):
        advance(optimizer, scheduler)
    back = through({"run": [optimizer.state_dict(), scheduler.state_dict()]}, tmp_path)["run"]
    other, its = make()
    other.load_state_dict(back[0])
    its.load_state_dict(back[1])
    assert [advance(other, its) for _ in range(5)] == [advance(optimizer, scheduler) for _ in range(5)]


def test_a_gradient_scaler_comes_back(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    assert through({"scaler": scaler.state_dict()}, tmp_path)["scaler"] == scaler.state_dict()


def test_random_generators_go_on_where_they_were(tmp_path):
    def draw():
        return [random.random(), random.gauss(0, 1), *np.random.randn(3), float(torch.randn(1))]  # noqa: NPY002

    draw()
    states = through({"random": read_random_states()}, tmp_path)["random"]
    then = draw()
    draw()
    set_random_states(states)
    assert draw() == then


@pytest.mark.parametrize("states", [{}, {"python": 5}, {"python": (3, (1, 2), None)}])
def test_random_states_that_are_none_are_refused(states):
    with pytest.raises(kd.InvalidInput, match="Its random states are none"):
        set_random_states(states)


class Odd:
    pass


LOOP: list = []
LOOP.append(LOOP)
REFUSED = {
    "an object": ({"a": [Odd()]}, r"`run\.a\.0` is a .*Odd, which no checkpoint can hold; wanted numbers"),
    "a function": ({"hook": print}, r"`run\.hook` is a builtins\.builtin_function"),
    "a generator": ({"g": torch.Generator()}, r"`run\.g` is a torch\._C\.Generator"),
    "objects in an array": ({"a": np.array([None])}, r"`run\.a` is a numpy\.ndarray"),
    "a sparse tensor": ({"t": torch.zeros(2).to_sparse()}, r"`run\.t` is a tensor of layout torch\.sparse_coo"),
    "a meta tensor": ({"t": torch.zeros(2, device="meta")}, r"`run\.t` is a tensor without numbers"),
    "a tensor as key": ({torch.zeros(1): 1}, r"`run` has a Tensor for a key"),
    "a list that holds itself": (LOOP, r"`run\.0\.0.* is nested too deeply to be kept, or holds itself"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_is_refused_by_its_place(name):
    value, message = REFUSED[name]
    with pytest.raises(kd.InvalidInput, match=message):
        encode_state({"run": value})


ONE = {"run": {"x": torch.arange(3.0)}}
STRANGE = [
    {"$": "range", "value": 5},
    {"$": "tensor", "file": "run", "name": "y", "dtype": "float32", "shape": [3]},
    {"$": "tensor", "file": "x", "name": "x", "dtype": "float32", "shape": [3]},
    {"$": "tensor", "file": "run", "name": "x", "dtype": "float64", "shape": [3]},
    {"$": "tensor", "file": "run", "name": "x", "dtype": "float32", "shape": [2**60]},
    {"$": "array", "dtype": "|O", "shape": [1], "bytes": {"$": "tensor"}},
    {"$": "scalar", "dtype": "O", "value": "00"},
    {"$": "float", "bits": "zz"},
    {"$": "bytes", "value": 5},
    {"$": "dtype", "value": "load"},
    {"$": "device", "value": "../x"},
    {"$": ["a"], "value": 1},
    {"$": "tuple"},
    {"$": "dict", "items": [[[], 1]]},
    {"$": "dict", "items": 5},
    {"$": None},
]


@pytest.mark.parametrize("value", STRANGE, ids=str)
def test_a_record_that_nobody_encoded_is_refused(value):
    with pytest.raises(kd.InvalidInput, match="no state that was encoded"):
        decode_state({"run": [value]}, ONE)


def test_a_record_as_deep_as_the_stack_is_refused():
    value = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(kd.InvalidInput, match="no state that was encoded: RecursionError"):
        decode_state({"run": value}, ONE)
