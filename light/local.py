"""The node that a task runs on: its datasets, its resources, and what it keeps for the swarm."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from manta.light import arguments
from manta.light.context import MISSING, current
from manta.light.errors import DatasetNotFound

if TYPE_CHECKING:
    from manta.light.path import MantaPath


class Resources(NamedTuple):
    """What the node has, and has left. Sizes in bytes."""

    cpu_count: int
    cpu_memory: int
    available_memory: int
    gpu_available: bool
    gpu_memory: int
    disk_free: int


class Local:
    """What a task sees of its node.

    Works on its own, without a Task: it speaks for the attempt that is running.
    """

    # Datasets: only those that the module declared and the operator allows.

    def dataset_path(self, name: str, path: str = "") -> MantaPath:
        """Where a dataset lies, or a path within one that is a folder.

        `dataset_path("images/cats")` is short for `dataset_path("images", "cats")`, here and
        wherever else a dataset is named. Raises DatasetNotFound, also for a path within the folder
        from which a link leads out of it.
        """
        from manta.light.path import MantaPath, check_beneath

        datasets = current().brief.datasets
        if name not in datasets:
            first, _, within = str(name).partition("/")
            if within and first in datasets:  # "images/cats/1.npy"
                return self.dataset_path(first, os.path.join(within, path))
            known = ", ".join(sorted(datasets)) or "none"
            raise DatasetNotFound(
                f"This task has no dataset {name!r} (it has: {known}): declare it in "
                f"Module(..., datasets=[{name!r}]) and map it on the node."
            )
        root = MantaPath(datasets[name])
        if not path:
            return root
        inner = os.path.normpath(os.fspath(path))
        if os.path.isabs(inner) or inner.split(os.sep)[0] == os.pardir:
            raise DatasetNotFound(
                f"{str(path)!r} leads out of the dataset {name!r}: give a path within it."
            )
        found: MantaPath = root / inner
        check_beneath(found)
        return found

    def get_dataset(self, name: str, path: str = "") -> Any:
        """A dataset, or a file within one, as its format suggests.

        .npy gives an array, .npz a dict of arrays, .pt tensors, .csv and .parquet a pandas frame;
        a folder, or a file of any other format, gives its MantaPath. Raises DatasetNotFound,
        MissingPackage, DataCorruptionError, and UnsupportedData for what only unpickling would
        open and for tables that are not in UTF-8.
        """
        from manta.light.datasets import load

        return load(self.dataset_path(name, path), _call(name, path))

    def get_binary_data(self, name: str, path: str = "") -> io.BytesIO:
        """A file's bytes as a stream, which has `.read()` and `.getvalue()` and which numpy.load,
        torch.load and others take."""
        return io.BytesIO(self.dataset_path(name, path).read_bytes())

    def get_numpy_data(self, name: str, path: str = "") -> Any:
        """An array from .npy, .csv or .parquet, a dict of arrays from .npz, and what a .pt holds.

        Its tensors become arrays, of float32 where numpy lacks their dtype, such as bfloat16.
        """
        from manta.light.datasets import load_numpy

        return load_numpy(self.dataset_path(name, path), _call(name, path))

    def list_dir(self, name: str, path: str = "") -> list[str]:
        """Names in a folder dataset, or in a folder within it, sorted."""
        return self.dataset_path(name, path).list_dir()

    def exists(self, name: str, path: str = "") -> bool:
        """Whether this task has the dataset, and in it the path."""
        try:
            found: bool = self.dataset_path(name, path).exists()
        except DatasetNotFound:
            return False
        return found

    def read_file_lines(self, name: str, path: str = "", encoding: str = "utf-8") -> list[str]:
        """A text file's lines, without their ends.

        Raises UnsupportedData where the file is in another encoding.
        """
        from manta.light.datasets import load_lines

        return load_lines(self.dataset_path(name, path), encoding)

    @property
    def scratch(self) -> MantaPath:
        """A folder of this task on this node, for files that need not be kept.

        What one attempt leaves there, the next one finds, as long as the task's process on the
        node lives; it goes with that process, at the latest with the swarm. A task that keeps more
        there than its node allows (10 GiB, unless the operator says otherwise) is ended: it is
        FAILED with a ResourceExhaustionError.
        """
        from manta.light.path import MantaPath

        return MantaPath(current().brief.scratch)

    # The machine.

    def get_resources(self) -> Resources:
        """What the node has, and has left. Sizes in bytes."""
        found: dict[str, Any] = current().call("get_resources")
        return Resources(**{name: found[name] for name in Resources._fields})

    def get_performance_metrics(self) -> dict[str, float]:
        """How busy the node is: `cpu_usage`, `memory_usage`, `disk_usage`, fractions 0 to 1."""
        metrics: dict[str, float] = current().call("get_performance")
        return metrics

    def get_network_quality(self) -> float:
        """How good the node's link to its manager is, from 0 (useless, or cut) to 1.

        Derived from measured delays, loss and throughput: above 0.8 nearby, below 0.5 at 300 ms
        or with 10 % loss. The first call measures, which may take some seconds on a slow link.
        """
        quality: float = current().call("get_network_quality")
        return quality

    # Kept on the node for the swarm.

    def get_state(self, key: str, default: Any = None) -> Any:
        """What this swarm's tasks kept on this node under a key, or the default."""
        value = current().call("get_state", key=arguments.name("key", key))
        return default if value is MISSING else value

    def set_state(self, key: str, value: Any) -> None:
        """Keeps a value on this node for the swarm. Raises TypeError for one that can't be kept."""
        current().call("set_state", key=arguments.name("key", key), value=value)


def _call(name: str, path: str) -> str:
    """What gives a path of a dataset, for sentences."""
    return f"local.dataset_path({name!r}, {path!r})" if path else f"local.dataset_path({name!r})"
