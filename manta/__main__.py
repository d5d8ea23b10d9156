"""The command `manta`, also as `python -m manta`."""

from __future__ import annotations

from manta.console.early import forget_working_folder, guard


def main() -> None:
    guard()  # before what takes time to import
    from manta.cli.main import main

    main()


if __name__ == "__main__":
    forget_working_folder()
    main()
