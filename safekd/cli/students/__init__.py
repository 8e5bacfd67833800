"""``safekd predict``, ``certify`` and ``export``: what can be done with the student of a run folder.

``_student_app`` has the commands and their options; ``_student_commands`` does what they say.
"""

from ._student_app import add_student_commands

__all__ = ["add_student_commands"]
