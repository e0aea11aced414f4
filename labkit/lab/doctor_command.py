"""Top floor: `labkit doctor [--json]`, the doctor's findings for a person or a program.

Owns: the two forms of the answer, and the exit status: 0 when this machine has all that
`make lab WHERE=here` cannot do without, 1 when not.

Read: labkit/lab/doctor.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from labkit.lab import doctor
from labkit.lab.doctor import Finding


def main(argv: Sequence[str]) -> int:
    """`labkit doctor`; returns 0 or 1."""
    parser = argparse.ArgumentParser(
        prog="labkit doctor", description="Try what this machine can do, and say what is missing and what that costs."
    )
    parser.add_argument("--json", action="store_true", help="the same for a program: machine, findings, fit")
    options = parser.parse_args(argv)
    about, found = doctor.machine(), doctor.examine()
    fit = not doctor.lacking(found)
    if options.json:
        findings = [{**finding._asdict(), "essential": finding.key in doctor.ESSENTIAL} for finding in found]
        print(json.dumps({"machine": about, "findings": findings, "fit": fit}, indent=1))
    else:
        print(report(about, found))
    return 0 if fit else 1


def report(about: dict[str, str], found: list[Finding]) -> str:
    """The findings by group, one line each; under those that are not ok, the cost and the remedy."""
    width = max(len(finding.title) for finding in found)
    virtual = about.get("virtualization", "")
    kind = f" ({virtual})" if virtual not in ("", "none") else ""
    lines = [f"{about['distribution']}, Linux {about['kernel']}, {about['architecture']}{kind}"]
    for group in doctor.GROUPS:
        lines += ["", group]
        for finding in (one for one in found if one.group == group):
            lines.append(f"  {finding.state:<8} {finding.title:<{width}}  {finding.found}")
            if finding.cost:
                lines.append(f"{'':<11}cost:   {finding.cost}")
                lines.append(f"{'':<11}remedy: {finding.remedy}")
    return "\n".join([*lines, "", summary(found), verdict(found)])


def summary(found: list[Finding]) -> str:
    """How many of each state."""
    counts = (f"{sum(one.state == state for one in found)} {state}" for state in doctor.STATES)
    return ", ".join(counts)


def verdict(found: list[Finding]) -> str:
    """The last line: whether the lab can run directly on this machine, and what it lacks."""
    lacks = doctor.lacking(found)
    if not lacks:
        return "The lab can run here: nothing that it cannot do without is missing."
    names = ", ".join(one.title if one.group != "cgroups" else f"cgroup {one.title}" for one in lacks)
    return f"The lab cannot run directly here (make lab WHERE=here), it lacks: {names}."
