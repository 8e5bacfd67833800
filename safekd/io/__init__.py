"""Tables in files: every number bit for bit, every bad cell named by its line and column, other columns left alone.

Small ones, whole:

    table = read_table("experiment.csv")            # text cells, nothing interpreted; the index holds line numbers
    x_NF = parse_numbers(table[["a", "b"]], "experiment.csv")
    write_csv(frame, "result.csv")                  # appears whole or not at all

Texts, one after the other:

    for text in read_texts("corpus.jsonl", column="text"): ...

Of any size, CSV or Parquet, block by block in constant memory:

    with open_table("weights.parquet") as table, table.copy("out.parquet", ["a", "b"]) as write:
        for block in table.blocks():
            write(block, 2 * block.numbers(["a", "b"]))     # the other columns come along as they are
"""

from ._atomic import require_writable, write_atomically
from ._cell_text import is_nameless, list_names, refuse_cell
from ._csv_dialect import ASK_SEPARATOR
from ._open_table import Block, Table, holds_numbers, open_table
from ._parquet import ParquetBlock, ParquetTable
from ._regular_files import (
    FILE_LIMITS,
    is_plain_name,
    open_regular_file,
    read_file,
    read_text_file,
    refuse_misfit,
)
from ._small_tables import guard_cell, parse_numbers, read_table, unguard_cell, write_csv
from ._table_paths import is_parquet
from ._text_files import SampleBy, Text, read_texts

__all__ = [
    "ASK_SEPARATOR",
    "FILE_LIMITS",
    "Block",
    "ParquetBlock",
    "ParquetTable",
    "SampleBy",
    "Table",
    "Text",
    "guard_cell",
    "holds_numbers",
    "is_nameless",
    "is_parquet",
    "is_plain_name",
    "list_names",
    "open_regular_file",
    "open_table",
    "parse_numbers",
    "read_file",
    "read_table",
    "read_text_file",
    "read_texts",
    "refuse_cell",
    "refuse_misfit",
    "require_writable",
    "unguard_cell",
    "write_atomically",
    "write_csv",
]
