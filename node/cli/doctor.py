"""`manta_node doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from manta.console.commands import as_json_option
from manta.console.exit_codes import Exit
from manta.console.lines import Words, styled
from manta.node.cli.config import NAME
from manta.node.daemon.places import state_folder

_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red"}


@click.command()
@NAME
@click.option("--offline", is_flag=True, help="Do not ask the manager.")
@as_json_option
def doctor(name: str, offline: bool, as_json: bool) -> int:
    """Check this machine and the configuration NAME, and say how to put right what is wrong.

    Changes nothing. Exits with 11 if there is a fault, else with 0; warnings are not faults.
    """
    from manta.console import json_form, text
    from manta.console.terminal import Screen
    from manta.node.doctor.configuration import examine
    from manta.node.doctor.report import Level

    screen = Screen(quiet=as_json)
    findings = []
    for finding in examine(name, state_folder(name), offline=offline):
        findings.append(finding)
        mark = styled(f"{finding.level:<8}", fg=_COLOURS[finding.level])
        lines: list[Words] = [mark + f" {finding.check:<14} {finding.sentence}"]
        if finding.remedy:
            lines.append(f"{'':<23} -> {finding.remedy}")
        screen.show(lines)
    count = {level: sum(one.level is level for one in findings) for level in Level}
    if as_json:
        ok = not count[Level.FAULT]
        json_form.show({"name": name, "ok": ok, "findings": [asdict(one) for one in findings]})
    else:
        faults = text.count(count[Level.FAULT], "fault")
        words = f"{faults}, {text.count(count[Level.WARNING], 'warning')}."
        screen.show(["", words if len(findings) > count[Level.OK] else "All is well."])
    return Exit.LOCAL if count[Level.FAULT] else Exit.OK
