"""Configurations: everything known is read, everything unknown is named with what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

import safekd as kd
from safekd.experiment import ExampleTable, build_constraints, build_experiment, load_examples
from safekd.experiment.config import load_config, parse_config
from safekd.safety import MEASURES, ChiSquareBall, KLBall, TruthProbability
from safekd.weights import RULES, UncertaintyWeighting, Uniform
from solvers.primal_dual import DUAL_METHODS
from tests.support.cases import load_cases_config

TEXT, CONFIG = load_cases_config()


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
        ("at_least = 0.95", "", ["constraints[0]", "found neither of at_least and exactly; wanted one"]),
        ("at_least = 0.95", "at_least = 0.9\nexactly = 0.9", ["constraints[0]", "found both of at_least and exactly"]),
        ("at_least = 0.95", "exactly = 1.5", ["constraints[0].exactly", "1.5", "above 0 and at most 1"]),
        ("at_least = 0.95", "at_least = 0.9\nk = 2", ["constraints[0]", "`k` says nothing to measure 'truth_prob"]),
        ("at_least = 0.95", "at_least = 0.9\nmix = {small = 0.0}", ["constraints[0].mix.small", "0.0"]),
        ("at_least = 0.95", "at_least = 0.9\nworst = {radius = 0}", ["constraints[0].worst.radius", "above 0"]),
        ("at_least = 0.95", "at_least = 0.9\nworst = {radus = 1}", ["constraints[0].worst.radus", "mean 'radius'"]),
        ("at_least = 0.95", 'at_least = 0.9\neach = "class"\nmix = {small = 1.0}', ["`each` makes one constraint"]),
        (
            "at_least = 0.95",
            "at_least = {small = 0.9}",
            ["constraints[0]", "`at_least` names several", 'each = "context"'],
        ),
        ("at_least = 0.95", 'each = "context"\nat_least = {small = 1.9}', ["constraints[0].at_least.small", "1.9"]),
        ("at_least = 0.95", "at_least = 0.9\nsharpness = 2", ["`sharpness` says nothing to measure 'truth_probabil"]),
        ("at_least = 0.95", "at_least = 0.9\nsharpness = 0", ["constraints[0].sharpness", "above 0 and at most 1000"]),
        ('kind = "gradient_boosting"', 'kind = "boost"', ["'teachers[3]' needs a `kind`", "'gradient_boosting'"]),
        (
            'source = "breast_cancer"',
            'source = "breast_cancer"\nlabel = "y"',
            ["`label` names a column of a file", "leave"],
        ),
        ("train = 0.45", "train = 0.5", ["data.splits", "sum to 1.05", "wanted 1"]),
        ("targets = 11", "targets = [0.5, 2.0]", ["frontier.targets[1]", "2.0"]),
        ("n_neighbors = 15", "n_neighbors = [1]", ["teachers[2].options.n_neighbors", "[1]"]),
        ("seed = 0", "seed = ", ["not valid TOML", "line 2"]),
        ("upper = 0.6", "upper = 7", ["weights.upper", "7", "between 0 and 1"]),
        ('"truth_probability"', '"truth_probabilty"', ["constraints[0].measure", "did you mean 'truth_probability'?"]),
        ('"truth_probability"', '"top_k"', ["constraints[0]", "measure 'top_k' needs `k`"]),
        ('"entropy_decay"', '"entropy_decai"', ["weights.token", "did you mean 'entropy_decay'? Known: ", "uniform"]),
        ('"inverse_loss"', '"qqq"', ["weights.task", "'qqq'", "no task rule of that name; choose a known one. Known"]),
        ('"ordinal_safety"', '"entropy_decay"', ["weights.context", "no context rule of that name", "ordinal_safety"]),
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


def demo_table() -> ExampleTable:
    return load_examples(CONFIG.data, Path("."))


def stated(text: str) -> list[kd.SafetyConstraint]:
    """The constraints of the demo's configuration with other lines in place of its threshold."""
    (config,) = parse_config(TEXT.replace("at_least = 0.95", text, 1), "mine.toml").constraints
    return build_constraints(config, demo_table())


