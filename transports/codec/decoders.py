"""Decoders of msgspec that are made while other threads run, each once.

What msgspec knows of a type it builds when a decoder is first made of it; a thread that makes one
of the same type meanwhile gets it half built, and the process crashes (seen with 0.22, from two
threads on). So they are made one at a time. A decoder that is made may be used by any thread.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_making = threading.Lock()
_msgpack: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
_json: dict[Any, msgspec.json.Decoder[Any]] = {}


def msgpack_decoder(of: Any) -> msgspec.msgpack.Decoder[Any]:
    """Decodes and validates a type, or one of a closed union."""
    found = _msgpack.get(of)
    if found is None:
        with _making:
            found = _msgpack.setdefault(of, msgspec.msgpack.Decoder(of))
    return found


def json_decoder(of: type[T]) -> msgspec.json.Decoder[T]:
    """Decodes and validates a type."""
    found = _json.get(of)
    if found is None:
        with _making:
            found = _json.setdefault(of, msgspec.json.Decoder(of))
    return found


def convert(value: Any, to: type[T]) -> T:
    """What was read from another format. Raises msgspec.ValidationError."""
    json_decoder(to)  # what msgspec knows of the type is there from here on
    return msgspec.convert(value, to)
