"""Rule sets from TOML: the documented example reads, and every mistake is told by its key."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import safekd as kd
from safekd.experiment.config import RulesConfig, _rule_set, load_rules, read_rules


@pytest.fixture
def file(tmp_path):
    """Return a function that writes text to a TOML file and returns its path."""

    def write(text: str):
        path = tmp_path / "rules.toml"
        path.write_text(text)
        return path

    return write


def test_the_documented_example_reads(file):
    _, example = (_rule_set.__doc__ or "").split("override the file.\n")
    rules = load_rules(file(textwrap.dedent(example)))
    assert rules.teachers == ["expert", "fast", "cheap"]
    assert (rules.lower, rules.upper) == (0.05, {"cheap": 0.3})
    assert rules.order == ["expert>=fast>=cheap"]
    assert (rules.margin, rules.ties, rules.metric) == (0.0, False, "euclidean")
    assert rules.safety_columns == ["s_expert", "s_fast", "s_cheap"]
    assert rules.critical_column == "urgent"
    assert rules.linear[0].weights == {"fast": 1, "cheap": 1}
    assert rules.linear[0].at_most == 0.5


def test_every_key_is_documented():
    documented = _rule_set.__doc__ or ""
    assert all(f"\n{name} = " in documented or f"\n[[{name}]]" in documented for name in RulesConfig.model_fields)


def test_an_empty_file_asks_for_weights_and_no_more(file):
    assert load_rules(file("")) == RulesConfig()
    assert (RulesConfig().lower, RulesConfig().upper, RulesConfig().order) == (0.0, 1.0, [])


MISTAKES = [
    ("uper = 0.6", ["unknown key 'uper'", "did you mean 'upper'", "Known keys there: teachers, lower, upper"]),
    ("zzz = 1", ["unknown key 'zzz'", "remove it"]),
    ('lower = "0.1"', ["'lower' is '0.1'", "a number, a list with one for each teacher"]),
    ("lower = [0.1, true]", ["lower[1]", "True"]),
    ("upper = nan", ["'upper'", "nan"]),
    ("upper = { a = inf }", ["upper.a", "inf"]),
    ("margin = -0.1", ["'margin' is -0.1", "at least 0"]),
    ('metric = "cosine"', ["'metric' is 'cosine'", "'euclidean' or 'kl'"]),
    ('order = "a>=b"', ["'order' is 'a>=b'", 'a list such as ["a>=b", "b>=c"]']),
    ("teachers = []", ["'teachers'", "at least 1"]),
    ('safety_columns = "s"', ["'safety_columns' is 's'", "names of columns, one a teacher"]),
    ("critical_column = 1", ["'critical_column' is 1", "the name of a column of 0, 1, true and false"]),
    (
        "[[linear]]\nweights = { a = 1 }",
        ["linear[0]", "found none of at_most, at_least and equals; wanted exactly one"],
    ),
    ("[[linear]]\nweights = { a = 1 }\nat_most = 1\nequals = 1", ["linear[0]", "found at_most and equals of"]),
    ("[[linear]]\nat_most = 1", ["'linear[0].weights' is missing", "a factor for each teacher that counts"]),
    ("[[linear]]\nweights = { a = 1 }\nat_mots = 1", ["unknown key 'linear[0].at_mots'", "did you mean 'at_most'"]),
    ("lower = ", ["is not valid TOML"]),
]


@pytest.mark.parametrize(("text", "fragments"), MISTAKES, ids=[text.splitlines()[-1] for text, _ in MISTAKES])
def test_each_mistake_is_told_by_its_key(text, fragments, file):
    path = file(text)
    with pytest.raises(kd.InvalidConfig) as caught:
        load_rules(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    for fragment in fragments:
        assert fragment in message, message


def test_a_mapping_is_read_alike():
    assert read_rules({"upper": 0.5}) == RulesConfig(upper=0.5)
    with pytest.raises(kd.InvalidConfig, match=r"mine: unknown key 'uper'; did you mean 'upper'"):
        read_rules({"uper": 0.5}, "mine")


def test_rules_are_read_without_torch():
    """Weights in a file need none of what an experiment needs, and its registries least of all."""
    code = (
        "import sys\n"
        "from safekd.experiment.config import read_rules\n"
        "read_rules({'lower': 0.1})\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "False", ran.stderr
