"""One run for all tests of this room."""

import pytest

from .trained_run import train_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return train_run(tmp_path_factory.mktemp("trained"))
