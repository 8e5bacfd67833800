"""Students that an experiment file can name: built in, registered in this process, or brought by another package.

    [student]
    kind = "my_net"             # a name, never the path of something to import
    [student.options]
    width = 64

A package brings one by an entry point of the group ``safekd.students``, a script by ``register_student``.  Both are
functions ``(inputs: int, classes: int, **options) -> nn.Module`` from rows (B, inputs) to logits (B, classes); one that
has a parameter ``image_shape`` is also told (channels, height, width) where the data are images.
"""

from ._built_in_students import build_mlp
from ._student_registry import StudentMaker, find_student, list_students, register_student

__all__ = ["StudentMaker", "build_mlp", "find_student", "list_students", "register_student"]
