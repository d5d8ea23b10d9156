"""Opens files of numpy and torch without unpickling, and says what they hold where that is not
enough: the instructions of a pickle are read for that, and not followed."""

from __future__ import annotations

import io
import pickletools
import zipfile
from typing import IO, Any

_PLAIN = ("torch._utils.", "torch._tensor.", "collections.OrderedDict", "builtins.", "__builtin__.")
_TEXTS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")
_PROTOCOLS = (2, 3, 4, 5)
_OLD_FORMAT = 5  # torch's, without an archive: so many pickles, then the numbers
_NAMED = 3


class Refused(Exception):
    """A file is whole, but is not opened here: what it holds, what to do better, and the call that
    opens it, given as what is before and behind the path."""

    def __init__(self, what: str, better: str, opened_by: tuple[str, str]) -> None:
        super().__init__(what)
        self.what = what
        self.better = better
        self.opened_by = opened_by


def load_numpy(file: IO[bytes]) -> Any:
    """What numpy makes of a file: an array, or a dict of them. Raises Refused, and what numpy
    raises."""
    import numpy

    better = "save arrays of numbers, text or dates"
    if is_pickle(file.read(2)):
        raise Refused("a pickle", better, _BY_PICKLE)
    file.seek(0)
    try:
        loaded: Any = numpy.load(file, allow_pickle=False)
        if isinstance(loaded, numpy.ndarray):
            return loaded
        return {name: loaded[name] for name in loaded.files}
    except ValueError:
        if held := _numpys_objects(file):
            raise Refused(held, better, ("numpy.load(", ", allow_pickle=True)")) from None
        raise


def load_torch(file: IO[bytes]) -> Any:
    """What torch makes of a file, on the CPU. Raises Refused, and what torch raises."""
    import torch

    better = "save the state_dict(), and else only tensors and plain values"
    if program := _torchs_program(file):  # torch would load it before it refuses it
        raise Refused(program[0], better, (program[1], ")"))
    file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception:
        data = [name for name in _members(file) if name.partition("/")[2] == "data.pkl"]
        if not data:
            file.seek(0)
            pickles = _pickles(file)
            if len(pickles) == 1:
                raise Refused("a pickle", better, _BY_PICKLE) from None
            if len(pickles) < _OLD_FORMAT:
                raise
        else:
            with zipfile.ZipFile(file) as archive:
                pickles = _pickles(io.BytesIO(archive.read(data[0])))
        if held := _torchs_objects(pickles):
            raise Refused(held, better, ("torch.load(", ", weights_only=False)")) from None
        raise


_BY_PICKLE = ("pickle.load(", '.open("rb"))')


def is_pickle(start: bytes) -> bool:
    """Whether a file that starts with these bytes is a pickle."""
    return start[:1] == b"\x80" and start[1:2] != b"" and start[1] in _PROTOCOLS


def _torchs_program(file: IO[bytes]) -> tuple[str, str] | None:
    """What code a file holds, and what opens it."""
    for name in _members(file):
        part = name.partition("/")[2]
        if part == "constants.pkl" or part.startswith("code/"):
            return "a TorchScript program", "torch.jit.load("
        if part == "models/model.json" or name == "serialized_exported_program.json":
            return "a program of torch.export", "torch.export.load("
    return None


def _torchs_objects(pickles: list[list[str]]) -> str:
    found = [
        name
        for name in dict.fromkeys(name for names in pickles for name in names)
        if not (name.startswith(_PLAIN) or name.endswith("Storage"))
    ]
    named = ", ".join(found[:_NAMED]) + (", ..." if len(found) > _NAMED else "")
    return f"Python objects besides tensors ({named})" if found else ""


def _numpys_objects(file: IO[bytes]) -> str:
    file.seek(0)
    if _is_of_objects(file):
        return "an array of Python objects"
    names = []
    for name in _members(file):
        with zipfile.ZipFile(file) as archive, archive.open(name) as member:
            if _is_of_objects(member):
                names.append(name.removesuffix(".npy"))
    return f"arrays of Python objects ({', '.join(names)})" if names else ""


def _members(file: IO[bytes]) -> list[str]:
    """The names in an archive; none where the file is no archive."""
    if not zipfile.is_zipfile(file):
        return []
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def _is_of_objects(file: IO[bytes]) -> bool:
    from numpy.lib import format  # it is there: it has just failed to read this

    readers: Any = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}
    try:
        read = readers.get(format.read_magic(file))
        return read is not None and read(file)[2].hasobject
    except ValueError:
        return False


def _pickles(file: IO[bytes]) -> list[list[str]]:
    """The classes and functions that each of the pickles at a file's start names."""
    found: list[list[str]] = []
    while len(found) < _OLD_FORMAT and is_pickle(file.read(2)):
        file.seek(-2, io.SEEK_CUR)
        try:
            found.append(_names(file))
        except Exception:  # of many kinds: it ends too early, has no such instruction, ...
            return []
    return found


def _names(file: IO[bytes]) -> list[str]:
    names: list[str] = []
    texts: list[Any] = []
    memo: dict[int, Any] = {}
    top: Any = None  # of the stack, if it is a text
    argument: Any
    for instruction, argument, _ in pickletools.genops(file):
        name = instruction.name
        if name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else argument] = top
            continue
        top = None
        if name == "GLOBAL":
            names.append(str(argument).replace(" ", "."))
        elif name == "STACK_GLOBAL":
            names.append(".".join(map(str, texts[-2:])))
        elif name in _TEXTS:
            top = argument
        elif name in ("BINGET", "LONG_BINGET"):
            top = memo.get(argument)
        if top is not None:
            texts = [*texts[-1:], top]
    return names
