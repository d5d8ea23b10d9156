"""`make bench`: run every report of this folder, or those named. A report, never a test."""

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    names = sys.argv[1:] or sorted(
        path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_")
    )
    for name in names:
        module = importlib.import_module(f"tests.benchmarks.{name}")
        print(f"\n## {name}\n\n{(module.__doc__ or '').strip()}\n", flush=True)
        module.main()


if __name__ == "__main__":
    main()
