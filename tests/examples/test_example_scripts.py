"""The scripts of examples/, in small: each does what its first line promises."""

from __future__ import annotations

import runpy

import pytest
import torch

from tests.support import ROOT

SCRIPTS = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def load_main(name):
    return runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"]


def test_a_table_with_a_class_that_must_not_be_missed():
    result, certificate = load_main("tabular")(epochs=300)
    free, safe = result.trace["safety_malignant"].iloc[[0, -1]]
    assert free < 0.7 < 0.94 < safe
    assert certificate.decision in ("safe", "not_shown")


def test_images_keep_their_recall():
    result = load_main("images")(examples=400, epochs=20)
    assert result.point.readings[0].measured > 0.9
    assert result.trace["distillation_loss"].iloc[-1] < result.trace["distillation_loss"].iloc[0] / 4


def test_a_rule_of_ones_own_holds_once_it_is_projected(monkeypatch):
    from safekd.weights import RULES

    monkeypatch.setitem(RULES, "token", dict(RULES["token"]))  # what the script registers is forgotten again
    result, report = load_main("custom_rule")(epochs=60)
    assert "margin" in RULES["token"]
    assert report.holds()
    assert result.point.loss < result.trace["distillation_loss"].iloc[0]


def test_a_constraint_of_ones_own_is_met():
    result = load_main("custom_constraint")(epochs=300)
    counted, smooth = (reading.measured for reading in result.point.readings)
    assert counted >= 0.94
    assert smooth >= 0.94
    assert (result.trace["safety_stop beats go"].iloc[0], result.trace["safety_no go at stop"].iloc[0]) < (0.6, 0.8)


def test_an_existing_loop_moves_a_multiplier():
    _, reached, multiplier = load_main("existing_loop")(epochs=40)
    assert multiplier > 0.1
    assert reached > 0.8  # without the constraint it stays near 0.72


def test_an_existing_hugging_face_loop_learns_under_its_constraint():
    pytest.importorskip("transformers")
    records = load_main("existing_hugging_face_loop")(steps=25)
    assert records[-1].loss < records[0].loss
    assert max(float(record.multipliers) for record in records) > 0
    assert float(records[-1].safety) > float(records[0].safety)


def test_the_page_lists_every_script():
    page = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert [name for name in SCRIPTS if f"`{name}.py`" not in page] == []
    assert len(SCRIPTS) == 6


@pytest.fixture(autouse=True)
def _keep_generators():
    with torch.random.fork_rng(devices=[]):
        yield
