"""Language models: several teachers pooled position by position, in bounded memory, under safety constraints."""

from .loss import Head, Hidden, Logits, TeacherOutput, TopK

__all__ = ["Head", "Hidden", "Logits", "TeacherOutput", "TopK"]
