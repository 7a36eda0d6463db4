// One finished recording: its waveform, its player and what is known of it.

import { $, ask, bytes, callEnds, canvasOf, clock, colour, confirmTwice, count, el, say, setText, span, time } from "./dom.js";
import { drawStrip, listOf, nameOf, stripOf } from "./talk.js";

const SPEEDS = [1, 1.5, 2, 0.75];
/** Steps between the numbers of the time axis, in ms, and the room that a number wants. */
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200].map((seconds) => seconds * 1000);
const NUMBER_PX = 70;
const END_WORDS = {
  bot: "the voice bot ended it",
  close: "the peer closed the stream",
  disconnect: "the peer disconnected",
  idle: "nothing came any more",
  internal: "a fault of the recorder ended it",
  max_duration: "the longest duration was reached",
  none: "nobody saw the end",
  protocol: "the peer broke the protocol",
  refused: "its audio could not be recorded",
  reset: "the connection was reset",
  restart: "another stream began on the connection",
  segment: "it goes on in the next file",
  shutdown: "the recorder was stopped",
  stop: "the provider said stop",
};
let playing = null;

/** The address of a recording, or of a part of it. Two instances may have one id. */
export function pathOf(recording, part = "", query = {}) {
  const wanted = new URLSearchParams(query);
  if (recording.instance && recording.home) wanted.set("instance", recording.instance);
  const path = `api/v1/recordings/${recording.day}/${encodeURIComponent(recording.id)}${part}`;
  return wanted.size ? `${path}?${wanted}` : path;
}

export class Player {
  #peaks = null;
  #frame = 0;
  #thinned = 0;
  #gains = null;

  /** Opens a recording, at a second of it if one is given. */
  constructor(summary, { allowsDelete, at, linkAt, onDelete, onShown }) {
    this.summary = summary;
    this.path = pathOf(summary);
    this.audioPath = pathOf(summary, "/audio");
    this.element = el("div.player", { role: "group", "aria-label": "Recording" }, el("p.quiet", {}, "Reading …"));
    this.allowsDelete = allowsDelete;
    this.at = at;
    this.linkAt = linkAt;
    this.onDelete = onDelete;
    this.onShown = onShown;
    this.onTheme = () => this.draw();
    this.sized = new ResizeObserver(() => this.draw());
    addEventListener("themechange", this.onTheme);
    this.#load().catch((error) => this.element.replaceChildren(el("p.error", {}, error.message)));
  }

  close() {
    this.audio?.pause();
    this.context?.close();
    this.sized.disconnect();
    removeEventListener("themechange", this.onTheme);
  }

