"""The session that the docs show ends as they say, command by command."""

from __future__ import annotations

import re

import pytest

from .support.pages.transcript import PAGE, STEPS, run_steps


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_session_ends_as_it_is_shown(tmp_path):
    shown = PAGE.read_text(encoding="utf-8")
    for step, code, said in run_steps(tmp_path):
        assert code == step.code, f"{step.command}\n{said}"
        for certificate in re.findall(r"^.*?: (?:safe|not shown)\.", said, re.M):
            assert certificate in shown
    assert (tmp_path / "runs" / "demo" / "report.html").is_file()
    assert (tmp_path / "predictions.csv").is_file()


def test_the_page_shows_every_command():
    shown = PAGE.read_text(encoding="utf-8")
    for step in STEPS:
        assert f"$ {step.command}\n" in shown
