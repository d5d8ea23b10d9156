"""numpy, imported when it is first used: where tasks run without it, all else of Manta works."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["np"]

if TYPE_CHECKING:
    import numpy as np
else:

    class _Numpy:
        def __getattr__(self, name: str) -> object:
            try:
                import numpy
            except ImportError as error:
                from manta.light.errors import MissingPackage

                raise MissingPackage(
                    "manta.light.federated needs numpy, which is not installed here: install it."
                ) from error
            value = getattr(numpy, name)
            setattr(self, name, value)  # found without this method from now on
            return value

    np = _Numpy()
