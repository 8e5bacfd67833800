"""The scripts of examples/language_model in small: they end, go on, and say what they show."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import safekd as kd
from safekd.distributed import Ranks
from tests.support.rank_worker import run_on_ranks

from .tiny_family import EXAMPLE, example_modules, prepare

quiet = lambda text: None  # noqa: E731


@pytest.fixture(scope="module", autouse=True)
def in_the_examples_folder():
    with example_modules():
        yield


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    student, tokenizer, splits, live, settings = prepare(folder)
    from off_policy import cache_teachers

    cached = cache_teachers(live, splits, folder / "cache", quiet)
    return student, tokenizer, splits, live, cached, settings


@pytest.fixture(scope="module")
def whole_run(family, tmp_path_factory):
    from off_policy import run_variants

    student, _, splits, _, cached, settings = family
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_variants(student, cached, splits, settings, folder, Ranks(), quiet)


def test_the_three_teachers_differ(family):
    _, _, splits, live, cached, _ = family
    batch = splits.validation.batch()
    said = [kd.language.Head.logits(t(batch).head, t(batch).hidden).float().softmax(-1) for t in live]
    apart = [(a - b).abs().sum(-1).mean() for a, b in ((said[0], said[1]), (said[0], said[2]), (said[1], said[2]))]
    assert min(apart) > 1e-3
    assert [t.name for t in cached] == ["reference", "licence", "careful"]


def test_windows_are_in_one_split_each_and_hold_a_critical_word(family):
    _, _, splits, *_ = family
    rows = [
        tuple(row) for s in (splits.train, splits.validation, splits.held_out) for row in s.inputs["input_ids"].tolist()
    ]
    assert len(set(rows)) == len(rows)
    critical = torch.tensor(splits.critical)
    assert bool(torch.isin(splits.held_out.labels, critical).any(1).all())


def test_every_variant_has_a_row_with_loss_safety_certificate_and_weights(whole_run):
    folder, _ = whole_run
    table = pd.read_csv(folder / "table.csv")
    assert table["variant"].tolist() == ["uniform", "routed", "conforming", "constrained"]
    assert bool((table["perplexity"] > 1).all())
    assert set(table["certificate, reference"]) <= {"safe", "not shown"}
    assert bool((table["lower bound, licence"] <= table["safety, licence"]).all())
    assert table["weights moved"][0] == pytest.approx(0, abs=1e-6)
    assert table["weights moved"][1] == pytest.approx(2 / 3, abs=1e-5)  # one-hot among three
    assert 0 < table["weights moved"][2] < 2 / 3
    assert (folder / "safety.png").stat().st_size > 1000
    assert "of a step's processor time" in (folder / "table.md").read_text()


def test_constrained_students_are_safer_than_conforming_ones(whole_run):
    _, rows = whole_run
    by_name = {row["variant"]: row for row in rows}
    assert any(by_name["constrained"][f"multiplier, {c}"] > 0 for c in ("reference", "licence"))
    for context in ("reference", "licence"):
        assert by_name["constrained"][f"safety, {context}"] >= by_name["conforming"][f"safety, {context}"] - 1e-3


class Killed(Exception):
    pass


@pytest.mark.processes
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(family, whole_run, tmp_path):
    from off_policy import run_variants

    student, _, splits, _, cached, settings = family

    class Dies:
        def __init__(self, teacher, after):
            self.teacher, self.left = teacher, after
            self.name, self.vocabulary, self.manifest = teacher.name, teacher.vocabulary, teacher.manifest

        def __call__(self, batch):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return self.teacher(batch)

    for after in (7, 21):
        teachers = [Dies(cached[0], after), *cached[1:]]
        with pytest.raises(Killed):
            run_variants(student, teachers, splits, settings, tmp_path, Ranks(), quiet)
    run_variants(student, cached, splits, settings, tmp_path, Ranks(), quiet)
    whole, _ = whole_run
    for name in ("uniform", "routed", "conforming", "constrained"):
        file = f"{name}.safetensors"
        assert (tmp_path / file).read_bytes() == (whole / file).read_bytes()


def read_multipliers(ranks):
    import tempfile

    with example_modules(), tempfile.TemporaryDirectory() as folder:
        from student_runs import make_step, measure_evidence, train_student

        student, _, splits, live, settings = prepare(Path(folder), steps=6)
        evidence = measure_evidence(live, splits.validation, splits.critical)
        step = make_step("constrained", live, evidence, splits.critical, settings, ranks)
        own = kd.language.CausalStudent(student)
        train_student(own, step, live, splits.train, settings, Path(folder) / "student.safetensors", quiet)
        return step.multipliers


@pytest.mark.processes
@pytest.mark.slow  # tests of the trainer and of steps have two processes by default
def test_two_processes_have_the_multipliers_of_one():
    ((first, second),) = run_on_ranks(2, read_multipliers)
    assert torch.equal(first, second)
    assert bool((first > 0).any())
    torch.testing.assert_close(first, read_multipliers(Ranks()), rtol=1e-4, atol=1e-6)


def test_the_student_that_writes_has_a_row_and_its_texts_are_counted(family, tmp_path):
    import on_policy
    from on_policy import WritingSettings, write_variants

    student, tokenizer, splits, live, _, settings = family
    writing = WritingSettings(steps=6, batch=4, length=5, every=2)
    kept, on_policy.ADDRESS = on_policy.ADDRESS, ("copied", "user", "error", "type")
    try:
        rows = write_variants(student, tokenizer, splits, live, settings, writing, tmp_path, quiet)
        again = write_variants(student, tokenizer, splits, live, settings, writing, tmp_path, quiet)
    finally:
        on_policy.ADDRESS = kept
    assert [row["variant"] for row in rows] == ["uniform", "routed", "conforming", "constrained"]
    assert all(row["written"] == 12 and row["dropped"] == 0 and row["oldest"] <= 1 for row in rows)
    assert "multiplier, no address" in rows[3]
    assert [row["perplexity"] for row in again] == [row["perplexity"] for row in rows]


@pytest.mark.processes
def test_a_writing_run_that_was_killed_goes_on_to_the_same_bytes(family, tmp_path):
    import copy

    import on_policy
    from student_runs import measure_evidence

    student, tokenizer, splits, live, _, settings = family
    evidence = measure_evidence(live, splits.validation, splits.critical)
    kept, on_policy.ADDRESS = on_policy.ADDRESS, ("copied", "user", "error", "type")

    def go(file, say):
        torch.manual_seed(0)
        own = kd.language.CausalStudent(copy.deepcopy(student).train())
        writing = on_policy.WritingSettings(steps=8, batch=4, length=5, every=2)
        run = ("constrained", own, live, evidence, splits, tokenizer, settings, writing, tmp_path / file, say)
        return on_policy.write_and_learn(*run)[1]

    def die(text):
        if text.startswith("step 4"):
            raise Killed

    try:
        whole = go("whole.safetensors", quiet)
        with pytest.raises(Killed):
            go("killed.safetensors", die)
        assert go("killed.safetensors", quiet) == whole
    finally:
        on_policy.ADDRESS = kept
    assert (tmp_path / "killed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_projected_embeddings_keep_the_dot_products_as_well_as_any():
    from smollm_family import project_embeddings

    weight = torch.randn(60, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close((e := project_embeddings(weight, 12)) @ e.T, weight @ weight.T)
    singular = torch.linalg.svdvals(weight)
    lost = torch.linalg.matrix_norm(weight @ weight.T - (e := project_embeddings(weight, 5)) @ e.T)
    assert float(lost) == pytest.approx(float(singular[5:].pow(4).sum().sqrt()))


def test_the_reference_is_prose_that_ships_with_python():
    from real_texts import leave_out_copies, read_reference

    paragraphs = read_reference()
    assert len(paragraphs) > 500
    assert "statement" in " ".join(paragraphs)
    copied = paragraphs[3] + " And one more word."
    assert leave_out_copies([*paragraphs[:10], copied]) == leave_out_copies(paragraphs[:10])


def test_the_readme_names_what_the_scripts_take():
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    for script in ("off_policy.py", "on_policy.py"):
        assert f"python examples/language_model/{script}" in text
        code = (EXAMPLE / script).read_text(encoding="utf-8")
        options = set(re.findall(r'add_argument\("(--[a-z]+)"', code))
        assert {o for o in options if o not in text} == set()
    from student_runs import RunSettings

    assert f"{RunSettings().promised[0]:.2f}" in text
    assert replace(RunSettings()) == RunSettings()
