"""`manta new`: a project that runs right away."""

from __future__ import annotations

import re
from pathlib import Path

import click

from manta.cli.exit_codes import LocalError
from manta.console.commands import as_json_option, check_utf8, say

SWARM = '''"""Run me: manta run {folder}/swarm.py --nodes 3"""

from manta import Module, Swarm, Task


class {name}(Swarm):
    """Every node measures; one of them averages."""

    def __init__(self, rounds: int = 3) -> None:
        super().__init__(max_iteration=rounds)
        self.worker = Task(Module("worker.py"))
        self.aggregator = Task(Module("aggregator.py"), method="any")

    def execute(self) -> Task:
        return self.aggregator(self.worker())
'''
WORKER = '''from manta.light import Task


class Worker(Task):
    """Runs on every node, next to its data."""

    def run(self) -> None:
        mean = self.world.globals.get("mean", 0.0)
        value = mean + self.world.rank + 1
        self.logger.info("value %s", value)
        self.world.results.add("value", value)
'''
AGGREGATOR = '''from manta.light import Task


class Aggregator(Task):
    """Runs once per iteration, when all workers have answered."""

    def run(self) -> None:
        values = self.world.get_results("value")
        mean = sum(values) / len(values)
        self.world.globals["mean"] = mean
        self.world.log_metrics({{"mean": mean}})
        self.world.results.add("mean", mean)
'''
TEST = """from pathlib import Path

from manta.testing import run_task

HERE = Path(__file__).parent


def test_the_worker_starts_from_the_mean() -> None:
    done = run_task(HERE / "worker.py", globals={{"mean": 2.0}})
    assert done.results["value"] == [3.0]


def test_the_aggregator_averages() -> None:
    done = run_task(HERE / "aggregator.py", results={{"value": [1.0, 2.0]}})
    assert done.globals["mean"] == 1.5
"""
README = """# {name}

    manta run {folder}/swarm.py --nodes 3

runs it on this machine, with its own manager and three nodes. On a cluster:

    manta deploy --cluster NAME {folder}/swarm.py

Test each task by itself, in one process, where a debugger works:

    pip install pytest
    pytest {folder}
"""
FILES = {
    "swarm.py": SWARM,
    "worker.py": WORKER,
    "aggregator.py": AGGREGATOR,
    "test_tasks.py": TEST,
    "README.md": README,
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@as_json_option
def new(folder: Path, as_json: bool) -> None:
    """Create FOLDER with a small swarm that runs right away."""
    words = re.findall(r"[A-Za-z0-9]+", folder.name)
    name = "".join(word[:1].upper() + word[1:] for word in words)
    if not name.isidentifier():
        raise click.UsageError(
            f"{folder.name!r} does not make a class name: begin it with a letter."
        )
    check_utf8(str(folder), "FOLDER", "name another folder")
    if folder.exists():
        raise click.UsageError(f"{folder} already exists: name another folder.")
    try:
        folder.mkdir(parents=True)
        for file, template in FILES.items():
            (folder / file).write_text(template.format(folder=folder, name=name), "utf-8")
    except OSError as error:
        raise LocalError(
            f"{folder} cannot be written: {error.strerror}; name another folder."
        ) from error
    sentence = f"Created {folder}. Run it: manta run {folder}/swarm.py --nodes 3"
    say({"folder": folder, "files": list(FILES)}, sentence, as_json=as_json)
