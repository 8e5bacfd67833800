"""Where a run comes from: data, configuration, versions, and the hash of every file."""

from __future__ import annotations

from .._elements import Element, fold, format_number, make, make_table, shorten
from .._read_run import ReportedRun
from ._course import show_evidence


def show_origin(run: ReportedRun) -> Element:
    """Return the section.

    Args:
        run: Whose origin.
    """
    files: list[list[Element | str]] = [
        [name, f"{stated.get('bytes', 0):,}", make("code", str(stated.get("sha256", "")))]
        for name, stated in run.files.items()
    ]
    return make(
        "section",
        make("h2", "Data, configuration, versions, hashes"),
        make("p", "SHA-256 of the manifest of this run, which has the hash of every file: ", make("code", run.sha256)),
        _tabulate_uses(run),
        _describe_student(run),
        show_evidence(run),
        fold("Configuration, every default written out", make("pre", run.config)) if run.config else None,
        fold("Files and their hashes", make_table(["file", "bytes", "SHA-256"], files, "Files of the run")),
    )


def _tabulate_uses(run: ReportedRun) -> Element | None:
    rows: list[list[Element | str]] = [
        [
            str(use["split"]),
            f"{use['examples']:,}",
            "; ".join(map(str, use["roles"])),
            f"{use['looks']:,}",
            make("code", shorten(str(use["sha256"]), 17)),
        ]
        for use in run.data
    ]
    heads = ["split", "examples", "used for", "looks", "SHA-256"]
    return make_table(heads, rows, "Data that the run used") if rows else None


def _describe_student(run: ReportedRun) -> Element | None:
    spec, facts = run.spec, run.facts
    if spec is None:
        return make("p", "A run of a module of its own: its folder names no features, no classes and no versions.")
    options = "".join(f", {name} {value}" for name, value in spec.options.items())
    rows = [
        ["student", f"{spec.kind}{options}, {len(spec.features)} in, {len(spec.classes)} out, seed {spec.seed}"],
        ["classes", ", ".join(spec.classes)],
        ["features", ", ".join(spec.features)],
        ["data", f"{spec.source}, {spec.rows:,} rows" + (f", SHA-256 {spec.source_sha256}" * bool(spec.source_sha256))],
        *([["accuracy", _list_accuracies(facts.accuracy)]] if facts is not None else []),
        ["versions", ", ".join(f"{name} {number}" for name, number in spec.versions.items())],
    ]
    return make_table(["what", "of this run"], rows, "Student, data and versions")


def _list_accuracies(accuracy: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {format_number(value)}" for name, value in accuracy.items())
