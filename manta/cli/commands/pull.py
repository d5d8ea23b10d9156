"""`manta pull`: a swarm as a folder, with a manifest of its files.

swarm.json               its state and its tasks
results/N.*              each result's value; `results.json` says what each is, and why a value is
                         missing that stays on a node (`away`)
results.parquet          a table of those without arrays, where pyarrow is installed
globals/TAG.*            each global's value; `globals.json` says which file is whose
logs.ndjson, metrics.ndjson, events.ndjson
manifest.json            every other file's size and BLAKE3 digest
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from manta.apis import exports
from manta.apis.errors import InvalidArgument, MissingPackage, NotFound
from manta.apis.results import Results
from manta.cli.exit_codes import LocalError
from manta.cli.options import connects
from manta.console import json_form
from manta.console.commands import say
from manta.console.exit_codes import Exit
from manta.protocol.names import file_name, file_names
from manta.transports.codec.decoders import json_decoder
from manta.transports.codec.stored import Damaged, Thing, read_stored_file

if TYPE_CHECKING:
    from manta.apis.overviews import SwarmOverview
    from manta.apis.user_api import UserAPI

MANIFEST = "manifest.json"
_ID = 40
"""Characters of a swarm's id in the name of a folder; one that a manager makes has fewer."""
_MOST = 1 << 30  # bytes of a manifest: millions of files


class _File(msgspec.Struct, frozen=True):
    size: int
    blake3: str


class _Manifest(msgspec.Struct, frozen=True):
    swarm_id: str
    status: str
    files: dict[str, _File]


@click.command()
@click.argument("swarm")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Compare a pulled folder with its manifest.")
@connects
def pull(
    connect: Callable[[], UserAPI], swarm: str, folder: Path | None, verify: bool, as_json: bool
) -> int:
    """Copy everything SWARM wrote into FOLDER, which must not exist yet.

    Without FOLDER, it is named after the swarm and its id. Values are exact in the format in which
    Manta sends them (`manta.transports.codec.values.decode`), and beside it in one that others
    read: arrays .npy, dicts and lists of arrays .npz, text .txt, bytes .bin, all else .json; with
    pyarrow installed, results.parquet is a table of the results that hold no arrays. Tags are made
    names of files that any disk takes; globals.json and results.json say which is whose, and which
    result stays on a node that is away.
    manifest.json has the size and digest of every file: `manta pull --verify FOLDER` checks that
    nothing has changed.
    """
    if verify:
        flaws = check(Path(swarm))
        record = {"folder": swarm, "intact": not flaws, "flaws": flaws}
        say(record, flaws or f"{swarm} is unchanged since it was pulled.", as_json=as_json)
        return Exit.LOCAL if flaws else Exit.OK
    with connect() as api:
        record, sentence = _pulled(api, swarm, folder)
    say(record, sentence, as_json=as_json)
    return Exit.OK


