"""One thread and fixed seeds: the same numbers whatever else the machine does."""

import signal

import pytest
import torch
from hypothesis import HealthCheck, settings

# a busy machine is no reason to fail
busy = [HealthCheck.too_slow]
settings.register_profile("seeded", derandomize=True, deadline=None, max_examples=50, suppress_health_check=busy)
settings.load_profile("seeded")
torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a script hands it to a suite in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)


# these take longest: first, or at the end one process waits for another
LONGEST = ("test_engines", "test_training_on_ranks", "test_readme", "test_cli_resume", "test_demo", "test_torchrun")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
