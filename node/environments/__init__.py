"""Environments: what modules require beyond the node's own Python, installed and kept."""

from manta.node.environments.environments import Environments as Environments
from manta.node.environments.recipe import Policy as Policy