def _pulled(api: UserAPI, swarm: str, folder: Path | None) -> tuple[dict[str, object], str]:
    """Writes the folder, complete or not at all. Raises LocalError."""
    found = api.get_swarm(swarm)
    target = folder or Path(_own_folder(found))
    if os.path.lexists(target):
        raise click.UsageError(f"{target} already exists: name another folder.")
    draft = target.parent / f".manta-pull-{secrets.token_hex(8)}"
    try:
        if not target.parent.exists():
            target.parent.mkdir(parents=True)
        draft.mkdir(0o700)  # until it is complete, nobody else can put a link into it
        results, files = _write(api, found, draft)
        draft.chmod(stat.S_IMODE((draft / "globals").stat().st_mode))  # as the umask has it
        draft.rename(target)
    except OSError as error:
        raise LocalError(
            f"{target} cannot be written: {error.strerror or error}; make room there, or name "
            "another folder."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    record = {
        "folder": target,
        "swarm_id": found.swarm_id,
        "status": found.status,
        "results": results,
        "files": files,
    }
    sentence = f"{target}: {results} results, {files} files."
    if not found.ended:
        sentence += f"\nThe swarm is {found.status}: what it writes from now on is missing."
    return record, sentence


def _own_folder(swarm: SwarmOverview) -> str:
    """Returns a name for the folder, whatever swarm and id are called."""
    (name,) = file_names([swarm.name]).values()
    return f"{name}-{file_name(swarm.swarm_id)[:_ID]}"


def _write(api: UserAPI, found: SwarmOverview, draft: Path) -> tuple[int, int]:
    """Writes the files; returns how many results and files. Raises OSError.

    A file of a name that others chose is made anew: a link that is there is never followed.
    """
    for part in ("results", "globals"):
        (draft / part).mkdir()
    tasks = [dict(task) for task in api.get_tasks(found)]
    _json(draft / "swarm.json", {"swarm": dict(found), "tasks": tasks})
    index = []
    results = api.get_swarm_results(found, attempts="all")
    # Arrays are files of their own; as JSON they would be many times as large.
    rows = Results(
        result for result in results if not result.away and not exports.has_arrays(result.value)
    )
    with contextlib.suppress(NotFound, MissingPackage):
        rows.to_parquet(draft / "results.parquet")
    for number, result in enumerate(results):
        entry = {
            name: getattr(result, name)
            for name in ("iteration", "tag", "node_id", "node_alias", "alias", "index", "attempt")
        }
        if result.away:  # it stays on its node
            index.append({**entry, "counts": result.counts, "file": None, "away": result.away})
            continue
        file = _value(draft, f"results/{number:06}", result.value)
        index.append({**entry, "counts": result.counts, "file": file})
    _json(draft / "results.json", index)
    kept = []
    for tag, name in file_names(api.list_global_tags(found)).items():
        with contextlib.suppress(NotFound):  # it was deleted meanwhile
            value = api.select_global(found, tag)
            kept.append({"tag": tag, "file": _value(draft, f"globals/{name}", value)})
    _json(draft / "globals.json", kept)
    _lines(draft / "logs.ndjson", api.collect_logs(found))
    _lines(draft / "metrics.ndjson", api.get_metrics(found))
    if found.ended:
        _lines(draft / "events.ndjson", api.stream_events(found))
    files = dict(_files(draft))
    _json(draft / MANIFEST, msgspec.to_builtins(_Manifest(found.swarm_id, found.status, files)))
    return len(index), len(files)


def check(folder: Path) -> list[str]:
    """Returns a sentence for each deviation from the manifest."""
    path = folder / MANIFEST
    thing = Thing(f"{path}", "what was pulled is not known", "pull the swarm again")
    try:
        wanted = read_stored_file(thing, json_decoder(_Manifest).decode, path, _MOST).files
    except Damaged as error:
        return [str(error)]
    except OSError as error:
        return [f"{path} cannot be read ({error.strerror}): pull the swarm again."]
    there = {name: file for name, file in _files(folder) if name != MANIFEST}
    flaws = [f"{name} is missing." for name in sorted(wanted.keys() - there.keys())]
    flaws += [f"{name} is not in the manifest." for name in sorted(there.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & there.keys()):
        if wanted[name] != there[name]:
            flaws.append(f"{name} has changed since it was pulled.")
    return flaws


def _files(folder: Path) -> Iterator[tuple[str, _File]]:
    """Yields each file's name, size and digest, in order."""
    from blake3 import blake3

    for path in sorted(folder.rglob("*")):
        if path.is_file():
            hasher = blake3()
            hasher.update_mmap(path)
            file = _File(path.stat().st_size, hasher.hexdigest())
            yield path.relative_to(folder).as_posix(), file


def _value(folder: Path, name: str, value: Any) -> str:
    """Writes a value; returns the name of its file."""
    from manta.transports.codec.values import encode

    with open(folder / f"{name}.manta", "xb") as file:
        for part in encode(value).parts():
            file.write(part)
    _readable(folder, name, value)
    return f"{name}.manta"


def _readable(folder: Path, name: str, value: Any) -> None:
    """Writes a value in a format that others read."""
    path = folder / name  # which may have dots, so that with_suffix would cut it
    if isinstance(value, bytes):
        Path(f"{path}.bin").write_bytes(value)
        return
    if isinstance(value, str) and exports.is_utf8(value):
        Path(f"{path}.txt").write_bytes(value.encode())
        return
    if exports.has_arrays(value):
        with contextlib.suppress(InvalidArgument):  # then JSON, which holds anything
            _arrays(path, value)
            return
    Path(f"{path}.json").write_text(exports.as_json(value, indent=2) + "\n", "utf-8")


def _arrays(path: Path, value: Any) -> None:
    """Raises InvalidArgument for what they are not."""
    found = exports.arrays([("", value)])
    if isinstance(value, dict | list | tuple):
        exports.write_npz(f"{path}.npz", found)
        return
    import numpy

    numpy.save(f"{path}.npy", found[""], allow_pickle=False)


def _lines(path: Path, items: Iterable[Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for item in items:
            file.write(json_form.dumps(item) + "\n")


def _json(path: Path, content: object) -> None:
    path.write_text(json_form.dumps(content, indent=2) + "\n", "utf-8")
