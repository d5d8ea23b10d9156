"""`manta completion`: the script that lets a shell complete commands, options, names and files."""

from __future__ import annotations

from manta.console.completion import completion_command

completion = completion_command("manta")
