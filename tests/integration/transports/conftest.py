"""Contexts, transports and bare sockets that are closed after each test."""

from __future__ import annotations

import pytest
import zmq

from manta.testing.transports import ZmqHarness
from manta.transports.security.keys import KeyPair
from manta.transports.security.routing_ids import new_routing_id
from manta.transports.security.zap import ZapServer


@pytest.fixture
def harness():
    made = ZmqHarness()
    yield made
    made.close()


@pytest.fixture
def context():
    sockets = []  # a test need not close what it made

    class Context(zmq.Context):
        def socket(self, *args, **options):
            made = super().socket(*args, **options)
            sockets.append(made)
            return made

    made: zmq.Context = Context()
    yield made
    for socket in sockets:
        socket.close(0)
    made.term()


@pytest.fixture
def zap(context):
    server = ZapServer(context)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bare(context):
    """Bare CURVE clients, which say what they like."""

    def dial(address, server_key, keys=None, **options):
        keys = keys or KeyPair.generate()
        dealer = context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.sndtimeo = dealer.rcvtimeo = 5000
        dealer.curve_serverkey = server_key.encode()
        dealer.curve_publickey = keys.public.encode()
        dealer.curve_secretkey = keys.secret.encode()
        dealer.routing_id = new_routing_id()
        for name, value in options.items():
            setattr(dealer, name, value)
        dealer.connect(address)
        return dealer

    return dial
