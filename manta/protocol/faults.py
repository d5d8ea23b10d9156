"""What a command says about an unexpected exception: one sentence, the traceback in a file."""

from __future__ import annotations

import tempfile
import traceback


def sentence(error: BaseException) -> str:
    """Write the traceback to a file, and say which."""
    report = "".join(traceback.format_exception(error))
    return (
        f"a fault of Manta's own, {type(error).__name__}: {error}. "
        f"Please report it with {_kept(report)}."
    )


def _kept(report: str) -> str:
    """The file of the report, or the report itself when it can't be written."""
    try:
        fd, path = tempfile.mkstemp(prefix="manta-error-", suffix=".txt")
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(report)
    except OSError as error:
        return f"this, which could not be written to a file ({error.strerror}):\n{report}"
    return path