  async #load() {
    const record = await ask(this.path);
    this.record = record;
    const parts = [];
    // Browsers report a file without samples as damaged.
    const isAudible = Boolean(record.wav) && record.samples > 0;
    if (isAudible) parts.push(this.#stage());
    else parts.push(el("p.quiet.noaudio", {}, "No audio"));
    const notes = verdicts(record);
    if (notes.length) parts.push(el("ul.verdicts", {}, ...notes.map(([kind, text]) => el(`li.${kind}`, {}, text))));
    const talk = isAudible ? listOf(record, (seconds) => this.seek(seconds)) : null;
    if (talk) parts.push(talk);
    parts.push(this.#actions(), facts(record));
    this.element.replaceChildren(...parts);
    this.onShown();
    if (!isAudible) return;
    if (this.at) this.audio.addEventListener("loadedmetadata", () => this.seek(this.at), { once: true });
    this.sized.observe(this.canvas);
    try {
      this.#peaks = await ask(pathOf(this.summary, "/peaks", { columns: "1200" }));
    } catch (error) {
      this.wave.replaceChildren(el("p.error", {}, error.message));
      return;
    }
    this.element.dataset.drawn = "yes";
    this.draw();
  }

  #stage() {
    const { record } = this;
    this.audio = el("audio", { preload: "metadata", src: this.audioPath });
    this.canvas = el("canvas.wave");
    this.strip = stripOf(record);
    this.wave = el("div.stage", {
      tabIndex: 0, role: "slider", "aria-label": "Position", "aria-valuemin": "0",
      "aria-valuemax": String(Math.round(record.duration_ms / 1000)),
    }, this.canvas, this.#moments(), this.strip);
    this.axis = el("canvas.axis", { "aria-hidden": "true" });
    this.pointed = el("span.pointed", { hidden: true });
    this.wave.append(this.pointed);
    this.button = el("button.play", { type: "button", "aria-label": "Play" });
    this.position = el("span.position");
    this.speed = el("button.plain.speed", { type: "button" });
    this.button.addEventListener("click", () => this.#toggle());
    this.speed.addEventListener("click", () => {
      this.#hurry(SPEEDS[(SPEEDS.indexOf(this.audio.playbackRate) + 1) % SPEEDS.length]);
    });
    this.#hurry(keptSpeed());
    const jumps = [[-1, "|◄", "Previous turn, gap, key or mark (p)"], [1, "►|", "Next turn, gap, key or mark (n)"]].map(([way, sign, words]) => {
      const button = el("button.plain", { type: "button", title: words }, sign);
      button.setAttribute("aria-label", words);
      button.addEventListener("click", () => this.#jump(way));
      return button;
    });
    for (const event of ["play", "pause", "ended", "seeked", "timeupdate", "loadedmetadata"]) {
      this.audio.addEventListener(event, () => this.#show());
    }
    this.audio.addEventListener("error", () => setText(this.position, "the audio cannot be played"));
    this.#listenForSeeks();
    this.#show();
    const legend = record.tracks.length > 1
      ? el("span.legend", {}, ...record.tracks.map((track, index) =>
          this.#switch(index, nameOf(record, track))))
      : null;
    return el("div", {}, this.wave, this.axis,
      el("div.transport", {}, this.button, ...jumps, this.position, this.speed, this.#link(), el("span.grow"), legend), this.audio);
  }

  #hurry(speed) {
    this.audio.playbackRate = speed;
    setText(this.speed, `${speed}×`);
    this.speed.setAttribute("aria-label", `Speed ${speed}×`);
    try { localStorage.setItem("speed", String(speed)); } catch { /* for this recording only */ }
  }

  /** A button that silences a track, or lets it be heard again. */
  #switch(index, name) {
    const button = el(`button.plain.${index === 0 ? "inbound" : "outbound"}`, { type: "button", title: `Silence ${name}` }, name);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      const isSilent = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isSilent));
      this.#mix()[index].gain.value = isSilent ? 0 : 1;
    });
    return button;
  }

  /** The gain of each channel. Made when a track is silenced for the first time: without it the browser plays alone. */
  #mix() {
    if (this.#gains) return this.#gains;
    this.context = new AudioContext();
    const [splitter, merger] = [this.context.createChannelSplitter(2), this.context.createChannelMerger(2)];
    this.context.createMediaElementSource(this.audio).connect(splitter);
    this.#gains = [0, 1].map((channel) => {
      const gain = this.context.createGain();
      splitter.connect(gain, channel);
      gain.connect(merger, 0, channel);
      return gain;
    });
    merger.connect(this.context.destination);
    return this.#gains;
  }

