// The calls that are recorded now.

import { $, callEnds, canvasOf, clock, colour, count, el, loudness, setText, span } from "./dom.js";
import { Listening } from "./listen.js";

/** Cards at one time; more calls are only counted. */
const CARDS_MAX = 60;
/** Looks that a card remembers: a minute. */
const HISTORY_MAX = 300;
const LOOK_MS = 200;

const cards = new Map();
/** Calls beyond the cards, by key. */
const waiting = new Map();
let listening = null;

export const callCount = () => cards.size + waiting.size;

/** Shows exactly these calls. */
export function showAll(calls) {
  const keys = new Set(calls.map((call) => call.key));
  for (const key of [...cards.keys(), ...waiting.keys()]) if (!keys.has(key)) remove(key);
  calls.forEach(add);
}

export function add(call) {
  if (cards.has(call.key)) return;
  if (cards.size >= CARDS_MAX) {
    waiting.set(call.key, call);
    showMore();
    return;
  }
  const card = new Card(call);
  cards.set(call.key, card);
  $("cards").append(card.element);
  card.look(call);
}

export function remove(key) {
  waiting.delete(key);
  const card = cards.get(key);
  if (card) {
    cards.delete(key);
    if (listening?.key !== key) card.element.remove();
    else card.end();
    const next = waiting.values().next().value;
    if (next) {
      waiting.delete(next.key);
      add(next);
    }
  }
  showMore();
}

export function look(levels) {
  for (const level of levels) cards.get(level.key)?.look(level);
}

export function addMoment(key, moment) {
  cards.get(key)?.addMoment(moment);
}

export function redraw() {
  for (const card of cards.values()) card.draw();
}

function showMore() {
  $("live-more").hidden = waiting.size === 0;
  setText($("live-more"), `and ${count(waiting.size, "call", "calls")} more`);
}

class Card {
  #tracks;
  #history = [];
  #looks = 0;
  #moments = [];

