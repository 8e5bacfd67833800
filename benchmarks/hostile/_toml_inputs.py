"""Rule sets and experiment files: every key with every kind of value, damaged text, and data that do not fit.

An experiment is as small as one can be: sixty cases, two teachers, three epochs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from safekd.experiment.config import load_config

from ._input import ACCEPTED, EITHER, REFUSED, HostileInput

Rng = np.random.Generator
DIGITS, BITS = "1" + "0" * 5000, "0x1" + "0" * 5000
NO_NUMBERS = [
    '"x"',
    "true",
    "[]",
    "{}",
    "1979-05-27",
    "07:32:00",
    "nan",
    "inf",
    "-inf",
    "[[1]]",
    DIGITS,
    BITS,
    "''",
    "{a = 1}",
]
NUMBERS = [
    "-1",
    "0",
    "1",
    "2",
    "0.5",
    "-0.0",
    "1e300",
    "-1e300",
    "1e-300",
    "2147483648",
    "99999999999999999999",
    "4294967296",
    "0.1",
]
NO_TEXTS = ["1", "0.5", "true", "[]", "{}", "nan", "1979-05-27", DIGITS, BITS, "[[[]]]"]
TEXTS = ['""', '" "', '"x"', '"[/]"', '"\\u001b[31m"', '"../../x"', '"a\\u0000b"', '"' + "y" * 500 + '"', "'''\n\nz'''"]

# where a value stands in the experiment below, and whether it is a number or a text
KEYS = {
    "{seed}": "number",
    "{source}": "text",
    "{label}": "text",
    "{column}": "text",
    "{validation}": "number",
    "{teacher}": "text",
    "{kind}": "text",
    "{path}": "text",
    "{option}": "number",
    "{lower}": "number",
    "{upper}": "number",
    "{rate}": "number",
    "{token}": "text",
    "{context}": "text",
    "{hidden}": "number",
    "{name}": "text",
    "{measure}": "text",
    "{critical}": "text",
    "{at_least}": "number",
    "{epochs}": "number",
    "{batch}": "number",
    "{learning_rate}": "number",
    "{temperature}": "number",
    "{tolerance}": "number",
    "{dual}": "text",
    "{device}": "text",
    "{threads}": "number",
}
GOOD = {
    "{seed}": "0",
    "{source}": '"cases.csv"',
    "{label}": '"outcome"',
    "{column}": '"x0"',
    "{validation}": "0.2",
    "{teacher}": '"fitted"',
    "{kind}": '"logistic_regression"',
    "{path}": '"api.csv"',
    "{option}": "1.0",
    "{lower}": "0.1",
    "{upper}": "0.9",
    "{rate}": "1.0",
    "{token}": '"entropy_decay"',
    "{context}": '"low"',
    "{hidden}": "2",
    "{name}": '"sick"',
    "{measure}": '"truth_probability"',
    "{critical}": '"sick"',
    "{at_least}": "0.6",
    "{epochs}": "3",
    "{batch}": "32",
    "{learning_rate}": "0.01",
    "{temperature}": "1.0",
    "{tolerance}": "1e-3",
    "{dual}": '"pi_gain"',
    "{device}": '"cpu"',
    "{threads}": "1",
}
EXPERIMENT = """seed = {seed}
[training]
epochs = {epochs}
batch_size = {batch}
learning_rate = {learning_rate}
temperature = {temperature}
tolerance = {tolerance}
dual = {dual}
device = {device}
threads = {threads}
[data]
source = {source}
label = {label}
context = { column = {column}, names = ["low", "high"] }
splits = { train = 0.4, validation = {validation}, certify = 0.2, test = 0.2 }
[[teachers]]
name = {teacher}
kind = {kind}
options = { C = {option} }
[[teachers]]
name = "api"
kind = "stored"
path = {path}
[weights]
lower = {lower}
upper = {upper}
rate = {rate}
token = {token}
critical_contexts = [{context}]
[student]
hidden = [{hidden}]
[[constraints]]
name = {name}
measure = {measure}
critical = [{critical}]
at_least = {at_least}
"""
RULES = """lower = 0.05
upper = { c = 0.6 }
order = ["a>=b"]
margin = 0.0
[[linear]]
weights = { a = 1, b = 1 }
at_most = 0.95
"""
WEIGHTS = b"a,b,c\n0.5,0.3,0.2\n0.2,0.7,0.1\n"


def draw_toml_input(rng: Rng) -> HostileInput:
    """Return one input: a rule set or an experiment, and one thing done to it or to its data."""
    makers = (_rules, _rules, _rules, _one_value, _one_value, _damaged_text, _other_data)
    return makers[int(rng.integers(len(makers)))](rng)


def fill(changes: dict[str, str]) -> str:
    """Return the experiment with other values in some places."""
    text = EXPERIMENT
    for key, value in {**GOOD, **changes}.items():
        text = text.replace(key, value)
    return text


@lru_cache(maxsize=1)
def make_cases() -> tuple[bytes, bytes]:
    """Return the cases and what a stored teacher says of them, as CSV."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    sick = x[:, 0] + 0.5 * rng.normal(size=60) > 0
    cases = pd.DataFrame(x, columns=["x0", "x1"]).assign(outcome=np.where(sick, "sick", "well"))
    p = 1 / (1 + np.exp(-2 * x[:, 0]))
    return cases.to_csv(index=False).encode(), pd.DataFrame({"well": 1 - p, "sick": p}).to_csv(index=False).encode()


