"""Does memory stay constant while ten million examples stream?  Made as they are read, and from a Parquet file.

    python -m benchmarks.streamed_data [--examples 10000000] [--parquet]

Prints resident memory after the first pass over a tenth of the examples, after the whole survey, and at the end of an
epoch of training under one constraint, beside what the examples would take in memory.

``make_stream`` and ``write_parquet`` give such data to other benchmarks.  Axes: N examples, F features.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import safekd as kd
from safekd.data import StreamSource
from safekd.training.trace import Memory

FEATURES = 16


@dataclass
class MadeBatches:
    """Examples that are functions of seed and place: any number of them, none of which is held."""

    examples: int
    rows: int
    seed: int = 0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, self.examples, self.rows):
            rng = np.random.default_rng([self.seed, start])
            rows = min(self.rows, self.examples - start)
            x_NF = rng.standard_normal((rows, FEATURES), dtype=np.float32)
            label_N = x_NF[:, 0] + 0.5 * rng.standard_normal(rows, dtype=np.float32) > 0
            yield torch.from_numpy(x_NF), torch.from_numpy(label_N.astype(np.int64))


def make_stream(examples: int, rows: int, name: str = "train", seed: int = 0) -> StreamSource:
    """Return a stream of examples that are made as they are read.

    Args:
        examples: How many.
        rows: Of a batch.
        name: Of the stream.
        seed: Of the examples.
    """
    return StreamSource(name, MadeBatches(examples, rows, seed))


def write_parquet(path: Path, examples: int, rows: int = 2**17, seed: int = 0) -> None:
    """Write the same examples as a Parquet file of columns x0, x1, ... and label, a row group at a time.

    Args:
        path: The file.
        examples: How many.
        rows: Of a row group.
        seed: Of the examples.
    """
    names = [f"x{f}" for f in range(FEATURES)]
    schema = pa.schema([*((name, pa.float32()) for name in names), ("label", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for x_NF, label_N in MadeBatches(examples, rows, seed):
            label = np.where(label_N.numpy() == 1, "safe", "unsafe")
            columns = [*(x_NF[:, f].numpy() for f in range(FEATURES)), label]
            writer.write_table(pa.table(columns, schema=schema))


def make_trainer(batch_size: int | None = None) -> kd.ConstrainedTrainer:
    """Return a trainer of a small student under one constraint."""
    torch.manual_seed(0)
    student = torch.nn.Sequential(torch.nn.Linear(FEATURES, 32), torch.nn.Tanh(), torch.nn.Linear(32, 2))
    teacher = kd.teachers.CallableTeacher("t", lambda x: torch.stack([-x[:, 0], x[:, 0]], -1), gives="logits")
    rule = kd.SafetyConstraint("unsafe", kd.safety.TruthProbability([1]), at_least=0.7)
    adam = torch.optim.Adam(student.parameters(), lr=1e-3)
    return kd.ConstrainedTrainer(student, [teacher], constraints=[rule], optimizer=adam, batch_size=batch_size)


def report(what: str, started: float) -> float:
    """Print memory and time; return the memory, MiB."""
    resident = Memory.read(torch.device("cpu")).resident / 2**20
    print(f"{what:<58} {resident:8.0f} MiB {time.perf_counter() - started:8.0f} s", flush=True)
    return resident


def main(examples: int, rows: int, parquet: bool) -> None:
    """Stream, and say how much memory that took."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    report("before", started)
    with TemporaryDirectory() as folder:
        if parquet:
            stream = _open_parquet(Path(folder), examples, rows)
        else:
            stream = make_stream(examples, rows)
            len(make_stream(examples // 10, rows))
            report(f"a pass over {examples // 10:,} examples", started)
        print(f"{len(stream):,} examples in {stream.survey.batches:,} batches", flush=True)
        report("the survey of all of them", started)
        result = make_trainer().fit(stream, epochs=1, on_trace=lambda point: report(f"step {point.step:,}", started))
    report("the end", started)
    print(f"in memory they would take {examples * (FEATURES * 4 + 8) / 2**20:,.0f} MiB; {result.status}")
    print(result.message)


def _open_parquet(folder: Path, examples: int, rows: int) -> StreamSource:
    from safekd.experiment import _parquet_examples
    from safekd.experiment.config import DataConfig

    started = time.perf_counter()
    write_parquet(folder / "data.parquet", examples)
    report("a Parquet file is written", started)
    config = DataConfig(source="data.parquet", label="label")
    survey = _parquet_examples.survey_parquet(config, folder / "data.parquet", seed=0)
    report("classes, means and samples are read", started)
    return survey.stream(rows, seed=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000_000, help="how many")
    parser.add_argument("--rows", type=int, default=1024, help="of a batch")
    parser.add_argument("--parquet", action="store_true", help="from a Parquet file")
    given = parser.parse_args()
    main(given.examples, given.rows, given.parquet)
