"""Records of a run folder: strict models in JSON files that hold the hash of their own text."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from pydantic import ValidationError

from ..errors import InvalidInput
from ..experiment.config import Strict
from ..io.folders import read_checked_json, write_checked_json


class CheckedRecord(Strict):
    """A record that is written to a file of one name, and read back only as it was written.

    Attributes:
        file_name: Of its file.
        refusal: What a file is said to be whose hash is right and whose content is not.
    """

    file_name: ClassVar[str]
    refusal: ClassVar[str] = "is not what a run writes there"

    def save(self, folder: Path) -> None:
        """Write it to its file, with the hash of its text.

        Args:
            folder: Exists.
        """
        write_checked_json(self.model_dump(), folder / self.file_name)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return what ``save`` wrote.

        Args:
            folder: Of the run.

        Raises:
            InvalidInput: It is missing, was changed, or is none.
        """
        file = folder / cls.file_name
        record = read_checked_json(file)
        try:
            return cls.model_validate(record)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the record"
            raise InvalidInput(f"{file} {cls.refusal}: {where}: {first['msg']}.") from error
