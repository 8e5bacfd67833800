"""Does memory stay constant while ten million examples stream, and does such a run survive being killed?"""

from ._made_data import make_stream, make_trainer, write_parquet
from ._survivals import STREAM_CONFIG, Survival, kill_command, kill_made

__all__ = ["STREAM_CONFIG", "Survival", "kill_command", "kill_made", "make_stream", "make_trainer", "write_parquet"]
