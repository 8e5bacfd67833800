"""A model card: what a student was promised to do, what data showed, what they did not show, and how to run it.

Source: Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import escape_controls
from ..experiment import Experiment
from ..safety import Certificate, SafetyConstraint
from ..training import FitResult
from ..training.trace import ConstraintReading
from ._student_spec import StudentSpec

MODEL_CARD = "MODEL_CARD.md"


def format_model_card(spec: StudentSpec, experiment: Experiment, result: FitResult, refused: Sequence[str] = ()) -> str:
    """Return the card in Markdown.

    Args:
        spec: Features, classes and making of the student.
        experiment: Its data, teachers and constraints.
        result: The run, with its certificates.
        refused: Why constraints have no certificate, a sentence each.
    """
    parts = [
        f"# Student of {_escape(', '.join(spec.classes[:6]))}{', ...' * (len(spec.classes) > 6)}",
        f"A student of kind {_escape(_name_kind(spec))} on {len(spec.features)} features, "
        f"distilled from {len(spec.teachers)} teachers under {len(experiment.constraints)} safety "
        f"constraint{'s' * (len(experiment.constraints) != 1)}. Verdict of the run: **{result.status}**.",
        _escape(result.message),
        "## What was promised\n\n" + _list_promises(experiment.constraints),
        "## What new data showed\n\n" + _list_certificates(result.certificates, refused),
        "## What was measured\n\n" + _tabulate_readings([*result.point.readings, *result.point.validation]),
        "## What was not shown\n\n" + _list_gaps(experiment, result),
        "## Data\n\n" + _describe_data(spec, experiment),
        "## Teachers\n\n" + _list(_escape(name) for name in spec.teachers),
        "## How to run it\n\n" + _explain_use(spec),
        "## Versions\n\n" + _list(f"{name} {number}" for name, number in spec.versions.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _name_kind(spec: StudentSpec) -> str:
    options = ", ".join(f"{name} = {value}" for name, value in spec.options.items())
    return f"{spec.kind} of {spec.package}{f' ({options})' * bool(options)}"


def _explain_use(spec: StudentSpec) -> str:
    shape = spec.images
    new, features = "new.csv", f"Features, in this order: {_escape(', '.join(spec.features))}."
    if shape is not None:
        new = "images/"
        features = (
            f"Features: the pixels of images scaled to {shape.width} x {shape.height}, from 0 to 1, "
            f"{_escape(spec.features[0])} to {_escape(spec.features[-1])}, channel by channel and row by row."
        )
    return (
        f"```sh\nsafekd predict RUN {new} -o predictions.csv\n```\n\n```python\nimport safekd as kd\n\n"
        'student = kd.load("RUN")\nstudent.predict(frame)  # a DataFrame with the features below\n```\n\n' + features
    )


def _list_promises(constraints: Sequence[SafetyConstraint]) -> str:
    return _list(
        f"{_escape(one.name)}: {type(one.measure).__name__} {'=' if one.is_equality else '>='} {one.required:g}, "
        f"posed on the {one.split} split"
        for one in constraints
    )


def _list_certificates(certificates: Sequence[Certificate], refused: Sequence[str]) -> str:
    lines = [_escape(str(one)) for one in certificates] + [_escape(text) for text in refused]
    return _list(lines) if lines else "Nothing was certified."


def _tabulate_readings(readings: Iterable[ConstraintReading]) -> str:
    rows = [
        f"| {_escape(one.name)} | {one.split} | {one.measured:.4f} | {one.required:g} | {one.count} |"
        for one in readings
    ]
    return "\n".join(["| constraint | data | measured | required | cases |", "| --- | --- | --- | --- | --- |", *rows])


def _list_gaps(experiment: Experiment, result: FitResult) -> str:
    shown = {one.constraint for one in result.certificates if one.decision == "safe"}
    gaps = [f"{_escape(one.name)} is not shown on new data." for one in experiment.constraints if one.name not in shown]
    gaps.append(
        "A certificate is about data drawn as the held-out ones were. Other places, other times, and whoever chooses "
        "inputs to fool the student are not covered."
    )
    return _list(gaps)


def _describe_data(spec: StudentSpec, experiment: Experiment) -> str:
    hashed = f" (SHA-256 {spec.source_sha256})" if spec.source_sha256 else ""
    sizes = [f"{name}: {len(split)} examples" for name, split in experiment.splits.items()]
    contexts = [f"contexts by '{_escape(spec.context_column or '')}': {_escape(', '.join(spec.contexts))}"]
    return _list(
        [f"{_escape(spec.source)}{hashed}, {spec.rows} rows", *sizes, *(contexts if spec.context_column else [])]
    )


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _escape(text: str) -> str:
    """Return text in which names say nothing to Markdown or HTML."""
    plain = escape_controls(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{sign}" if sign in "\\`*[]|#" else sign for sign in plain)
