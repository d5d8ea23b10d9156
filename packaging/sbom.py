"""Prints what this Python and its system hold, as a CycloneDX document in JSON.

The build of the image runs it (packaging/image/Dockerfile). It needs nothing but Python; the same
content gives the same document.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG = Path("/var/lib/dpkg/status")
NAMESPACE = uuid.UUID("a3f7c0de-5d0c-5c55-9d5f-6d616e746131")
"""Of the serial numbers, which are made of the content."""


def distributions() -> Iterator[dict[str, Any]]:
    """Yields what pip installed."""
    for found in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower()
        component = _component("library", name, found.version, f"pkg:pypi/{quote(name)}")
        if licence := found.metadata.get("License-Expression"):
            component["licenses"] = [{"expression": licence}]
        yield component


def system_packages(status: Path = DPKG) -> Iterator[dict[str, Any]]:
    """Yields what the system's own packages are, if it is a Debian."""
    if not status.exists():
        return
    for entry in status.read_text("utf-8", "replace").split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in entry.splitlines() if re.match(r"[\w-]+: ", line)
        )
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            component = _component("library", name, version, f"pkg:deb/debian/{quote(name)}")
            component["purl"] += f"?arch={fields['Architecture']}"
            component["bom-ref"] = component["purl"]
            yield component


def document() -> dict[str, Any]:
    python = _component("platform", "python", platform.python_version(), "pkg:generic/python")
    found = [python, *distributions(), *system_packages()]
    components = sorted({one["purl"]: one for one in found}.values(), key=lambda one: one["purl"])
    content = json.dumps(components, sort_keys=True)
    subject = {"type": "container", "bom-ref": "manta/node", "name": "manta/node"}
    versions = [one["version"] for one in components if one["name"] == "manta-swarm"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, content)}",
        "version": 1,
        "metadata": {"component": {**subject, **({"version": versions[0]} if versions else {})}},
        "components": components,
    }


def _component(kind: str, name: str, version: str, purl: str) -> dict[str, Any]:
    purl = f"{purl}@{quote(version)}"
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=1)
    sys.stdout.write("\n")
