"""`make attack`: runs every attack of this folder, or those named, and prints what it came to.

Each runs for some seconds against the same manager with two nodes, all on this machine, while a
user of it goes on asking. Ends with 1 where a process ended or where the manager's memory grew
beyond all bounds.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

from tests.attacks.field import MIB, Attack, Field, Report, field

HERE = Path(__file__).parent
GROUPS = ("strangers", "guests", "users", "nodes", "tasks")
IDLE = 4.0
"""Seconds for which the user is measured alone."""
MOST = 256 * MIB
"""What the manager may grow by meanwhile."""


def attacks(names: list[str]) -> list[Attack]:
    modules = [importlib.import_module(f"tests.attacks.{group}") for group in GROUPS]
    found: list[Attack] = [attack for module in modules for attack in module.ATTACKS]
    return [attack for attack in found if not names or attack.run.__name__ in names]


def alone(here: Field) -> float:
    began = time.monotonic()
    time.sleep(IDLE)
    return here.waited(began, time.monotonic())


def line(attack: Attack, report: Report, idle: float) -> str:
    peak, kept = report.peak, report.kept
    return (
        f"{attack.who:<11} {attack.what:<58} {peak.memory / MIB:6.0f} {kept.memory / MIB:6.0f} "
        f"{peak.threads:4d} {kept.threads:4d} {peak.descriptors:5d} {kept.descriptors:5d} "
        f"{report.disk / MIB:6.1f} {report.waited * 1000:6.1f} {report.waited / idle:5.1f}x  "
        f"{report.told}"
    )


HEAD = (
    f"{'':70} {'memory, MiB':>13} {'threads':>9} {'descr.':>11} {'disk':>6} {'p95, ms':>13}\n"
    f"{'who':<11} {'what':<58} {'most':>6} {'kept':>6} {'most':>4} {'kept':>4} {'most':>5} "
    f"{'kept':>5} {'MiB':>6}"
)


def main() -> int:
    chosen = attacks(sys.argv[1:])
    wrong: list[str] = []
    with field() as here:
        idle = alone(here)
        print(f"A user's asks, alone: p95 {idle * 1000:.1f} ms\n\n{HEAD}", flush=True)
        for attack in chosen:
            report = here.measure(attack)
            print(line(attack, report, idle), flush=True)
            if report.ended:
                wrong.append(f"{attack.what}: {', '.join(report.ended)} ended")
                break
            if report.peak.memory > MOST:
                wrong.append(f"{attack.what}: the manager grew by {report.peak.memory // MIB} MiB")
        print(f"\nThe same at the end: p95 {alone(here) * 1000:.1f} ms")
    print("\n".join(wrong) or "Nothing ended.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
