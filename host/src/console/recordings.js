// The finished recordings: searched, sorted and counted on the server; by day where the order is that of starts.

import { $, ask, callEnds, clock, count, el, setText, span, stateOf, time } from "./dom.js";
import { Player } from "./player.js";
import { pathOf } from "./sound.js";

const PAGE = 50;
/** Pages that are asked for without a click when a search finds little. */
const PAGES_AT_ONCE = 20;
/** Time after which counts are asked for again that are not complete, or changed by a new recording. */
const AGAIN_MS = 3000;
/** Days for which the changes of this zone are told to the recorder. */
const ZONE_DAYS = 3660;

const rows = new Map();
const days = new Map();
/** Numbers of the recordings that match, by day; null until they are known. */
let counts = null;
let counting = 0;
let next = null;
let turn = 0;
let open = null;
let settings = {};

export function configure(wished) {
  settings = wished;
  // A home has one order.
  $("filters").elements.sort.parentElement.hidden = !settings.hasDisk;
}
export const isEmpty = () => rows.size === 0;
/** Day and id; behind them the instance of a recording in the home, where another one may have the same id. */
const keyOf = ({ day, id, instance, home }) => [day, id, ...(home && instance ? [instance] : [])].join("/");

/** Reads the first page for what is asked for. */
export async function load() {
  turn += 1;
  next = null;
  counts = null;
  const mine = turn;
  if (await read(mine, true)) await countAll(mine);
}

export async function loadMore() {
  await read(turn, false);
}

async function read(mine, isFirst) {
  $("more").disabled = true;
  try {
    for (let page = 0; page < PAGES_AT_ONCE; page += 1) {
      const answer = await ask(`api/v1/recordings?${pageQuery()}`);
      if (mine !== turn) return;
      if (isFirst && page === 0) clear();
      answer.recordings.forEach((recording) => add(recording));
      next = answer.next;
      warn(answer.warning ?? (answer.complete ? "" : "The recordings are still being read: some are missing in this order."));
      if (!next || answer.recordings.length) break;
    }
    showEnd();
    return true;
  } catch (error) {
    if (mine !== turn) return;
    if (isFirst) clear();
    for (const part of ["more", "recordings-none", "found"]) $(part).hidden = true;
    warn(error.status === 400 ? error.message : `The recordings cannot be read: ${error.message}`);
  } finally {
    $("more").disabled = false;
  }
}

/** Tells a fault of the search, or of the list, beside the search. */
function warn(text) {
  setText($("list-wrong"), text);
  $("list-wrong").hidden = !text;
}

/** Counts all that match, and again as long as the recorder still reads them. */
async function countAll(mine) {
  const wanted = query();
  for (const format of ["csv", "ndjson"]) $(format).href = `api/v1/recordings?format=${format}&${wanted}`;
  // A home does not count.
  $("total").hidden = !settings.hasDisk;
  $("found").hidden = false;
  if (!settings.hasDisk) return;
  wanted.set("zone", zone());
  const answer = await ask(`api/v1/recordings/days?${wanted}`).catch(() => null);
  if (mine !== turn || !answer) return;
  const { total, complete, warning } = answer;
  counts = new Map(answer.days.map(({ day, recordings }) => [day, recordings]));
  const words = count(total.toLocaleString(), "recording", "recordings");
  setText($("total"), complete ? words : `At least ${words}, still counting …`);
  $("total").title = warning ?? "";
  days.forEach((day, name) => showCount(name, day));
  if (!complete) countLater();
}

function countLater() {
  counting ||= setTimeout(lookAgain, AGAIN_MS);
}

/** The offset of this zone in minutes, with its changes: "-480,1772964000:-420". */
function zone() {
  const [DAY, STEP] = [86_400_000, 900_000];
  const offset = (at) => -new Date(at).getTimezoneOffset();
  const end = Math.ceil(Date.now() / DAY + 1) * DAY;
  let at = end - ZONE_DAYS * DAY;
  const parts = [offset(at)];
  for (; at < end; at += DAY) {
    if (offset(at) === offset(at + DAY)) continue;
    let change = at;
    while (offset(change) === offset(at)) change += STEP;
    parts.push(`${change / 1000}:${offset(change)}`);
  }
  return parts.join();
}

/** What is asked for, as the address has it: the days are those of the list, of this browser's zone. */
export const filled = () => [...new FormData($("filters"))].filter(([, value]) => value);

