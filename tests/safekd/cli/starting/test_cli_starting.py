"""``safekd init``, ``validate``, ``ensemble``, ``list`` and ``--set``: from own data to a run."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import tokenizers
import transformers
from PIL import Image

import safekd as kd
from safekd.experiment import build_experiment
from safekd.experiment.config import load_config
from tests.safekd.saved_students.trained_run import CONFIG, make_cases
from tests.support.cli_runner import run_cli


@pytest.fixture
def data(tmp_path):
    make_cases(300, 0).to_csv(tmp_path / "cases.csv", index=False)
    return tmp_path / "cases.csv"


def test_own_data_are_trained_from_what_init_writes(data, capsys, monkeypatch):
    config = data.parent / "sub" / "mine.toml"
    config.parent.mkdir()
    ran = run_cli(capsys, "init", config, "--data", data, "--label", "outcome", "--critical", "sick")
    assert ran.code == 0, ran.err
    assert "no numbers, so no features: id" in ran.out
    read, folder = load_config(config)
    assert (folder / read.data.source).resolve() == data.resolve()
    assert read.data.features == ["age", "x0", "x1", "x2"]
    assert read.constraints[0].critical == ["sick"]
    short = ["--set", "training.epochs=40", "--set", "tighten.folds=2", "--set", "tighten.rounds=1"]
    looked = run_cli(capsys, "validate", config, *short, "--json")
    assert looked.code == 0, looked.err
    figures = json.loads(looked.out)
    assert figures["rows"] == 300
    assert figures["feasible"] is True
    assert figures["constraints"][0]["cases"] == figures["splits"]["certify"]["sick"]
    monkeypatch.chdir(data.parent)
    trained = run_cli(capsys, "train", config, "--run-dir", "run", *short, "--json")
    assert trained.code in (0, 1), trained.err
    assert json.loads(trained.out)["run"] == "run"
    kept, _ = load_config(data.parent / "run" / "config.toml")
    assert kept.training.epochs == 40


def test_the_rarest_class_must_not_be_missed_where_nobody_says(data, capsys):
    cases = make_cases(300, 0)
    cases.loc[:30, "outcome"] = "dying"
    cases.rename(columns={"outcome": "diagnosis"}).to_csv(data, index=False)
    ran = run_cli(capsys, "init", data.parent / "a.toml", "--data", data, "--json")
    assert json.loads(ran.out)["critical"] == ["dying"]
    assert json.loads(ran.out)["label"] == "diagnosis"


@pytest.mark.parametrize(
    ("more", "fragments"),
    [
        ([], ["No column", "named like labels", "--label COLUMN", "fate"]),
        (["--label", "x9"], ["no column 'x9'"]),
        (["--label", "x0"], []),
        (["--label", "outcome", "--critical", "dead"], ["--critical dead", "sick, well"]),
        (["--label", "outcome", "--at-least", "1.5"], ["--at-least is 1.5"]),
        (["--label", "outcome", "--context", "moon"], ["no column 'moon'"]),
        (["--label", "outcome", "--data", "none.csv"], ["none.csv"]),
    ],
)
def test_init_refuses_what_it_cannot_use(more, fragments, data, capsys):
    config = data.parent / "mine.toml"
    if not more:
        make_cases(50, 0).rename(columns={"outcome": "fate"}).to_csv(data, index=False)
    given = more if "--data" in more else ["--data", data, *more]
    ran = run_cli(capsys, "init", config, *given)
    if more == ["--label", "x0"]:  # 300 classes of one row each can be written down; training says the rest
        assert ran.code == 0
        return
    assert ran.refused(*fragments), ran.err
    assert not config.exists()


@pytest.mark.parametrize(
    ("change", "more", "fragments"),
    [
        ({"outcome": "sick"}, [], ["column 'outcome' holds one class, 'sick'; wanted at least 2", "--label COLUMN"]),
        (
            {"outcome": ["sick", "", *["well"] * 8]},
            [],
            ["column 'outcome' has rows without a label; fill them or drop"],
        ),
        ({}, ["--context", "id"], ["--context id: the column holds text; wanted numbers, to be cut"]),
        (dict.fromkeys(["age", "x0", "x1", "x2"], "?"), [], ["no column of numbers besides 'outcome'"]),
    ],
)
def test_init_says_which_column_is_of_no_use(change, more, fragments, data, capsys):
    make_cases(10, 0).assign(**change).to_csv(data, index=False)
    ran = run_cli(capsys, "init", data.parent / "mine.toml", "--data", data, "--label", "outcome", *more)
    assert ran.refused(str(data) if not more else "--context", *fragments), ran.err
    assert not (data.parent / "mine.toml").exists()


def test_init_doubts_a_column_of_labels_that_are_nearly_all_different(data, capsys):
    pd.DataFrame({"label": range(1001), "x": 0.5}).to_csv(data, index=False)
    ran = run_cli(capsys, "init", data.parent / "mine.toml", "--data", data)
    assert ran.refused("column 'label' holds more than 1,000 different values", "--label COLUMN"), ran.err


@pytest.mark.parametrize("option", ["--label", "--context"])
def test_init_takes_no_columns_of_a_folder_of_images(option, tmp_path, capsys):
    ran = run_cli(capsys, "init", tmp_path / "mine.toml", "--data", tmp_path, option, "kind")
    assert ran.refused("is a folder of images, whose classes are its subfolders; leave out --label and --context")
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cats" / "0.png")
    ran = run_cli(capsys, "init", tmp_path / "mine.toml", "--data", tmp_path)
    assert ran.refused("holds one class, 'cats'; wanted at least 2. Add a subfolder of another class"), ran.err


def test_init_overwrites_nothing(data, capsys):
    config = data.parent / "mine.toml"
    config.write_text("precious")
    assert run_cli(capsys, "init", config, "--data", data, "--label", "outcome").refused("is there already")
    assert config.read_text() == "precious"


def test_validate_says_that_so_few_cases_show_nothing(data, capsys):
    config = data.parent / "mine.toml"
    assert run_cli(capsys, "init", config, "--data", data, "--label", "outcome", "--at-least", 0.99).code == 0
    ran = run_cli(capsys, "validate", config, "--set", "training.epochs=5")
    assert ran.code == 1
    assert "are too few for any certificate" in " ".join(ran.out.split())
    assert "Give the certify split a larger share" in " ".join(ran.out.split())


def test_teachers_are_measured(data, capsys):
    config = data.parent / "mine.toml"
    run_cli(capsys, "init", config, "--data", data, "--label", "outcome")
    figures = json.loads(run_cli(capsys, "ensemble", config, "--json").out)
    first, second = figures["teachers"]
    assert first["agreement"]["forest"] == second["agreement"]["logistic"]
    assert first["agreement"]["logistic"] == 1
    assert 0.6 < figures["pooled"]["accuracy"] <= 1
    assert set(first["safety_by_context"]) == {"all"}
    assert first["loss_without"]["error"] > 0
    experiment = build_experiment(*load_config(config))
    trained_by = experiment.trainer().objective.pool(experiment.validation, experiment.validation.batch())
    assert [first["weight"], second["weight"]] == pytest.approx(trained_by.weights_K.mean(0).tolist())
    assert figures["recommended_pool"] in ("arithmetic", "geometric", "power")
    shown = run_cli(capsys, "ensemble", config, "--plot", data.parent / "teachers.svg")
    assert shown.code == 0, shown.err
    for fragment in ("How often two teachers name the same class", "Jensen gap", "VIII.7", "teachers.svg"):
        assert fragment in shown.out
    assert (data.parent / "teachers.svg").read_text().startswith("<?xml")
    assert run_cli(capsys, "ensemble", config, "--plot", "teachers.gif").refused("--plot is teachers.gif", ".png, .svg")


def test_everything_that_a_file_can_name_is_listed(capsys):
    from safekd.safety import MEASURES
    from safekd.weights import RULES
    from solvers.primal_dual import DUAL_METHODS

    names = json.loads(run_cli(capsys, "list", "--json").out)
    assert set(names["measures"]) == set(MEASURES)
    assert set(names["dual-methods"]) == set(DUAL_METHODS)
    assert set(names["rules"]) == {f"{scale}: {name}" for scale, rules in RULES.items() for name in rules}
    assert all(line for kind in names.values() for line in kind.values())
    assert "truth_probability" in run_cli(capsys, "list", "measures").out
    assert run_cli(capsys, "list", "colors").refused("no list of 'colors'", "measures")


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ("training.epochs", ["wanted KEY=VALUE"]),
        ("=3", ["wanted KEY=VALUE"]),
        ("training.epoch=3", ["unknown key 'training.epoch'", "did you mean 'epochs'"]),
        ("training.epochs=many", ["'training.epochs' is 'many'"]),
        ("constraints.5.at_least=0.5", ["'5' is no place in a list of 1"]),
        ("seed.more=1", ["'seed' is a value", "no keys of its own"]),
    ],
)
def test_a_key_that_leads_nowhere_is_refused(change, fragments, data, capsys):
    config = data.parent / "mine.toml"
    run_cli(capsys, "init", config, "--data", data, "--label", "outcome")
    assert run_cli(capsys, "validate", config, "--set", change).refused(*fragments)


def test_keys_of_a_list_and_tables_are_set(data, capsys):
    config = data.parent / "mine.toml"
    run_cli(capsys, "init", config, "--data", data, "--label", "outcome")
    changed, _ = load_config(config, ["constraints.0.at_least=0.5", "training.device=cpu", "student.hidden=[4, 4]"])
    assert changed.constraints[0].at_least == 0.5
    assert changed.student.hidden == [4, 4]


def test_a_folder_of_images_is_trained_from_what_init_writes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(30):
            pixels = np.clip(rng.normal(level, 40, size=(9, 7, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    config = tmp_path / "mine.toml"
    ran = run_cli(capsys, "init", config, "--data", tmp_path / "images", "--critical", "dark", "--at-least", 0.6)
    assert ran.code == 0, ran.err
    assert "60 images in subfolders: dark: 30, light: 30" in ran.out
    small = ["training.epochs=5", "data.image_size=8", "tighten.folds=2", "tighten.rounds=1", "tighten.attempts=1"]
    changes = [part for change in small for part in ("--set", change)]
    trained = run_cli(capsys, "train", config, "--run-dir", tmp_path / "run", *changes)
    assert trained.code in (0, 1), trained.err
    output = tmp_path / "out.csv"
    assert run_cli(capsys, "predict", tmp_path / "run", tmp_path / "images" / "dark", "-o", output).code == 0
    assert len(pd.read_csv(output)) == 30


def test_a_script_for_language_models_runs_as_it_is_written(tmp_path, capsys, monkeypatch):
    from tests.safekd.language.hugging_face.tiny_run import make_model

    words = {f"w{i}": i for i in range(62)} | {"[UNK]": 62, "[PAD]": 63}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]")
    for name, seed in (("student", 0), ("one", 1), ("two", 2)):
        make_model(seed).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    rng = np.random.default_rng(0)
    lines = [" ".join(f"w{i}" for i in rng.integers(0, 12, size=10)) for _ in range(60)]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    script = tmp_path / "distill.py"
    models = ["--student", tmp_path / "student", "--teacher", tmp_path / "one", "--teacher", tmp_path / "two"]
    given = ["--language", "--data", tmp_path / "texts.txt", *models, "--critical", "w3", "--at-least", 0.05]
    assert run_cli(capsys, "init", script, *given).code == 0
    monkeypatch.chdir(tmp_path)
    code = script.read_text().replace("max_steps=1000", "max_steps=2").replace("save_steps=1000", "save_steps=2")
    monkeypatch.setattr("sys.argv", ["distill.py", "--check"])
    with pytest.raises(SystemExit):
        exec(compile(code, "distill.py", "exec"), {"__name__": "__main__"})
    held_out = [line.split()[1:] for line in lines[:9]]
    with_it, times = sum("w3" in words for words in held_out), sum(words.count("w3") for words in held_out)
    said = capsys.readouterr().out
    assert f"held out: 9 texts, {with_it} with critical words, {times} positions" in said
    assert said.startswith("64 tokens; heads: teacher 0: ")
    assert "a certificate takes some " in said
    assert list((tmp_path / "runs").rglob("*.safetensors")) == []
    monkeypatch.setattr("sys.argv", ["distill.py"])
    exec(compile(code, "distill.py", "exec"), {"__name__": "__main__"})
    said = capsys.readouterr().out
    assert "critical words: " in said
    student = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "runs" / "language" / "student")
    assert student.config.vocab_size == 64
    other = transformers.PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="w5")
    other.add_tokens(["w99"])
    other.save_pretrained(tmp_path / "two")
    with pytest.raises(kd.errors.InvalidInput, match="tokenizer"):
        exec(compile(code, "distill.py", "exec"), {"__name__": "__main__"})
    assert run_cli(capsys, "init", tmp_path / "b.py", "--language", "--data", "t.txt").refused(
        "--language needs --student"
    )


def test_what_no_student_can_meet_ends_with_a_code_of_its_own(tmp_path, capsys):
    """Cases that look all alike cannot be told apart, and the two classes together cannot have more than 1."""
    make_cases(200, 0).assign(x0=1.0, x1=1.0, x2=1.0).to_csv(tmp_path / "cases.csv", index=False)
    well = '[[constraints]]\nname = "well"\ncritical = ["well"]\nat_least = 0.7\n'
    text = CONFIG.replace('contexts = ["old"]', "").replace("at_least = 0.7", "at_least = 0.8")
    (tmp_path / "mine.toml").write_text(text.replace("[training]", f"{well}[training]").replace("150", "2000"))
    looked = run_cli(capsys, "validate", tmp_path / "mine.toml")
    assert looked.code == 3
    assert "no student can meet" in " ".join(looked.out.split())
    ran = run_cli(capsys, "train", tmp_path / "mine.toml", "--run-dir", tmp_path / "run", "--json")
    record = json.loads(ran.out)
    assert (ran.code, record["status"], record["exit_code"]) == (3, "infeasible", 3), record["message"]
