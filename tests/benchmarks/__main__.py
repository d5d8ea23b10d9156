"""`make bench`: run every report of this folder, or those named. A report, never a test."""

import importlib
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def main() -> None:
    names = sys.argv[1:] or sorted(
        path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_")
    )
    for name in names:
        print(f"\n## {name}\n", flush=True)
        try:
            module = importlib.import_module(f"tests.benchmarks.{name}")
            print(f"{(module.__doc__ or '').strip()}\n", flush=True)
            module.main()
        except ModuleNotFoundError as error:
            print(f"Left out: it needs {error.name}, which is not installed.", flush=True)
        except pytest.skip.Exception as error:  # of tests.support.engine
            print(f"Left out: it {error}.", flush=True)


if __name__ == "__main__":
    main()
