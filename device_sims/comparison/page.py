"""The report as one HTML file, which needs no network: the chart library is in it."""

import html
from collections.abc import Mapping
from typing import Any

import tomli_w

from device_sims.comparison.figures import panel_figures
from device_sims.comparison.tables import Table, differences, participation, results

__all__ = ["render"]

Entry = Mapping[str, Any]

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --dim: #5c6370; --paper: #ffffff;
  --line: #d9dce1; --shade: #f4f5f7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --dim: #a0a7b4; --paper: #16181c;
  --line: #3a3f47; --shade: #22262c; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 80rem; margin: 0 auto; padding: 1rem; }
.figures { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { margin-top: 2.5rem; }
p, figcaption, summary { max-width: 45rem; } figcaption, .dim { color: var(--dim); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
thead th { white-space: normal; vertical-align: bottom; background: var(--shade); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: var(--paper); }
figure { margin: 1.5rem 0; min-width: 0; }
pre { background: var(--shade); padding: 1rem; overflow-x: auto; }
details { margin: 1rem 0; } .warning { border-left: 4px solid #d55e00; padding-left: .8rem; }
.js-plotly-plot .xtick text, .js-plotly-plot .ytick text, .js-plotly-plot .legendtext,
.js-plotly-plot .xtitle, .js-plotly-plot .ytitle { fill: var(--ink) !important; }
.js-plotly-plot .gridlayer path, .js-plotly-plot .zerolinelayer path {
  stroke: var(--line) !important; }
"""


def render(document: Entry, *, title: str) -> str:
    """The page of a report.

    Args:
        document: as `summarise` makes it.
        title: what stands above it.
    """
    from plotly.offline import get_plotlyjs

    panels = "\n".join(_panel(panel) for panel in document["panels"])
    share = f"{document['confidence']:.0%}".replace("%", " %")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{STYLE}</style>
<script>{get_plotlyjs()}</script></head>
<body><h1>{html.escape(title)}</h1>
<p>Quality is on the test items, at the evaluation with the highest NDCG@10 on the validation items.
What stands behind ± or in brackets is the {share} confidence interval over seeds
(Student&rsquo;s t; of ratios, by way of their logarithms, seed by seed). Time, bytes and energy to
a target are read off the measured course, a straight line between two evaluations. Seeds decide
what devices do and draw; data, candidates and initial parameters are the same for all.</p>
{panels}
</body></html>
"""


def _panel(panel: Entry) -> str:
    facts = ", ".join(f"{name}: {value}" for name, value in panel["facts"].items())
    figures = "\n".join(
        f"<figure>{_figure(figure)}<figcaption>{html.escape(sentence)}</figcaption></figure>"
        for sentence, figure in panel_figures(panel)
    )
    took_part, apart = participation(panel), differences(panel)
    sections = [
        f"<h2>{html.escape(panel['name'])}</h2>",
        f'<p class="dim">{html.escape(facts)}</p>',
        *_warnings(panel),
        f"<p>{html.escape(target(panel))}</p>",
        _table(results(panel)),
        f'<div class="figures">{figures}</div>',
        *([f"<h3>Who took part</h3>{_table(took_part)}"] if took_part else []),
        *([f"<h3>What differs</h3>{_table(apart)}"] if apart else []),
        *(_settings(entry) for entry in panel["scenarios"]),
    ]
    return "\n".join(sections)


def target(panel: Entry) -> str:
    """What the target is, as a sentence."""
    share, ndcg = panel["target"]["share_of_best"], panel["target"]["ndcg_at_10"]
    why = f", {share:.0%} of the best scenario's" if share is not None else ", as it was given"
    return f"Target: NDCG@10 of {ndcg:.3f}{why}."


def _warnings(panel: Entry) -> list[str]:
    said = [
        f"{name}: seeds {', '.join(map(str, seeds))} have not finished."
        for name, seeds in panel["unfinished"].items()
    ]
    for entry in panel["scenarios"]:
        if entry["broken"]:
            said.append(f"{entry['name']}: invariants broken: {', '.join(entry['broken'])}.")
        if entry["other_code"]:
            seeds = ", ".join(map(str, entry["other_code"]))
            said.append(f"{entry['name']}: seeds {seeds} were run by other code than this.")
    return [f'<p class="warning">{html.escape(sentence)}</p>' for sentence in said]


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _figure(figure: Any) -> str:
    config = {"displaylogo": False, "responsive": True, "displayModeBar": False}
    return str(figure.to_html(include_plotlyjs=False, full_html=False, config=config))


def _settings(entry: Entry) -> str:
    digests = "\n".join(f"# seed {seed}: {digest}" for seed, digest in entry["runs"].items())
    toml = html.escape(f"{digests}\n{tomli_w.dumps(entry['settings'])}")
    name = html.escape(entry["name"])
    return f"<details><summary>{name}: the whole scenario</summary><pre>{toml}</pre></details>"
