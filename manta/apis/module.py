"""A module: the code of a task, and what it needs."""

from __future__ import annotations

import os
from pathlib import PurePath
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from manta.apis import checks
from manta.apis.errors import InvalidArgument
from manta.protocol import versions
from manta.protocol.names import MAX_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_WRAPPERS = 20
"""Decorators of a function that are looked through."""
UNNAMED = "module"
"""The name of source text without one."""


class Module:
    """The code of a task, and what it needs.

    `python_program` is source text (it has a newline), or the path of a file or package folder,
    relative to the swarm's file or else to the working folder, or the name of a registered
    module (`UserAPI.send_module`), or else of `NAME.py` or `NAME/` beside the swarm's file.
    It may also be a function or a class, of a file or a notebook: its source travels, with the
    imports, constants, functions and classes that it uses. A function is called without arguments,
    but for parameters named world, local and results, which are given a World, Local and Results.
    It is None for an image that runs its own entry point.
    `image`: a name without ":" or "/", such as "pytorch", means manta_light:pytorch.
    `datasets`: names of datasets that a node must have to run this. `version`:
    MAJOR.MINOR.PATCH, whose content never changes once it was sent; or a range in the grammar of
    PEP 440 (">=1.0,<2", "~=1.2", "==1.*"), which selects the highest registered version in it.
    `requirements`: what nodes install for it: lines of a requirements file that name packages
    ("humanize>=4"), or "--require-hashes". `resources`: what one instance needs, any of cpu
    (cores), memory, disk (bytes, or a text such as "2 GiB"), gpu (count), gpu_memory (bytes that
    each of these has), gpu_shared (true: others may have the rest of that memory), isolation: the
    least that a node has to isolate it by, "limits", "landlock", "bwrap", "docker" or "gvisor";
    arch ("x86_64", "aarch64") and labels (a dict): what its node has to be and to have.
    `network`: where it connects to, "outbound:HOST:PORT" each, as nodes' owners allow.
    `include`: more files and folders, packed beside the program under their own names.

    Raises InvalidArgument. Files are looked up when the swarm is compiled.
    """

    def __init__(
        self,
        python_program: str | os.PathLike[str] | Callable[..., Any] | None,
        image: str | None = None,
        name: str | None = None,
        datasets: str | Sequence[str] | None = None,
        version: str | None = None,
        requirements: str | Sequence[str] | None = None,
        resources: Mapping[str, Any] | None = None,
        include: str | Sequence[str | os.PathLike[str]] | None = None,
        network: str | Sequence[str] | None = None,
    ) -> None:
        self.function = _function(python_program)
        self.python_program = None if self.function is not None else _program(python_program)
        self.image = None if image is None else _image(image)
        if not self.has_program and self.image is None:
            raise InvalidArgument(
                "Module's python_program is None and it has no image, so there is nothing to run: "
                "give a program, an image, or both."
            )
        self.name = checks.name("Module's name", self._default_name() if name is None else name)
        self.datasets = checks.names("Module's datasets", datasets)
        self.version = None if version is None else _version(version)
        self.requirements = checks.requirements("Module's requirements", requirements)
        self.resources = checks.resources("Module's resources", resources)
        self.outbound = checks.outbound("Module's network", network)
        self.include = _include(include)
        if self.include and not self.has_program:
            raise InvalidArgument(
                "Module's include adds files to a program, and python_program is None: "
                "give a program, or leave include out."
            )
        if self.requirements and not self.has_program:
            raise InvalidArgument(
                "Module's requirements are installed for a program, and python_program is None: "
                "have them in the image, or give a program."
            )
        if self.is_range and (self.python_program is None or self.is_source):
            what = "an image alone"
            if self.has_program:
                what = "source text" if self.is_source else "a function"
            raise InvalidArgument(
                f"Module {self.name!r} is {what} and has the range {self.version!r}, which names "
                'registered modules: give it one version, such as "1.0.0".'
            )

    @property
    def has_program(self) -> bool:
        """Whether there is more than an image."""
        return self.function is not None or self.python_program is not None

    @property
    def is_source(self) -> bool:
        """Whether `python_program` is source text and not a path or name."""
        return self.python_program is not None and "\n" in self.python_program

    @property
    def is_range(self) -> bool:
        """Whether `version` is a range, which only registered modules can have."""
        return self.version is not None and not versions.is_version(self.version)

    def _default_name(self) -> str:
        if self.function is not None:
            return str(self.function.__name__)[:MAX_NAME]
        if self.python_program is None:
            assert self.image is not None
            return self.image.rpartition("/")[2].partition(":")[0] or UNNAMED
        if self.is_source:
            return UNNAMED
        return PurePath(self.python_program).stem[:MAX_NAME] or UNNAMED

    def __repr__(self) -> str:
        program = "source text" if self.is_source else self.python_program
        if self.function is not None:
            program = self.function.__qualname__
        return f"<Module {self.name}: {program or self.image}>"


def _function(value: Any) -> Any:
    """Returns a function or class, and None for anything else. Raises InvalidArgument."""
    if isinstance(value, str | os.PathLike) or not callable(value):
        return None
    if isinstance(value, MethodType):
        raise InvalidArgument(
            f"Module's python_program is {checks.shown(value)}, a method of an object: "
            "give its class, or a function."
        )
    function: Any = value
    for _ in range(_WRAPPERS):
        function = getattr(function, "__wrapped__", function)
    if str(getattr(function, "__module__", "")).startswith("manta."):
        raise InvalidArgument(
            f"Module's python_program is {checks.shown(value)}, which is Manta's own: give a "
            "function or a class of yours; with class_name= you choose a class of a file."
        )
    if getattr(function, "__name__", "") == "<lambda>":
        raise InvalidArgument(
            "Module's python_program is a lambda, which has no name: write it with def."
        )
    if not isinstance(function, type | FunctionType):
        raise InvalidArgument(
            f"Module's python_program is {checks.shown(value)}: give a function that is written "
            "with def, or a class."
        )
    return function


def _program(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    value = checks.plain(value)
    if not isinstance(value, str):
        raise InvalidArgument(
            f"Module's python_program is {checks.shown(value)}: "
            "give a path, a name or source text, or None for an image alone."
        )
    if not value.strip():
        raise InvalidArgument("Module's python_program is empty: give a path or source text.")
    if "\0" in value:
        raise InvalidArgument("Module's python_program has a null character: remove it.")
    return value


def _image(value: object) -> str:
    image = checks.name("Module's image", value)
    if any(character.isspace() for character in image):
        raise InvalidArgument(
            f"Module's image is {image!r}: give the name of an image, such as python:3.12."
        )
    return image if ":" in image or "/" in image else f"manta_light:{image}"


def _version(value: object) -> str:
    value = checks.plain(value)
    try:
        if not isinstance(value, str):
            raise ValueError
        versions.allowed(value.strip())
    except ValueError:
        raise InvalidArgument(
            f"Module's version is {checks.shown(value)}: {versions.REMEDY}."
        ) from None
    return value.strip()


def _include(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    entries = [value] if isinstance(value, str | os.PathLike) else value
    if not isinstance(entries, list | tuple):
        raise InvalidArgument(
            f"Module's include is {checks.shown(value)}: give a list of files and folders."
        )
    return checks.names(
        "Module's include",
        [os.fspath(item) if isinstance(item, os.PathLike) else item for item in entries],
    )