/** The order that is asked for; empty for the newest first. */
const order = () => $("filters").elements.sort.value;
const isByDay = () => !order() || order() === "started";

/** The midnight of this zone that begins a day, or the one some days later. */
function midnight(day, later = 0) {
  const [year, month, date] = day.split("-").map(Number);
  return new Date(year, month - 1, date + later);
}

function query() {
  const wanted = new URLSearchParams();
  for (const [name, value] of filled()) {
    if (name === "from") wanted.set(name, midnight(value).toISOString());
    else if (name === "to") wanted.set(name, midnight(value, 1).toISOString());
    else wanted.set(name, value);
  }
  return wanted;
}

/** The page behind the last one that was read. */
function pageQuery() {
  const wanted = query();
  wanted.set("limit", PAGE);
  if (next) wanted.set("cursor", next);
  return wanted;
}

const isFiltered = () => filled().some(([name]) => name !== "sort");

/** The address of the list, or of a recording in it, with all that is asked for. */
export function addressOf(key = "") {
  const wanted = new URLSearchParams(filled());
  const path = ["#recordings", key].filter(Boolean).join("/");
  return wanted.size ? `${path}?${wanted}` : path;
}

/** Asks for what an address tells; returns whether that is another list than before. */
export function fill(words) {
  const wanted = new URLSearchParams(words);
  let isOther = false;
  for (const field of $("filters").elements) {
    if (!field.name) continue;
    const value = wanted.get(field.name) ?? "";
    isOther ||= field.value !== value;
    field.value = value;
  }
  return isOther;
}

/** A recording was just finished: shown if all are, or if the recorder finds it. */
export function arrive(recording) {
  countLater();
  if (filled().length) return;
  add(recording, true);
  showEnd();
}

/** Looks for new recordings in a list that is searched, and counts. */
async function lookAgain() {
  counting = 0;
  const mine = turn;
  if (filled().length && !order()) {
    const { recordings } = await ask(`api/v1/recordings?${query()}`).catch(() => ({ recordings: [] }));
    if (mine !== turn) return;
    recordings.reverse().forEach((one) => add(one, true));
    showEnd();
  }
  await countAll(mine);
}

function clear() {
  close();
  rows.clear();
  days.clear();
  $("days").replaceChildren();
}

function showEnd() {
  $("more").hidden = !next;
  if (rows.size) $("recordings-none").hidden = true;
  else showNone(isFiltered() ? "No recording matches." : "There is no recording yet.");
}

function showNone(text) {
  $("recordings-none").hidden = false;
  setText($("recordings-none"), text);
}

function add(recording, isNew = false) {
  const key = keyOf(recording);
  if (rows.has(key)) return;
  const row = rowOf(recording);
  if (isNew) row.classList.add("new");
  rows.set(key, row);
  // A list in another order than that of starts has no days, and new recordings come first.
  const name = isByDay() ? dayName(recording.started_at) : "";
  const day = dayOf(name, recording.started_at);
  const isOldest = order() === "started";
  const later = isByDay()
    // Nearly always the right place is the first or the last.
    ? [...day.list.children].find(({ dataset: { started } }) => isOldest ? started > recording.started_at : started < recording.started_at)
    : isNew && day.list.firstChild;
  day.list.insertBefore(row, later || null);
  showCount(name, day);
}

/** The number of recordings of a day: of those that match, or until that is known, of those that are shown. */
function showCount(name, day) {
  const all = Math.max(counts?.get(name) ?? 0, day.list.children.length);
  if (name) setText(day.count, count(all.toLocaleString(), "recording", "recordings"));
}

function dayName(iso) {
  const date = new Date(iso);
  return `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")}`;
}

function dayOf(name, iso) {
  let day = days.get(name);
  if (!day) {
    day = { list: el("ul.rows"), count: el("span.count") };
    const head = name ? el("h2", {}, dayWords(new Date(iso)), day.count) : "";
    day.element = el("section.day", { "data-day": name }, head, day.list);
    days.set(name, day);
    const isOldest = order() === "started";
    const later = [...$("days").children].find(({ dataset }) => isOldest ? dataset.day > name : dataset.day < name);
    $("days").insertBefore(day.element, later ?? null);
  }
  return day;
}

