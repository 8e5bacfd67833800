"""An experiment file that tests change line by line, and what it says."""

from __future__ import annotations

from pathlib import Path

from safekd.experiment.config import ExperimentConfig, parse_config


def load_cases_config() -> tuple[str, ExperimentConfig]:
    """Return the file as text and as a model."""
    text = (Path(__file__).parent / "breast_cancer.toml").read_text(encoding="utf-8")
    return text, parse_config(text, "the file")