def test_constraints_of_every_kind():
    small, large = demo_table().context_numbers(["small", "large"])
    malignant, benign = demo_table().class_numbers(["malignant", "benign"])
    (mixed,) = stated("at_least = 0.9\nmix = {small = 0.4, large = 0.6}\nworst = {ball = 'chi_square', radius = 0.1}")
    assert (mixed.mix, mixed.by, mixed.worst) == ({small: 0.4, large: 0.6}, "context", ChiSquareBall(0.1))
    (worst,) = stated("exactly = 0.9\nworst = {radius = 0.1}")
    assert (worst.is_equality, worst.required, worst.worst) == (True, 0.9, KLBall(0.1))
    assert sorted(worst.contexts) == list(range(len(demo_table().contexts)))
    by_context = stated('at_least = 0.9\neach = "context"\ncontexts = ["large", "small"]')
    assert [(r.name, r.contexts) for r in by_context] == [
        (f"{mixed.name}: large", [large]),
        (f"{mixed.name}: small", [small]),
    ]
    (by_class,) = stated('at_least = 0.9\neach = "class"')
    assert (by_class.name, by_class.classes) == (f"{mixed.name}: malignant", [malignant])
    kinds = {
        '"margin"': "Margin",
        '"one_minus_brier"': "OneMinusBrier",
        '"unsafe_mass"\nunsafe = ["benign"]': "UnsafeMass",
        '"calibration"\nof = "benign"': "Calibration",
        '"recall"': "Recall",
        '"top_k"\nk = 1': "TopK",
        '"avoids"\nunsafe = ["benign"]': "Avoids",
    }
    for text, kind in kinds.items():
        lines = "\n".join(line for line in TEXT.splitlines() if not line.startswith("measure"))
        (config,) = parse_config(lines.replace("at_least", f"measure = {text}\nat_least", 1), "mine.toml").constraints
        (rule,) = build_constraints(config, demo_table())
        assert type(rule.measure).__name__ == kind
        assert rule.measure.critical == frozenset({malignant})
        for what in ("unsafe", "of"):
            assert getattr(rule.measure, what, benign) in (benign, frozenset({benign}))


def test_a_threshold_for_each_context_or_class():
    small, medium, large = demo_table().context_numbers(["small", "medium", "large"])
    by_context = stated('each = "context"\nat_least = {large = 0.9, small = 0.8, medium = 0.7}')
    assert [(one.contexts, one.at_least) for one in by_context] == [([small], 0.8), ([medium], 0.7), ([large], 0.9)]
    assert by_context[2].name.endswith(": large")
    some = stated('each = "context"\ncontexts = ["large", "small"]\nexactly = {small = 0.8, large = 0.7}')
    assert [(one.contexts, one.exactly, one.at_least) for one in some] == [([large], 0.7, None), ([small], 0.8, None)]
    malignant, benign = demo_table().class_numbers(["malignant", "benign"])
    text = TEXT.replace('critical = ["malignant"]', 'critical = ["malignant", "benign"]\ncontexts = ["large"]')
    text = text.replace("at_least = 0.95", 'each = "class"\nat_least = {malignant = 0.9, benign = 0.6}')
    by_class = build_constraints(parse_config(text, "mine.toml").constraints[0], demo_table())
    assert [(one.classes, one.contexts, one.at_least) for one in by_class] == [
        ([malignant], [large], 0.9),
        ([benign], [large], 0.6),
    ]


def test_the_surrogates_settings():
    for text, sharpness in (
        ('"recall"\nsharpness = 8.0', 8.0),
        ('"top_k"\nk = 1\nsharpness = 2', 2),
        ('"recall"', 4.0),
    ):
        lines = TEXT.replace('"truth_probability"', text)
        (one,) = build_constraints(parse_config(lines, "mine.toml").constraints[0], demo_table())
        assert one.measure.sharpness == sharpness
    lines = TEXT.replace('"truth_probability"', '"log_truth_probability"\nat = 0.95')
    (one,) = build_constraints(parse_config(lines, "mine.toml").constraints[0], demo_table())
    assert one.measure.at == 0.95


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('each = "context"\nat_least = {tiny = 0.9}', "at_least names context 'tiny'; there are: small, medium, large"),
        ('each = "class"\nat_least = {bengn = 0.9}', "at_least names class 'bengn'; there are: malignant, benign"),
        ('each = "class"\nat_least = {benign = 0.9}', "class 'benign', which is not in `critical`: malignant"),
        (
            'each = "context"\nat_least = {small = 0.9, large = 0.9}',
            "no threshold for context 'medium', which would be promised nothing; give one, or list in `contexts`",
        ),
        ('each = "context"\nat_least = {}', "no threshold for context 'small'"),
        ("at_least = 0.9\nmix = {tiny = 1.0}", "There is no context 'tiny'; there are: small"),
        (
            "at_least = 0.9\nby = 'class'\nmix = {large = 1.0}",
            "There is no class 'large'; there are: malignant, b",
        ),
        ("at_least = 0.9\nmix = {small = 0.4, large = 0.5}", "the shares of the mix sum to 0.9; wanted 1"),
    ],
)
def test_groups_that_the_data_lack_are_refused_with_those_they_have(text, message):
    with pytest.raises(kd.SafekdError, match=message):
        stated(text)


