// The three charts. Each draws only when its data or the colours changed.

import * as format from "./format.js";

const CONFIG = { displayModeBar: false, responsive: true, scrollZoom: false };
const THROUGHPUT_S = 120;
const SMOOTH_FROM = 24;
const drawn = new Map();
const dark = matchMedia("(prefers-color-scheme: dark)");

let library = null;

dark.addEventListener("change", () => {
  for (const { element, make } of drawn.values()) draw(element, make);
});

export function drawQuality(element, points) {
  update(element, points, () => {
    const lines = [
      ["HR@10", "hr_at_10", color("--one")],
      ["NDCG@10", "ndcg_at_10", color("--two")],
    ];
    const data = lines.flatMap(([name, key, hue]) => line(name, points.filter((p) => p[key] !== null), key, hue));
    if (!data.length) return { empty: "No quality yet. Devices report it with their updates." };
    const newest = Math.max(5, points.at(-1).version);
    const spoken = lines.map(([name, key]) => {
      const [first, last] = ends(points.filter((p) => p[key] !== null));
      if (!first) return "";
      const at = (p) => `${format.quality(p[key])} at version ${p.version}`;
      return `${name} ${at(first)}, ${at(last)}.`;
    });
    return {
      data,
      layout: {
        hovermode: "x unified",
        showlegend: true,
        legend: { orientation: "h", x: 0, y: 1.14, traceorder: "normal" },
        xaxis: { title: { text: "version" }, range: [-0.01 * newest, 1.01 * newest], dtick: steps(newest) },
        yaxis: { rangemode: "tozero", tickformat: ".2f" },
      },
      label: `Line chart. ${spoken.join(" ")}`,
    };
  });
}

export function drawThroughput(element, seconds, now) {
  const bySecond = new Map(seconds);
  const last = Math.floor(now) - 1;
  const times = Array.from({ length: THROUGHPUT_S }, (_, i) => last - THROUGHPUT_S + 1 + i);
  const counts = times.map((second) => bySecond.get(second) ?? 0);
  update(element, counts, () => {
    const total = counts.reduce((sum, n) => sum + n, 0);
    const most = Math.max(...counts);
    if (total === 0) return { empty: "No update in the last two minutes." };
    return {
      data: [{
        type: "scatter",
        mode: "lines",
        fill: "tozeroy",
        x: times.map((second) => second - last),
        y: counts,
        line: { color: color("--one"), width: 1.5, shape: "hvh" },
        customdata: times.map((second) => last - second),
        hovertemplate: "%{y} accepted, %{customdata} s ago<extra></extra>",
      }],
      layout: {
        hovermode: "x",
        xaxis: {
          range: [-THROUGHPUT_S, 0],
          tickvals: [-90, -60, -30],
          ticktext: ["90 s ago", "60 s", "30 s"],
          showgrid: false,
        },
        yaxis: { rangemode: "tozero", tickformat: "~s", dtick: steps(most) },
      },
      label: `Area chart. ${format.count(total)} updates accepted in the last two minutes, `
        + `at most ${format.count(most)} in a second.`,
    };
  });
}

export function drawStaleness(element, histogram) {
  update(element, histogram, () => {
    const total = histogram.reduce((sum, [, n]) => sum + n, 0);
    if (total === 0) return { empty: "Nothing merged yet." };
    const widest = Math.max(...histogram.map(([staleness]) => staleness));
    return {
      data: [{
        type: "bar",
        x: histogram.map(([staleness]) => staleness),
        y: histogram.map(([, n]) => n),
        marker: { color: color("--two") },
        hovertemplate: "staleness %{x}: %{y} updates<extra></extra>",
      }],
      layout: {
        bargap: 0.12,
        xaxis: { title: { text: "staleness" }, range: [-0.6, widest + 0.6], dtick: steps(widest), showgrid: false },
        yaxis: { rangemode: "tozero", tickformat: "~s", dtick: steps(Math.max(...histogram.map(([, n]) => n))) },
      },
      label: `Bar chart. ${format.count(total)} merged updates by staleness, 0 to ${widest}.`,
    };
  });
}

function ends(list) {
  return [list.at(0), list.at(-1)];
}

// Whole numbers on the axis of something that is counted.
function steps(most) {
  return most <= 12 ? Math.ceil(most / 6) : undefined;
}

function line(name, points, key, hue) {
  if (!points.length) return [];
  const x = points.map((p) => p.version);
  const exact = points.map((p) => p[key]);
  const markers = points.length < SMOOTH_FROM;
  const plain = {
    type: "scatter",
    name,
    x,
    y: exact,
    mode: markers ? "lines+markers" : "lines",
    line: { color: hue, width: 2.5 },
    marker: { size: 6 },
    cliponaxis: !markers,
    hovertemplate: "%{y:.3f}",
  };
  if (markers) return [plain];
  // A version is measured by the few devices that start from it, so the line jumps: show the trend.
  const thin = { color: hue, width: 1.2 };
  const quiet = { showlegend: false, hoverinfo: "skip", hovertemplate: undefined };
  const faint = { ...plain, ...quiet, opacity: 0.28, line: thin };
  return [faint, { ...plain, y: smooth(points, key) }];
}

// A mean over neighbours, each counting as often as devices reported it.
function smooth(points, key) {
  const reach = Math.max(2, Math.round(points.length / 30));
  return points.map((_, i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    const reports = near.reduce((sum, p) => sum + p.reports, 0);
    return near.reduce((sum, p) => sum + p[key] * p.reports, 0) / reports;
  });
}

function update(element, data, make) {
  const key = JSON.stringify(data);
  if (drawn.get(element.id)?.key === key) return;
  drawn.set(element.id, { key, element, make });
  draw(element, make);
}

async function draw(element, make) {
  const { empty, data, layout, label } = make();
  if (empty) return blank(element, empty);
  let plotly;
  try {
    plotly = await (library ??= load());
  } catch (error) {
    return blank(element, error.message);
  }
  // While the library loaded, newer data may have come.
  if (drawn.get(element.id).make !== make) return;
  if (!plotIn(element)) element.append(Object.assign(document.createElement("div"), { className: "plot" }));
  element.setAttribute("aria-label", label);
  element.querySelector(".nothing")?.remove();
  await plotly.react(plotIn(element), data, themed(layout), CONFIG);
}

// Loaded with the first chart, as it is large: the numbers come before it.
function load() {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = document.documentElement.dataset.plotly;
    script.onload = () => resolve(globalThis.Plotly);
    script.onerror = () => reject(new Error("The chart library could not be loaded."));
    document.head.append(script);
  });
}

function blank(element, text) {
  const plot = plotIn(element);
  if (plot) globalThis.Plotly.purge(plot);
  const note = document.createElement("p");
  note.className = "nothing";
  note.textContent = text;
  element.replaceChildren(note);
  element.setAttribute("aria-label", text);
}

function plotIn(element) {
  return element.querySelector(".plot");
}

function themed(layout) {
  const ink = color("--soft");
  const rule = color("--line");
  const axis = { gridcolor: rule, linecolor: rule, zeroline: false, automargin: true, fixedrange: true };
  return {
    margin: { l: 8, r: 8, t: layout.showlegend ? 26 : 6, b: 8 },
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
    dragmode: false,
    showlegend: false,
    hoverlabel: { bgcolor: color("--card"), bordercolor: rule, font: { color: color("--ink") } },
    ...layout,
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
  };
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
