"""Metrics that are sent to trackers, each by its own library: to files, and to nobody there."""

from __future__ import annotations

import math
import os
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from manta.apis.errors import InvalidArgument, MissingPackage
from manta.apis.overviews import MetricsOverview
from manta.cli.exit_codes import LocalError
from manta.cli.tracking import forwarding, trackers
from manta.cli.tracking.forwarding import MOST_CURSORS, Cursor, forward
from manta.console.exit_codes import Exit
from tests.support.events import scalars
from tests.support.tracked import SWARM, Answers, answering, entry, page


@pytest.fixture
def cursor(tmp_path: Path) -> Iterator[Cursor]:
    with closing(Cursor(tmp_path, "5eed", "tensorboard:x")) as one:
        yield one


def test_tensorboard_has_each_value_at_once_and_each_connection_adds_to_them(
    tmp_path: Path,
) -> None:
    target = trackers.named(f"tensorboard:{tmp_path / 'runs'}")
    for step, loss in ((0, 1.0), (1, math.inf)):
        one = trackers.connect(target, SWARM)
        one.send([entry(step, loss=loss)], step + 1)
        assert scalars(tmp_path / "runs")[-1] == ("loss/w.0/a", step, loss, 1.5), "not closed yet"
        one.close()
    assert len(scalars(tmp_path / "runs")) == 2


def test_a_tracker_that_is_down_gets_what_is_missing_later(
    tmp_path: Path, cursor: Cursor, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "runs"
    place.write_text("in the way")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            place.unlink()

    target = f"tensorboard:{place}"
    pages = [page(2, 0.5, 0.25), page(3, 0.125, ended=True)]
    assert forward(pages, lambda: trackers.connect(target, SWARM), cursor, pause) == 3
    assert [value for _, _, value, _ in scalars(place)] == [0.5, 0.25, 0.125]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert capsys.readouterr().err.count("it is tried again") == 1
    assert cursor.value == 3


def test_what_the_tracker_has_is_not_sent_again_by_the_next_process(tmp_path: Path) -> None:
    for value in (0, 7, 12):
        with closing(Cursor(tmp_path, "5eed", "mlflow:x")) as one:
            assert one.value == value
            one.advance({0: 7, 7: 12, 12: 12}[value])
    with closing(Cursor(tmp_path, "5eed", "mlflow:y")) as other:
        assert other.value == 0, "of another tracker"


def test_two_processes_do_not_send_the_same(tmp_path: Path, cursor: Cursor) -> None:
    with pytest.raises(LocalError, match="stop it first"):
        Cursor(tmp_path, "5eed", "tensorboard:x")


def test_a_damaged_cursor_is_named_with_the_remedy(tmp_path: Path) -> None:
    Cursor(tmp_path, "5eed", "tensorboard:x").close()
    (file,) = (tmp_path / "trackers").iterdir()
    file.write_text("half")
    with pytest.raises(LocalError, match="is damaged: remove it"):
        Cursor(tmp_path, "5eed", "tensorboard:x")


def test_cursors_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "MOST_CURSORS", 3)
    for number in range(5):
        Cursor(tmp_path, f"{number}", "mlflow:x").close()
        os.utime(next((tmp_path / "trackers").glob(f"{number}-*")), (number, number))
    assert len(list((tmp_path / "trackers").iterdir())) == 3
    assert MOST_CURSORS > 3


@pytest.mark.parametrize("target", ["", "tensorboard", "tensorboard:", "aim:x", "wandb:lab/"])
def test_what_is_no_tracker_is_refused_with_those_that_there_are(target: str) -> None:
    with pytest.raises(InvalidArgument, match="tensorboard:DIR, mlflow:URI or wandb:PROJECT"):
        trackers.named(target)


@pytest.mark.parametrize(
    ("kind", "module"),
    [("tensorboard", "tensorboardX.event_file_writer"), ("mlflow", "mlflow"), ("wandb", "wandb")],
)
def test_without_its_library_the_extra_is_named(
    kind: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module.split(".")[0]]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module.split(".")[0], None)
    with pytest.raises(MissingPackage, match=rf"manta-swarm\[{kind}\]"):
        trackers.connect(f"{kind}:{tmp_path}", SWARM)


def test_series_have_characters_that_all_trackers_take() -> None:
    item = MetricsOverview(0.0, "id", "..", "wörker", 2, 0, 0, {}, None)
    assert trackers.series(item, "loss (%)") == "loss_20_28_25_29/w_F6rker.2/_.."
    assert len(trackers.series(item, "x" * 1000)) < 250


def test_mlflow_has_one_run_for_a_swarm_whoever_connects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for step, loss in enumerate((1.0, 0.5)):
        one = trackers.MLflow(f"file:{tmp_path}/mlruns", SWARM)
        one.send([entry(step, **{"loss (%)": loss, "acc": math.nan})], step + 1)
        one.close()
    again = trackers.MLflow(f"file:{tmp_path}/mlruns", SWARM)
    history = again._client.get_metric_history(again._run, "loss_20_28_25_29/w.0/a")
    assert [(each.step, each.value, each.timestamp) for each in history] == [
        (0, 1.0, 1500),
        (1, 0.5, 1500),
    ]


def test_mlflow_without_a_server_is_down() -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(trackers.TrackerDown, match=r"MLflow does not take them .*127\.0"):
            trackers.connect(f"mlflow:http://127.0.0.1:{bound.getsockname()[1]}", SWARM)


@pytest.fixture
def server() -> Iterator[Answers]:
    with answering() as one:
        yield one


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_mlflow_that_refuses_is_not_tried_again(
    status: int, server: Answers, cursor: Cursor
) -> None:
    server.status = status
    target = f"mlflow:http://127.0.0.1:{server.server_port}"

    def pause(seconds: float) -> None:
        raise AssertionError(f"it is tried again in {seconds} s")

    with pytest.raises(
        trackers.TrackerRefuses, match=rf"{status}.* credentials .* goes on"
    ) as told:
        forward([page(2, 0.5)], lambda: trackers.connect(target, SWARM), cursor, pause)
    assert told.value.exit_code == Exit.LOCAL
    assert cursor.value == 0


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_mlflow_that_can_not_answer_now_is_tried_again(status: int, server: Answers) -> None:
    server.status = status
    with pytest.raises(trackers.TrackerDown, match=f"{status}"):
        trackers.connect(f"mlflow:http://127.0.0.1:{server.server_port}", SWARM)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("htp://127.0.0.1:1", "unsupported URI"),
        ("sqlite-of-mine:///x.db", "unsupported URI|Invalid"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://a..b", "Failed to parse"),
        ("http://:80", "Invalid url"),
        ("uc:catalog", "Unity Catalog .* not supported"),
        ("databricks-uc", "Unity Catalog .* not supported"),
    ],
)
def test_what_mlflow_takes_for_no_address_is_not_tried_again(uri: str, said: str) -> None:
    with pytest.raises(trackers.TrackerRefuses, match=said):
        trackers.connect(f"mlflow:{uri}", SWARM)


def test_mlflow_with_a_certificate_that_nobody_vouches_for_is_not_tried_again(
    server: Answers, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with pytest.raises(trackers.TrackerRefuses, match="SSLCertVerificationError"):
        trackers.connect(f"mlflow:https://127.0.0.1:{server.server_port}", SWARM)


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(signed.public_bytes(form))
    (folder / "key.pem").write_bytes(
        key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"
