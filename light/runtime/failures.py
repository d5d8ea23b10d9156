"""Tells what went wrong in the user's code, with a traceback of the user's own lines."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator

from manta.light.runtime.loader import NothingToRun

_LONGEST_KIND = 200
_LONGEST_MESSAGE = 2_000
_LONGEST_SENTENCE = 8_000
_LONGEST_TRACEBACK = 32_000

Failure = list[str]
"""Kind, sentence and traceback: the first three fields of `manta.protocol.node.TaskError`."""


def describe(error: BaseException, doing: str, folder: str) -> Failure:
    """`doing` begins the sentence and says who raised; `folder` holds the user's code."""
    if isinstance(error, NothingToRun):
        return ["NothingToRun", sendable(str(error)), ""]
    if isinstance(error, SystemExit):
        return ["SystemExit", sendable(f"{doing} called sys.exit({error.code!r})."), ""]
    kind = type(error).__name__[:_LONGEST_KIND]
    trace = traceback.TracebackException(type(error), error, error.__traceback__)
    place = ""
    if isinstance(error, SyntaxError) and _within(error.filename or "", folder):
        where = os.path.relpath(error.filename or "", folder)
        sentence = (
            f"{doing} failed: {where} has a syntax error in line {error.lineno}: {error.msg}."
        )
    else:
        for part in _chain(trace):
            own = [frame for frame in part.stack if _within(frame.filename, folder)]
            part.stack[:] = own
        if trace.stack:
            last = trace.stack[-1]
            place = f" ({os.path.relpath(last.filename, folder)}, line {last.lineno})"
        message = str(trace)[:_LONGEST_MESSAGE].rstrip()
        if place:
            message = message.removesuffix(".")
        sentence = f"{doing} raised {kind}" + (f": {message}" if message else "") + place
        sentence = sentence if sentence.endswith((".", "!", "?")) else sentence + "."
        if isinstance(error, ModuleNotFoundError):
            sentence += (
                " Install it for the node's Python or in the image, or let a file of yours lie "
                "beside the module."
            )
    text = "".join(trace.format()).replace(folder + os.sep, "")
    if len(text) > _LONGEST_TRACEBACK:
        text = "...\n" + text[-_LONGEST_TRACEBACK:]
    return [kind, sendable(sentence), _printable(text)]


def sendable(sentence: str) -> str:
    """A sentence cut to what a node takes."""
    if len(sentence) > _LONGEST_SENTENCE:
        sentence = sentence[:_LONGEST_SENTENCE] + "..."
    return _printable(sentence)


def _printable(text: str) -> str:
    """Lone surrogates can't be sent."""
    return text.encode("utf-8", "replace").decode()


def _chain(trace: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    todo = [trace]
    while todo:
        part = todo.pop()
        yield part
        parts = [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]
        todo += [other for other in parts if other is not None]


def _within(file: str, folder: str) -> bool:
    return file.startswith(folder + os.sep)
