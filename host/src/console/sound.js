// The sound of a recording. One plays at a time; it goes on while its recording is out of sight, and a bar shows it.

import { $, ask, clock, el, setText } from "./dom.js";

const SPEEDS = [1, 1.5, 2, 0.75];
/** What lies below this, of 128, is silence. What is longer is passed over, but for what is left of both ends. */
const [QUIET, PASSED_MS, LEFT_MS] = [2, 1500, 300];
/** Silence is looked for in parts of this length, in columns of this one. */
const [PART_MS, COLUMN_MS] = [600_000, 150];

let current = null;

/** The address of a recording, or of a part of it. Two instances may have one id. */
export function pathOf(recording, part = "", query = {}) {
  const wanted = new URLSearchParams(query);
  if (recording.instance && recording.home) wanted.set("instance", recording.instance);
  const path = `api/v1/recordings/${recording.day}/${encodeURIComponent(recording.id)}${part}`;
  return wanted.size ? `${path}?${wanted}` : path;
}

export class Sound {
  #frame = 0;
  #gains = null;
  #silences = new Map();
  #context = null;
  #isInSight = false;

  /** The sound of a recording: the one that plays, if it is this one. */
  static of(summary, record, address) {
    return current?.path === pathOf(summary, "/audio") ? current : new Sound(summary, record, address);
  }

  constructor(summary, record, address) {
    this.path = pathOf(summary, "/audio");
    this.summary = summary;
    this.name = summary.call_id || summary.id;
    this.length = record.duration_ms / 1000;
    this.address = address;
    this.onChange = null;
    /** The stretch that is repeated, from and to in seconds. */
    this.loop = null;
    this.audio = el("audio", { preload: "metadata", src: this.path });
    for (const event of ["play", "pause", "ended", "seeked", "timeupdate", "loadedmetadata"]) {
      this.audio.addEventListener(event, () => this.#tick());
    }
    this.skips = kept("skips") === "yes";
    this.hurry(Number(kept("speed")));
    $("sounds").append(this.audio);
  }

  /** The recording is shown: what it shows follows the sound by `onChange`. */
  show(element, onChange) {
    this.onChange = onChange;
    this.seen = new IntersectionObserver(([{ isIntersecting }]) => {
      this.#isInSight = isIntersecting;
      showBar();
    });
    this.seen.observe(element);
  }

  /** The recording is not shown any more: a sound that plays goes on. */
  leave() {
    this.seen?.disconnect();
    this.#isInSight = false;
    this.onChange = null;
    this.loop = null;
    if (this !== current || this.audio.paused) this.#release();
    showBar();
  }

  /** Ends the sound for good. */
  stop() {
    this.audio.pause();
    this.#release();
    showBar();
  }

  #release() {
    if (this === current) current = null;
    cancelAnimationFrame(this.#frame);
    this.audio.pause();
    this.audio.remove();
    this.#context?.close();
  }

  /** Plays or pauses; another sound gives way. */
  async toggle() {
    if (!this.audio.paused) return this.audio.pause();
    if (current && current !== this) {
      current.audio.pause();
      if (!current.onChange) current.#release();
    }
    current = this;
    this.#context?.resume();
    return this.audio.play();
  }

  get now() {
    return this.audio.currentTime;
  }

  seek(seconds) {
    this.audio.currentTime = Math.min(Math.max(0, seconds), this.length);
  }

  get speed() {
    return this.audio.playbackRate;
  }

  hurry(speed) {
    this.audio.playbackRate = SPEEDS.includes(speed) ? speed : 1;
    keep("speed", String(this.speed));
  }

  nextSpeed() {
    this.hurry(SPEEDS[(SPEEDS.indexOf(this.speed) + 1) % SPEEDS.length]);
  }

  skip(isOn) {
    this.skips = isOn;
    keep("skips", isOn ? "yes" : "no");
  }

  /** Silences a channel, or lets it be heard again. */
  silence(channel, isSilent) {
    this.#gains ??= this.#mix();
    this.#gains[channel].gain.value = isSilent ? 0 : 1;
  }

  isSilenced(channel) {
    return this.#gains?.[channel].gain.value === 0;
  }

  /** The gain of each channel. Made when a track is silenced for the first time: without it the browser plays alone. */
  #mix() {
    const context = new AudioContext();
    this.#context = context;
    const [splitter, merger] = [context.createChannelSplitter(2), context.createChannelMerger(2)];
    context.createMediaElementSource(this.audio).connect(splitter);
    merger.connect(context.destination);
    return [0, 1].map((channel) => {
      const gain = context.createGain();
      splitter.connect(gain, channel);
      gain.connect(merger, 0, channel);
      return gain;
    });
  }

  #tick() {
    cancelAnimationFrame(this.#frame);
    if (!this.audio.paused) {
      this.#frame = requestAnimationFrame(() => this.#tick());
      const [from, to] = this.loop ?? [0, Infinity];
      if (this.now >= to || this.now < from - 0.1) this.seek(from);
      else if (this.skips) this.#pass();
    }
    this.onChange?.();
    if (this === current) showBar();
  }

  /** Goes on behind the silence that plays. */
  #pass() {
    const ms = this.now * 1000;
    const part = Math.floor(ms / PART_MS);
    if (!this.#silences.has(part)) {
      this.#silences.set(part, []);
      // One that cannot be had is played.
      this.#silencesOf(part).then((found) => this.#silences.set(part, found), () => {});
    }
    const silence = this.#silences.get(part).find(([from, to]) => ms >= from && ms < to);
    if (silence) this.seek(silence[1] / 1000);
  }

  /** The stretches of a part that are passed over. */
  async #silencesOf(part) {
    const from = part * PART_MS;
    const to = Math.min(from + PART_MS, Math.ceil(this.length * 1000));
    const columns = String(Math.ceil((to - from) / COLUMN_MS));
    const { channels, columns: got } = await ask(pathOf(this.summary, "/peaks", { columns, from_ms: String(from), to_ms: String(to) }));
    const found = [];
    let begin = 0;
    for (let column = 0; column <= got; column += 1) {
      if (column < got && channels.every(({ low, high }) => high[column] < QUIET && low[column] > -QUIET)) continue;
      const ms = (place) => from + ((to - from) * place) / got;
      if (ms(column) - ms(begin) > PASSED_MS) found.push([ms(begin) + LEFT_MS, ms(column) - LEFT_MS]);
      begin = column + 1;
    }
    return found;
  }

  get isInSight() {
    return this.#isInSight;
  }
}

function kept(name) {
  try { return localStorage.getItem(name); } catch { return null; }
}

function keep(name, value) {
  try { localStorage.setItem(name, value); } catch { /* for this recording only */ }
}

/** A button's look for a sound that plays or is paused. */
export function showPlay(button, audio) {
  button.setAttribute("aria-label", audio.paused ? "Play" : "Pause");
  button.dataset.state = audio.paused ? "paused" : "playing";
}

/** The bar shows what plays, or is paused, out of sight. */
function showBar() {
  $("bar").hidden = !current || current.isInSight;
  if ($("bar").hidden) return;
  showPlay($("bar-play"), current.audio);
  setText($("bar-name"), current.name);
  $("bar-name").setAttribute("href", current.address());
  setText($("bar-position"), `${clock(current.now * 1000)} / ${clock(current.length * 1000)}`);
}

$("bar-play").addEventListener("click", () => current?.toggle().catch(() => {}));
$("bar-stop").addEventListener("click", () => {
  current?.audio.pause();
  if (current && !current.onChange) current.stop();
  current = null;
  showBar();
});
