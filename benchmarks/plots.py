"""Plots of the stored results, as SVG files that docs/performance.md shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.machine import ROOT
from benchmarks.tables import Row, Table, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER: Final = ROOT / "docs" / "performance"

#: Colours that people with colour blindness can tell apart (Okabe and Ito), and markers.
STYLES: Final[Mapping[str, dict[str, Any]]] = {
    "bare": {"color": "#000000", "marker": "o"},
    "full": {"color": "#0072b2", "marker": "s"},
    "old": {"color": "#d55e00", "marker": "^"},
}

#: Parts of a call's cost, from the bottom of the bar to its top.
PARTS: Final = {
    "worker ms": "#0072b2",
    "bridge ms": "#56b4e9",
    "redis ms": "#d55e00",
    "asterisk ms": "#bbbbbb",
}


def draw(tables: Mapping[str, Table], folder: Path = FOLDER) -> list[Path]:
    """Write every plot that has its tables; return the files."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9}
    folder.mkdir(exist_ok=True)
    return [
        _saved(folder / f"{name}.svg", [(tables[t], plot) for t, plot in plots if t in tables])
        for name, plots in PLOTS.items()
        if any(table in tables for table, _ in plots)
    ]


def _saved(path: Path, plots: Sequence[tuple[Table, Callable[[Axes, Table], None]]]) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(plots), 3.2), layout="constrained")
    axes: Any = figure.subplots(1, len(plots), squeeze=False)
    for axis, (table, plot) in zip(axes[0], plots, strict=True):
        plot(axis, table)
        axis.grid(visible=True, alpha=0.3)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    return path


def _rate(axis: Axes, table: Table) -> None:
    for way, rows in _by_way(table).items():
        axis.plot(_column(rows, "offered/s"), _column(rows, "calls/s"), label=way, **STYLES[way])
    most = max(_column(table.rows, "offered/s"))
    axis.plot([0, most], [0, most], color="#bbbbbb", linestyle=":")
    axis.set(xlabel="offered calls/s", ylabel="answered calls/s", title="Rate")
    axis.legend()


def _latency(axis: Axes, table: Table) -> None:
    for way, rows in _by_way(table).items():
        offered, style = _column(rows, "offered/s"), STYLES[way]
        axis.plot(offered, _column(rows, "ack p50"), label=f"{way} p50", **style)
        axis.plot(offered, _column(rows, "ack p99"), label=f"{way} p99", linestyle="--", **style)
    axis.set(xlabel="offered calls/s", ylabel="ms", yscale="log", title="Request to ACK")
    axis.legend()


def _cost(axis: Axes, table: Table) -> None:
    rows = [row for row in table.rows if row["way"] != "old"]
    names = [f"{row['way']}\n{row['offered/s']:g}/s" for row in rows]
    bottom = [0.0] * len(rows)
    for part, color in PARTS.items():
        heights = _column(rows, part)
        axis.bar(names, heights, bottom=bottom, color=color, label=part.removesuffix(" ms"))
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axis.tick_params(axis="x", labelsize=7)
    axis.set(ylabel="ms of CPU a call", title="Cost of a call")
    axis.legend()


def _admits(key: str, label: str, scale: str) -> Callable[[Axes, Table], None]:
    def plot(axis: Axes, table: Table) -> None:
        axis.plot(
            _column(table.rows, key),
            _column(table.rows, "admits per bridge CPU s"),
            **STYLES["full"],
        )
        axis.set(xlabel=label, ylabel="admits per bridge CPU s", xscale=scale)
        axis.set_ylim(bottom=0)

    return plot


def _pbxs(axis: Axes, table: Table) -> None:
    pbxs = _column(table.rows, "pbxs")
    axis.plot(pbxs, _column(table.rows, "calls/s"), label="calls/s", **STYLES["full"])
    axis.plot(pbxs, _column(table.rows, "offered/s"), color="#bbbbbb", linestyle=":")
    axis.plot(pbxs, _column(table.rows, "machine %"), label="% of the machine", **STYLES["old"])
    axis.set(xlabel="simulated PBXs", title="PBXs")
    axis.legend()


#: For each file: the tables, and how each is drawn.
PLOTS: Final[Mapping[str, Sequence[tuple[str, Callable[[Axes, Table], None]]]]] = {
    "real": [("real", _rate), ("real", _latency), ("real-cpu", _cost)],
    "growth": [
        ("admission-waiting", _admits("waiting", "waiting requests", "log")),
        ("admission-cells", _admits("cells", "busy cells", "linear")),
        ("pbxs", _pbxs),
    ],
}


def _by_way(table: Table) -> dict[str, list[Row]]:
    ways = dict.fromkeys(str(row["way"]) for row in table.rows)
    return {way: [row for row in table.rows if row["way"] == way] for way in ways}


def _column(rows: Sequence[Row], key: str) -> list[float]:
    return [_number(row.get(key)) for row in rows]


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
