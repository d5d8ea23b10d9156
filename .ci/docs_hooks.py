"""What the site's pages have beyond their text: the reference of the command lines, notebooks, and
their rank in a search.

A page says `<!-- commands: manta.cli.main:cli manta -->`; in its place comes every command of
that click group, those that are loaded when they are called included. In the place of
`<!-- notebook: examples/notebooks/results.ipynb -->` come the cells of that notebook with their
outputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.pages import Page

MARK = re.compile(r"<!-- commands: ([\w.]+):(\w+) (\w+) -->")
NOTEBOOK = re.compile(r"<!-- notebook: ([\w/]+\.ipynb) -->")
ROOT = Path(__file__).parent.parent
FOR_DEVELOPERS = ("internals/", "actors.md", "changes.md")
STYLE = re.compile(r"<style.*?</style>\n?", re.DOTALL)  # of pandas
HIDDEN = re.compile(r"<!--.*?-->\n?", re.DOTALL)


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Commands where a page asks for them; what concerns the tests of its blocks is left out."""
    if page.file.src_uri.startswith(FOR_DEVELOPERS):
        page.meta["search"] = {"boost": 0.5}  # found below what users read
    filled = MARK.sub(lambda found: reference(*found.groups()), markdown)
    filled = NOTEBOOK.sub(lambda found: notebook(ROOT / found[1]), filled)
    return HIDDEN.sub("", filled)


def notebook(path: Path) -> str:
    """A notebook's cells and outputs as Markdown."""
    parts = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [shown(output) for output in cell.get("outputs", [])]
    return "\n\n".join(parts)


def shown(output: dict[str, Any]) -> str:
    """An output in its richest form."""
    data = output.get("data", {})
    if "image/png" in data:
        source = f"data:image/png;base64,{joined(data['image/png'])}"
        return f'<p><img alt="What the cell above draws" src="{source}"></p>'
    if "text/html" in data:
        html = STYLE.sub("", joined(data["text/html"]))
        return f'<div class="output">{html}</div>'
    text = output["text"] if "text" in output else data["text/plain"]
    return f'<div class="output"><pre>{escape(joined(text).rstrip())}</pre></div>'


def joined(text: str | list[str]) -> str:
    """Text of a notebook, which may be a list of lines."""
    return "".join(text).strip("\n")


def reference(module: str, attribute: str, program: str) -> str:
    """A page's worth of Markdown."""
    group = getattr(import_module(module), attribute)
    return "\n".join(section(group, click.Context(group, info_name=program), 2))


def section(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    """A command and, below it, its own commands."""
    if context.parent is not None:
        yield f"{'#' * level} {context.command_path}\n"
        level = min(level + 1, 4)
    yield f"```text\n{' '.join(command.get_usage(context).split()).removeprefix('Usage: ')}\n```\n"
    yield f"{paragraphs(command.help)}\n"
    if example := re.search(r"Example:\n(.*)", command.epilog or "", re.DOTALL):
        lines = [line.strip() for line in example[1].strip().splitlines()]
        yield '```text title="Example"\n' + "\n".join(lines) + "\n```\n"
    records = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and (record := parameter.get_help_record(context))
        and "--help" not in parameter.opts
    ]
    if records:
        yield "| option | |\n|---|---|"
        for names, text in records:
            yield f"| `{cell(names)}` | {cell(text).replace('<', '&lt;')} |"
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            if not below.hidden:
                yield from section(below, click.Context(below, context, name), level)


def paragraphs(text: str | None) -> str:
    """A command's help as Markdown; what click would not wrap stays as it is written."""
    blocks = re.split(r"\n\s*\n", (text or "").replace("\f", "").strip())
    return "\n\n".join(
        "```text\n" + block.removeprefix("\b\n") + "\n```"
        if block.startswith("\b\n")
        else " ".join(block.split())
        for block in blocks
    )


def cell(text: str) -> str:
    """Text as a table takes it."""
    return text.replace("|", r"\|")
