"""The actors that other processes reach, by their paths."""

from __future__ import annotations

GATEWAY = "manager/gateway"
"""Of a manager: for its nodes and users."""

MANAGER_LINK = "node/manager-link"
"""Of a node: for its manager."""
