"""Language models: several teachers pooled position by position, in bounded memory, under safety constraints."""

from .cache import CachedTeacher, describe_cache, verify_cache, write_cache
from .loss import Head, Hidden, Logits, TeacherOutput, TopK

__all__ = [
    "CachedTeacher",
    "Head",
    "Hidden",
    "Logits",
    "TeacherOutput",
    "TopK",
    "describe_cache",
    "verify_cache",
    "write_cache",
]
