// What the page shows of a task, and the states around it: loading, empty, lost, locked.

import { drawQuality, drawStaleness, drawThroughput } from "./charts.js";
import * as format from "./format.js";
import { el, showDevices, showEvents, showRefusals, showVersions } from "./tables.js";

const TREND_POINTS = 5;
export const $ = (id) => document.getElementById(id);

export function view(name) {
  document.body.dataset.view = name;
}

export function link(state, text) {
  const pill = $("link");
  if (pill.dataset.state === state) return;
  pill.dataset.state = state;
  pill.textContent = text;
  document.body.dataset.link = state;
}

export function showLost(detail) {
  $("lost-detail").textContent = detail;
  $("lost").hidden = false;
}

export function hideLost() {
  $("lost").hidden = true;
}

export function showProblem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

export function showEmpty() {
  const command = [
    "rivulet-export build mf --items 1000 --out bundle",
    `rivulet-export publish bundle --to ${location.origin}`,
  ];
  $("publish-command").firstElementChild.textContent = command.join("\n");
  document.title = "Rivulet";
  view("empty");
}

export function showChooser(tasks, chosen) {
  const options = tasks.map(({ task, name }) => {
    const option = el("option", { value: task }, `${name} (${task.slice(0, 8)})`);
    option.selected = task === chosen;
    return option;
  });
  const select = $("tasks");
  const key = JSON.stringify([tasks.map(({ task, name }) => [task, name]), chosen]);
  if (select.dataset.key !== key) {
    select.dataset.key = key;
    select.replaceChildren(...options);
  }
  $("chooser").hidden = tasks.length < 2;
}

export function showSummary(task, summary, advice) {
  const { devices, updates, bytes, now } = summary;
  document.title = `${summary.name} v${summary.version} · Rivulet`;
  text("name", summary.name);
  text("id", summary.task);
  text("recommender", task.recommender);
  showState(summary.paused);
  text("version", format.count(summary.version));
  text("version-note", `${format.plural(updates.pending, "update waits", "updates wait")} for the next`);
  showTrend(summary.quality);
  text("devices-online", format.count(devices.online));
  text("devices-note", `online; ${format.count(devices.active)} active, ${format.count(devices.known)} known`);
  text("rate", format.decimal(updates.per_second));
  const outcomes = [["accepted", "accepted"], ["duplicate", "duplicate"], ["rejected", "refused"]];
  text("rate-note", outcomes.map(([key, word]) => `${format.count(updates[key])} ${word}`).join(", "));
  text("saved", updates.accepted ? format.percent(bytes.saved_ratio) : "–");
  text("saved-note", updates.accepted
    ? `${format.bytes(bytes.received)} received instead of ${format.bytes(bytes.dense_equivalent)}`
    : "against sending whole tables");
  const ages = summary.staleness;
  const merged = ages.reduce((sum, [, n]) => sum + n, 0);
  const mean = ages.reduce((sum, [staleness, n]) => sum + staleness * n, 0) / merged;
  text("staleness-note", merged ? `Mean ${format.decimal(mean)}.` : "");
  drawQuality($("quality"), summary.quality);
  drawThroughput($("throughput"), summary.throughput, now);
  drawStaleness($("staleness"), ages);
  showRefusals($("refusals"), $("refusals-note"), summary.refusals, advice);
  view("task");
}

export function showDetails({ versions, devices, events, retention }, summary) {
  text("reach", retention.sentence);
  showVersions($("versions"), $("versions-note"), versions, summary.now);
  showDevices($("devices"), $("devices-shown"), devices, summary.devices.known, summary.now);
  showEvents($("events"), events, summary.now);
}

function showState(paused) {
  $("state").dataset.state = paused ? "paused" : "running";
  text("state", paused ? "Paused" : "Running");
  text("toggle", paused ? "Resume" : "Pause");
  $("toggle").title = paused
    ? "Let devices train again, and merge their updates"
    : "Let devices stop training; nothing is merged until you resume";
}

// Few devices measure one version, so "now" is the mean of the last few points.
function showTrend(points) {
  const known = points.filter((p) => p.hr_at_10 !== null);
  const mean = (some) => {
    const reports = some.reduce((sum, p) => sum + p.reports, 0);
    return some.reduce((sum, p) => sum + p.hr_at_10 * p.reports, 0) / reports;
  };
  if (!known.length) {
    text("hr", "–");
    return text("hr-note", "not measured yet");
  }
  const first = mean(known.slice(0, 1));
  const last = mean(known.slice(-TREND_POINTS));
  text("hr", format.quality(last));
  const change = last - first;
  const sign = change < 0 ? "−" : "+";
  const since = `${sign}${format.quality(Math.abs(change))} since version ${known[0].version}`;
  text("hr-note", known.length > 1 ? since : "first measurement");
}

function text(id, value) {
  const element = $(id);
  if (element.textContent !== value) element.textContent = value;
}
