"""Names for what decides a result: two things of one fingerprint behave alike, as far as can be seen.

    fingerprint(weights)            # a tensor, a module, a rule, a function with all that it closes over
    describe(rule)                  # the same behind a readable name: "EntropyDecay(scale=2.0) [3f2a9c41d0b7]"
    compare_records(before, now)    # what differs between two dictionaries of them, a phrase for each key

Seen are the numbers of tensors and arrays; a module's structure, code, parameters, buffers, modes and hooks; an
object's class and what it would pickle; a function's code, defaults, closure, and the globals that it reads.  What came
with Python or with an installed package is told by its name.  Not seen are files, names that are worked out at run
time, what a compiled library keeps for itself, and what a function collects in lists and dictionaries around it.
"""

from ._content_hash import describe, fingerprint, fingerprint_structure, hash_model
from ._record_changes import compare_records, digest_numbers, require_key_list, select_refused

__all__ = [
    "compare_records",
    "describe",
    "digest_numbers",
    "fingerprint",
    "fingerprint_structure",
    "hash_model",
    "require_key_list",
    "select_refused",
]
