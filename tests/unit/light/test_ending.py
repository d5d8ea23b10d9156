"""The time that what is left to do at an attempt's end has."""

from __future__ import annotations

import subprocess
import sys

ASKED_BEFORE = """
import threading, time
from manta.light.runtime.ending import Ending
told = []
ending = Ending((), lambda: None, told.append, lambda: None)
threading.Thread(target=time.sleep, args=(600,), name="last", daemon=False).start()
ending.hurry(0.1)  # a signal's handler, between two lines of the attempt
ending.run(300)
print(told, flush=True)
import os
os._exit(0)
"""


def test_it_never_has_more_once_it_was_asked_to_end() -> None:
    command = [sys.executable, "-c", ASKED_BEFORE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("[\"thread 'last'\"]\n", 0), done.stderr
