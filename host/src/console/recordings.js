// The finished recordings: by day, newest first, searched on the server.

import { $, ask, callEnds, clock, count, el, setText, span, stateOf, time } from "./dom.js";
import { findable, finder } from "./find.js";
import { Player } from "./player.js";
import { pathOf } from "./sound.js";

const PAGE = 50;
/** Pages that are asked for without a click when a search finds little. */
const PAGES_AT_ONCE = 20;

const rows = new Map();
const days = new Map();
let next = null;
let turn = 0;
let open = null;
let settings = { allowsDelete: false };

export const configure = (wished) => { settings = wished; };
export const isEmpty = () => rows.size === 0;
/** Day and id; behind them the instance of a recording in the home, where another one may have the same id. */
const keyOf = ({ day, id, instance, home }) => [day, id, ...(home && instance ? [instance] : [])].join("/");

/** Reads the first page for what is asked for. */
export async function load() {
  turn += 1;
  next = null;
  await read(turn, true);
}

export async function loadMore() {
  await read(turn, false);
}

async function read(mine, isFirst) {
  $("more").disabled = true;
  try {
    for (let page = 0; page < PAGES_AT_ONCE; page += 1) {
      const answer = await ask(`api/v1/recordings?${query()}`);
      if (mine !== turn) return;
      if (isFirst && page === 0) clear();
      answer.recordings.forEach((recording) => add(recording));
      next = answer.next;
      setText($("recordings-missing"), answer.warning ?? "");
      $("recordings-missing").hidden = !answer.warning;
      if (!next || answer.recordings.length) break;
    }
    showEnd();
  } catch (error) {
    if (mine === turn) showNone(`The recordings cannot be read: ${error.message}`);
  } finally {
    $("more").disabled = false;
  }
}

/** What is asked for, as the address has it: the days are those of the list, of this browser's zone. */
const filled = () => [...new FormData($("filters"))].filter(([, value]) => value);

/** The midnight of this zone that begins a day, or the one some days later. */
function midnight(day, later = 0) {
  const [year, month, date] = day.split("-").map(Number);
  return new Date(year, month - 1, date + later);
}

function query() {
  const wanted = new URLSearchParams({ limit: String(PAGE) });
  for (const [name, value] of filled()) {
    if (name === "from") wanted.set(name, midnight(value).toISOString());
    else if (name === "to") wanted.set(name, midnight(value, 1).toISOString());
    else wanted.set(name, value);
  }
  if (next) wanted.set("cursor", next);
  return wanted;
}

const isFiltered = () => filled().length > 0;

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

/** A recording that was just finished: shown if it is what is asked for. */
export function arrive(recording) {
  const wanted = Object.fromEntries(filled());
  const began = new Date(recording.started_at);
  const isWanted = finder(wanted.q ?? "")(findable(recording))
    && (!wanted.state || wanted.state === recording.state)
    && (!wanted.from || began >= midnight(wanted.from)) && (!wanted.to || began < midnight(wanted.to, 1));
  if (isWanted) add(recording, true);
  showEnd();
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
  const day = dayOf(recording.started_at);
  // Newest first; nearly always the right place is the first or the last.
  const later = [...day.list.children].find((other) => other.dataset.started < recording.started_at);
  day.list.insertBefore(row, later ?? null);
  setText(day.count, count(day.list.children.length, "recording", "recordings"));
}

function dayOf(iso) {
  const date = new Date(iso);
  const name = `${date.getFullYear()}-${String(date.getMonth() + 1).padStart(2, "0")}-${String(date.getDate()).padStart(2, "0")}`;
  let day = days.get(name);
  if (!day) {
    day = { list: el("ul.rows"), count: el("span.count") };
    day.element = el("section.day", { "data-day": name }, el("h2", {}, dayWords(date), day.count), day.list);
    days.set(name, day);
    const later = [...$("days").children].find((other) => other.dataset.day < name);
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
  const parameters = Object.entries(recording.parameters).slice(0, 3);
  const id = recording.call_id || recording.stream_id || recording.id;
  const ends = callEnds(recording.caller);
  const button = el("button.row", { type: "button", "aria-expanded": "false" },
    el("span.when", {}, time(recording.started_at)),
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
