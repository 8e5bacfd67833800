"""Examples that are functions of seed and place: made as they are read, or written as a Parquet file.

Axes: N examples, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import safekd as kd
from safekd.data import StreamSource

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
