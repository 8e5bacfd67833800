"""Run folders, each trained once."""

from __future__ import annotations

import pytest

from tests.support.reports.runs import make_bare_run, make_run


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("reported"), "first")


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("reported"), "second", seed=1, epochs=60)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("reported"), "hostile<b>", hostile=True, epochs=20)


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported") / "bare"
    make_bare_run(folder)
    return folder
