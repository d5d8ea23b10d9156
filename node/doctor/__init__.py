"""The checks of `manta_node doctor`. They change nothing."""

from manta.node.doctor.report import Finding, Level

__all__ = ["Finding", "Level"]
