"""A profile as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LONGEST = 30
_LEFT = {0, 1, 2}


def render(profile: dict[str, Any]) -> str:
    """Who takes the time, what bounds it, and how much faster the whole model would be if that row were."""
    rows = profile["rows"]
    cells = [["op", "shape", "dtype", "calls", "time us", "share", "bound", "1.5x", "2x", "3x", "5x"]]
    cells += [_cells(row) for row in rows[:LONGEST]]
    rest = rows[LONGEST:]
    if rest:
        share = sum(row["share"] for row in rest)
        time = sum(row["time_us"] for row in rest)
        cells.append([f"{len(rest)} more", "", "", "", _time(time), f"{share:.1%}", *[""] * 5])
    return "\n".join([_heading(profile), "", *_align(cells), "", *_notes(profile)])


def _cells(row: dict[str, Any]) -> list[str]:
    bound = f"{row['bound']} {row['limit_us'] / row['time_us']:.0%}" if row["bound"] and row["time_us"] else "-"
    return [
        row["name"][:48],
        _shape(row),
        row["dtype"],
        f"{row['calls']:g}",
        _time(row["time_us"]),
        f"{row['share']:.1%}",
        bound,
        *(f"{gain:.2f}" for gain in row["amdahl"].values()),
    ]


def _shape(row: dict[str, Any]) -> str:
    options = [
        key if value is True else f"{key}={value}" for key, value in row["options"].items() if value is not False
    ]
    return " ".join([",".join(map(str, row["shape"])) or "-", *options])


def _time(us: float) -> str:
    return f"{us:,.0f}" if us >= 100 else f"{us:.1f}"


def _heading(profile: dict[str, Any]) -> str:
    spec, shape = profile["model"], profile["model"]["input_shape"]
    size = profile["parameters"]
    counted = f"{size / 1e9:.1f}B" if size >= 1e9 else f"{size / 1e6:.1f}M" if size >= 1e6 else f"{size:,}"
    given = f", input {','.join(map(str, shape))}" if shape else ""
    return (
        f"{profile['model_class']} ({counted} parameters) in {spec['dtype']}{given} on {profile['device_name']}, "
        f"torch {profile['torch']}"
    )


def _notes(profile: dict[str, Any]) -> list[str]:
    total, wall, rows = profile["total_us"], profile["wall_us"], profile["rows"]
    busy = "device time" if profile["model"]["device"] != "cpu" else "time in operators"
    notes = [f"One forward: {total / 1000:.2f} ms {busy}, {wall / 1000:.2f} ms on the clock."]
    if profile["model"]["device"] != "cpu" and total < 0.9 * wall:
        idle = 1 - total / wall
        notes.append(
            f"The device idles {idle:.0%} of the time, waiting for Python: expect less than the table's gains."
        )
    replaceable = sum(row["share"] for row in rows if row["sites"])
    other = sum(row["share"] for row in rows if row["op"] == "other")
    notes.append(f"Replaceable: {replaceable:.1%}. Of no known operation: {other:.1%}.")
    notes.append("bound: what limits the row, and how much of that limit it reaches. 1.5x-5x: the whole model's gain.")
    return notes


def _align(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(
            text.ljust(w) if i in _LEFT else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
