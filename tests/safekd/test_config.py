"""Configurations: everything known is read, everything unknown is named with what was probably meant."""

from __future__ import annotations

import pytest

import safekd as kd
from safekd.config import load_config, parse_config
from safekd.demo import demo_config

TEXT, CONFIG = demo_config()


def test_the_demo_configuration_says_what_it_should():
    assert [teacher.kind for teacher in CONFIG.teachers] == [
        "logistic_regression",
        "random_forest",
        "k_nearest_neighbours",
        "gradient_boosting",
    ]
    (constraint,) = CONFIG.constraints
    assert (constraint.at_least, constraint.split, constraint.critical) == (0.95, "train", ["malignant"])
    assert CONFIG.weights.critical_contexts == ["small"]


def test_a_seed_changes_one_line():
    text, config = demo_config(7)
    assert config.seed == 7
    assert config.model_copy(update={"seed": 0}) == CONFIG
    assert len(set(text.splitlines()) ^ set(TEXT.splitlines())) == 2


@pytest.mark.parametrize(
    ("old", "new", "fragments"),
    [
        ("[training]", "[trainning]", ["unknown key 'trainning'", "did you mean 'training'", "Known keys there: seed"]),
        ("epochs = 3000", "epocs = 3000", ["unknown key 'training.epocs'", "did you mean 'epochs'"]),
        ('contexts = ["large"]', 'context = ["large"]', ["'teachers[3].context'", "did you mean 'contexts'"]),
        ("seed = 0", "seed = 0\nzzz = 1", ["unknown key 'zzz'", "remove it"]),
        ("at_least = 0.95", "at_least = -0.2", ["constraints[0].at_least", "-0.2", "above 0 and at most 1"]),
        ("at_least = 0.95", "at_least = 1.2", ["constraints[0].at_least", "1.2", "above 0 and at most 1"]),
        ("at_least = 0.95", "at_least = nan", ["constraints[0].at_least", "nan"]),
        ("at_least = 0.95", 'at_least = "high"', ["constraints[0].at_least", "'high'", "number"]),
        ("at_least = 0.95", "", ["'constraints[0].at_least' is missing"]),
        ('kind = "gradient_boosting"', 'kind = "boost"', ["'teachers[3]' needs a `kind`", "'gradient_boosting'"]),
        ("train = 0.45", "train = 0.5", ["data.splits", "sum to 1.05", "wanted 1"]),
        ("targets = 11", "targets = [0.5, 2.0]", ["frontier.targets[1]", "2.0"]),
        ("n_neighbors = 15", "n_neighbors = [1]", ["teachers[2].options.n_neighbors", "[1]"]),
        ("seed = 0", "seed = ", ["not valid TOML", "line 3"]),
        ("upper = 0.6", "upper = 7", ["weights.upper", "7", "between 0 and 1"]),
    ],
)
def test_each_mistake_is_told_in_the_users_words(old, new, fragments):
    assert old in TEXT
    with pytest.raises(kd.InvalidConfig) as caught:
        parse_config(TEXT.replace(old, new, 1), "mine.toml")
    message = str(caught.value)
    assert message.startswith("mine.toml")
    for fragment in fragments:
        assert fragment in message, message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(kd.InvalidConfig, match=r"Cannot read .*none\.toml: No such file"):
        load_config(tmp_path / "none.toml")


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(kd.InvalidConfig, match="not UTF-8"):
        load_config(tmp_path / "bad.toml")
