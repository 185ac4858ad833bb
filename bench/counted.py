"""What counts of a visit: the judge's clock on a CPU; on a GPU the process's own, as far as the judge's bears it out.

A GPU's own clock, the device's events, leaves out the way of the messages, by which processes differ more than by
anything else. Whoever lies with it gains next to nothing: no visit counts for less than the side's shortest batch in
the whole request by the judge's clock, less the shortest way that a message had on the other sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clock import WAY_S

LIE_SHARE = 0.005  # half of what a keep asks for by default: so much less than the judge's clock none may say


@dataclass(frozen=True)
class Visit:
    """A few batches of `calls` calls each, in seconds a batch."""

    calls: int
    usual_s: float  # the median, by the clock that counts
    shortest_s: float  # by the judge's clock
    way_s: float  # by how much the judge's clock was ahead of the process's own, at the least


VisitsOf = dict[str, list[list[Visit]]]  # of each side, case by case: one round


def counted_us(rounds: Sequence[VisitsOf], gpu: bool) -> list[dict[str, list[list[float]]]]:
    """Microseconds a call of each visit, round by round.

    One round alone has too few processes to know the shortest way, so there it is taken to be as slow as ways are: what
    a lie may gain by that decides whether more rounds follow, and never about a keep.
    """

    def counted(side: str, at: int, visits: list[Visit]) -> list[float]:
        mine = [visit for one in rounds for visit in one[side][at]]
        others = [visit for one in rounds for name in one if name != side for visit in one[name][at]]
        way_s = max(0.0, min((visit.way_s for visit in others), default=0.0))
        if len(rounds) == 1:
            way_s = max(way_s, WAY_S[gpu])
        least_s = (1 - LIE_SHARE) * (min(visit.shortest_s for visit in mine) - way_s) if gpu else 0.0
        return [1e6 * max(visit.usual_s, least_s) / visit.calls for visit in visits]

    return [
        {side: [counted(side, at, visits) for at, visits in enumerate(cases)] for side, cases in one.items()}
        for one in rounds
    ]
