"""What a run leaves behind while it lasts, so that it can go on after a kill as if nothing had happened.

``encode_state`` turns nested state into JSON and tensors, exact to the last bit; ``CheckpointStore`` writes it into a
folder that is there whole or not at all, with the hash of every file, and reads back the newest that holds.
"""

from ._checkpoint_store import CHECKPOINTS, CheckpointStore, StoredCheckpoint, verify_checkpoint
from ._random_states import read_random_states, set_random_states
from ._state_encoding import EncodedState, decode_state, encode_state

__all__ = [
    "CHECKPOINTS",
    "CheckpointStore",
    "EncodedState",
    "StoredCheckpoint",
    "decode_state",
    "encode_state",
    "read_random_states",
    "set_random_states",
    "verify_checkpoint",
]
