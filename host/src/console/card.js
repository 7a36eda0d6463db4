// The card of a live call.

import { ask, callEnds, canvasOf, clock, colour, el, loudness, setText, span, stateOf } from "./dom.js";
import { REMEMBERED_MS } from "./call.js";
import { Listening } from "./listen.js";

/** Width of a look in the picture of the last minute. */
const LOOK_MS = 200;

/** Where the recording is that a call became; `undefined` before it is published. */
export const linkTo = ({ recording }) => recording && `#recordings/${recording.day}/${recording.id}`;

/** The state of a call that is over, in words. */
export const endOf = ({ recording }) => (recording ? stateOf(recording) : "Ended");

export class Card {
  #listening = null;
  #moments = 0;
  #facts = "";

  constructor(call, onClose = null) {
    this.call = call;
    const { start, tracks } = call;
    this.clock = el("span.clock");
    this.canvas = el("canvas.reelstrip", { role: "img" });
    this.canvas.setAttribute("aria-label", "Loudness of the last minute");
    this.meters = tracks.map((track, index) => new Meter(track, index));
    this.facts = el("p.facts");
    this.keys = el("p.keys");
    this.listen = el("button.button.listen", { type: "button" }, "Listen");
    this.listen.setAttribute("aria-label", `Listen to ${call.id}`);
    this.listen.setAttribute("aria-pressed", "false");
    this.listen.addEventListener("click", () => (this.#listening ? this.#listening.stop() : this.#start()));
    this.track = el("select.track", { "aria-label": "What to listen to" },
      ...["both", ...tracks].map((track) => el("option", { value: track }, track)));
    this.track.hidden = tracks.length < 2;
    this.track.addEventListener("change", () => this.#listening && this.#start());
    this.pause = el("button.plain.pause", { type: "button", title: "Silence in the file until it goes on: for numbers that must not be recorded" }, "Pause");
    this.pause.addEventListener("click", () => this.#pause());
    this.said = el("p.error", { role: "alert", hidden: true });
    this.over = el("a.button.over", { hidden: true });
    const close = onClose && el("button.plain.close", { type: "button", "aria-label": "Close the card" }, "✕");
    close?.addEventListener("click", onClose);
    const parameters = Object.entries(start.parameters).slice(0, 6);
    const ends = callEnds(start.caller);
    this.element = el("li.card", { "data-key": call.key },
      el("div.cardhead", {},
        el("span.rec", {}, el("i", { "aria-hidden": "true" }), this.clock),
        el("span.provider", {}, start.provider),
        el("span.grow"), this.track, this.listen, this.over, close),
      el("p.ids", {}, el("span.id", { title: call.id }, call.id),
        start.stream_id && start.stream_id !== call.id ? el("span.id.minor", { title: start.stream_id }, start.stream_id) : null),
      ends || parameters.length || start.parameters_left_out
        ? el("p.parameters", {}, ends ? el("span.tag", {}, ends) : null, ...parameters.map(([name, value]) =>
            el("span.tag", {}, el("b", {}, name), ` ${value}`)),
            start.parameters_left_out ? el("span.tag", {}, `${start.parameters_left_out} cut or not shown`) : null)
        : null,
      this.canvas,
      el("div.meters", {}, ...this.meters.map((meter) => meter.element)),
      this.said,
      el("div.cardfoot", {}, this.facts, this.keys, this.pause));
  }

  get isHeard() {
    return Boolean(this.#listening);
  }

  /** Shows the call as it is now. */
  draw() {
    const { call } = this;
    const { level } = call;
    setText(this.clock, clock(level.duration_ms));
    level.levels.forEach((value, index) => this.meters[index]?.show(call.ended === null ? value : 0));
    this.#showFacts();
    this.#showKeys();
    this.#drawStrip();
    setText(this.pause, level.is_paused ? "Resume" : "Pause");
    if (call.ended === null) return;
    this.element.classList.add("ended");
    const link = linkTo(call);
    this.listen.hidden = !this.#listening;
    this.track.hidden = true;
    this.pause.hidden = true;
    this.over.hidden = false;
    if (link) this.over.href = link;
    setText(this.over, link ? `${endOf(call)}: open` : endOf(call));
  }

  #showFacts() {
    const { call } = this;
    const facts = [...call.troubles];
    const isSlow = facts.some(({ words }) => words.startsWith("last answer"));
    if (!call.level.gaps) facts.unshift({ kind: "fine", words: "no gaps" });
    if (call.answer !== undefined && !isSlow) facts.push({ kind: "fine", words: `last answer after ${span(call.answer)}` });
    const text = facts.map(({ words }) => words).join("|");
    if (this.#facts === text) return;
    this.#facts = text;
    this.facts.replaceChildren(...facts.map(({ kind, words }) => el(`span.fact.${kind}`, {}, words)));
  }

  #showKeys() {
    const { moments } = this.call;
    const last = moments.at(-1);
    if (last === this.#moments) return;
    this.#moments = last;
    const keys = moments.filter((moment) => moment.kind !== "gap").slice(-8);
    this.keys.replaceChildren(...keys.map((moment) => moment.kind === "dtmf"
      ? el("kbd", { title: `pressed at ${clock(moment.at_ms)}` }, moment.value)
      : el("span.mark", { title: `mark at ${clock(moment.at_ms)}` }, moment.value)));
  }

  /** The last minute; of a younger call, all of it from the left. */
  #drawStrip() {
    if (!this.element.isConnected || !this.canvas.clientWidth) return;
    const { context, width, height } = canvasOf(this.canvas);
    const { looks, level, moments } = this.call;
    const from = Math.max(0, level.duration_ms - REMEMBERED_MS);
    const x = (ms) => (width * (ms - from)) / REMEMBERED_MS;
    const middle = height / 2;
    context.fillStyle = colour("gap");
    for (const moment of moments) {
      if (moment.kind !== "gap") continue;
      const [left, right] = [x(moment.at_ms), x(moment.at_ms + Math.max(moment.filled_ms, LOOK_MS))];
      if (right > 0) context.fillRect(Math.max(0, left), 0, right - Math.max(0, left), height);
    }
    const step = (width * LOOK_MS) / REMEMBERED_MS;
    const bar = Math.max(1, step - 0.75);
    context.fillStyle = colour("inbound");
    for (const { at, levels: [up] } of looks) {
      const rise = Math.max(0.5, up * (middle - 2));
      context.fillRect(x(at) - step, middle - rise, bar, rise);
    }
    if (this.call.tracks.length > 1) context.fillStyle = colour("outbound");
    for (const { at, levels: [up, down = up] } of looks) {
      context.fillRect(x(at) - step, middle, bar, Math.max(0.5, down * (middle - 2)));
    }
    context.fillStyle = colour("ink");
    context.font = "11px system-ui, sans-serif";
    let free = 0;
    for (const moment of moments) {
      const at = x(moment.at_ms);
      if (moment.kind === "gap" || at < 0) continue;
      context.fillRect(at, 0, 1, height);
      if (at < free) continue;
      const word = moment.value.slice(0, 12);
      context.fillText(word, Math.min(at + 3, width - 10), 10);
      free = at + 7 + context.measureText(word).width;
    }
  }

  async #pause() {
    this.said.hidden = true;
    try {
      await ask(`api/v1/calls/${this.call.key}/${this.call.level.is_paused ? "resume" : "pause"}`, { method: "POST" });
    } catch (error) {
      setText(this.said, error.message);
      this.said.hidden = false;
    }
  }

  #start() {
    Card.heard?.stop();
    this.said.hidden = true;
    this.listen.setAttribute("aria-pressed", "true");
    this.listen.textContent = "Stop";
    const session = new Listening(this.call.key, this.track.value, (problem) => {
      if (Card.heard === session) Card.heard = null;
      if (this.#listening !== session) return;
      this.#listening = null;
      this.listen.setAttribute("aria-pressed", "false");
      this.listen.textContent = "Listen";
      this.said.hidden = !problem;
      setText(this.said, problem ?? "");
      this.draw();
    });
    this.#listening = session;
    Card.heard = session;
  }

  /** Ends the sound. */
  close() {
    this.#listening?.stop();
  }
}

/** The call that is heard: one at a time. */
Card.heard = null;

/** One track's loudness. */
class Meter {
  #told = 0;

  constructor(track, index) {
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
