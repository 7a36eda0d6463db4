// The recorder itself: what it does, what it refused, what it will delete, and the settings in force.

import { $, ask, bytes, count, el, say, time } from "./dom.js";

const SET_BY = { command_line: "command line", environment: "environment", default: "default" };
const LATER = [[86_400, "day", "days"], [3600, "hour", "hours"], [60, "minute", "minutes"]];

/** A time to come, in seconds, in words. */
function words(seconds) {
  const [unit, one, many] = LATER.find(([length]) => seconds >= 2 * length) ?? [1, "second", "seconds"];
  return count(Math.round(seconds / unit), one, many);
}

/** Reads it anew. */
export async function load() {
  try {
    const [status, system] = await Promise.all([ask("api/v1/status"), ask("api/v1/system")]);
    const isOpen = $("system").querySelector("details")?.open ?? false;
    $("system").replaceChildren(recorder(status, system), disk(status, system), deletion(status), refusals(system),
      ...webhook(status, system), ...home(status), settings(system, isOpen), warnings(system));
  } catch (error) {
    $("system").replaceChildren(el("p.error", {}, error.message));
  }
}

const part = (title, ...children) => el("section.panel", {}, el("h2", {}, title), ...children);

const list = (rows) => el("dl", {}, ...rows.filter(([, value]) => value !== undefined && value !== null)
  .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));

const recorder = (status, system) => part("Recorder", list([
  ["Version", system.version],
  ["Runs since", new Date(system.began_at).toLocaleString()],
  ["Calls now", String(status.calls)],
  ["More calls before the limit", status.calls_left === undefined ? null : String(status.calls_left)],
  ["Processors", `${status.cpus.toFixed(2)} of ${status.cpus_total} in use`],
  ["Stream URL", status.stream_url],
  ["Webhook of the provider", status.webhook_url],
]));

const disk = ({ disk: room }, system) => part("Disk", list([
  ["Free", room ? `${bytes(room.free_bytes)} of ${bytes(room.total_bytes)}` : "no answer"],
  ["New calls are refused below", room && bytes(room.keep_free_bytes)],
  ["Recorded since the start", bytes(system.recorded_bytes)],
  ["Full for new calls", system.full_in_s === undefined ? null : `in ${words(system.full_in_s)}, if calls go on as since the start`],
  ["Writes of more than a second", String(system.slow_writes)],
  ["Syncs of more than a second", String(system.slow_syncs)],
]));

function deletion({ retention }) {
  const next = retention.next;
  const day = (iso) => new Date(iso).toLocaleDateString();
  const text = next
    ? `At ${time(next.at)}: ${count(next.recordings, "recording", "recordings")}, ${bytes(next.bytes)}, of ${day(next.oldest)} to ${day(next.newest)}.`
    : "No recording is due to be removed for its age.";
  return part("Deletion", el("p", {}, text), ...retention.alarms.map((alarm) => el("p.alarm", {}, alarm)));
}

function refusals(system) {
  const rows = [["calls", system.refused_calls], ["requests", system.refused_requests]]
    .flatMap(([what, counts]) => Object.entries(counts).map(([why, n]) => [`${what}: ${why.replaceAll("_", " ")}`, String(n)]));
  return part("Refused since the start", rows.length ? list(rows) : el("p", {}, "Nothing was refused."));
}

function webhook({ webhook: hook }, { dead_letters: dead }) {
  if (!hook) return [];
  const again = el("button.button", { type: "button" }, "Send them again");
  again.addEventListener("click", async () => {
    again.disabled = true;
    const { redelivered } = await ask("api/v1/webhook/dead?id=all", { method: "POST" }).catch(() => ({ redelivered: 0 }));
    say(`${count(redelivered, "message is", "messages are")} sent again`);
    load();
  });
  return [part("Webhook", list([
    ["Waiting", count(hook.pending, "message", "messages")],
    ["Failing since", hook.failing_since && new Date(hook.failing_since).toLocaleString()],
    ["Last error", hook.error],
    ["Given up", count(dead, "message", "messages")],
  ]), dead ? again : null)];
}

const home = ({ home: store }) => (store ? [part("Home", list(Object.entries(store)
  .filter(([, value]) => typeof value !== "object")
  .map(([name, value]) => [name.replaceAll("_", " "), name.endsWith("bytes") ? bytes(value) : String(value)])))] : []);

function settings(system, isOpen) {
  const row = ({ name, value, set_by: by }) => el("tr", {}, el("th", { scope: "row" }, name),
    el("td", {}, value ?? "is set, and secret"), el("td", {}, SET_BY[by]));
  const table = (found) => el("table", {}, el("thead", {}, el("tr", {},
    ...["Setting", "Value", "Set by"].map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, ...found.map(row)));
  const isDefault = (one) => one.set_by === "default";
  const given = system.settings.filter((one) => !isDefault(one));
  const others = system.settings.filter(isDefault);
  return part("Settings", given.length ? table(given) : el("p", {}, "All are the defaults."),
    el("details", { open: isOpen }, el("summary", {}, count(others.length, "default", "defaults")), table(others)));
}

const warnings = (system) => part("Last warnings", system.warnings.length
  ? el("pre", { tabIndex: 0 }, system.warnings.toReversed().join("\n"))
  : el("p", {}, "There was none."));
