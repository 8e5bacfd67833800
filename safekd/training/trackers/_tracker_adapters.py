"""What a tracker is, and the three that are known: each imports its package when it is made."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ...errors import InvalidInput


class Tracker(Protocol):
    """Keeps the numbers of runs somewhere: any object with these three methods.

    Each may raise whatever it likes: ``TrackedRun`` warns once, leaves the tracker out, and the training goes on.
    """

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        """Begin a run; called again for the next training, where one call of ``fit`` holds several.

        Args:
            run_name: Of the run.
            config: Settings, as numbers, texts, lists and dictionaries.
        """
        ...

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep what was read after some steps.

        Args:
            step: Optimizer steps so far.
            numbers: By the names of the trace's columns; what is no number at this point is left out.
        """
        ...

    def finish(self, status: str, message: str) -> None:
        """End the run.

        Args:
            status: Verdict, ``result.status``.
            message: Its evidence, ``result.message``.
        """
        ...


class TensorBoard:
    """Writes TensorBoard's event files: ``pip install 'safekd[tensorboard]'``, then ``tensorboard --logdir FOLDER``.

    Args:
        log_dir: Folder; a run has a folder of its own in it, and one of the same name begins it anew.

    Raises:
        InvalidInput: TensorBoard is not installed.
    """

    def __init__(self, log_dir: str | os.PathLike[str] = "runs/tensorboard") -> None:
        self._module, self._log_dir = _import_package("torch.utils.tensorboard", "tensorboard"), Path(log_dir)
        self._writer: Any = None

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        """Open the run's event file.

        Args:
            run_name: Of the run; what no folder may be called is replaced by "_".
            config: Settings, kept as text.
        """
        folder = self._log_dir / (re.sub(r"[^\w .-]", "_", run_name).strip(" .") or "run")
        self._writer = self._module.SummaryWriter(folder, purge_step=0)  # hides what an older run left there
        self._writer.add_text("config", f"```json\n{json.dumps(config, indent=2, default=str)}\n```", 0)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write one scalar a number, at once, so that a run that is killed leaves its curves.

        Args:
            step: Optimizer steps so far.
            numbers: By name.
        """
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def finish(self, status: str, message: str) -> None:
        """Write the verdict and close the file.

        Args:
            status: Verdict.
            message: Its evidence.
        """
        self._writer.add_text("verdict", f"**{status}** {message}", 0)
        self._writer.close()


class WeightsAndBiases:
    """Logs to Weights & Biases, ``pip install 'safekd[wandb]'``, as a run beside any that is open already.

    Args:
        project: Of Weights & Biases.
        **init: More arguments of ``wandb.init``: ``entity``, ``tags``, ``mode="offline"``.

    Raises:
        InvalidInput: wandb is not installed.
    """

    def __init__(self, project: str = "safekd", **init: Any) -> None:
        self._module = _import_package("wandb", "wandb")
        self._init = {"project": project, "reinit": "create_new"} | init
        self._run: Any = None

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        """Begin a run.

        Args:
            run_name: Of the run.
            config: Settings.
        """
        self._run = self._module.init(**({"name": run_name} | self._init), config=dict(config))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers of one point.

        Args:
            step: Optimizer steps so far.
            numbers: By name.
        """
        self._run.log(dict(numbers), step=step)

    def finish(self, status: str, message: str) -> None:
        """Put the verdict into the summary and end the run.

        Args:
            status: Verdict.
            message: Its evidence.
        """
        self._run.summary.update({"status": status, "message": message})
        self._run.finish()


class MLflow:
    """Logs to MLflow, ``pip install 'safekd[mlflow]'``, by its client: a run that is open elsewhere stays as it is.

    Args:
        experiment: Name; made where there is none.
        tracking_uri: Server, or a file as ``sqlite:///runs.db``; None for MLflow's own setting.

    Raises:
        InvalidInput: mlflow is not installed.
    """

    def __init__(self, experiment: str = "safekd", tracking_uri: str | None = None) -> None:
        self._module = _import_package("mlflow", "mlflow")
        self._experiment, self._uri = experiment, tracking_uri
        self._client: Any = None
        self._run_id = ""
        self._names: dict[str, str] = {}  # ours to MLflow's

    def start(self, run_name: str, config: Mapping[str, Any]) -> None:
        """Begin a run.

        Args:
            run_name: Of the run.
            config: Settings, kept as parameters.
        """
        self._client, self._names = self._module.MlflowClient(tracking_uri=self._uri), {}
        known = self._client.get_experiment_by_name(self._experiment)
        number = self._client.create_experiment(self._experiment) if known is None else known.experiment_id
        self._run_id = self._client.create_run(number, run_name=run_name).info.run_id
        for name, value in config.items():
            self._client.log_param(self._run_id, _replace_signs(name), str(value)[:500])  # longer ones are refused

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log all numbers of one point in one call.

        Args:
            step: Optimizer steps so far.
            numbers: By name; signs that MLflow refuses become "_".
        """
        now, entity = int(time.time() * 1000), self._module.entities.Metric
        metrics = [entity(self._name_metric(name), number, now, step) for name, number in numbers.items()]
        for first in range(0, len(metrics), 1000):  # more in one call are refused
            self._client.log_batch(self._run_id, metrics=metrics[first : first + 1000])

    def finish(self, status: str, message: str) -> None:
        """Tag the run with the verdict and end it.

        Args:
            status: Verdict; ``diverged`` ends the run as failed.
            message: Its evidence.
        """
        self._client.set_tag(self._run_id, "safekd.status", status)
        self._client.set_tag(self._run_id, "safekd.message", message[:5000])
        self._client.set_terminated(self._run_id, "FAILED" if status == "diverged" else "FINISHED")

    def _name_metric(self, name: str) -> str:
        """Return the name under which MLflow takes it: two names stay two."""
        if name not in self._names:
            plain = _replace_signs(name)
            taken = sum(other == plain or other.startswith(f"{plain}__") for other in self._names.values())
            self._names[name] = f"{plain}__{taken + 1}" if plain in self._names.values() else plain
        return self._names[name]


TRACKERS: dict[str, Callable[[], Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
"""Trackers by the names of their extras, made with their defaults."""


def _replace_signs(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_\-. /]", "_", name)


def _import_package(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise InvalidInput(
            f"The tracker '{extra}' needs a package that cannot be imported ({error}): pip install 'safekd[{extra}]'."
        ) from error
