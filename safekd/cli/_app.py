"""Commands and their options.  Heavy imports happen inside commands, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(
    name="safekd",
    help="Multi-teacher knowledge distillation that is safe by construction.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out, err = Console(), Console(stderr=True)

Config = Annotated[Path, typer.Argument(help="experiment file, TOML; `safekd demo` writes one to begin with")]


def main() -> None:
    """Run the command line; own errors become one message and exit code 2."""
    from ..errors import SafekdError

    try:
        app()
    except SafekdError as error:
        err.print(f"safekd: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("safekd: stopped; nothing half written was left behind.", markup=False)
        sys.exit(130)


@app.command()
def demo(
    run_dir: Annotated[Path, typer.Option(help="where results are written")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="splits, teachers and student follow from it")] = 0,
    seeds: Annotated[int, typer.Option(min=0, help="instead: repeat the promise over this many seeds")] = 0,
) -> None:
    """Distil four biased breast-cancer teachers into one student that meets its safety threshold."""
    out.print("[bold]safekd demo[/bold]: 569 real cases, four teachers, one student that must not miss malignant ones")
    from ._demo import show_demo, show_seeds

    code = show_seeds(out, seeds, run_dir) if seeds else show_demo(out, run_dir, seed)
    raise typer.Exit(code)


@app.command()
def train(
    config: Config,
    run_dir: Annotated[Path | None, typer.Option(help="where results are written; overrides the file")] = None,
) -> None:
    """Train the student that an experiment file describes, under its safety constraints."""
    from ._experiments import show_training

    raise typer.Exit(show_training(out, config, run_dir))


@app.command()
def frontier(
    config: Config,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file to write")],
    targets: Annotated[int | None, typer.Option(min=2, help="how many thresholds; overrides the file")] = None,
    plot: Annotated[Path | None, typer.Option(help="picture to write: .png, .svg or .pdf")] = None,
) -> None:
    """Trace the Pareto frontier between distillation loss and safety."""
    from ._experiments import show_frontier

    raise typer.Exit(show_frontier(out, config, output, targets, plot))


@app.command()
def project(
    weights: Annotated[Path, typer.Argument(help="CSV file with a header; one row a weighting, one column a teacher")],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file to write, all columns kept")],
    lower: Annotated[float, typer.Option(help="lightest weight allowed")] = 0.0,
    upper: Annotated[float, typer.Option(help="heaviest weight allowed")] = 1.0,
    order: Annotated[
        list[str] | None, typer.Option(help='"a>=b": teacher a counts at least as much as b; repeatable')
    ] = None,
    margin: Annotated[float, typer.Option(help="by how much, in every ordering")] = 0.0,
    teacher: Annotated[
        list[str] | None, typer.Option(help="column of a teacher; repeatable; every column if left out")
    ] = None,
    metric: Annotated[str, typer.Option(help="euclidean, or kl to keep ratios where it can")] = "euclidean",
) -> None:
    """Project the weights in a CSV file onto the nearest ones that obey the rules."""
    from ._project import show_projection

    rules: dict[str, Any] = {"lower": lower, "upper": upper, "margin": margin}
    raise typer.Exit(show_projection(out, weights, output, rules, order or [], teacher or [], metric))