def _experiment(story: str, wanted: str, text: str | bytes, **files: bytes) -> HostileInput:
    cases, api = make_cases()
    data = text if isinstance(text, bytes) else text.encode()
    every = {
        "mine.toml": data,
        "cases.csv": cases,
        "api.csv": api,
        **{name.replace("_", "."): f for name, f in files.items()},
    }
    arguments = ("train", "mine.toml", "--run-dir", "run")
    return HostileInput("toml", story, wanted, every, arguments, look=_look_at_run, appears=("run",), code=None)


def _look_at_run(folder: Path) -> str:
    verdict = json.loads((folder / "run" / "verdict.json").read_text())
    if not isinstance(verdict.get("status"), str):
        return "a verdict without a status"
    first, again = load_config(folder / "mine.toml"), load_config(folder / "run" / "config.toml")
    if first[0].model_copy(update={"folder": again[0].folder}) != again[0]:
        return "the configuration beside the run is another one"
    return "" if first[1].resolve() == again[1].resolve() else "its paths lead elsewhere"


def _one_value(rng: Rng) -> HostileInput:
    key = str(rng.choice(list(KEYS)))
    right, wrong = (NUMBERS, NO_NUMBERS) if KEYS[key] == "number" else (TEXTS, NO_TEXTS)
    if key == "{option}":  # what scikit-learn takes is its own affair
        wrong = ["[]", "{}", "1979-05-27", BITS, DIGITS]
    refused = rng.random() < 0.5
    value = str(rng.choice(wrong if refused else right))
    return _experiment(f"{key} = {value[:30]}", REFUSED if refused else EITHER, fill({key: value}))


def _damaged_text(rng: Rng) -> HostileInput:
    text = fill({})
    data = bytearray(text.encode())
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(len(data)))] = int(rng.choice([rng.integers(256), 10, ord('"'), ord("["), ord("=")]))
    lines = text.splitlines(keepends=True)
    n = int(rng.integers(9, len(lines)))  # not one without which three thousand epochs are asked for
    spoiled: list[tuple[str, str, str | bytes]] = [
        ("as it is", ACCEPTED, text),
        ("CR LF", ACCEPTED, text.replace("\n", "\r\n")),
        ("a byte order mark", ACCEPTED, "\ufeff" + text),
        ("comments", ACCEPTED, text.replace("\n", " # [/] \x09é\n")),
        ("damaged", EITHER, bytes(data)),
        ("damaged", EITHER, bytes(data)),
        ("cut off", EITHER, text[: int(rng.integers(100, len(text)))]),
        ("a line gone", EITHER, "".join(lines[:n] + lines[n + 1 :])),
        ("a line twice", EITHER, "".join([*lines[:n], lines[n], *lines[n:]])),
        ("an unknown key", REFUSED, text.replace("[student]", "colour = 1\n[student]")),
        ("nested lists", REFUSED, "x = " + "[" * 2000 + "]" * 2000 + "\n" + text),
        ("nested tables", REFUSED, "x = " + "{a=" * 3000 + "1" + "}" * 3000 + "\n" + text),
        ("a long key", REFUSED, ".".join("a" * 50_000) + " = 1\n" + text),
        ("a long header", REFUSED, text + "[" + ".".join("a" * 50_000) + "]\n"),
        ("many keys", REFUSED, "".join(f"k{i} = 1\n" for i in range(3000)) + text),
        ("UTF-16", REFUSED, text.encode("utf-16")),
        ("Latin-1", REFUSED, text.replace("api.csv", "é").encode("latin-1")),
        ("binary", REFUSED, rng.bytes(100) + b"\xff"),
        ("zeros", REFUSED, bytes(100)),
        ("empty", REFUSED, ""),
        ("JSON", REFUSED, '{"a": 1}'),
        ("CSV", REFUSED, WEIGHTS),
    ]
    story, wanted, changed = spoiled[int(rng.integers(len(spoiled)))]
    return _experiment(story, wanted, changed)


