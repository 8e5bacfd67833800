"""What no configuration can mean is told before anything is allocated, started or read for minutes."""

from __future__ import annotations

import os

import pytest

import safekd as kd
from safekd.experiment import build_experiment
from safekd.experiment.config import load_config, load_rules, parse_config
from safekd.experiment.config._config_models import WeightsConfig
from tests.support.cases import load_cases_config
from tests.support.cli_runner import run_cli

TEXT, CONFIG = load_cases_config()
TOO_MUCH = [
    ("threads = 1", "threads = 2147483648", ["training.threads", "2147483648", "at most 256"]),
    ("threads = 1", "threads = 100000", ["training.threads", "100000", "at most 256"]),
    ("threads = 1", "temperature = 1e300", ["training.temperature", "1e+300", "from 0.001 to 1000"]),
    ("threads = 1", "temperature = 1e-300", ["training.temperature", "1e-300"]),
    ("learning_rate = 0.01", "learning_rate = 1e300", ["training.learning_rate", "at most 1000"]),
    ("hidden = [32]", "hidden = [2147483648]", ["student.hidden[0]", "2147483648"]),
    ("hidden = [32]", f"hidden = {[8] * 101}", ["student.hidden", "at most 100"]),
    ("seed = 0", "seed = 18446744073709551616", ["'seed' is a whole number of 65 bits; wanted at most 64"]),
    ("seed = 0", "seed = 4294967296", ["'seed' is 4294967296", "below 4294967296"]),
    ("epochs = 3000", "epochs = 99999999999999999999", ["training.epochs"]),
    ("targets = 11", "targets = 2147483648", ["frontier.targets"]),
    ("targets = 11", "targets = 11\njobs = 100000", ["frontier.jobs", "processes"]),
    ("n_neighbors = 15", "n_neighbors = 2147483648", ["teachers[2].options.n_neighbors", "2147483648"]),
    ("upper = 0.6", "upper = 0.6\nrate = 1e300", ["weights.rate", "from 0 to 1000000"]),
    ('run_dir = "runs/demo"', 'run_dir = " "', ["'run_dir' is ' '", "where results go"]),
    ("seed = 0", "seed = 1" + 5000 * "0", ["cannot be read", "4300 digits"]),
    ("seed = 0", "seed = 0x1" + 5000 * "0", ["'seed' is a whole number of 20001 bits"]),
    ("at_least = 0.95", "at_least = 0x1" + 5000 * "0", ["constraints[0].at_least"]),
    ('kind = "k_nearest_neighbors"', "kind = 0x1" + 5000 * "0", ["'teachers[2].kind' is a whole number of 20001 bits"]),
    ("seed = 0", "seed = " + 2000 * "[" + 2000 * "]", ["too deep"]),
    ("seed = 0", "seed = " + 200 * "[" + 200 * "]", ["'seed'", "valid integer"]),
    ("seed = 0", "seed = " + 2000 * "{a=" + "1" + 2000 * "}", ["too deep"]),
    ("seed = 0", ".".join(["a"] * 200_000) + " = 1", ["a key of 1000 parts or more"]),
    ("seed = 0", "[" + " . ".join(["'a'"] * 200_000) + "]", ["a key of 1000 parts or more"]),
    ("seed = 0", "seed = 2020-13-45", ["not valid TOML"]),
    ("seed = 0", 'seed = "' + 100_000 * "x" + '"', ["'seed' is 'xxx", "..."]),
    ("seed = 0", "\n".join(f"k{i} = 1" for i in range(1000)) + "\nseed = 0", ["unknown key 'k0'", "And 980 more."]),
]


@pytest.mark.parametrize(("old", "new", "fragments"), TOO_MUCH, ids=range(len(TOO_MUCH)))
def test_what_is_too_much_is_told_in_one_message(old, new, fragments, tmp_path, capsys):
    assert old in TEXT
    (tmp_path / "mine.toml").write_text(TEXT.replace(old, new, 1))
    ran = run_cli(capsys, "train", tmp_path / "mine.toml", "--run-dir", tmp_path / "run")
    assert ran.refused("mine.toml", *fragments), ran.err
    assert len(ran.err) < 6000
    assert not (tmp_path / "run").exists()