  #link() {
    const button = el("button.plain", { type: "button" }, "Copy link");
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(new URL(this.linkAt(Math.floor(this.audio.currentTime)), location.href).href);
      say("The link to this second is copied");
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy link"; }, 1500);
    });
    return button;
  }

  /** Goes to the next turn, gap, key or mark, or to the one before. */
  #jump(way) {
    const { record } = this;
    const times = [record.gaps, record.events, record.conversation?.turns ?? []].flat().map(({ at_ms: at }) => at / 1000);
    times.sort((one, other) => way * (one - other));
    // While it plays, the one before is not the one that has just been reached.
    const now = this.audio.currentTime;
    const next = times.find((time) => (way > 0 ? time > now + 0.05 : time < now - 1));
    this.seek(next ?? (way > 0 ? now : 0));
  }

  /** Keys and marks, as words that can be reached with a pointer. */
  #moments() {
    const { record } = this;
    const items = record.events.slice(0, 200).map((event) => {
      const words = event.dtmf ?? event.mark ?? "";
      const item = el(`li.${event.dtmf ? "dtmf" : "mark"}`,
        { title: `${event.dtmf ? "key" : "mark"} ${words} at ${clock(event.at_ms)}` }, words.slice(0, 16));
      item.style.left = `${(100 * event.at_ms) / Math.max(1, record.duration_ms)}%`;
      return item;
    });
    return el("ul.moments", {}, ...items);
  }

  /** Hides the words of moments that stand too close behind others; their lines stay. */
  #thin(width) {
    if (width === this.#thinned) return;
    this.#thinned = width;
    let free = 0;
    for (const item of this.wave.querySelectorAll(".moments li")) {
      item.classList.remove("crowded");
      const left = item.offsetLeft;
      item.classList.toggle("crowded", left < free);
      if (left >= free) free = left + item.offsetWidth + 4;
    }
  }

  #listenForSeeks() {
    const place = (event) => {
      const box = this.wave.getBoundingClientRect();
      return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    };
    const seek = (event) => this.seek((place(event) * this.record.duration_ms) / 1000);
    this.wave.addEventListener("pointermove", (event) => {
      this.pointed.hidden = false;
      this.pointed.style.left = `${100 * place(event)}%`;
      setText(this.pointed, clock(place(event) * this.record.duration_ms));
    });
    this.wave.addEventListener("pointerleave", () => { this.pointed.hidden = true; });
    this.wave.addEventListener("pointerdown", (event) => {
      this.wave.setPointerCapture(event.pointerId);
      seek(event);
      this.wave.addEventListener("pointermove", seek);
      const end = () => this.wave.removeEventListener("pointermove", seek);
      this.wave.addEventListener("pointerup", end, { once: true });
      this.wave.addEventListener("pointercancel", end, { once: true });
    });
    this.wave.addEventListener("keydown", (event) => {
      const now = this.audio.currentTime;
      const places = {
        ArrowLeft: now - 5, ArrowRight: now + 5, ArrowDown: now - 5, ArrowUp: now + 5,
        PageDown: now - 30, PageUp: now + 30, Home: 0, End: this.record.duration_ms / 1000,
      };
      if (event.key === " " || event.key === "Enter") this.#toggle();
      else if (event.key === "n") this.#jump(1);
      else if (event.key === "p") this.#jump(-1);
      else if (event.key in places) this.seek(places[event.key]);
      else return;
      event.preventDefault();
    });
  }

  /** Goes to a second of the audio. */
  seek(seconds) {
    this.audio.currentTime = Math.min(Math.max(0, seconds), this.record.duration_ms / 1000);
    this.#show();
  }

  #toggle() {
    if (!this.audio.paused) {
      this.audio.pause();
      return;
    }
    if (playing && playing !== this.audio) playing.pause();
    playing = this.audio;
    this.context?.resume();
    this.audio.play().catch((error) => setText(this.position, error.message));
  }

  #show() {
    const { audio } = this;
    this.button.setAttribute("aria-label", audio.paused ? "Play" : "Pause");
    this.button.dataset.state = audio.paused ? "paused" : "playing";
    setText(this.position, `${clock(audio.currentTime * 1000)} / ${clock(this.record.duration_ms)}`);
    this.wave.setAttribute("aria-valuenow", String(Math.round(audio.currentTime)));
    this.wave.setAttribute("aria-valuetext", `${clock(audio.currentTime * 1000)} of ${clock(this.record.duration_ms)}`);
    cancelAnimationFrame(this.#frame);
    this.draw();
    if (!audio.paused) this.#frame = requestAnimationFrame(() => this.#show());
  }

  draw() {
    if (!this.canvas?.clientWidth) return;
    const { context, width, height } = canvasOf(this.canvas);
    const { record } = this;
    this.#thin(width);
    const x = (ms) => (width * ms) / Math.max(1, record.duration_ms);
    const played = x(this.audio.currentTime * 1000);
    context.fillStyle = colour("played");
    context.fillRect(0, 0, played, height);
    context.fillStyle = colour("gap");
    const lane = height / Math.max(1, record.tracks.length);
    for (const gap of record.gaps) {
      const top = lane * Math.max(0, record.tracks.indexOf(gap.track));
      // What was closed up has no width in the file, but should be seen.
      context.fillRect(x(gap.at_ms), top, Math.max(2, x(gap.filled_ms)), lane);
    }
    const channels = this.#peaks?.channels ?? [];
    channels.forEach((channel, index) => {
      const middle = lane * (index + 0.5);
      const step = width / Math.max(1, channel.low.length);
      context.fillStyle = colour(index === 0 ? "inbound" : "outbound");
      channel.low.forEach((low, column) => {
        const left = column * step;
        // Telephone speech is quiet: a root makes it visible without hiding what is loud.
        const scale = (value) => Math.sqrt(Math.abs(value) / 128) * (lane / 2 - 3);
        const top = middle - Math.max(0.5, scale(channel.high[column]));
        context.fillRect(left, top, Math.max(0.6, step * 0.8), middle + Math.max(0.5, scale(low)) - top);
      });
    });
    context.fillStyle = colour("ink");
    for (const event of record.events) context.fillRect(x(event.at_ms), 0, 1, height);
    context.fillStyle = colour("accent");
    context.fillRect(Math.min(played, width - 2), 0, 2, height);
    drawStrip(this.strip, record, this.audio.currentTime * 1000);
    this.#drawAxis(x);
  }

  #drawAxis(x) {
    const { context, width } = canvasOf(this.axis);
    const step = STEPS.find((ms) => x(ms) >= NUMBER_PX) ?? STEPS.at(-1);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = colour("soft");
    for (let ms = 0; x(ms) < width; ms += step) {
      context.fillRect(x(ms), 0, 1, 4);
      if (x(ms) + 30 < width) context.fillText(clock(ms), x(ms) + 3, 12);
    }
  }

  #actions() {
    const { record, summary } = this;
    const save = (href, name, text) => el("a.button", { href, download: name }, text);
    const actions = el("div.actions");
    // Of a record from the home, the length of its FLAC is known: that is sent.
    const isFlac = Boolean(record.wav?.flac?.bytes);
    const audio = isFlac ? record.wav.flac : record.wav;
    if (audio) actions.append(save(this.audioPath, audio.file, `Save ${isFlac ? "FLAC" : "WAV"}, ${bytes(audio.bytes)}`));
    actions.append(save(this.path, `${record.id}.json`, "Save record"));
    if (this.allowsDelete) {
      const button = el("button.button.quietdanger", { type: "button" }, "Delete …");
      button.addEventListener("click", () => this.#delete(summary));
      actions.append(button);
    }
    return actions;
  }

  async #delete(summary) {
    const name = summary.call_id || summary.id;
    const agreed = await confirmTwice(
      { title: "Delete this recording?", text: `${name}, ${clock(summary.duration_ms)}, ${time(summary.started_at)}.`, yes: "Delete" },
      { title: "Really delete it?", text: "The audio and its record are gone for good.", yes: "Yes, delete for good" },
    );
    if (!agreed) return;
    try {
      await ask(this.path, { method: "DELETE" });
      say("The recording is deleted");
      this.onDelete();
    } catch (error) {
      this.element.prepend(el("p.error", { role: "alert" }, error.message));
    }
  }
}

