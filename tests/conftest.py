"""One thread and fixed seeds: the same numbers whatever else the machine does."""

import gc
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
LONGEST = (
    *("test_readme", "test_engines", "test_demo", "test_training_on_ranks", "test_torchrun", "test_cli_resume"),
    *("test_exact_resume", "test_laws", "test_sweep_damage", "test_streamed_fits"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of garbage collection: a walk of it all takes a quarter of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
