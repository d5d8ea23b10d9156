"""The command `manta_node`, also as `python -m manta.node.command`."""

from __future__ import annotations

from manta.console.early import forget_working_folder, guard


def main() -> None:
    guard()  # before what takes time to import
    from manta.node.cli.main import main

    main()


if __name__ == "__main__":
    forget_working_folder()
    main()
