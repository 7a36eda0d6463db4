// What deserves a look at a call, the worst first.

import { clock, count, loudness, span } from "./dom.js";

/** A track softer than this says nothing: some -45 dB. */
const QUIET = 0.25;
/** A track that was never heard is told after this time, and nobody speaking after that. */
const SILENT_MS = 10_000;
const DEAD_AIR_MS = 10_000;
const SLOW_ANSWER_MS = 2000;
const LONG_MS = 3_600_000;
const BEHIND_MS = 3000;

/** Notes the time at which each track was heard last. Nothing is known of the time before the first look. */
export function hear(call, level) {
  call.since ??= level.duration_ms;
  level.levels.forEach((value, index) => {
    if (loudness(value) >= QUIET) call.heard[index] = level.duration_ms;
  });
}

/** Each with a weight, words, and the class of their colour. */
export function troublesOf({ tracks, heard, since, level }) {
  if (!level) return [];
  const found = [];
  const add = (weight, kind, words) => found.push({ weight, kind, words });
  if (level.rejected) add(6, "bad", `${level.rejected} rejected`);
  if (level.elapsed_ms > level.duration_ms + BEHIND_MS) add(5, "warn", `${span(level.elapsed_ms - level.duration_ms)} behind the clock`);
  if (level.duration_ms - since >= SILENT_MS && !level.is_paused) {
    const silent = tracks.filter((_, index) => heard[index] === undefined);
    const quiet = level.duration_ms - Math.max(since, ...heard.filter((at) => at !== undefined));
    if (silent.length) add(5, "warn", silent.length === tracks.length ? "silent" : `${silent.join(", ")} silent`);
    else if (quiet >= DEAD_AIR_MS) add(3, "warn", `nobody speaks for ${span(quiet - (quiet % 1000))}`);
  }
  if (level.gaps) add(4, "warn", `${count(level.gaps, "gap", "gaps")}, ${span(level.missing_ms)} missing`);
  const answer = level.conversation?.response_ms;
  if (answer >= SLOW_ANSWER_MS) add(3, "warn", `last answer after ${span(answer)}`);
  if (level.late) add(2, "warn", `${level.late} late`);
  if (level.duration_ms >= LONG_MS) add(2, "warn", `longer than ${clock(LONG_MS)}`);
  if (level.is_paused) add(1, "warn", "paused: silence is recorded");
  return found.sort((one, other) => other.weight - one.weight);
}

/** A number by which the calls with most trouble come first. */
export const troubleOf = (call) => call.troubles.reduce((sum, { weight }) => sum + weight ** 2, 0);
