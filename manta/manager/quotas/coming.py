"""How much of what nodes told may wait in this process until it is handled."""

from __future__ import annotations

import threading
from collections import Counter


class Coming:
    """Counts bytes by whose clusters they come from. May be used from any thread."""

    def __init__(self, most: int, most_of_one: int) -> None:
        """Of all together, and of one."""
        self._most = most
        self._most_of_one = most_of_one
        self._lock = threading.Lock()
        self._of: Counter[str] = Counter()
        self.all = 0

    def take(self, owner: str, size: int, *, even_if_full: bool) -> bool:
        """Whether these may wait as well, and count from now on."""
        with self._lock:
            of_one = self._of[owner] + size
            is_full = of_one > self._most_of_one or self.all + size > self._most
            if is_full and not even_if_full:
                return False
            self._of[owner] = of_one
            self.all += size
            return True

    def give_back(self, owner: str, size: int) -> None:
        with self._lock:
            self.all -= size
            self._of[owner] -= size
            if not self._of[owner]:
                del self._of[owner]
