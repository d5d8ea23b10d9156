"""Another process of a test's, which is asked in lines of JSON and answers each with one."""

from __future__ import annotations

import json
import subprocess
from typing import Any


class Conversation:
    """With a process whose standard input and output are pipes of text."""

    name: str
    process: subprocess.Popen[str]

    def begin(self, what: str, *arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, *arguments]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Waits for that of what was begun first."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process of {self.name} has ended"
        return json.loads(line)
