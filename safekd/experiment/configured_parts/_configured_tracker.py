"""The tracker that a configuration names, as a callback of its training."""

from __future__ import annotations

import inspect
from typing import Any

from ...errors import InvalidConfig
from ...training.trackers import TRACKERS, TrackedRun
from ..config import ExperimentConfig, suggest_name


def build_tracked_run(config: ExperimentConfig, name: str) -> TrackedRun | None:
    """Return what tells the tracker of a run; None where the configuration names none.

    Args:
        config: The configuration, which the tracker keeps beside the settings of the run.
        name: Of the run, where the configuration states none.

    Raises:
        InvalidConfig: The tracker has no such option, or an option of another type.
        InvalidInput: Its package is not installed.
    """
    chosen = config.tracker
    if chosen is None:
        return None
    build: Any = TRACKERS[chosen.kind]
    takes = inspect.signature(build).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in takes.values()):
        for option in chosen.options:
            if option not in takes:
                raise InvalidConfig(
                    f"tracker.options.{option}: {chosen.kind} has no option of that name; "
                    f"{suggest_name(option, takes) or 'choose a known one.'} Known: {', '.join(takes)}."
                )
            if not isinstance(chosen.options[option], str):  # folders, names and addresses, all of them
                raise InvalidConfig(f"tracker.options.{option} is {chosen.options[option]!r}; wanted a text.")
    settings = config.model_dump(mode="json", exclude_none=True, exclude={"tracker"})  # an address may hold a password
    return TrackedRun(build(**chosen.options), chosen.name or name, settings)
