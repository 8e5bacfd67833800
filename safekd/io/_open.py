"""Open a table, whatever its format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._blocks import Table
from ._csv import CsvTable
from ._paths import first_bytes, is_parquet, opened

_PARQUET = (b"PAR1", b"PARE")  # a Parquet file begins with one of these; the second says that it is encrypted


@contextmanager
def open_table(path: str | os.PathLike[str]) -> Iterator[Table]:
    """Open a Parquet file, known by its suffix or its first bytes, or else a CSV file with a header.

    Raises InvalidInput when there is no such file, it cannot be read, has no header, or has two columns of one name.
    """
    file = Path(path)
    with opened(file) as stream:
        head = b"" if is_parquet(file) else first_bytes(stream, file)
        if not is_parquet(file) and head not in _PARQUET:
            yield CsvTable(file, stream, head)
            return
    from ._parquet import ParquetTable  # Arrow's part for Parquet takes a moment to import

    with file.open("rb") as seekable:
        yield ParquetTable(file, seekable)
