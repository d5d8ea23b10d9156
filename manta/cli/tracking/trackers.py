"""Trackers of experiments: TensorBoard, MLflow and Weights & Biases.

A swarm is one run of a tracker, found again by the swarm's id, and each instance of a task has a
series of its own. An entry that is sent twice, after a crash, has the same series, step and time.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from manta.apis.errors import InvalidArgument, MissingPackage
from manta.apis.overviews import MetricsOverview, SwarmOverview
from manta.cli.exit_codes import LocalError
from manta.console.terminal import say_note
from manta.protocol.names import file_name

MOST_OF_A_CALL = 1000
"""Values that MLflow takes at once."""
_LETTERS = 80
"""Of each part of a series' name: MLflow takes 250 in all."""
_FINAL = {400, 401, 403, 404, 501}
"""HTTP statuses of answers that stay the same until somebody changes something here or there."""
LONGEST_WAIT = 30.0
"""Seconds for W&B to answer, and then for it to take what its process still has at the end."""


class TrackerDown(Exception):
    """A tracker did not take what it was sent; the sentence says why."""


class TrackerRefuses(LocalError):
    """A tracker takes nothing until its address, or who asks, is another."""


class Tracker(Protocol):
    def send(self, items: Sequence[MetricsOverview], end: int) -> None:
        """Returns once the tracker has them. `end` is where they end in the swarm's feed, of which
        each takes a place. Raises TrackerDown, TrackerRefuses."""

    def close(self) -> None:
        """Lets go of the tracker, which keeps what it has."""


def named(target: str) -> str:
    """Returns `KIND:WHERE` as it is wherever the command runs. Raises InvalidArgument."""
    kind, _, where = target.partition(":")
    if kind not in _KINDS or not where or (kind == "wandb" and where.endswith("/")):
        raise InvalidArgument(
            f"{target!r} is no tracker: give tensorboard:DIR, mlflow:URI or wandb:PROJECT."
        )
    return f"{kind}:{os.path.abspath(where)}" if kind == "tensorboard" else target


def connect(target: str, swarm: SwarmOverview) -> Tracker:
    """Returns what `named` returned a name of.

    Raises MissingPackage, TrackerDown, TrackerRefuses.
    """
    kind, _, where = target.partition(":")
    try:
        return _KINDS[kind](where, swarm)
    except ImportError as error:
        raise MissingPackage(
            f"Sending metrics to {kind} needs {error.name}, which is not installed: "
            f"pip install 'manta-swarm[{kind}]'."
        ) from None


def series(item: MetricsOverview, metric: str) -> str:
    """Returns the name of a curve, in characters that all trackers take."""
    return "/".join(map(_part, (metric, f"{item.alias}.{item.index}", item.node_alias)))


def _part(name: str) -> str:
    taken = re.sub(r"[^A-Za-z0-9_.-]", lambda found: f"_{ord(found[0]):X}", name)[:_LETTERS]
    return taken if taken.strip(".") else f"_{taken}"  # no step in a path


def _step(item: MetricsOverview) -> int:
    return item.iteration if item.step is None else item.step


class TensorBoard:
    """A folder for each swarm, with a file of events for each time that it is connected."""

    def __init__(self, where: str, swarm: SwarmOverview) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        self._event, self._scalar = Event, scalar
        self._folder = os.path.join(where, file_name(f"{swarm.name}-{swarm.swarm_id}"))
        try:
            os.makedirs(self._folder, exist_ok=True)
            # It writes at once, where a SummaryWriter has a thread that does so later.
            self._writer = EventsWriter(os.path.join(self._folder, "events"), f".{time.time_ns()}")
        except OSError as error:
            raise self._down(error) from error

    def send(self, items: Sequence[MetricsOverview], end: int) -> None:
        try:
            for item in items:
                for name, value in item.metrics.items():
                    summary = self._scalar(series(item, name), value)
                    event = self._event(summary=summary, wall_time=item.at, step=_step(item))
                    self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            raise self._down(error) from error

    def close(self) -> None:
        self._writer.close()

    def _down(self, error: OSError) -> TrackerDown:
        return TrackerDown(f"{self._folder} can't be written ({error.strerror or error})")


