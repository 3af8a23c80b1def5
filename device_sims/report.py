"""What a run leaves behind: `report.json` for programs, `report.html` for people."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from device_sims.protocol import Quality

__all__ = ["ByteCounts", "Report", "Round", "StalenessFigures", "UpdateCounts", "write_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The fleet's quality after a number of passes.

    Attributes:
        number: passes done; 0 is before training.
        version: the aggregator's version that was evaluated.
        wall_seconds: since training began.
        uplink_bytes: sent by all devices so far.
        validation: quality on the validation items.
        test: quality on the test items.
    """

    number: int
    version: int
    wall_seconds: float
    uplink_bytes: int
    validation: Quality
    test: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCounts:
    """Updates by what became of them."""

    published: int
    accepted: int
    duplicate: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteCounts:
    """Bytes of one direction; a mean and a percentile are over messages."""

    mean: float
    total: int
    p99: float | None = None
    dense_mean: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StalenessFigures:
    """Staleness of the merged updates, in versions."""

    mean: float
    max: int
    histogram: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything measured in one run; see `Report.to_dict` for the file's layout.

    Attributes:
        picked_round: position in ``rounds`` of the round reported as final, picked on validation.
    """

    dataset: str
    items: int
    interactions: int
    devices: int
    passes: int
    versions: int
    wall_seconds: float
    broker: str
    picked_round: int
    rounds: Sequence[Round]
    popularity: Quality
    updates: UpdateCounts
    uplink: ByteCounts
    downlink: ByteCounts
    staleness: StalenessFigures
    settings: dict[str, Any]

    @property
    def initial(self) -> Quality:
        """Test quality before training."""
        return self.rounds[0].test

    @property
    def final(self) -> Quality:
        """Test quality of the picked round."""
        return self.rounds[self.picked_round].test

    def to_dict(self) -> dict[str, Any]:
        """The layout of `report.json`."""
        return {
            "dataset": self.dataset,
            "items": self.items,
            "interactions": self.interactions,
            "devices": self.devices,
            "passes": self.passes,
            "versions": self.versions,
            "wall_seconds": round(self.wall_seconds, 3),
            "broker": self.broker,
            "quality": {
                "initial": self.initial.to_dict(),
                "final": self.final.to_dict(),
                "popularity": self.popularity.to_dict(),
                "picked_round": self.rounds[self.picked_round].number,
                "rounds": [asdict(entry) for entry in self.rounds],
            },
            "updates": asdict(self.updates),
            "uplink_bytes": _present(self.uplink),
            "downlink_bytes": _present(self.downlink),
            "staleness": asdict(self.staleness),
            "settings": self.settings,
        }

    def table(self) -> str:
        """The closing table of a run, as plain text."""
        before, after, popular = self.initial, self.final, self.popularity
        dense = self.uplink.dense_mean or 0
        ratio = f"{dense / self.uplink.mean:.0f} times as much" if self.uplink.mean else "none sent"
        lines = [
            f"{'':22}{'before':>10}{'after':>10}{'popularity':>12}",
            *(
                f"{label:22}{getattr(before, name):>10.3f}{getattr(after, name):>10.3f}"
                f"{getattr(popular, name):>12.3f}"
                for label, name in (
                    ("HR@10", "hr_at_10"),
                    ("NDCG@10", "ndcg_at_10"),
                    ("HR@10, full rank", "full_hr_at_10"),
                    ("NDCG@10, full rank", "full_ndcg_at_10"),
                )
            ),
            "",
            f"{'bytes up an update':22}{self.uplink.mean:>10,.0f}   dense: {dense:,} ({ratio})",
            f"{'bytes down an update':22}{self.downlink.mean:>10,.0f}   a whole version",
            f"{'updates':22}{self.updates.accepted:>10,}   {self.updates.duplicate} duplicate, "
            f"{self.updates.rejected} rejected",
            f"{'versions':22}{self.versions:>10,}   picked on validation: after pass "
            f"{self.rounds[self.picked_round].number} of {self.passes}",
            f"{'staleness':22}{self.staleness.mean:>10.2f}   at most {self.staleness.max}",
            f"{'wall time':22}{self.wall_seconds:>9.0f}s",
        ]
        return "\n".join(lines)


def write_report(report: Report, directory: Path) -> None:
    """Write `report.json` and `report.html` (with its chart library beside it)."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(report.to_dict(), indent=1) + "\n")
    (directory / "report.html").write_text(_page(report, directory), encoding="utf-8")


def _present(counts: ByteCounts) -> dict[str, Any]:
    return {name: value for name, value in asdict(counts).items() if value is not None}


def _page(report: Report, directory: Path) -> str:
    from plotly.offline import get_plotlyjs

    (directory / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    charts = "\n".join(
        figure.to_html(include_plotlyjs=False, full_html=False) for figure in _figures(report)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Rivulet: {report.dataset}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<script src="plotly.min.js"></script>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
pre{{background:#f4f4f5;padding:1rem;overflow-x:auto}}</style></head>
<body><h1>{report.devices:,} devices learned {report.dataset}</h1>
<p>{report.interactions:,} interactions with {report.items:,} items; none left its device.
Broker: {report.broker}.</p>
<pre>{report.table()}</pre>
{charts}
</body></html>
"""


def _figures(report: Report) -> list[Any]:
    import plotly.graph_objects as go

    numbers = [entry.number for entry in report.rounds]
    quality = go.Figure()
    for name, field in (("HR@10", "hr_at_10"), ("NDCG@10", "ndcg_at_10")):
        values = [getattr(entry.test, field) for entry in report.rounds]
        quality.add_scatter(x=numbers, y=values, name=name, mode="lines+markers")
        level = getattr(report.popularity, field)
        quality.add_hline(y=level, line_dash="dot", annotation_text=f"popularity {name}")
    quality.update_layout(title="Test quality", xaxis_title="passes", yaxis_range=[0, 1])
    staleness = go.Figure(
        go.Bar(
            x=[versions for versions, _ in report.staleness.histogram],
            y=[count for _, count in report.staleness.histogram],
        )
    )
    staleness.update_layout(
        title="Staleness of merged updates", xaxis_title="versions", yaxis_title="updates"
    )
    return [quality, staleness]
