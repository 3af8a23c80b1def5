"""The report's figures, as plotly makes them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from device_sims.comparison.summary import AXES

__all__ = ["panel_figures"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
DASHES = ("solid", "dash", "dot", "dashdot")
REFERENCE = "#888888"
BAND_OPACITY = 0.15
BINS = 60
AXIS_TITLES = {
    "hours": ("virtual time", "hours", 1.0),
    "bytes_up": ("bytes sent by devices", "MB", 1e6),
    "bytes_down": ("bytes fetched by devices", "MB", 1e6),
    "energy_j": ("energy of the devices", "kJ", 1e3),
}

Entry = Mapping[str, Any]


def panel_figures(panel: Entry) -> list[tuple[str, Any]]:
    """The figures of one data set: a sentence on what each shows, and a plotly figure."""
    entries: Sequence[Entry] = panel["scenarios"]
    if not entries:
        return []
    return [
        *((_sentence(axis), _courses(panel, axis)) for axis in AXES),
        ("How stale updates were when they were merged.", _staleness(entries)),
        ("How often devices of each kind took part.", _groups(entries, "updates")),
        ("What devices of each kind got of it, at the end.", _groups(entries, "ndcg_at_10")),
    ]


def _sentence(axis: str) -> str:
    return f"Test NDCG@10 against {AXIS_TITLES[axis][0]}; the band is the 95 % interval over seeds."


def _courses(panel: Entry, axis: str) -> Any:
    title, unit, size = AXIS_TITLES[axis]
    figure = _figure(x=f"{title}, {unit}", y="NDCG@10")
    for at, entry in enumerate(panel["scenarios"]):
        course = entry["courses"][axis]["ndcg_at_10"]
        _band(figure, course, _colour(at), entry["name"], size)
        figure.add_scatter(
            x=[x / size for x in course["x"]],
            y=course["mean"],
            name=entry["name"],
            legendgroup=entry["name"],
            mode="lines",
            line={"color": _colour(at), "dash": _dash(at), "width": 2.5},
            hovertemplate="%{y:.3f}",
        )
    for name, level in _levels(panel):
        figure.add_hline(
            y=level,
            line={"color": REFERENCE, "dash": "dot", "width": 1.5},
            annotation={"text": name, "font": {"size": 11, "color": REFERENCE}},
            annotation_position="bottom right",
        )
    return figure


def _band(figure: Any, course: Entry, colour: str, name: str, size: float) -> None:
    if course["low"][0] is None:
        return
    x = [x / size for x in course["x"]]
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=[*course["high"], *reversed(course["low"])],
        fill="toself",
        fillcolor=_rgba(colour, BAND_OPACITY),
        line={"width": 0},
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
    )


def _levels(panel: Entry) -> Iterator[tuple[str, float]]:
    """What the courses are held against."""
    for name, quality in panel["baselines"].items():
        yield name.replace("_", " "), quality["ndcg_at_10"]
    if panel["centralised"]:
        yield "centralised", panel["centralised"]["ndcg_at_10"]["mean"]
    yield "target", panel["target"]["ndcg_at_10"]


def _staleness(entries: Sequence[Entry]) -> Any:
    most = max((entry["staleness"]["max"] for entry in entries), default=0)
    width = most // BINS + 1
    unit = "versions" if width == 1 else f"versions, {width} together"
    figure = _figure(x=unit, y="share of merged updates")
    for at, entry in enumerate(entries):
        counts = dict(entry["staleness"]["histogram"])
        total = max(1, sum(counts.values()))
        starts = range(0, most + 1, width)
        shares = [sum(counts.get(age + n, 0) for n in range(width)) / total for age in starts]
        figure.add_scatter(
            x=list(starts),
            y=shares,
            name=entry["name"],
            mode="lines",
            line={"color": _colour(at), "dash": _dash(at), "shape": "hvh", "width": 2},
            hovertemplate="%{y:.1%}",
        )
    figure.update_yaxes(tickformat=".0%")
    return figure


def _groups(entries: Sequence[Entry], measure: str) -> Any:
    figure = _figure(x="devices", y="NDCG@10" if measure == "ndcg_at_10" else "updates a device")
    for at, entry in enumerate(entries):
        groups = entry["groups"]
        each = [group["devices"]["mean"] if measure == "updates" else 1.0 for group in groups]
        found = [group[measure] for group in groups]
        ends = [_half(one) / max(1.0, size) for one, size in zip(found, each, strict=True)]
        figure.add_bar(
            x=[group["name"] for group in groups],
            y=[one["mean"] / max(1.0, size) for one, size in zip(found, each, strict=True)],
            error_y={"type": "data", "array": ends, "thickness": 1.2, "color": REFERENCE},
            name=entry["name"],
            marker={"color": _colour(at)},
            hovertemplate="%{y:.3f}",
        )
    figure.update_layout(barmode="group")
    return figure


def _half(found: Entry) -> float:
    return 0.0 if found["low"] is None else (found["high"] - found["low"]) / 2.0


def _figure(*, x: str, y: str) -> Any:
    # Only here: plotly takes a second to import, and a mistake in a scenario should not.
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(
        template="plotly_white",
        # The page's own colours show through, so that they can be light or dark.
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        height=420,
        margin={"l": 56, "r": 12, "t": 12, "b": 48},
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0.0},
        hovermode="x",
        showlegend=True,
    )
    figure.update_xaxes(title=x, automargin=True)
    figure.update_yaxes(title=y, automargin=True)
    return figure


def _colour(at: int) -> str:
    return COLOURS[at % len(COLOURS)]


def _dash(at: int) -> str:
    return DASHES[at // len(COLOURS) % len(DASHES)]


def _rgba(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
