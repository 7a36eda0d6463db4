// A live call as the page knows it: what began it, what the recorder saw of it at each look, and its end.

import { loudness } from "./dom.js";
import { findable } from "./find.js";
import { hear, troublesOf } from "./trouble.js";

/** Time of a call that is remembered for its picture. */
export const REMEMBERED_MS = 60_000;
const MOMENTS_MAX = 100;

export class Call {
  /** The looks of the last minute: the time in the call, and the loudness of each track from 0 to 1. */
  looks = [];
  /** By track: the time in the call at which it was heard last. */
  heard = [];
  /** The time in the call at the first look. */
  since = undefined;
  level = null;
  troubles = [];
  /** The time at which the page learned of the end, and the recording that the call became. */
  ended = null;
  recording = null;

  constructor(start) {
    this.start = start;
    this.key = start.key;
    this.tracks = start.tracks;
    this.moments = start.moments.map((moment) => ({ ...moment }));
    this.id = start.call_id || start.stream_id || "a call without an id";
    /** The name in the address. */
    this.name = start.stream_id || start.call_id || start.key;
    this.findable = findable(start);
    this.look(start);
  }

  isNamed(name) {
    return [this.start.stream_id, this.start.call_id, this.key].includes(name);
  }

  look(level) {
    this.level = level;
    this.looks.push({ at: level.duration_ms, levels: level.levels.map((value) => loudness(value)) });
    while (this.looks[0].at < level.duration_ms - REMEMBERED_MS) this.looks.shift();
    hear(this, level);
    this.troubles = troublesOf(this);
  }

  addMoment(moment) {
    this.moments.push(moment);
    if (this.moments.length > MOMENTS_MAX) this.moments.shift();
  }

  get answer() {
    return this.level.conversation?.response_ms;
  }
}