def _other_data(rng: Rng) -> HostileInput:
    cases, api = (pd.read_csv(io.BytesIO(data)) for data in make_cases())
    n = int(rng.integers(len(cases)))

    def cell(frame: pd.DataFrame, column: str, value: object) -> bytes:
        changed = frame.astype(object)
        changed.loc[n, column] = value
        return changed.to_csv(index=False).encode()

    def csv(frame: pd.DataFrame) -> bytes:
        return frame.to_csv(index=False).encode()

    spoiled: list[tuple[str, str, Callable[[], dict[str, bytes]]]] = [
        ("a feature that is text", REFUSED, lambda: {"cases_csv": cell(cases, "x1", "x")}),
        ("a feature that is missing", REFUSED, lambda: {"cases_csv": cell(cases, "x0", "")}),
        ("a label that is missing", REFUSED, lambda: {"cases_csv": cell(cases, "outcome", "")}),
        ("a third class", REFUSED, lambda: {"cases_csv": cell(cases, "outcome", "other")}),
        (
            "one class",
            REFUSED,
            lambda: {"cases_csv": csv(cases.assign(outcome="sick")), "api_csv": csv(api[["sick"]] * 0 + 1)},
        ),
        ("few cases", REFUSED, lambda: {"cases_csv": csv(cases.head(3)), "api_csv": csv(api.head(3))}),
        ("a huge feature", EITHER, lambda: {"cases_csv": cell(cases, "x1", 1e308)}),
        ("huge features", EITHER, lambda: {"cases_csv": csv(cases.assign(x1=cases["x1"] * 1e305))}),
        ("a constant feature", ACCEPTED, lambda: {"cases_csv": csv(cases.assign(x1=1.0))}),
        ("the same case over and over", EITHER, lambda: {"cases_csv": csv(cases.assign(x0=1.0, x1=1.0))}),
        ("columns in another order", ACCEPTED, lambda: {"api_csv": csv(api[["sick", "well"]])}),
        ("semicolons", ACCEPTED, lambda: {"cases_csv": cases.to_csv(index=False, sep=";").encode()}),
        ("an index column", REFUSED, lambda: {"api_csv": api.to_csv().encode()}),
        ("a negative probability", REFUSED, lambda: {"api_csv": csv(api.assign(well=-api["well"]))}),
        ("probabilities above 1", REFUSED, lambda: {"api_csv": csv(api * 7)}),
        ("probabilities that sum to 0", REFUSED, lambda: {"api_csv": csv(api * 0)}),
        ("a probability that is NaN", REFUSED, lambda: {"api_csv": cell(api, "sick", "nan")}),
        ("fewer probabilities", REFUSED, lambda: {"api_csv": csv(api.head(59))}),
        ("no probabilities", REFUSED, lambda: {"api_csv": b""}),
        ("certain teachers", EITHER, lambda: {"api_csv": csv(api.round())}),
    ]
    story, wanted, make = spoiled[int(rng.integers(len(spoiled)))]
    return _experiment(story, wanted, fill({}), **make())


_WRONG_RULES = {
    "lower": [
        '"x"',
        "true",
        "nan",
        "inf",
        "[]",
        "{z = 0.1}",
        "-0.1",
        "0.9",
        "[0.1]",
        DIGITS,
        BITS,
        "1e300",
        '{a = "x"}',
    ],
    "upper": [
        '"x"',
        "true",
        "nan",
        "[]",
        "{z = 0.1}",
        "-0.1",
        "0.1",
        "[0.1, 0.2]",
        DIGITS,
        BITS,
        "{a = -1.0}",
        "0",
    ],
    "margin": ['"x"', "true", "nan", "-0.1", "[]", "{}", DIGITS, BITS, "1e300", "2"],
    "teachers": ["1", "[]", '["z"]', '["a", "a"]', "[1]", '"a"', '[["a"]]', "{}", '[""]'],
    "order": ['"a>=b"', "[1]", '["a"]', '["a>=z"]', '["a>=a"]', '["a>=b", "b>=a"]', '[">="]', '["a>=b>="]', "{}"],
    "metric": ["1", '"cosine"', '""', "[]", "true"],
    "ties": ["1", '"yes"', "[]", "0.5"],
    "safety_columns": ['["z"]', "[]", "1", '["a"]', '["a", "b", "c"]', '"a"'],
    "critical_column": ['"z"', "1", "[]", '"a"', '""'],
}
_RIGHT_RULES = {
    "lower": "0.05",
    "upper": "1",
    "margin": "0.0",
    "teachers": '["a", "b", "c"]',
    "order": '["a>=b"]',
    "ties": "true",
}


def _rules(rng: Rng) -> HostileInput:
    key = str(rng.choice(list(_WRONG_RULES)))
    if key in _RIGHT_RULES and rng.random() < 0.3:
        story, wanted, text = f"{key} = {_RIGHT_RULES[key]}", ACCEPTED, f"{key} = {_RIGHT_RULES[key]}\n"
    elif rng.random() < 0.2:
        data = bytearray(RULES.encode())
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
        return _with_rules("damaged rules", EITHER, bytes(data))
    else:
        value = str(rng.choice(_WRONG_RULES[key]))
        story, wanted, text = f"{key} = {value[:30]}", REFUSED, f"{key} = {value}\n"
    return _with_rules(story, wanted, text.encode())


def _with_rules(story: str, wanted: str, rules: bytes) -> HostileInput:
    files = {"in.csv": WEIGHTS, "rules.toml": rules}
    arguments = ("project", "in.csv", "-o", "out.csv", "--rules", "rules.toml")

    def look(folder: Path) -> str:
        copied = pd.read_csv(folder / "out.csv")
        good = (abs(copied.sum(axis=1) - 1) < 1e-9).all() and (copied >= 0).all(axis=None)
        return "" if good else f"rows that do not conform: {copied.to_numpy().tolist()}"

    return HostileInput("toml", story, wanted, files, arguments, look=look, appears=("out.csv",))