function dayWords(date) {
  const midnight = (day) => new Date(day.getFullYear(), day.getMonth(), day.getDate());
  const ago = Math.round((midnight(new Date()) - midnight(date)) / 86_400_000);
  if (ago === 0) return "Today";
  if (ago === 1) return "Yesterday";
  return date.toLocaleDateString(undefined, { weekday: "long", day: "numeric", month: "long", year: "numeric" });
}

function rowOf(recording) {
  const notes = [];
  if (recording.missing_ms) notes.push(`${span(recording.missing_ms)} missing`);
  if (recording.lost_ms) notes.push(`${span(recording.lost_ms)} lost`);
  if (order().endsWith("latency") && recording.response_max_ms !== undefined) notes.push(`slowest answer ${span(recording.response_max_ms)}`);
  const parameters = Object.entries(recording.parameters).slice(0, 3);
  const id = recording.call_id || recording.stream_id || recording.id;
  const ends = callEnds(recording.caller);
  const button = el("button.row", { type: "button", "aria-expanded": "false" },
    el("span.when", { title: new Date(recording.started_at).toLocaleString() }, isByDay() ? time(recording.started_at) : new Date(recording.started_at).toLocaleDateString()),
    el(`span.state.${recording.state}`, { title: recording.reason }, stateOf(recording)),
    el("span.what", {}, el("span.id", { title: id }, id), ends ? el("span.tag", {}, ends) : null,
      recording.home && recording.instance ? el("span.tag.instance", { title: "recorded by" }, recording.instance) : null,
      ...parameters.map(([name, value]) => el("span.tag", {}, el("b", {}, name), ` ${value}`))),
    el("span.notes", { title: recording.tracks.length > 1 ? "outages of both tracks count once" : null }, notes.join(", ")),
    el("span.tracks", {}, recording.tracks.length > 1 ? "both sides" : (recording.tracks[0] ?? "")),
    el("span.length", {}, clock(recording.duration_ms)));
  const row = el("li", { "data-started": recording.started_at, "data-key": keyOf(recording) }, button);
  button.addEventListener("click", () => {
    const isOpen = open?.row === row;
    close();
    $("recordings-missing").hidden = true;
    if (!isOpen) unfold(row, recording);
    history.replaceState(null, "", addressOf(isOpen ? "" : keyOf(recording)));
  });
  return row;
}

/** The second of the recording that an address names; 0 if it names none. */
const secondOf = (hash) => Number(new URLSearchParams(hash.split("?")[1]).get("t")) || 0;

function unfold(row, recording) {
  const player = new Player(recording, {
    allowsDelete: settings.allowsDelete,
    at: secondOf(location.hash),
    linkAt: (seconds) => (seconds === undefined ? addressOf(keyOf(recording)) : `#recordings/${keyOf(recording)}?t=${seconds}`),
    onShown: () => { if (open?.row === row) row.scrollIntoView({ block: "nearest" }); },
    onDelete: () => {
      close();
      history.replaceState(null, "", addressOf());
      rows.delete(keyOf(recording));
      const day = row.closest(".day");
      row.remove();
      if (!day.querySelector("li")) {
        days.delete(day.dataset.day);
        day.remove();
      }
      showEnd();
    },
  });
  row.append(player.element);
  row.firstChild.setAttribute("aria-expanded", "true");
  row.classList.add("open");
  open = { row, player };
}

function close() {
  if (!open) return;
  open.player.close();
  open.player.element.remove();
  open.row.firstChild.setAttribute("aria-expanded", "false");
  open.row.classList.remove("open");
  open = null;
}

/** Opens the recording that the address names, if it names one, or says why that cannot be. */
export async function reveal(named) {
  $("recordings-missing").hidden = true;
  if (!named) return;
  let key = keyOf(named);
  if (!rows.has(key)) {
    try {
      // Further down than what was read, or not what is searched for.
      const record = await ask(pathOf(named));
      const found = { ...record, day: named.day, instance: named.instance ?? record.instance, home: record.home ?? named.home };
      key = keyOf(found);
      add(found);
    } catch (error) {
      setText($("recordings-missing"), `${key}: ${error.message}`);
      $("recordings-missing").hidden = false;
      close();
      scrollTo(0, 0);
      return;
    }
    showEnd();
  }
  const row = rows.get(key);
  if (open?.row !== row) row.firstChild.click();
  else if (secondOf(location.hash)) open.player.seek(secondOf(location.hash));
}