function keptSpeed() {
  let kept = null;
  try { kept = Number(localStorage.getItem("speed")); } catch { /* none */ }
  return SPEEDS.includes(kept) ? kept : 1;
}

/** What a listener should know before trusting the audio. */
function verdicts(record) {
  const notes = [];
  if (record.reason) notes.push([record.state === "failed" ? "bad" : "warn", capital(record.reason)]);
  if (record.lost_ms) notes.push(["bad", `${span(record.lost_ms)} arrived and became silence: the disk did not take them`]);
  for (const track of record.silent_tracks) notes.push(["warn", `Nothing was ever heard on ${track}`]);
  if (record.equal_channels) notes.push(["warn", "Both channels are the same to the bit, which two parties never are"]);
  if (record.missing_ms) {
    const total = (gaps, name) => gaps.reduce((sum, gap) => sum + gap[name], 0);
    for (const track of record.tracks) {
      const gaps = record.gaps.filter((gap) => gap.track === track);
      if (!gaps.length) continue;
      const [missing, filled] = [total(gaps, "missing_ms"), total(gaps, "filled_ms")];
      const rest = filled === missing ? "silence in the file" : `${span(filled)} of it silence in the file, the rest closed up`;
      notes.push(["warn", `${count(gaps.length, "gap", "gaps")} on ${track}: ${span(missing)} never came, ${rest}`]);
    }
    if (record.gaps_dropped) notes.push(["warn", `${count(record.gaps_dropped, "more gap", "more gaps")}; ${span(record.missing_ms)} missing in all`]);
  }
  const drift = record.elapsed_ms - record.duration_ms;
  if (record.wav && record.state !== "recovered" && Math.abs(drift) > Math.max(2000, record.elapsed_ms / 20)) {
    notes.push(["warn", `The audio is ${span(Math.abs(drift))} ${drift > 0 ? "shorter" : "longer"} than the call took`]);
  }
  if (!notes.length) notes.push(["fine", "Everything that arrived is in the file"]);
  return notes;
}

