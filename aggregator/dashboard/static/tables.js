// Tables and lists. Everything from the service goes in as text, never as markup.

import * as format from "./format.js";

const RECENT_EVENTS = 30;
const shown = new Map();

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function showVersions(element, note, versions, now) {
  note.textContent = versions.length ? ruleText(versions[0].rule) : "";
  const rows = versions.map((v) => [
    { text: `v${v.version}`, head: true },
    { text: format.ago(v.created_at, now), title: format.moment(v.created_at) },
    { text: v.origin ? originText(v.origin) : format.count(v.updates), number: true },
    { text: v.updates ? format.decimal(v.mean_staleness) : "–", number: true },
    { text: format.quality(v.hr_at_10), number: true },
    { text: format.quality(v.ndcg_at_10), number: true, optional: true },
    { text: v.digest.slice(0, 8), title: v.digest, optional: true },
  ]);
  const heads = ["Version", "Made", "Updates", "Staleness", "HR@10", "NDCG@10", "Digest"];
  table(element, heads, rows, "No version yet.");
}

function originText({ kind, of, lineage }) {
  return kind === "rollback" ? `as v${of}` : `lineage ${lineage}`;
}

export function showDevices(element, note, devices, known, now) {
  note.textContent = devices.length < known
    ? `The ${devices.length} seen last of ${format.count(known)}.`
    : "Every device that has shown itself.";
  const rows = devices.map((d) => [
    { text: d.device, head: true, title: [d.agent, d.runtime].filter(Boolean).join(", ") },
    { text: d.state, state: d.state },
    { text: format.ago(d.last_seen, now), title: format.moment(d.last_seen) },
    { text: format.count(d.accepted), number: true },
    { text: format.count(d.rejected), number: true },
    { text: format.bytes(d.bytes), number: true, optional: true },
    { text: d.last_version === null ? "–" : `v${d.last_version}`, number: true, optional: true },
  ]);
  const heads = ["Device", "State", "Seen", "Accepted", "Refused", "Sent", "From"];
  table(element, heads, rows, "No device yet. Start one with: rivulet-agent run");
}

export function showRefusals(element, note, refusals, advice) {
  const rows = Object.entries(refusals).filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
  const total = rows.reduce((sum, [, n]) => sum + n, 0);
  note.textContent = total
    ? `${format.plural(total, "update", "updates")} refused; the device keeps what it learned.`
    : "By reason, with what to do.";
  if (!changed(element, [rows, advice])) return;
  const items = rows.map(([slug, n]) => el(
    "li", {},
    el("div", { class: "refusal" }, el("strong", {}, slug), el("span", { class: "number" }, format.count(n))),
    share(n / total),
    el("p", { class: "faint" }, advice[slug] ?? ""),
  ));
  element.replaceChildren(...(items.length ? items : [el("li", { class: "nothing" }, "None so far.")]));
}

export function showEvents(element, events, now) {
  const recent = events.slice(-RECENT_EVENTS).reverse();
  const items = recent.map((event) => el(
    "li", {},
    el("div", { class: "event" },
      el("strong", {}, event.kind.replaceAll("-", " ")),
      el("time", { class: "faint", title: format.moment(event.at) }, format.ago(event.at, now))),
    el("p", { class: "faint" }, [event.device, event.detail].filter(Boolean).join(": ")),
  ));
  element.replaceChildren(...(items.length ? items : [el("li", { class: "nothing" }, "Nothing happened yet.")]));
}

// "Merges 20 updates, or what is there after 30 s; staleness exponent 0.5; …"
export function ruleText({ buffer_size: size, max_wait_s: wait, ...rest }) {
  const others = Object.entries(rest).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`);
  return [`A version is ${size} updates, or what is there after ${wait} s`, ...others].join("; ") + ".";
}

function share(ratio) {
  const filled = el("div");
  filled.style.width = `${100 * ratio}%`;
  return el("div", { class: "share", "aria-hidden": "true" }, filled);
}

function table(element, heads, rows, nothing) {
  if (!changed(element, rows)) return;
  if (!rows.length) return element.replaceChildren(el("p", { class: "nothing" }, nothing));
  const header = heads.map((text, i) => el("th", { scope: "col", class: kind(rows[0][i]) }, text));
  const body = rows.map((row) => el("tr", {}, ...row.map(cell)));
  element.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, ...header)), el("tbody", {}, ...body)));
}

function cell(part) {
  const attributes = { class: kind(part), title: part.title || undefined };
  if (part.head) return el("th", { ...attributes, scope: "row" }, part.text);
  const text = part.state ? el("span", { class: "dot", "data-state": part.state }, part.text) : part.text;
  return el("td", attributes, text);
}

function kind({ number, optional }) {
  return [number && "number", optional && "optional"].filter(Boolean).join(" ") || undefined;
}

function changed(element, data) {
  const key = JSON.stringify(data);
  if (shown.get(element.id) === key) return false;
  shown.set(element.id, key);
  return true;
}
