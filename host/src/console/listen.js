// Listening in: a WAV that goes on while the call does, played a quarter of a second behind.

import { problemOf } from "./dom.js";

const HEADER_BYTES = 44;
/** Samples a second of a telephone call. */
const TELEPHONE_HZ = 8000;
/** How far ahead of the loudspeaker audio is scheduled when it starts, in seconds. */
const AHEAD = 0.25;
/** Audio further behind than this is skipped. */
const BEHIND_MAX = 0.75;

export class Listening {
  #context;
  #abort = new AbortController();
  #next = 0;
  #left = new Uint8Array(0);
  #onEnd;

  /** Begins at once; `onEnd` is called when the call or the listener ends it, or with words when it fails. */
  constructor(key, track, onEnd) {
    this.key = key;
    this.track = track;
    this.#onEnd = onEnd;
    // At once: some browsers allow sound only in answer to a click.
    this.#open(TELEPHONE_HZ);
    this.#run().then(() => this.stop(), (error) => this.stop(error.message));
  }

  stop(problem) {
    if (this.#abort.signal.aborted) return;
    this.#abort.abort();
    this.#context.close();
    this.#onEnd(problem);
  }

  /** Plays at the audio's own rate, so that pieces join without a seam. */
  #open(sampleRate) {
    this.#context?.close();
    this.#context = new AudioContext({ sampleRate, latencyHint: "interactive" });
  }

  async #run() {
    const url = `api/v1/calls/${this.key}/listen?track=${encodeURIComponent(this.track)}`;
    const response = await fetch(url, { signal: this.#abort.signal });
    if (!response.ok) throw new Error(await problemOf(response));
    const reader = response.body.getReader();
    let header = new Uint8Array(0);
    let channels = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (channels) {
        this.#play(value, channels);
        continue;
      }
      header = join(header, value);
      if (header.length >= HEADER_BYTES) {
        channels = header[22];
        const rate = new DataView(header.buffer, header.byteOffset).getUint32(24, true);
        if (rate !== this.#context.sampleRate) this.#open(rate);
        this.#play(header.subarray(HEADER_BYTES), channels);
      }
    }
    // What is scheduled is still to be heard.
    const rest = this.#next - this.#context.currentTime;
    if (rest > 0) await new Promise((resolve) => setTimeout(resolve, rest * 1000));
  }

  #play(piece, channels) {
    const bytes = join(this.#left, piece);
    const frames = Math.floor(bytes.length / (2 * channels));
    this.#left = bytes.slice(frames * 2 * channels);
    if (frames === 0) return;
    const now = this.#context.currentTime;
    if (this.#next > now + BEHIND_MAX) return;
    const samples = new DataView(bytes.buffer, bytes.byteOffset);
    const buffer = this.#context.createBuffer(channels, frames, this.#context.sampleRate);
    for (let channel = 0; channel < channels; channel += 1) {
      const out = buffer.getChannelData(channel);
      for (let frame = 0; frame < frames; frame += 1) {
        out[frame] = samples.getInt16(2 * (frame * channels + channel), true) / 32768;
      }
    }
    const source = this.#context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.#context.destination);
    if (this.#next < now) this.#next = now + AHEAD;
    source.start(this.#next);
    this.#next += buffer.duration;
  }
}

function join(a, b) {
  if (a.length === 0) return b;
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
