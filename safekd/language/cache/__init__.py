"""What teachers said, on disk: asked once, read in any order afterwards.

    cached = write_cache("cache", [general, careful], train, kind="topk", k=64)     # or kind="hidden"
    CachedTeacher("cache", "general", expect=general.manifest())(batch)             # Hidden or TopK of a shuffled batch
    verify_cache("cache").holds()                                                   # every byte as it was written

In this order: ``_example_keys`` tells examples by their content, ``_answer_formats`` turns what a teacher says into
rows of numbers and back, ``_shard_files`` stores these, ``_cache_writer`` goes on where a build was stopped, and
``CachedTeacher`` answers.
"""

from ._cache_folder import is_cache
from ._cache_record import CacheRecord
from ._cached_teacher import CachedTeacher
from ._verify_cache import CacheInfo, describe_cache, verify_cache
from ._write_cache import CacheProgress, write_cache

__all__ = [
    "CacheInfo",
    "CacheProgress",
    "CacheRecord",
    "CachedTeacher",
    "describe_cache",
    "is_cache",
    "verify_cache",
    "write_cache",
]
