// The waveform of a recording: all of it or a part, drawn with what happened when.

import { ask, canvasOf, clock, colour, el, setText } from "./dom.js";
import { pathOf } from "./sound.js";
import { drawStrip, stripOf } from "./talk.js";

/** Steps between the numbers of the time axis, in ms, and the room that a number wants. */
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200].map((seconds) => seconds * 1000);
const NUMBER_PX = 70;
const COLUMNS = "1200";
/** The shortest part that is shown, in ms, and how much more or less a step shows. */
const SHORTEST_MS = 500;
const STEP = 1.6;

export class Wave {
  #whole = null;
  /** The peaks of the part that is shown, once they are read. */
  #detail = null;
  #asked = 0;
  #placed = "";
  #fingers = new Map();

  /** `keys` are what further keys do. */
  constructor(summary, record, sound, keys) {
    Object.assign(this, { summary, record, sound, keys });
    this.length = Math.max(1, record.duration_ms);
    [this.from, this.to] = [0, this.length];
    this.canvas = el("canvas.wave");
    this.strip = stripOf(record);
    this.pointed = el("span.pointed", { hidden: true });
    this.stage = el("div.stage", {
      tabIndex: 0, role: "slider", "aria-label": "Position", "aria-valuemin": "0",
      "aria-valuemax": String(Math.round(record.duration_ms / 1000)),
    }, this.canvas, this.#moments(), this.strip, this.pointed);
    this.axis = el("canvas.axis", { "aria-hidden": "true" });
    this.overview = el("canvas.overview", { hidden: true, "aria-hidden": "true" });
    this.element = el("div", {}, this.overview, this.stage, this.axis);
    this.sized = new ResizeObserver(() => this.draw());
    this.onTheme = () => this.draw();
    addEventListener("themechange", this.onTheme);
    this.#listen();
  }

  close() {
    this.sized.disconnect();
    removeEventListener("themechange", this.onTheme);
    clearTimeout(this.#asked);
  }

  async read() {
    this.sized.observe(this.canvas);
    try {
      this.#whole = await this.#peaks({});
    } catch (error) {
      this.stage.replaceChildren(el("p.error", {}, error.message));
      return;
    }
    this.draw();
  }

  #peaks(part) {
    return ask(pathOf(this.summary, "/peaks", { columns: COLUMNS, ...part }));
  }

  get isWhole() {
    return this.to - this.from >= this.length;
  }

  /** Shows more or less, so that what is at a place of the stage (0 to 1) stays there. */
  zoom(steps, place = this.#placeOf(this.sound.now * 1000)) {
    const at = this.from + place * (this.to - this.from);
    this.#show(at, place, (this.to - this.from) / STEP ** steps);
  }

  showAll() {
    this.#show(0, 0, this.length);
  }

  /** Shows a part of this length in which `at` has this place. */
  #show(at, place, wished) {
    const length = Math.min(this.length, Math.max(SHORTEST_MS, wished));
    this.from = Math.min(Math.max(0, at - place * length), this.length - length);
    this.to = this.from + length;
    this.overview.hidden = this.isWhole;
    if (this.sound.loop) this.sound.loop = this.part;
    this.draw();
    clearTimeout(this.#asked);
    if (this.isWhole) return;
    this.#asked = setTimeout(async () => {
      const [from, to] = [Math.floor(this.from), Math.ceil(this.to)];
      try {
        this.#detail = { from, to, ...(await this.#peaks({ from_ms: String(from), to_ms: String(to) })) };
        this.draw();
      } catch { /* the coarse ones stay */ }
    }, 150);
  }

  #pan(ms) {
    this.#show(this.from + ms, 0, this.to - this.from);
  }

  /** The part that is shown, from and to in seconds. */
  get part() {
    return [this.from / 1000, this.to / 1000];
  }

  /** Where a time lies, 0 to 1; the middle for what is not shown. */
  #placeOf(ms) {
    const place = (ms - this.from) / (this.to - this.from);
    return place >= 0 && place <= 1 ? place : 0.5;
  }

  /** Keys and marks, as words that can be reached with a pointer. */
  #moments() {
    const items = this.record.events.slice(0, 200).map((event) => {
      const words = event.dtmf ?? event.mark ?? "";
      return el(`li.${event.dtmf ? "dtmf" : "mark"}`,
        { title: `${event.dtmf ? "key" : "mark"} ${words} at ${clock(event.at_ms)}` }, words.slice(0, 16));
    });
    this.moments = el("ul.moments", {}, ...items);
    return this.moments;
  }

  /** Puts the words of moments in their places, and hides those that stand too close behind others; their lines stay. */
  #place(width) {
    const placed = [width, this.from, this.to].join();
    if (placed === this.#placed) return;
    this.#placed = placed;
    let free = 0;
    [...this.moments.children].forEach((item, index) => {
      const place = (this.record.events[index].at_ms - this.from) / (this.to - this.from);
      item.hidden = place < 0 || place > 1;
      item.style.left = `${100 * place}%`;
      item.classList.remove("crowded");
      if (item.hidden) return;
      const left = item.offsetLeft;
      item.classList.toggle("crowded", left < free);
      if (left >= free) free = left + item.offsetWidth + 4;
    });
  }

  #listen() {
    const { stage } = this;
    const placeIn = (element, { clientX }) => {
      const box = element.getBoundingClientRect();
      return Math.min(1, Math.max(0, (clientX - box.left) / box.width));
    };
    const msAt = (event) => this.from + placeIn(stage, event) * (this.to - this.from);
    stage.addEventListener("pointermove", (event) => {
      this.pointed.hidden = false;
      this.pointed.style.left = `${100 * placeIn(stage, event)}%`;
      setText(this.pointed, clock(msAt(event)));
      if (!this.#fingers.has(event.pointerId)) return;
      if (this.#fingers.size === 1) this.sound.seek(msAt(event) / 1000);
      else this.#pinch(event, placeIn(stage, event));
    });
    stage.addEventListener("pointerleave", () => { this.pointed.hidden = true; });
    stage.addEventListener("pointerdown", (event) => {
      stage.setPointerCapture(event.pointerId);
      this.#fingers.set(event.pointerId, placeIn(stage, event));
      if (this.#fingers.size === 1) this.sound.seek(msAt(event) / 1000);
    });
    const lift = (event) => this.#fingers.delete(event.pointerId);
    stage.addEventListener("pointerup", lift);
    stage.addEventListener("pointercancel", lift);
    stage.addEventListener("wheel", (event) => {
      const shown = this.to - this.from;
      // A pinch on a trackpad comes as a wheel with Ctrl. A wheel alone scrolls the page.
      if (event.ctrlKey || event.metaKey) this.zoom(-Math.sign(event.deltaY) * Math.min(1, Math.abs(event.deltaY) / 50), placeIn(stage, event));
      else if (!this.isWhole && (event.deltaX || event.shiftKey)) this.#pan(((event.deltaX || event.deltaY) / stage.clientWidth) * shown);
      else return;
      event.preventDefault();
    }, { passive: false });
    const travel = (event) => {
      const shown = this.to - this.from;
      if (event.buttons) this.#show(placeIn(this.overview, event) * this.length, 0.5, shown);
    };
    this.overview.addEventListener("pointerdown", (event) => {
      this.overview.setPointerCapture(event.pointerId);
      travel(event);
    });
    this.overview.addEventListener("pointermove", travel);
    stage.addEventListener("keydown", (event) => {
      const now = this.sound.now;
      const places = {
        ArrowLeft: now - 5, ArrowRight: now + 5, ArrowDown: now - 5, ArrowUp: now + 5,
        PageDown: now - 30, PageUp: now + 30, Home: 0, End: this.record.duration_ms / 1000,
      };
      const keys = {
        "+": () => this.zoom(1), "=": () => this.zoom(1), "-": () => this.zoom(-1), 0: () => this.showAll(), ...this.keys,
      };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key in keys) keys[event.key]();
      else if (event.key in places) this.sound.seek(places[event.key]);
      else return;
      event.preventDefault();
    });
  }

  /** Two fingers show more or less by their distance. */
  #pinch(event, place) {
    const other = [...this.#fingers].find(([id]) => id !== event.pointerId)[1];
    const before = Math.abs(this.#fingers.get(event.pointerId) - other);
    this.#fingers.set(event.pointerId, place);
    const after = Math.abs(place - other);
    if (Math.min(before, after) > 0.01) this.zoom(Math.log(after / before) / Math.log(STEP), (place + other) / 2);
  }

  draw() {
    if (!this.canvas.clientWidth) return;
    const { record, sound } = this;
    const now = sound.now * 1000;
    // What plays stays in sight.
    if (!sound.audio.paused && !sound.loop && !this.#fingers.size && (now > this.to || now < this.from)) {
      return this.#show(now, 0.05, this.to - this.from);
    }
    const { context, width, height } = canvasOf(this.canvas);
    this.#place(width);
    const x = (ms) => (width * (ms - this.from)) / (this.to - this.from);
    context.fillStyle = colour("played");
    context.fillRect(0, 0, x(now), height);
    context.fillStyle = colour("gap");
    const lane = height / Math.max(1, record.tracks.length);
    for (const gap of record.gaps) {
      const top = lane * Math.max(0, record.tracks.indexOf(gap.track));
      // What was closed up has no width in the file, but should be seen.
      context.fillRect(x(gap.at_ms), top, Math.max(2, x(gap.at_ms + gap.filled_ms) - x(gap.at_ms)), lane);
    }
    for (const pause of record.pauses ?? []) context.fillRect(x(pause.at_ms), 0, Math.max(2, x(pause.at_ms + pause.duration_ms) - x(pause.at_ms)), height);
    const isFine = this.#detail && this.#detail.from <= this.from && this.#detail.to >= this.to && !this.isWhole;
    drawPeaks(context, isFine ? this.#detail : this.#whole, this.length, x, [0, height], lane);
    context.fillStyle = colour("ink");
    for (const event of record.events) context.fillRect(x(event.at_ms), 0, 1, height);
    context.fillStyle = colour("accent");
    context.fillRect(Math.min(x(now), now <= this.to ? width - 2 : width), 0, 2, height);
    drawStrip(this.strip, record, x, now);
    this.#drawAxis(x);
    if (!this.isWhole) this.#drawOverview(now);
    this.element.dataset.drawn = isFine ? "fine" : "yes";
  }

  #drawAxis(x) {
    const { context, width } = canvasOf(this.axis);
    const step = STEPS.find((ms) => x(this.from + ms) >= NUMBER_PX) ?? STEPS.at(-1);
    const words = (ms) => (step < 1000 ? `${clock(ms - (ms % 1000))}.${Math.round((ms % 1000) / 100)}` : clock(ms));
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = colour("soft");
    for (let number = Math.ceil(this.from / step); x(number * step) < width; number += 1) {
      const ms = number * step;
      context.fillRect(x(ms), 0, 1, 4);
      if (x(ms) + 30 < width) context.fillText(words(ms), x(ms) + 3, 12);
    }
  }

  /** All of it, small, with a frame around the part that is shown. */
  #drawOverview(now) {
    const { context, width, height } = canvasOf(this.overview);
    const x = (ms) => (width * ms) / this.length;
    context.fillStyle = colour("played");
    context.fillRect(x(this.from), 0, Math.max(3, x(this.to - this.from)), height);
    drawPeaks(context, this.#whole, this.length, x, [0, height], height / Math.max(1, this.record.tracks.length));
    context.fillStyle = colour("accent");
    context.fillRect(x(now), 0, 2, height);
  }
}

/** Draws peaks: those of a part between its ends, else those of all. */
function drawPeaks(context, peaks, length, x, [top, height], lane) {
  if (!peaks?.columns) return;
  const { from = 0, to = length, columns } = peaks;
  const width = x(to) - x(from);
  const step = width / columns;
  peaks.channels.forEach((channel, index) => {
    const middle = top + lane * (index + 0.5);
    context.fillStyle = colour(index === 0 ? "inbound" : "outbound");
    channel.low.forEach((low, column) => {
      const left = x(from) + column * step;
      if (left < -step || left > context.canvas.width) return;
      // Telephone speech is quiet: a root makes it visible without hiding what is loud.
      const scale = (value) => Math.sqrt(Math.abs(value) / 128) * (Math.min(lane, height) / 2 - 3);
      const high = middle - Math.max(0.5, scale(channel.high[column]));
      context.fillRect(left, high, Math.max(0.6, step * 0.8), middle + Math.max(0.5, scale(low)) - high);
    });
  });
}
