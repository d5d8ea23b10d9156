"""`manta new`: a project that runs right away."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import NamedTuple

import click

from manta.cli.exit_codes import unwritable
from manta.console.commands import as_json_option, check_utf8, say

FOLDER = Path(__file__).parents[1] / "templates"
"""A folder for each template; `$name`, `$folder` and `$commands` are put in its files, which end
with `.in`."""


class Kind(NamedTuple):
    """What a template's files do not say themselves."""

    commands: tuple[str, ...]
    """What runs it."""
    needs: tuple[str, ...] = ()
    """Packages that Manta's own commands do not need, by the names of their modules."""


_DATA = (
    "python $folder/make_data.py",
    "manta run $folder/swarm.py --nodes 4 --dataset points=$folder/'data/{i}.npz'",
)
TEMPLATES = {
    "average": Kind(("manta run $folder/swarm.py --nodes 3",)),
    "fl": Kind(_DATA),
    "fl-torch": Kind(_DATA, ("torch",)),
    "mesh": Kind(("manta mesh run $folder/peers.py --peers 4",)),
    "notebook": Kind(
        ("jupyter execute --inplace $folder/notebook.ipynb",), ("nbclient", "ipykernel")
    ),
    "pipeline": Kind(("manta run $folder/swarm.py --nodes 3",)),
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--template",
    type=click.Choice(list(TEMPLATES)),
    default="average",
    help="average: nodes measure and one averages, the default; fl: federated learning; fl-torch: "
    "the same with PyTorch; mesh: peers with no manager; notebook: for Jupyter; pipeline: "
    "functions as stages.",
)
@as_json_option
def new(folder: Path, template: str, as_json: bool) -> None:
    """Create FOLDER with a small project that runs right away, and its tests."""
    words = re.findall(r"[A-Za-z0-9]+", folder.name)
    name = "".join(word[:1].upper() + word[1:] for word in words)
    if not name.isidentifier():
        raise click.UsageError(
            f"{folder.name!r} does not make a class name: begin it with a letter."
        )
    check_utf8(str(folder), "FOLDER", "name another folder")
    if folder.exists():
        raise click.UsageError(f"{folder} already exists: name another folder.")
    kind = TEMPLATES[template]
    place = shlex.quote(str(folder))
    commands = [Template(command).substitute(folder=place) for command in kind.commands]
    indented = "\n".join(f"    {command}" for command in commands)
    files = {
        source.name.removesuffix(".in"): Template(source.read_text("utf-8")).substitute(
            folder=place, name=name, commands=indented
        )
        for source in sorted((FOLDER / template).glob("*.in"))
    }
    try:
        folder.mkdir(parents=True)
        for file, text in files.items():
            (folder / file).write_text(text, "utf-8")
    except OSError as error:
        raise unwritable(folder, error) from error
    missing = [module for module in kind.needs if find_spec(module) is None]
    said = [f"Created {folder}. Run it:", *(f"  {command}" for command in commands)]
    if missing:
        said.append(f"Not installed yet: pip install {' '.join(missing)}")
    record = {
        "folder": folder,
        "template": template,
        "files": list(files),
        "commands": commands,
        "missing": missing,
    }
    say(record, said, as_json=as_json)
