// The calls that are recorded now: cards for a few of them, a table for many.

import { $, ask, count, setText } from "./dom.js";
import { Call } from "./call.js";
import { Card, linkTo } from "./card.js";
import { finder } from "./find.js";
import { troubleOf } from "./trouble.js";
import { Wall } from "./wall.js";

/** Cards at one time; more calls are only counted. */
const CARDS_MAX = 60;
/** Time for which a call that is over keeps its place. */
const OVER_MS = 30_000;
/** Interval at which an order that follows the looks is made anew. */
const ORDER_MS = 2000;

/** Keys count up with the calls. */
const byKey = (one, other) => Number(one.key) - Number(other.key);
const ORDERS = {
  oldest: byKey,
  newest: (one, other) => byKey(other, one),
  trouble: (one, other) => troubleOf(other) - troubleOf(one) || byKey(one, other),
  answer: (one, other) => (other.answer ?? -1) - (one.answer ?? -1) || byKey(one, other),
};

const calls = new Map();
const cards = new Map();
/** The calls that are shown, in their order; `null` if that is to be found anew. */
let shown = null;
let ordered = 0;
/** The card beside the table. */
let open = null;
let frame = 0;

const filter = () => $("live-filters").elements;
const wall = new Wall($("wall"), (call) => { location.hash = `#live/${encodeURIComponent(call.name)}`; });
/** The cards that are on the screen: the others are not drawn. */
const seen = new Set();
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) seen.add(target);
    else seen.delete(target);
  }
  schedule();
}, { rootMargin: "200px" });

export const callCount = () => [...calls.values()].filter(({ ended }) => ended === null).length;

/** Shows exactly these calls, beside those that have just ended. */
export function showAll(starts) {
  const keys = new Set(starts.map(({ key }) => key));
  for (const key of calls.keys()) if (!keys.has(key)) calls.delete(key);
  starts.forEach(add);
  change();
}

export function add(start) {
  if (calls.has(start.key)) return;
  calls.set(start.key, new Call(start));
  change();
}

/** The call is over. It keeps its place for a while, and becomes its recording there. */
export function end(key) {
  const call = calls.get(key);
  if (!call) return;
  call.ended = performance.now();
  setTimeout(sweep, OVER_MS + 100);
  schedule();
}

export function publish(recording) {
  const call = [...calls.values()].find(({ start, recording: known }) => start.stream_id === recording.stream_id && !known);
  if (!call) return;
  call.recording = recording;
  schedule();
}

export function look(levels) {
  for (const level of levels) calls.get(level.key)?.look(level);
  schedule();
}

export function addMoment(key, moment) {
  calls.get(key)?.addMoment(moment);
}

/** Opens the call of this name, or its recording if it is over; without a name none. */
export async function reveal(name) {
  $("live-missing").hidden = true;
  close();
  if (!name) return;
  const call = [...calls.values()].find((one) => one.isNamed(name));
  if (call) {
    open = new Card(call, () => { location.hash = "#live"; });
    $("opened").replaceChildren(open.element);
    schedule();
    $("opened").scrollIntoView({ block: "nearest" });
    return;
  }
  const { recordings } = await ask(`api/v1/recordings?${new URLSearchParams({ q: `"${name}"`, limit: "1" })}`);
  const [recording] = recordings;
  if (recording) location.replace(linkTo({ recording }));
  else {
    setText($("live-missing"), `${name}: there is no such call and no recording of it.`);
    $("live-missing").hidden = false;
  }
}

function close() {
  open?.close();
  open?.element.remove();
  open = null;
}

/** Draws everything anew with the next picture of the screen. */
export function schedule() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    draw();
  });
}

function sweep() {
  const now = performance.now();
  for (const [key, call] of calls) {
    const isHeard = cards.get(key)?.isHeard || (open?.call === call);
    if (call.ended !== null && now - call.ended >= OVER_MS && !isHeard) calls.delete(key);
  }
  change();
}

function change() {
  shown = null;
  schedule();
}

/** Whether the calls are a table: as wished, or if they are more than fit as cards. */
function isTable() {
  const wished = filter().look.value;
  return wished === "table" || (wished === "" && calls.size > CARDS_MAX);
}

function order() {
  const by = filter().order.value;
  const isDue = ["trouble", "answer"].includes(by) && performance.now() - ordered >= ORDER_MS;
  if (shown && !isDue) return;
  ordered = performance.now();
  const isWanted = finder(filter().q.value);
  shown = [...calls.values()].filter((call) => isWanted(call.findable)).sort(ORDERS[by]);
}

function draw() {
  if ($("view-live").hidden) return;
  order();
  const asTable = isTable();
  $("live-filters").hidden = calls.size === 0;
  $("wall").hidden = !asTable;
  $("wall-head").hidden = !asTable || shown.length === 0;
  $("cards").hidden = asTable;
  const left = asTable ? 0 : Math.max(0, shown.length - CARDS_MAX);
  $("live-more").hidden = left === 0;
  setText($("live-more"), `and ${count(left, "call", "calls")} more: choose the table`);
  $("live-unmatched").hidden = shown.length > 0 || calls.size === 0;
  if (asTable) {
    for (const key of [...cards.keys()]) removeCard(key);
    wall.draw(shown, open?.call.key);
  } else {
    wall.clear();
    drawCards(shown.slice(0, CARDS_MAX));
  }
  open?.draw();
}

function drawCards(wanted) {
  const keys = new Set(wanted.map(({ key }) => key));
  for (const key of [...cards.keys()]) if (!keys.has(key)) removeCard(key);
  let place = $("cards").firstElementChild;
  for (const call of wanted) {
    let card = cards.get(call.key);
    if (!card) {
      card = new Card(call);
      cards.set(call.key, card);
      sight.observe(card.element);
      seen.add(card.element);
    }
    if (card.element === place) place = place.nextElementSibling;
    else $("cards").insertBefore(card.element, place);
    if (seen.has(card.element)) card.draw();
  }
}

function removeCard(key) {
  const card = cards.get(key);
  cards.delete(key);
  sight.unobserve(card.element);
  seen.delete(card.element);
  card.close();
  card.element.remove();
}

$("live-filters").addEventListener("input", change);
$("live-filters").addEventListener("change", change);
$("live-filters").addEventListener("submit", (event) => event.preventDefault());
addEventListener("scroll", () => isTable() && schedule(), { passive: true });
