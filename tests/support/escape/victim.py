"""Another task, as a user's module: has a file, a socket and a process that are its own."""

from __future__ import annotations

import socket
import time

from manta.light import World

with open("mine", "w") as file:
    file.write("another task's")
LISTENER = socket.socket(socket.AF_UNIX)
LISTENER.bind("socket")
LISTENER.listen()


def main():
    World().results.add("is there", True)
    time.sleep(600)
