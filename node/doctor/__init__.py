"""What `manta_node doctor` looks at. Nothing here changes anything."""

from manta.node.doctor.report import Finding, Level

__all__ = ["Finding", "Level"]
