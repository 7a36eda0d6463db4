// One finished recording: its waveform, its player and what is known of it.

import { ask, bytes, callEnds, clock, confirmTwice, count, el, say, setText, span, time } from "./dom.js";
import { Sound, pathOf, showPlay } from "./sound.js";
import { listOf, nameOf } from "./talk.js";
import { Wave } from "./wave.js";

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
export class Player {
  /** Opens a recording, at a second of it if one is given. */
  constructor(summary, { allowsDelete, at, linkAt, onDelete, onShown }) {
    this.summary = summary;
    this.path = pathOf(summary);
    this.element = el("div.player", { role: "group", "aria-label": "Recording" }, el("p.quiet", {}, "Reading …"));
    Object.assign(this, { allowsDelete, at, linkAt, onDelete, onShown });
    this.#load().catch((error) => this.element.replaceChildren(el("p.error", {}, error.message)));
  }

  close() {
    this.isClosed = true;
    this.sound?.leave();
    this.wave?.close();
  }

  async #load() {
    const record = await ask(this.path);
    if (this.isClosed) return;
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
    this.#show();
    if (this.at && this.sound.audio.readyState) this.seek(this.at);
    else if (this.at) this.sound.audio.addEventListener("loadedmetadata", () => this.seek(this.at), { once: true });
    await this.wave.read();
    this.element.dataset.drawn = "yes";
  }

  #stage() {
    const { record } = this;
    this.sound = Sound.of(this.summary, record, () => this.linkAt());
    this.wave = new Wave(this.summary, record, this.sound, {
      " ": () => this.#toggle(), Enter: () => this.#toggle(), n: () => this.#jump(1), p: () => this.#jump(-1), l: () => this.#loop(),
    });
    this.button = el("button.play", { type: "button" });
    this.button.addEventListener("click", () => this.#toggle());
    this.position = el("span.position");
    this.speed = plain("", "Speed", () => {
      this.sound.nextSpeed();
      this.#show();
    });
    this.speed.classList.add("speed");
    this.skips = plain("Skip silence", "Skip silence while it plays", () => this.sound.skip(!this.sound.skips));
    this.loops = plain("Loop", "Loop over the part that is shown (l)", () => this.#loop());
    const jumps = [
      plain("|◄", "Previous turn, gap, key or mark (p)", () => this.#jump(-1)),
      plain("►|", "Next turn, gap, key or mark (n)", () => this.#jump(1)),
    ];
    const sizes = [
      plain("−", "Show more (-)", () => this.wave.zoom(-2)),
      plain("+", "Show less, larger (+)", () => this.wave.zoom(2)),
    ];
    this.sound.audio.addEventListener("error", () => setText(this.position, "the audio cannot be played"));
    const legend = record.tracks.length > 1
      ? el("span.legend", {}, ...record.tracks.map((track, index) => this.#switch(index, nameOf(record, track))))
      : null;
    const stage = el("div", {}, this.wave.element,
      el("div.transport", {}, this.button, ...jumps, this.position, this.speed, this.skips, this.loops, ...sizes, this.#link(),
        el("span.grow"), legend));
    this.sound.show(stage, () => this.#show());
    return stage;
  }

  /** A button that silences a track, or lets it be heard again. */
  #switch(index, name) {
    const button = plain(name, `Silence ${name}`, () => {
      this.sound.silence(index, !this.sound.isSilenced(index));
      press(button, this.sound.isSilenced(index));
    });
    button.removeAttribute("aria-label");
    button.classList.add(index === 0 ? "inbound" : "outbound");
    press(button, this.sound.isSilenced(index));
    return button;
  }

  #link() {
    const button = plain("Copy link", "Copy link to this second", async () => {
      await navigator.clipboard.writeText(new URL(this.linkAt(Math.floor(this.sound.now)), location.href).href);
      say("The link to this second is copied");
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy link"; }, 1500);
    });
    button.hidden = !navigator.clipboard;
    return button;
  }

  /** Goes to the next turn, gap, key or mark, or to the one before. */
  #jump(way) {
    const { record } = this;
    const times = [record.gaps, record.events, record.conversation?.turns ?? []].flat().map(({ at_ms: at }) => at / 1000);
    times.sort((one, other) => way * (one - other));
    // While it plays, the one before is not the one that has just been reached.
    const { now } = this.sound;
    const next = times.find((time) => (way > 0 ? time > now + 0.05 : time < now - 1));
    this.seek(next ?? (way > 0 ? now : 0));
  }

  /** Repeats the part that is shown, or stops that. */
  #loop() {
    this.sound.loop = this.sound.loop ? null : this.wave.part;
    this.#show();
  }

  /** Goes to a second of the audio. */
  seek(seconds) {
    this.sound.seek(seconds);
    this.#show();
  }

  #toggle() {
    this.sound.toggle().catch((error) => setText(this.position, error.message));
  }

  #show() {
    const { sound } = this;
    const words = [clock(sound.now * 1000), clock(this.record.duration_ms)];
    showPlay(this.button, sound.audio);
    setText(this.position, words.join(" / "));
    setText(this.speed, `${sound.speed}×`);
    this.speed.setAttribute("aria-label", `Speed ${sound.speed}×`);
    press(this.skips, sound.skips);
    press(this.loops, Boolean(sound.loop));
    this.wave.stage.setAttribute("aria-valuenow", String(Math.round(sound.now)));
    this.wave.stage.setAttribute("aria-valuetext", words.join(" of "));
    this.wave.draw();
  }

  #actions() {
    const { record, summary } = this;
    const save = (href, name, text) => el("a.button", { href, download: name }, text);
    const actions = el("div.actions");
    // Of a record from the home, the length of its FLAC is known: that is sent.
    const isFlac = Boolean(record.wav?.flac?.bytes);
    const audio = isFlac ? record.wav.flac : record.wav;
    if (audio) actions.append(save(pathOf(summary, "/audio"), audio.file, `Save ${isFlac ? "FLAC" : "WAV"}, ${bytes(audio.bytes)}`));
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
      this.sound?.stop();
      say("The recording is deleted");
      this.onDelete();
    } catch (error) {
      this.element.prepend(el("p.error", { role: "alert" }, error.message));
    }
  }
}

/** A button of the transport. */
function plain(text, words, act) {
  const button = el("button.plain", { type: "button", title: words }, text);
  button.setAttribute("aria-label", words);
  button.addEventListener("click", act);
  return button;
}

const press = (button, isOn) => button.setAttribute("aria-pressed", String(isOn));

/** What a listener should know before trusting the audio. */
function verdicts(record) {
  const notes = [];
  if (record.reason) notes.push([record.state === "failed" ? "bad" : "warn", capital(record.reason)]);
  if (record.lost_ms) notes.push(["bad", `${span(record.lost_ms)} arrived and became silence: the disk did not take them`]);
  if (record.paused_ms) {
    const pauses = record.pauses.length + (record.pauses_dropped ?? 0);
    notes.push(["warn", `Paused ${pauses === 1 ? "once" : `${pauses} times`}, for ${span(record.paused_ms)} in all: silence in the file`]);
  }
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
