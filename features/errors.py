"""What can go wrong in the features room.

FeaturesError
 |- InputError             a file, row or column that cannot be read as what it should be
 |- NotWritten             a file that the disk refuses to take
 |- BadLookup              features are asked for or pushed in a way that makes no sense
 |- NotOffered             a view, a service or a push source that Feast does not have
 |- NotServed              what Feast has, and only Feast's own server does
 |- FeatureStoreError      Redis or Feast did not answer, or answered with something unreadable
     |- FeatureStoreTimeout
     |- WrongType          one key is at fault, and not the server
"""

from __future__ import annotations

from pathlib import Path


class FeaturesError(Exception):
    """Base of every error that the features room raises on purpose."""


class InputError(FeaturesError):
    """Input that cannot be used. `str()` is one line: `events.csv: row 17, column timestamp: 'soon' is not a time`.

    `row` counts as a text editor counts lines: 1 is the header of a CSV file, 2 its first record.
    """

    def __init__(
        self, message: str, *, file: Path | str | None = None, row: int | None = None, column: str | None = None
    ) -> None:
        self.file, self.row, self.column, self.message = file, row, column, message
        place = ", ".join(
            part for part in (f"row {row}" if row is not None else "", f"column {column}" if column else "") if part
        )
        super().__init__(": ".join(part for part in (str(file) if file else "", place, message) if part))


class NotWritten(FeaturesError):
    """A file that could not be written, say on a full disk. `str()` is one line that names it."""


class BadLookup(FeaturesError):
    """Features are asked for or pushed in a way that makes no sense. `path` names the place: `entities.user_id[3]`."""

    def __init__(self, path: str, message: str) -> None:
        self.path, self.message = path, message
        super().__init__(f"{path}: {message}")


class NotOffered(FeaturesError):
    """What Feast's registry does not have. `kind`: the class of `feast.errors` that says so in Feast's own SDK."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


class NotServed(FeaturesError):
    """What Feast offers, and is not done here."""


class FeatureStoreError(FeaturesError):
    """The online store did not answer, or answered with something unreadable."""


class FeatureStoreTimeout(FeatureStoreError):
    """The online store did not answer in the time that it was given."""


class WrongType(FeatureStoreError):
    """A key holds another type than the command works on. Asking again changes nothing; other keys are well."""