function facts(record) {
  const { frames } = record;
  const rejected = Object.entries(frames.rejected).map(([reason, n]) => `${n} ${reason}`).join(", ");
  const rows = [
    ["From and to", callEnds(record.caller)],
    ["Direction", record.caller?.direction],
    ["Forwarded from", record.caller?.forwarded_from],
    ["Caller's name", record.caller?.caller_name],
    ["Call", record.call_id, true],
    ["Stream", record.stream_id, true],
    ["Account", record.account_id, true],
    ["Provider", record.provider],
    ["Audio", audio(record.wire)],
    ["Began", new Date(record.started_at).toLocaleString()],
    ["Ended", `${new Date(record.ended_at).toLocaleString()}: ${END_WORDS[record.end] ?? record.end}`],
    ["Tracks", record.tracks.join(", ")],
    ["Frames", [`${frames.received} recorded`, frames.late && `${frames.late} late`, frames.repeated && `${frames.repeated} repeated`,
      frames.missing && `${frames.missing} missing`, rejected && `rejected: ${rejected}`].filter(Boolean).join(", ")],
    ...Object.entries(record.parameters).map(([name, value]) => [name, value, true]),
    ["SHA-256", record.wav?.sha256, true],
    ["SHA-256 of the samples", record.wav?.data_sha256, true],
  ];
  return el("dl.details", {}, ...rows.filter(([, value]) => value).map(([name, value, isCode]) =>
    el("div", {}, el("dt", {}, name), el(isCode ? "dd.code" : "dd", {}, value))));
}

function audio(wire) {
  if (!wire) return undefined;
  const rate = wire.sample_rate_hz && `${wire.sample_rate_hz} Hz`;
  const order = wire.byte_order_from === "measured" && `${wire.byte_order}-endian as measured`;
  const clock = wire.clock && `time: ${wire.clock.replaceAll("_", " ")}`;
  return [wire.codec ?? wire.encoding, rate, wire.is_assumed && "assumed", order, clock].filter(Boolean).join(", ");
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
