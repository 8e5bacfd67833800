"""Tables of numbers that stay in their file: rows are read when they are asked for, and never all of them at once.

    table = open_rows("t.npy")                      # or .safetensors, by the name of a tensor; or .parquet, by columns
    table.shape, table.dtype                        # (N, ..., V)
    table.read(torch.tensor([7, 3, 3]))             # (3, ..., V)
    SelectedRows(table, torch.tensor([9, 8]))       # some of its rows, in an order of their own
    open_rows(["a.npy", "b.npy"])                   # rows of one file after those of the other

A header is checked against the size of the file before anything is read: none makes room for what is not there.  What
a file holds is bound when it is opened: before each batch is read, one that was changed, cut short or replaced
meanwhile is an error.  Rows are read, not mapped: pages of a memory map count as the process's own, up to the whole
table, and touching those of a file that was cut short would end it.  Nothing is ever unpickled.
"""

from ._bound_file import BoundFile
from ._parquet_rows import PARQUET_ROWS, ParquetRows
from ._raw_rows import RawRows, open_tensors
from ._row_tables import JoinedRows, RowTable, SelectedRows, open_rows

__all__ = [
    "PARQUET_ROWS",
    "BoundFile",
    "JoinedRows",
    "ParquetRows",
    "RawRows",
    "RowTable",
    "SelectedRows",
    "open_rows",
    "open_tensors",
]
