"""What audits tell: a side that needs much longer a call where every output counts does not make every call.

Delivering every output costs honest kernels something too: threads fall asleep between calls, outputs are pushed out of
the cache. So nobody is measured against nothing, but against what the same costs the other sides of the same round, and
a plain kernel that reads its inputs and writes an output.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from clock import WAY_S
from windows import TimedCase

FLOOR_S = {True: 5e-6, False: 50e-6}  # on a GPU and on a CPU, where a thread needs as long to wake
SHARE = 0.5  # of the usual time, on top of what an audit costs others: skipping a third of the calls shows
ALONE_SHARE = 1.5  # where there are no others


@dataclass(frozen=True)
class Audit:
    usual_s: float  # a call in a usual batch
    excess_s: float  # by how much longer a call takes in an audit, at the least
    quiet: bool  # nobody else was seen on the machine


@dataclass
class Audits:
    """Each side's last audit."""

    gpu: bool
    latest: dict[tuple[str, str], Audit] = field(default_factory=dict)  # of each side and case

    def allowed_s(self, timed: TimedCase, usual_s: float) -> float:
        """An excess up to which there is nothing to ask."""
        return self._floor_s(timed) + timed.calibration.audit_excess_s + SHARE * usual_s

    def _floor_s(self, timed: TimedCase) -> float:
        return FLOOR_S[self.gpu] + WAY_S[self.gpu] / timed.audited

    def add(self, side: str, timed: TimedCase, audit: Audit) -> None:
        self.latest[side, timed.name] = audit

    def accused(self, timed: TimedCase) -> tuple[str, bool, str] | None:
        """After a round in which each side was audited: who stands out, whether the machine was quiet, and how far."""
        here = {side: audit for (side, name), audit in self.latest.items() if name == timed.name}
        for side, audit in here.items():
            usual_s, excess_s = audit.usual_s, audit.excess_s
            others = [other.excess_s for name, other in here.items() if name != side]
            cost_s = max(0.0, timed.calibration.audit_excess_s, *others)
            if excess_s <= cost_s + self._floor_s(timed) + (SHARE if others else ALONE_SHARE) * usual_s:
                continue
            detail = (
                f"{1e6 * usual_s:.1f} us a call where a few outputs are kept, {1e6 * (usual_s + excess_s):.1f} us "
                f"where all are, which costs others {1e6 * cost_s:.1f} us more: not every call is made, or in time"
            )
            return side, audit.quiet, detail
        return None
