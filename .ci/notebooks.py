"""Run the notebooks of examples/notebooks, outputs included: `make notebooks`.

The site shows them as they are stored. With a folder as argument, write them there instead; a test
compares those with the repository's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "notebooks"
LIMIT = 120  # seconds, of a cell


def run(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(source, as_version=4)
        client = NotebookClient(
            notebook,
            timeout=LIMIT,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute()
        notebook.metadata["language_info"] = {"name": "python"}  # no version of this machine's
        nbformat.write(notebook, folder / source.name)


if __name__ == "__main__":
    run(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
