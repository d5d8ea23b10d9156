"""`make attack`: runs every attack of this folder, or those named, and prints what it came to.

Each runs for some seconds against the same manager with two nodes, all on this machine, while a
user of it goes on asking. Ends with 1 where something was wrong: a process ended, one grew beyond
all bounds or kept what an attack took, the user waited too long, or an attack got what it wanted.
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
"""What a process may grow by meanwhile."""
TIMES, SLICES = 2.0, 0.01
"""The user's p95 may be so many times that of an idle manager, and so many seconds longer: two
slices of time that the kernel gives to whatever else computes on the user's core."""
POOLED = 8
"""Threads, or descriptors, that may stay: what pools open when they first need it."""
LIMIT = 300.0
"""Seconds within which all of it is over."""


def attacks(names: list[str]) -> list[Attack]:
    modules = [importlib.import_module(f"tests.attacks.{group}") for group in GROUPS]
    found: list[Attack] = [attack for module in modules for attack in module.ATTACKS]
    return [one for one in found if not names or one.run.__name__ in names]


def alone(here: Field) -> float:
    began = time.monotonic()
    time.sleep(IDLE)
    return here.waited(began, time.monotonic())


def line(attack: Attack, report: Report, idle: float) -> str:
    peak, kept, node = report.peak, report.kept, report.node
    return (
        f"{attack.who:<11} {attack.what:<60} {peak.memory / MIB:5.0f} {kept.memory / MIB:5.0f} "
        f"{peak.threads:4d} {kept.threads:4d} {peak.descriptors:5d} {kept.descriptors:5d} "
        f"{node.memory / MIB:5.0f} {report.node_kept.memory / MIB:5.0f} {report.disk / MIB:6.1f} "
        f"{report.waited * 1000:6.1f} {report.waited / idle:5.1f}x {report.took:5.0f}  "
        f"{report.told.words}"
    )


HEAD = (
    f"{'':72} {'memory, MiB':>11} {'threads':>9} {'descr.':>11} {'node, MiB':>11} {'disk':>6} "
    f"{'p95, ms':>13}\n"
    f"{'who':<11} {'what':<60} {'most':>5} {'kept':>5} {'most':>4} {'kept':>4} {'most':>5} "
    f"{'kept':>5} {'most':>5} {'kept':>5} {'MiB':>6} {'':13} {'s':>5}"
)


def wrong(report: Report, most: float) -> list[str]:
    """What should not have been; `most` is what the user's p95 may be, in seconds."""
    found = [f"{name} ended" for name in report.ended]
    if report.told.wrong:
        found.append(report.told.wrong)
    for who, peak, kept in (
        ("the manager", report.peak, report.kept),
        ("a node", report.node, report.node_kept),
    ):
        if peak.memory > MOST:
            found.append(f"{who} grew by {peak.memory // MIB} MiB")
        if kept.threads > POOLED or kept.descriptors > POOLED:
            found.append(f"{who} kept {kept.threads} threads, {kept.descriptors} descriptors")
    if report.waited > most:
        found.append(f"a user waited {report.waited * 1000:.0f} ms")
    return found


def main() -> int:
    chosen = attacks(sys.argv[1:])
    began, said = time.monotonic(), list[str]()
    with field() as here:
        idle = alone(here)
        most = TIMES * idle + SLICES
        print(f"A user's asks, alone: p95 {idle * 1000:.1f} ms\n\n{HEAD}", flush=True)
        for attack in chosen:
            report = here.measure(attack)
            print(line(attack, report, idle), flush=True)
            said += [f"{attack.what}: {each}" for each in wrong(report, most)]
            if report.ended or not report.told.is_over:
                break
        print(f"\nThe same at the end: p95 {alone(here) * 1000:.1f} ms")
    took = time.monotonic() - began
    if took > LIMIT:
        said.append(f"it took {took:.0f} s, of at most {LIMIT:.0f}")
    print("\n".join(said) or f"Nothing was wrong, in {took:.0f} s.")
    return bool(said)


if __name__ == "__main__":
    sys.exit(main())