class MLflow:
    """An experiment for all swarms of a name, with a run for each."""

    def __init__(self, where: str, swarm: SwarmOverview) -> None:
        # Its own retries would be a silent wait of minutes, and its telemetry is not asked for.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Metric
        from mlflow.exceptions import InvalidUrlException, MlflowException
        from mlflow.tracking import MlflowClient
        from urllib3.exceptions import LocationValueError

        self._where, self._metric = where, Metric
        self._errors = (MlflowException, OSError, ValueError)
        self._no_uri = (InvalidUrlException, ValueError)
        self._beneath = (ssl.SSLCertVerificationError, LocationValueError)
        try:
            self._client = MlflowClient(where)
        except self._errors as error:
            # What the library says by itself, before it asks anybody, it says each time.
            by_itself = error.__cause__ is None and error.__context__ is None
            raise self._failure(error, is_final=by_itself) from error
        try:
            self._run = self._run_of(swarm)
        except self._errors as error:
            raise self._failure(error) from error

    def _run_of(self, swarm: SwarmOverview) -> str:
        name = file_name(swarm.name)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tag = {"manta.swarm_id": swarm.swarm_id}
        runs = self._client.search_runs(
            [experiment], f"tags.`manta.swarm_id` = '{swarm.swarm_id}'", max_results=1
        )
        run = (
            runs[0]
            if runs
            else self._client.create_run(experiment, tags=tag, run_name=swarm.swarm_id)
        )
        return str(run.info.run_id)

    def send(self, items: Sequence[MetricsOverview], end: int) -> None:
        values = [
            self._metric(series(item, name), value, round(item.at * 1000), _step(item))
            for item in items
            for name, value in item.metrics.items()
        ]
        try:
            for at in range(0, len(values), MOST_OF_A_CALL):
                self._client.log_batch(self._run, metrics=values[at : at + MOST_OF_A_CALL])
        except self._errors as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Leaves nothing open."""

    def _failure(self, error: Exception, *, is_final: bool = False) -> TrackerDown | TrackerRefuses:
        said = " ".join(str(error).split())[:300]
        status = getattr(error, "get_http_status_code", lambda: 0)()
        beneath = any(isinstance(one, self._beneath) for one in _causes(error))
        if is_final or status in _FINAL or isinstance(error, self._no_uri) or beneath:
            return TrackerRefuses(
                f"mlflow:{self._where} does not take them ({said}): correct the address, or the "
                "credentials that MLflow reads (MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN), "
                "and run this again: it goes on where it was."
            )
        return TrackerDown(f"MLflow does not take them ({said})")


class WandB:
    """A run of a project for each swarm, in files as of WANDB_MODE=offline, or at a server.

    W&B's own process has what it is sent, writes it to a file and brings it to the server, also
    when this one is killed, and some moments after it has ended. Its steps only grow: they are
    places in the feed, so that a server leaves out what comes again. `step` is the steps of the
    swarm, which series are drawn over.
    """

    def __init__(self, where: str, swarm: SwarmOverview) -> None:
        # Its own messages are of a program that trains here; what it tells of its use is not asked.
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb
        from wandb.errors import AuthenticationError, Error, UsageError
        from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

        self._where, self._end = where, wandb.teardown
        self._errors = (Error, HandleAbandonedError, MailboxClosedError, OSError, ValueError)
        self._refusals = (AuthenticationError, UsageError, ValueError)
        entity, _, project = where.rpartition("/")
        nothing_of_this_machine = wandb.Settings(
            **dict.fromkeys(("disable_git", "disable_code", "silent"), True),
            **dict.fromkeys(("x_disable_stats", "x_disable_meta", "x_disable_machine_info"), True),
            x_save_requirements=False,
            x_transaction_log_flush_interval=1.0,
            console="off",
            init_timeout=LONGEST_WAIT,
            finish_timeout=LONGEST_WAIT,
            finish_timeout_raises=True,
        )
        try:
            mode = wandb.setup().settings.mode
            if mode == "disabled":
                raise UsageError("WANDB_MODE=disabled, and so nothing is sent anywhere")
            is_online = mode not in ("offline", "dryrun")
            if is_online and not wandb.login(prompt=False, verify=False):
                raise UsageError("no API key is configured")
            self._run = wandb.init(
                entity=entity or None,
                project=project,
                id=swarm.swarm_id,
                name=file_name(f"{swarm.name}-{swarm.swarm_id}"),
                group=swarm.name,
                resume="allow",
                settings=nothing_of_this_machine,
            )
            self._run.define_metric("*", step_metric="step")
        except self._errors as error:
            raise self._failure(error) from error

    def send(self, items: Sequence[MetricsOverview], end: int) -> None:
        try:
            for place, item in enumerate(items, end - len(items)):
                values = {series(item, name): value for name, value in item.metrics.items()}
                values |= {"step": _step(item), "_timestamp": item.at}
                self._run.log(values, step=place, commit=True)
            self._run.status()  # answered behind them
        except self._errors as error:
            raise self._failure(error) from error

    def close(self) -> None:
        folder = self._run.settings.sync_dir
        try:
            self._run.finish()
        except (*self._errors, TimeoutError) as error:
            say_note(f"W&B has not taken all yet ({error}): `wandb sync {folder}` sends the rest.")
        else:
            if self._run.offline:
                say_note(f"W&B is offline: `wandb sync {folder}` sends them to its server.")

    def _failure(self, error: Exception) -> TrackerDown | TrackerRefuses:
        with suppress(*self._errors):  # also if it is gone: the next connection starts it anew
            self._end()
        said = " ".join(str(error).split())[:300] or type(error).__name__
        status = re.search(r"returned error (\d{3})", said)
        if isinstance(error, self._refusals) or (status and int(status[1]) in _FINAL):
            return TrackerRefuses(
                f"wandb:{self._where} does not take them ({said}): correct the project, or the "
                "credentials (`wandb login`, WANDB_API_KEY, WANDB_BASE_URL), and run this again: "
                "it goes on where it was. WANDB_MODE=offline writes files that are sent later."
            )
        return TrackerDown(f"W&B does not take them ({said})")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, and those that were there when it was raised."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_KINDS: dict[str, Callable[[str, SwarmOverview], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
}
