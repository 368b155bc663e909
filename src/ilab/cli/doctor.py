"""``ilab doctor``: what is missing for which command, and what to type."""

from __future__ import annotations

from dataclasses import asdict

import click

from ilab.cli.app import Options
from ilab.errors import SetupError

MARKS = {"ok": ("ok", "green"), "note": ("--", "yellow"), "bad": ("!!", "red")}


@click.command(name="doctor")
@click.option("--cluster", is_flag=True, help="Look at the Kubernetes cluster of kubectl or oc, too.")
@click.pass_obj
def group(options: Options, cluster: bool) -> None:
    """Look at this machine and the configuration; say what is missing for which command, and what to type.

    What only some commands need is a note. Exit code 3 where what the configuration asks for cannot work.
    """
    from ilab.cli.render import one_line
    from ilab.doctor import examine

    findings = []
    for finding in examine(*options.load_or_defaults(), cluster=cluster):
        findings.append(finding)
        if options.as_json:
            continue
        mark, colour = MARKS[finding.state]
        click.echo(f"{click.style(mark, fg=colour)}  {finding.name}: {one_line(finding.found)}")
        if finding.state != "ok":
            click.echo(f"      needed for: {finding.needed_for}\n      type: {one_line(finding.fix)}")
    options.result([asdict(finding) for finding in findings])
    bad = [finding.name for finding in findings if finding.state == "bad"]
    if bad:
        raise SetupError(f"what the configuration asks for cannot work: {', '.join(bad)}", hint="see above")
