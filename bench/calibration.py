"""How many calls make a batch, and what a batch costs when its calls cost nothing. A judge asks once for each case."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Overhead:
    """Seconds of a batch of empty calls, by the judge's clock and by the process's own."""

    wall: float = 0.0
    own: float = 0.0


@dataclass(frozen=True)
class Calibration:
    count: int = 1  # calls a batch
    batch: Overhead = Overhead()
    audit: Overhead = Overhead()
    audit_excess_s: float = 0.0  # by how much longer an honest call takes in an audit, its threads asleep before it
    at: float = -math.inf  # on the monotonic clock


Calibrations = dict[str, Calibration]  # by all that the empty process is told; a judge keeps them between requests
