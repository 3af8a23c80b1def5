"""What a run leaves behind: `report.json` for programs, `report.html` for people."""

import json
from collections.abc import Mapping, Sequence
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
        notes: what a reader must know about how the data set was made.
        context: the labels of each context field; id 0 is unknown, id 1 has the first label.
        features: names of the items' features.
        next_action: whether the task is to foresee the next action, see `device_sims.protocol`.
        devices: all of them, and all are evaluated.
        trainers: those of them that have enough to train on.
        picked_round: position in ``rounds`` of the round reported as final, picked on validation.
        baselines: test quality of what learns nothing on a device, by name; the first is
            ``popularity``.
    """

    dataset: str
    notes: Sequence[str]
    context: Mapping[str, Sequence[str]]
    features: Sequence[str]
    recommender: str
    next_action: bool
    items: int
    interactions: int
    devices: int
    trainers: int
    passes: int
    versions: int
    wall_seconds: float
    broker: str
    picked_round: int
    rounds: Sequence[Round]
    baselines: Mapping[str, Quality]
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
            "notes": list(self.notes),
            "context": {name: list(labels) for name, labels in self.context.items()},
            "features": list(self.features),
            "recommender": self.recommender,
            "task": "next action" if self.next_action else "new item",
            "items": self.items,
            "interactions": self.interactions,
            "devices": self.devices,
            "trainers": self.trainers,
            "passes": self.passes,
            "versions": self.versions,
            "wall_seconds": round(self.wall_seconds, 3),
            "broker": self.broker,
            "quality": {
                "initial": self.initial.to_dict(),
                "final": self.final.to_dict(),
                **{name: quality.to_dict() for name, quality in self.baselines.items()},
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
        columns = {"before": self.initial, "after": self.final, **self.baselines}
        dense = self.uplink.dense_mean or 0
        up, down = (_times(dense, counts.mean) for counts in (self.uplink, self.downlink))
        lines = [
            f"{'':22}" + "".join(f"{name.replace('_', ' '):>15}" for name in columns),
            *(
                f"{label:22}"
                + "".join(f"{getattr(quality, name):>15.3f}" for quality in columns.values())
                for label, name in self._measures()
            ),
            "",
            f"{'bytes up an update':22}{self.uplink.mean:>10,.0f}   dense: {dense:,} ({up})",
            f"{'bytes down an update':22}{self.downlink.mean:>10,.0f}   dense: {dense:,} ({down})",
            f"{'updates':22}{self.updates.accepted:>10,}   {self.updates.duplicate} duplicate, "
            f"{self.updates.rejected} rejected",
            f"{'versions':22}{self.versions:>10,}   picked on validation: after pass "
            f"{self.rounds[self.picked_round].number} of {self.passes}",
            f"{'staleness':22}{self.staleness.mean:>10.2f}   at most {self.staleness.max}",
            f"{'wall time':22}{self.wall_seconds:>9.0f}s",
        ]
        if self.trainers < self.devices:
            lines.append(
                f"{'devices that train':22}{self.trainers:>10,}   of {self.devices:,}; "
                "the others have too little to train on"
            )
        return "\n".join(lines)

    def remarks(self) -> list[str]:
        """What belongs beside the table: how quality was measured, and notes on the data."""
        if not self.next_action:
            return list(self.notes)
        task = "Quality is of the next action: its rank among all actions, with nothing masked."
        return [task, *self.notes]

    def _measures(self) -> list[tuple[str, str]]:
        """What the table shows of a quality: a label and the attribute's name."""
        if self.next_action:
            return [("HR@10, next action", "hr_at_10"), ("NDCG@10, next action", "ndcg_at_10")]
        return [
            ("HR@10", "hr_at_10"),
            ("NDCG@10", "ndcg_at_10"),
            ("HR@10, full rank", "full_hr_at_10"),
            ("NDCG@10, full rank", "full_ndcg_at_10"),
        ]


def write_report(report: Report, directory: Path) -> None:
    """Write `report.json` and `report.html` (with its chart library beside it)."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(report.to_dict(), indent=1) + "\n")
    (directory / "report.html").write_text(_page(report, directory), encoding="utf-8")


def _times(dense: int, mean: float) -> str:
    return f"{dense / mean:.0f} times as much" if mean else "none"


def _present(counts: ByteCounts) -> dict[str, Any]:
    return {name: value for name, value in asdict(counts).items() if value is not None}


def _page(report: Report, directory: Path) -> str:
    from plotly.offline import get_plotlyjs

    (directory / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
    charts = "\n".join(
        figure.to_html(include_plotlyjs=False, full_html=False) for figure in _figures(report)
    )
    remarks = "".join(f"<p>{remark}</p>\n" for remark in report.remarks())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Rivulet: {report.dataset}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<script src="plotly.min.js"></script>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
pre{{background:#f4f4f5;padding:1rem;overflow-x:auto}}</style></head>
<body><h1>{report.devices:,} devices learned {report.dataset} with {report.recommender}</h1>
<p>{report.interactions:,} interactions with {report.items:,} items; none left its device.
Broker: {report.broker}.</p>
<pre>{report.table()}</pre>
{remarks}{charts}
</body></html>
"""


def _figures(report: Report) -> list[Any]:
    import plotly.graph_objects as go

    numbers = [entry.number for entry in report.rounds]
    quality = go.Figure()
    for name, field in (("HR@10", "hr_at_10"), ("NDCG@10", "ndcg_at_10")):
        values = [getattr(entry.test, field) for entry in report.rounds]
        quality.add_scatter(x=numbers, y=values, name=name, mode="lines+markers")
        for baseline, level in report.baselines.items():
            quality.add_hline(
                y=getattr(level, field),
                line_dash="dot",
                annotation_text=f"{baseline.replace('_', ' ')} {name}",
            )
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
