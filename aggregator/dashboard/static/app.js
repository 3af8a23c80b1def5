// Asks the service once a second, backs off while it is away, and steers a task.

import { ApiError, get, hasToken, patch, useToken } from "./api.js";
import * as page from "./page.js";
import { $ } from "./page.js";

const EVERY_MS = 1000;
const DETAILS_EVERY_MS = 2000;
const RETENTION_EVERY_MS = 30000;
const LATEST_DEVICES = 12;
const LONGEST_WAIT_S = 15;
const LATEST_VERSIONS = 11;
const EVENTS_A_PAGE = 1000;
const EVENTS_KEPT = 200;

const state = {
  chosen: location.hash.slice(1),
  failures: 0,
  advice: null,
  asked: new Map(),
  details: { events: [] },
};
let wakeUp = () => {};
let asking = null;
let counting = 0;

async function run() {
  for (;;) {
    let wait_s = EVERY_MS / 1000;
    try {
      await refresh();
      state.failures = 0;
      page.hideLost();
      page.link("live", "Live");
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        await askForToken();
        continue;
      }
      console.warn(error);
      state.failures += 1;
      // What comes back may be another service: forget what only new answers would replace.
      state.asked.clear();
      state.details.events = [];
      wait_s = Math.min(2 ** (state.failures - 1), LONGEST_WAIT_S);
      page.link("lost", "Connection lost");
      countDown(error instanceof ApiError ? error.message : "The answer could not be shown.", wait_s);
    }
    await pause(wait_s * 1000);
  }
}

async function refresh() {
  state.advice ??= await get("/dashboard/refusals.json");
  const tasks = await get("/v1/tasks");
  if (!tasks.length) return page.showEmpty();
  const task = tasks.find((one) => one.task === state.chosen) ?? tasks.at(-1);
  page.showChooser(tasks, task.task);
  const at = `/v1/tasks/${encodeURIComponent(task.task)}`;
  const summary = await get(`${at}/summary`);
  page.showSummary(task, summary, state.advice);
  await refreshDetails(at, summary);
}

async function refreshDetails(at, summary) {
  const { details } = state;
  const after = Math.max(-1, summary.version - LATEST_VERSIONS);
  if (due("versions", at, DETAILS_EVERY_MS)) {
    details.versions = (await get(`${at}/versions?after=${after}&limit=${2 * LATEST_VERSIONS}`)).reverse();
  }
  if (due("devices", at, DETAILS_EVERY_MS)) {
    details.devices = await get(`${at}/devices?order=recent&limit=${LATEST_DEVICES}`);
  }
  if (due("retention", at, RETENTION_EVERY_MS)) {
    details.retention = await get(`${at}/retention`);
  }
  if (due("events", "", DETAILS_EVERY_MS)) await refreshEvents();
  page.showDetails(details, summary);
}

function due(what, of, everyMs) {
  const now = performance.now();
  const last = state.asked.get(what);
  if (last?.of === of && now - last.at < everyMs) return false;
  state.asked.set(what, { of, at: now });
  return true;
}

async function refreshEvents() {
  for (;;) {
    const { events } = state.details;
    const after = events.at(-1)?.id ?? 0;
    const more = await get(`/v1/events?after=${after}&limit=${EVENTS_A_PAGE}`);
    state.details.events = [...events, ...more].slice(-EVENTS_KEPT);
    if (more.length < EVENTS_A_PAGE) return;
  }
}

async function steer() {
  const button = $("toggle");
  const task = $("id").textContent;
  const paused = $("state").dataset.state !== "paused";
  button.disabled = true;
  page.showProblem("");
  try {
    await patch(`/v1/tasks/${encodeURIComponent(task)}`, { paused });
    wakeUp();
  } catch (error) {
    const locked = error.status === 401;
    if (locked && await askForToken()) return void steer();
    const reason = locked ? "It needs the API token." : error.message;
    page.showProblem(`Could not ${paused ? "pause" : "resume"} the task. ${reason}`);
  } finally {
    button.disabled = false;
  }
}

// Resolves to whether a token was given. One dialog serves everyone who waits for a token.
function askForToken() {
  asking ??= new Promise((resolve) => {
    const dialog = $("login");
    $("login-problem").hidden = !hasToken();
    $("token").value = "";
    dialog.addEventListener("close", () => {
      asking = null;
      const given = dialog.returnValue === "send" && $("token").value !== "";
      if (given) useToken($("token").value);
      resolve(given);
    }, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}

function countDown(reason, wait_s) {
  clearTimeout(counting);
  if (!state.failures || wait_s < 1) return;
  page.showLost(`${reason} Trying again in ${wait_s} s.`);
  counting = setTimeout(countDown, 1000, reason, wait_s - 1);
}

function pause(milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    wakeUp = () => {
      clearTimeout(timer);
      resolve();
    };
  });
}

$("toggle").addEventListener("click", steer);
$("cancel").addEventListener("click", () => $("login").close("cancel"));
$("retry").addEventListener("click", () => wakeUp());
$("tasks").addEventListener("change", (event) => {
  state.chosen = event.target.value;
  history.replaceState(null, "", `#${state.chosen}`);
  page.showProblem("");
  wakeUp();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) wakeUp();
});
run();
