"""The page of all commands says what the commands say."""

from __future__ import annotations

from safekd.cli._exit_codes import ExitCode
from tests.support.pages import command_page


def test_the_page_is_up_to_date():
    page = command_page.PAGE.read_text(encoding="utf-8")
    assert page == command_page.write_page(), "run `python -m tests.support.pages.command_page`"


def test_every_command_and_exit_code_is_on_it():
    page = command_page.write_page()
    for name in ("demo", "init", "validate", "train", "predict", "certify", "export", "report", "frontier", "project",
                 "audit", "ensemble", "verify", "list", "cache build", "cache verify", "cache info"):  # fmt: skip
        assert f"\n## safekd {name}\n" in page
    assert all(f"\n| {int(code)} | " in page for code in ExitCode)
