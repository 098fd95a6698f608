"""What a diagnosis is made of: findings with their harm and cure, and what could not be looked at.

Floor 4. Values only.
"""

from __future__ import annotations

import msgspec

from pepperbus.operations.results import Result

#: From the worst on: jobs may be lost, jobs do not run, others see or may do too much, jobs run late or twice, trouble is
#: not seen.
HARMS = ("loss", "stop", "open", "slow", "blind")


class Finding(Result):
    """`harm`: one of HARMS; `what` is wrong; `change`: the line that would end it."""

    harm: str
    what: str
    change: str


class Diagnosis(Result):
    """`unknown`: what could not be looked at, and why."""

    findings: list[Finding] = msgspec.field(default_factory=list)
    unknown: list[str] = msgspec.field(default_factory=list)

    def sort(self) -> Diagnosis:
        self.findings.sort(key=lambda finding: HARMS.index(finding.harm))
        return self
