"""What a run leaves behind while it lasts, so that it can go on after a kill as if nothing had happened.

``encode_state`` turns nested state into JSON and tensors, exact to the last bit; ``CheckpointStore`` writes it into a
folder that is there whole or not at all, with the hash of every file, and reads back the newest that holds.
"""

from ._checkpoint_store import CHECKPOINTS, CheckpointStore, StoredCheckpoint, verify_checkpoint
from ._interrupts import Interrupts
from ._random_states import keep_random_states, read_random_states, set_random_states
from ._run_checkpoints import Resume, ResumeOptions, RunCheckpoints, open_checkpoints, share_checkpoints
from ._state_encoding import EncodedState, decode_state, encode_state
from ._state_parts import StatePart, list_training_parts, load_parts
from ._tensor_files import write_tensor_file

__all__ = [
    "CHECKPOINTS",
    "CheckpointStore",
    "EncodedState",
    "Interrupts",
    "Resume",
    "ResumeOptions",
    "RunCheckpoints",
    "StatePart",
    "StoredCheckpoint",
    "decode_state",
    "encode_state",
    "keep_random_states",
    "list_training_parts",
    "load_parts",
    "open_checkpoints",
    "read_random_states",
    "set_random_states",
    "share_checkpoints",
    "verify_checkpoint",
    "write_tensor_file",
]
