"""docs/experiment_files.md states every key of the models, as they are."""

from __future__ import annotations

import re

from safekd.experiment.config import ExperimentConfig
from tests.support import config_page


def test_the_page_states_the_keys_as_they_are():
    page = config_page.PAGE.read_text(encoding="utf-8")
    assert page == config_page.replace_keys(page), "run `python -m tests.support.config_page`"


def test_no_key_is_left_out_and_each_has_a_meaning():
    keys = config_page.write_keys()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]*) \| (.+) \|$", keys, re.MULTILINE)
    named = [key for key, _, _, _ in rows]
    for model in {model for model, _ in config_page._find_models(ExperimentConfig)}:
        assert set(model.model_fields) <= set(named)
    for key in ("group", "cuts", "sharpness", "key", "image_size", "radius", "attempts", "held", "options", "jobs"):
        assert key in named
    assert all(meaning.strip() for _, _, _, meaning in rows)
    assert "| `group` | text |  | column of the file that says which rows belong together" in keys
    assert "| `targets` | whole number or list of numbers | `11` | how many, or the thresholds themselves |" in keys
    assert "### `[[teachers]]` of kind `stored`" in keys


def test_a_key_that_changes_is_noticed(monkeypatch):
    page = config_page.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(ExperimentConfig.model_fields["seed"], "description", "another meaning")
    assert page != config_page.replace_keys(page)
