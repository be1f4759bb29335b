"""The error tree. Every error says what is wrong, where, and what to do; the command line prints it as one line.

CounterscanError
├── WordsError        the request itself is wrong (unknown finding, impossible option)   exit code 2
└── WorkError         the request is fine but the work failed                            exit code 1
    ├── ImageError    an image cannot be read, used or written
    ├── ModelError    a model folder is missing a part, is unsafe, or does not fit
    └── DataError     a manifest or data set row is unusable
"""

from __future__ import annotations


class CounterscanError(Exception):
    """Root of every error that Counterscan raises on purpose."""

    exit_code = 1


class WordsError(CounterscanError, ValueError):
    """The request is wrong: an unknown finding, method, model or option value."""

    exit_code = 2


class WorkError(CounterscanError):
    """The request was fine and the work failed."""


class ImageError(WorkError):
    """An image cannot be read, used or written. The message starts with the file."""


class ModelError(WorkError):
    """A model folder is missing a part, holds pickles, or has the wrong shapes."""


class DataError(WorkError):
    """A row of a manifest or data set is unusable. The message names file, row and field."""