  constructor(call) {
    this.call = call;
    this.#tracks = call.tracks;
    this.#moments = call.moments.map((moment) => ({ ...moment }));
    this.clock = el("span.clock");
    this.canvas = el("canvas.reelstrip", { role: "img" });
    this.canvas.setAttribute("aria-label", "Loudness of the last minute");
    this.meters = this.#tracks.map((track, index) => new Meter(track, index));
    this.facts = el("p.facts");
    this.keys = el("p.keys");
    const id = call.call_id || call.stream_id || "a call without an id";
    this.listen = el("button.button.listen", { type: "button" }, "Listen");
    this.listen.setAttribute("aria-label", `Listen to ${id}`);
    this.listen.setAttribute("aria-pressed", "false");
    this.listen.addEventListener("click", () => this.#toggle());
    this.track = el("select.track", { "aria-label": "What to listen to" },
      ...["both", ...this.#tracks].map((track) => el("option", { value: track }, track)));
    this.track.hidden = this.#tracks.length < 2;
    this.track.addEventListener("change", () => {
      if (listening?.key === call.key) this.#start();
    });
    const parameters = Object.entries(call.parameters).slice(0, 6);
    const ends = callEnds(call.caller);
    this.element = el("li.card", { "data-key": call.key },
      el("div.cardhead", {},
        el("span.rec", {}, el("i", { "aria-hidden": "true" }), this.clock),
        el("span.provider", {}, call.provider),
        el("span.grow"), this.track, this.listen),
      el("p.ids", {}, el("span.id", { title: id }, id),
        call.stream_id && call.stream_id !== id ? el("span.id.minor", { title: call.stream_id }, call.stream_id) : null),
      ends || parameters.length || call.parameters_left_out
        ? el("p.parameters", {}, ends ? el("span.tag", {}, ends) : null, ...parameters.map(([name, value]) =>
            el("span.tag", {}, el("b", {}, name), ` ${value}`)),
            call.parameters_left_out ? el("span.tag", {}, `${call.parameters_left_out} cut or not shown`) : null)
        : null,
      this.canvas,
      el("div.meters", {}, ...this.meters.map((meter) => meter.element)),
      el("div.cardfoot", {}, this.facts, this.keys));
  }

  /** What the recorder saw at its last look. */
  look(level) {
    this.level = level;
    setText(this.clock, clock(level.duration_ms));
    level.levels.forEach((value, index) => this.meters[index]?.show(value));
    this.#history.push(level.levels.map((value) => loudness(value)));
    this.#looks += 1;
    if (this.#history.length > HISTORY_MAX) this.#history.shift();
    const facts = [];
    if (level.is_paused) facts.push(["warn", "paused: silence is recorded"]);
    if (level.gaps) facts.push(["warn", `${count(level.gaps, "gap", "gaps")}, ${span(level.missing_ms)} missing`]);
    if (level.late) facts.push(["warn", `${level.late} late`]);
    if (level.rejected) facts.push(["bad", `${level.rejected} rejected`]);
    if (level.elapsed_ms > level.duration_ms + 3000) {
      facts.push(["warn", `${span(level.elapsed_ms - level.duration_ms)} behind the clock`]);
    }
    if (!facts.length) facts.push(["fine", "no gaps"]);
    const answer = level.conversation?.response_ms;
    if (answer !== undefined) facts.push(["fine", `last answer after ${span(answer)}`]);
    const text = facts.map(([, words]) => words).join("|");
    if (this.facts.dataset.text !== text) {
      this.facts.dataset.text = text;
      this.facts.replaceChildren(...facts.map(([kind, words]) => el(`span.fact.${kind}`, {}, words)));
    }
    this.draw();
  }

  addMoment(moment) {
    this.#moments.push({ ...moment, look: this.#looks });
    if (this.#moments.length > 100) this.#moments.shift();
    this.#showKeys();
  }

  #showKeys() {
    const keys = this.#moments.filter((moment) => moment.kind !== "gap").slice(-8);
    this.keys.replaceChildren(...keys.map((moment) => moment.kind === "dtmf"
      ? el("kbd", { title: `pressed at ${clock(moment.at_ms)}` }, moment.value)
      : el("span.mark", { title: `mark at ${clock(moment.at_ms)}` }, moment.value)));
  }

  draw() {
    if (!this.element.isConnected || !this.canvas.clientWidth) return;
    const { context, width, height } = canvasOf(this.canvas);
    const step = width / HISTORY_MAX;
    const middle = height / 2;
    const end = this.level?.duration_ms ?? 0;
    const x = (ms) => width - ((end - ms) / LOOK_MS) * step;
    context.fillStyle = colour("gap");
    for (const moment of this.#moments) {
      if (moment.kind !== "gap") continue;
      const from = x(moment.at_ms);
      const to = x(moment.at_ms + Math.max(moment.filled_ms, LOOK_MS));
      if (to > 0) context.fillRect(Math.max(0, from), 0, to - Math.max(0, from), height);
    }
    const bar = Math.max(1, step - 0.75);
    this.#history.forEach((levels, index) => {
      const left = width - (this.#history.length - index) * step;
      const [up, down = up] = levels;
      context.fillStyle = colour("inbound");
      const rise = Math.max(0.5, up * (middle - 2));
      context.fillRect(left, middle - rise, bar, rise);
      if (levels.length > 1) context.fillStyle = colour("outbound");
      context.fillRect(left, middle, bar, Math.max(0.5, down * (middle - 2)));
    });
    context.fillStyle = colour("ink");
    for (const moment of this.#moments) {
      const at = x(moment.at_ms);
      if (moment.kind === "gap" || at < 0) continue;
      context.fillRect(at, 0, 1, height);
      context.font = "11px system-ui, sans-serif";
      context.fillText(moment.value.slice(0, 12), Math.min(at + 3, width - 10), 10);
    }
  }

  #toggle() {
    if (listening?.key === this.call.key) listening.stop();
    else this.#start();
  }

  #start() {
    listening?.stop();
    this.listen.setAttribute("aria-pressed", "true");
    this.listen.textContent = "Stop";
    const session = new Listening(this.call.key, this.track.value, () => {
      if (listening === session) listening = null;
      this.listen.setAttribute("aria-pressed", "false");
      this.listen.textContent = "Listen";
      if (!cards.has(this.call.key)) this.element.remove();
    });
    listening = session;
  }

  /** The call is over, but its last words are still being played. */
  end() {
    this.element.classList.add("ended");
  }
}

/** One track's loudness. */
class Meter {
  #told = 0;

  constructor(track, index) {
    this.track = track;
    this.bar = el("i");
    this.element = el(`div.meter.${index === 0 ? "inbound" : "outbound"}`,
      { role: "meter", "aria-label": track, "aria-valuemin": "-60", "aria-valuemax": "0" },
      el("span.name", {}, track), el("span.scale", {}, this.bar), this.value = el("span.db"));
  }

  show(level) {
    const place = loudness(level);
    const db = Math.round(place * 60 - 60);
    this.bar.style.transform = `scaleX(${place.toFixed(3)})`;
    setText(this.value, place > 0 ? `${db} dB`.replace("-", "−") : "silent");
    // Often enough for a screen reader that asks.
    if (performance.now() - this.#told > 1000) {
      this.#told = performance.now();
      this.element.setAttribute("aria-valuenow", String(db));
      this.element.setAttribute("aria-valuetext", place > 0 ? `${db} decibels` : "silent");
    }
  }
}
