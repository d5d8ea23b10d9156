"""The parts of the Gateway; each handles some of its messages."""

from __future__ import annotations

from dataclasses import dataclass

from manta.manager.directory import Directory
from manta.manager.gateway.clusters import Clusters
from manta.manager.gateway.enrolment import Enrolment
from manta.manager.gateway.forwarder import Forwarder
from manta.manager.gateway.modules import Modules
from manta.manager.gateway.nodes import Nodes
from manta.manager.gateway.overview import Overview
from manta.manager.gateway.permits import Permits
from manta.manager.gateway.registrar import Registrar
from manta.manager.gateway.users import Users
from manta.manager.gateway.watches import Watches


@dataclass(frozen=True)
class Parts:
    directory: Directory
    permits: Permits
    forwarder: Forwarder
    registrar: Registrar
    enrolment: Enrolment
    nodes: Nodes
    clusters: Clusters
    users: Users
    modules: Modules
    overview: Overview
    watches: Watches