def test_a_student_larger_than_the_memory_is_refused_before_any_of_it_is_made(tmp_path):
    config = parse_config(TEXT.replace("hidden = [32]", "hidden = [1000000, 1000000]"), "mine.toml")
    with pytest.raises(kd.InvalidConfig, match=r"1,000,03\d,000,002 parameters need some [\d,]+ GB to be trained"):
        build_experiment(config, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "n_neighbors = 15",
            "n_neighbors = 400",
            r"options.n_neighbors is 400; wanted at most its \d+ training examples",
        ),
        ("n_estimators = 50,", "n_estimators = 2000000,", r"options.n_estimators is 2,000,000; wanted at most 10,000"),
        ("n_neighbors = 15", "n_jobs = 100000", r"options.n_jobs is 100,000; wanted at most 256"),
        ("n_neighbors = 15", 'metric = "minkowski", p = -3.0', "KNeighborsClassifier refused its options"),
        ("n_neighbors = 15", 'metric = "precomputed"', "KNeighborsClassifier refused its options"),
    ],
)
def test_options_that_a_teacher_cannot_have_are_told(old, new, message, tmp_path):
    assert old in TEXT
    with pytest.raises(kd.InvalidConfig, match=message):
        build_experiment(parse_config(TEXT.replace(old, new, 1), "mine.toml"), tmp_path)


@pytest.mark.parametrize("device", ["meta", "tpu9", "cuda:99", "", "cpu:x"])
def test_a_device_that_cannot_compute_is_told(device, tmp_path):
    config = parse_config(TEXT.replace("threads = 1", f'threads = 1\ndevice = "{device}"'), "mine.toml")
    with pytest.raises(kd.InvalidConfig, match=r"use 'cpu'"):
        build_experiment(config, tmp_path)


def test_a_file_that_is_no_configuration_is_not_read_to_its_end(tmp_path):
    (tmp_path / "large.toml").write_bytes(b"#" * (9 << 20))
    for path in (tmp_path / "large.toml", "/dev/zero"):
        if os.path.exists(path):
            with pytest.raises(kd.InvalidConfig, match=r"is larger than 8 MiB|is a device"):
                load_rules(path)
    with pytest.raises(kd.InvalidConfig, match="Cannot read"):
        load_config(tmp_path)


def test_a_string_with_many_points_is_no_long_key():
    text = TEXT.replace('name = "malignant"', f'name = "{"etc. " * 300}"')
    assert parse_config(text, "mine.toml").constraints[0].name.startswith("etc.")


@pytest.mark.parametrize("given", [{}, {"lower": 0.3}, {"upper": 0.04}, {"lower": 0.7}, {"upper": 1.0}])
@pytest.mark.parametrize("teachers", [1, 2, 3, 19, 21, 40, 1000])
def test_default_bounds_leave_room_whatever_the_number_of_teachers(teachers, given):
    """Where what was given leaves any."""
    lower, upper = WeightsConfig(**given).bounds(teachers)
    assert {"lower": lower, "upper": upper}.items() >= given.items()
    if given.get("lower", 0) * teachers <= 1 <= given.get("upper", 1) * teachers:
        kd.WeightPolytope(teachers, lower=lower, upper=upper)
    assert lower <= upper


def test_default_bounds_are_those_of_the_demo():
    assert WeightsConfig().bounds(4) == (0.05, 0.6) == (CONFIG.weights.lower, CONFIG.weights.upper)


@pytest.mark.parametrize("count", [0, -1, 257, 2**31])
def test_no_processor_has_so_many_threads(count):
    from safekd._torch_state import limit_threads

    with (
        pytest.raises(kd.InvalidInput, match=f"{count} processor threads were asked for; wanted 1 to 256"),
        limit_threads(count),
    ):
        pass