def test_what_enters_a_registry_can_be_named(monkeypatch):
    """A measure or rule of one's own needs no other line than its entry."""

    class Halved(TruthProbability):
        def __init__(self, critical, k):
            super().__init__(critical)
            self.k = k

    monkeypatch.setitem(MEASURES, "halved", Halved)
    monkeypatch.setitem(RULES["task"], "mine", Uniform)
    text = TEXT.replace('"truth_probability"', '"halved"').replace('"inverse_loss"', '"mine"')
    with pytest.raises(kd.InvalidConfig, match="measure 'halved' needs `k`"):
        parse_config(text, "mine.toml")
    config = parse_config(text.replace('"halved"', '"halved"\nk = 3'), "mine.toml")
    (constraint,) = build_constraints(config.constraints[0], demo_table())
    assert isinstance(constraint.measure, Halved)
    assert constraint.measure.k == 3
    assert build_experiment(config, Path()).unified.task == Uniform()


def test_a_rule_that_needs_more_than_a_configuration_states_is_refused(monkeypatch):
    class Needs:
        def __init__(self, n_teachers, features):
            raise AssertionError

    monkeypatch.setitem(RULES["task"], "needs", Needs)
    config = parse_config(TEXT.replace('"inverse_loss"', '"needs"'), "mine.toml")
    with pytest.raises(kd.InvalidConfig, match=r"weights.task is 'needs', which needs `features`; a configuration"):
        build_experiment(config, Path())


def test_a_learned_rule_cannot_be_named(monkeypatch):
    """It would carry what it learned from one run of a sweep to the next."""
    monkeypatch.setitem(RULES["task"], "learned", UncertaintyWeighting)
    with pytest.raises(kd.InvalidConfig, match="no task rule of that name"):
        parse_config(TEXT.replace('"inverse_loss"', '"learned"'), "mine.toml")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(kd.InvalidConfig, match=r"Cannot read .*none\.toml: No such file"):
        load_config(tmp_path / "none.toml")


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(kd.InvalidConfig, match="not UTF-8"):
        load_config(tmp_path / "bad.toml")


def test_a_dual_method_is_named_by_its_registry():
    text = TEXT.replace("epochs = 3000", 'epochs = 3000\ndual = "plain_ascent"', 1)
    assert parse_config(text, "mine.toml").training.dual == "plain_ascent"
    with pytest.raises(kd.InvalidConfig) as told:
        parse_config(text.replace("plain_ascent", "pi_gian"), "mine.toml")
    for fragment in ("training.dual", "no dual method of that name; did you mean 'pi_gain'?", "augmented_lagrangian"):
        assert fragment in str(told.value)


@pytest.mark.parametrize(("name", "kind"), DUAL_METHODS.items())
def test_an_experiment_is_trained_by_the_dual_method_that_it_names(name, kind, tmp_path):
    text = TEXT.replace("epochs = 3000", f'epochs = 3000\ndual = "{name}"', 1)
    trainer = build_experiment(parse_config(text, "mine.toml"), tmp_path).trainer()
    assert type(trainer.problem.dual) is kind


def test_small_students_take_one_thread_and_others_torchs_choice():
    assert CONFIG.training.threads == 1
    left_out = TEXT.replace("threads = 1", "")
    assert parse_config(left_out, "it").threads == 1
    assert parse_config(left_out.replace("hidden = [32]", "hidden = [64, 65]"), "it").threads is None
    assert parse_config(left_out.replace("hidden = [32]", 'kind = "cnn"'), "it").threads is None
    assert parse_config(TEXT.replace("threads = 1", "threads = 2"), "it").threads == 2
