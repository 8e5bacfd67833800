"""``safekd cache build | verify | info``: models and texts in, a cache out."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from safekd.language import CachedTeacher, CausalTeacher, as_text_source, write_cache
from tests.safekd.language.tiny_models import causal_model, tokenizer
from tests.support import ROOT
from tests.support.cli_runner import run_cli

TEXTS = [
    " ".join(["the cat is a dog", "a bomb", "the", "dog is the cat the dog is"][i % 4 :] * (1 + i)) for i in range(9)
]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("calm", 0), ("bold", 1)):
        causal_model(seed=seed).save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    return folder


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def build(capsys, folder, models, texts, *more, names=("calm",)):
    options = [part for name in names for part in ("--model", models / name)]
    return run_cli(capsys, "cache", "build", folder, *options, "--data", texts, "--length", 16, *more)


def test_a_cache_that_was_built_answers_a_training_run_on_the_same_texts(models, texts, tmp_path, capsys):
    ran = build(capsys, tmp_path / "c", models, texts, "--kind", "topk", "-k", 5, names=("calm", "bold"))
    assert ran.code == 0
    assert "topk 5" in ran.out
    train = as_text_source(TEXTS, tokenizer(), length=16)
    batch = train.batch(torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:7])
    for name in ("calm", "bold"):
        teacher = CausalTeacher.load(str(models / name))
        said = CachedTeacher(tmp_path / "c", name, expect=teacher.manifest())(batch)
        wanted = torch.log_softmax(teacher(batch).head.logits(teacher(batch).hidden), -1).topk(5).values
        torch.testing.assert_close(said.log_p[batch.mask], wanted[batch.mask], atol=4e-3, rtol=0)


def test_info_and_verify_as_tables_and_as_json(models, texts, tmp_path, capsys):
    assert build(capsys, tmp_path / "c", models, texts).code == 0
    for command in ("info", "verify"):
        assert run_cli(capsys, "cache", command, tmp_path / "c").code == 0
    (held,) = json.loads(run_cli(capsys, "cache", "info", tmp_path / "c", "--json").out)
    assert (held["teacher"], held["kind"], held["width"], held["dtype"], held["finished"]) == (
        "calm",
        "hidden",
        32,
        "bfloat16",
        True,
    )
    report = json.loads(run_cli(capsys, "cache", "verify", tmp_path / "c", "--json").out)
    assert report == {"holds": True, "checked": 3, "wrong": {}, "notes": []}


def test_a_flipped_byte_has_exit_code_1_and_is_named(models, texts, tmp_path, capsys):
    build(capsys, tmp_path / "c", models, texts)
    shard = tmp_path / "c" / "calm" / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    for command in (("cache", "verify"), ("verify",)):
        for path in (tmp_path / "c", tmp_path / "c" / "calm"):
            ran = run_cli(capsys, *command, path)
            assert ran.code == 1
            assert "calm: shard-00000.safetensors is not what was written" in " ".join(ran.out.split())
    report = json.loads(run_cli(capsys, "cache", "verify", tmp_path / "c", "--json").out)
    assert list(report["wrong"]) == ["calm/shard-00000.safetensors"]
    assert run_cli(capsys, "verify", tmp_path / "c", "--repair").refused("built again, what was damaged is asked anew")
    ran = build(capsys, tmp_path / "c", models, texts)  # mends it, and says so
    assert ran.code == 0
    assert "What it held is asked anew" in " ".join(ran.err.split())
    assert run_cli(capsys, "verify", tmp_path / "c").code == 0


def test_another_model_under_the_same_name_is_refused_by_the_field_that_differs(models, texts, tmp_path, capsys):
    build(capsys, tmp_path / "c", models, texts, "--name", "t")
    before = {path: path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file()}
    ran = build(capsys, tmp_path / "c", models, texts, "--name", "t", names=("bold",))
    assert ran.refused("is a cache of another teacher", "weights is ")
    assert build(capsys, tmp_path / "c", models, texts, "--name", "t", "--prompt", "the").refused("prompt is ")
    assert build(capsys, tmp_path / "c", models, texts, "--name", "t", "--kind", "topk").refused(
        "kind of cache is 'hidden'"
    )
    assert build(capsys, tmp_path / "c", models, texts, "--name", "t", "--no-resume").refused("holds a cache already")
    assert before == {path: path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file()}


def test_more_texts_are_added_and_the_rest_is_not_asked_again(models, texts, tmp_path, capsys):
    build(capsys, tmp_path / "c", models, texts)
    (before,) = json.loads(run_cli(capsys, "cache", "info", tmp_path / "c", "--json").out)
    (tmp_path / "more.txt").write_text("a cat a cat a cat\n\nthe the the the the\n")
    ran = build(capsys, tmp_path / "c", models, texts, "--data", tmp_path / "more.txt", "--json")
    (after,) = json.loads(ran.out)
    assert after["examples"] == before["examples"] + 2
    assert (tmp_path / "c" / "calm" / "shard-00001.safetensors").exists()


def test_token_numbers_need_no_tokenizing(models, tmp_path, capsys):
    (tmp_path / "ids.jsonl").write_text('{"ids": [5, 6, 7]}\n{"ids": [8]}\n{"ids": [9, 10]}\n')
    ran = build(capsys, tmp_path / "c", models, tmp_path / "ids.jsonl", "--column", "ids", "--json")
    assert json.loads(ran.out)[0]["examples"] == 2


def test_names_are_data(models, texts, tmp_path, capsys):
    ran = build(capsys, tmp_path / "c", models, texts, "--name", "[red]\x1b[31m../x")
    assert ran.code == 0
    assert "\x1b[31m" not in ran.out + ran.err
    assert "[red]" in re.sub(r"[\s│]", "", run_cli(capsys, "cache", "info", tmp_path / "c").out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "MODELS/absent", "--data", "TEXTS"], "No causal language model can be loaded from"),
        (["--model", "MODELS/calm", "--data", "absent.jsonl"], "Cannot read absent.jsonl"),
        (["--model", "MODELS/calm", "--data", "README.pdf"], "Cannot tell what README.pdf holds"),
        (["--model", "MODELS/calm", "--data", "TEXTS", "--column", "body"], "has no 'body'; it has: 'text'"),
        (["--model", "MODELS/calm", "--data", "TEXTS", "--device", "cuda:99"], "cuda:99"),
        (
            ["--model", "MODELS/calm", "--model", "MODELS/bold", "--data", "TEXTS", "--name", "x"],
            "--name is of one model, and 2",
        ),
    ],
)
def test_bad_input_is_one_message(arguments, said, models, texts, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = [argument.replace("MODELS", str(models)).replace("TEXTS", str(texts)) for argument in arguments]
    assert run_cli(capsys, "cache", "build", tmp_path / "c", *given).refused(said)
    assert not (tmp_path / "c").exists()


def test_a_file_without_a_text_is_refused(models, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("\n\n \n")
    assert build(capsys, tmp_path / "c", models, tmp_path / "empty.txt").refused("holds no text; wanted at least one")
    (tmp_path / "short.txt").write_text("a\n")
    assert build(capsys, tmp_path / "c", models, tmp_path / "short.txt").refused("No text has two tokens")


def test_a_model_without_a_tokenizer_is_refused_with_how_to_add_one(texts, tmp_path, capsys):
    causal_model(seed=0).save_pretrained(tmp_path / "bare")
    ran = run_cli(capsys, "cache", "build", tmp_path / "c", "--model", tmp_path / "bare", "--data", texts)
    assert ran.refused("bare holds no tokenizer; save it there: tokenizer.save_pretrained(...)"), ran.err
    assert not (tmp_path / "c").exists()


def test_what_is_no_cache_has_exit_code_2(tmp_path, capsys):
    for command in ("info", "verify"):
        assert run_cli(capsys, "cache", command, tmp_path).refused("holds no teacher cache: there is no cache.json")


def test_help_has_examples(capsys):
    text = run_cli(capsys, "cache", "build", "--help").out
    assert "safekd cache build cache --model ./teacher --data corpus.jsonl --length 512" in " ".join(text.split())


def test_the_commands_of_the_documentation_run(models, texts, tmp_path, capsys, monkeypatch):
    (commands,) = re.findall(r"^```console\n(.*?)^```$", (ROOT / "docs" / "teacher_cache.md").read_text(), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    for name, own in (("calm", "teacher"), ("bold", "other")):
        shutil.copytree(models / name, own)
    shutil.copy(texts, "corpus.jsonl")
    (tmp_path / "book.txt").write_text("the cat\nis a dog\n\na bomb\n")
    assert commands.count("safekd") == 5
    for command in commands.splitlines():
        ran = run_cli(capsys, *command.split()[1:])
        assert ran.code == 0, ran.err
    assert [one["teacher"] for one in json.loads(ran.out)] == ["teacher", "other"]


def test_a_library_s_cache_and_a_command_s_are_the_same_bytes(models, texts, tmp_path, capsys):
    build(capsys, tmp_path / "a", models, texts, "--name", "t")
    teacher = CausalTeacher.load(str(models / "calm"), name="t")
    write_cache(tmp_path / "b", teacher, as_text_source(TEXTS, tokenizer(), length=16), shard_bytes=2**28)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / f).rglob("*.safetensors")} for f in "ab")
    assert first == second
