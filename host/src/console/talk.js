// The conversation of a recording of two tracks: the speech of both sides, turns with their latencies,
// interruptions, dead air.

import { canvasOf, clock, colour, count, el, span } from "./dom.js";

/** Most entries of the list. */
const ENTRIES_MAX = 300;
const [NUMBERS, LANE, GAP] = [18, 13, 4];

/** The name of a side for people: of a relayed call the caller's or the bot's, else that of its track. */
export const nameOf = (record, track) => (record.bot ? { inbound: "caller", outbound: "bot" }[track] ?? track : track);

/** The canvas of a conversation; `null` if the recording has none. */
export const stripOf = (record) => (record.conversation
  ? el("canvas.speech", { role: "img", "aria-label": `Speech of both sides. ${words(record)}` })
  : null);

/** Draws the speech of both sides, the latencies as numbers, and the interruptions, each where `x` puts its time. */
export function drawStrip(canvas, record, x, playedMs) {
  if (!canvas?.clientWidth) return;
  const { context, width } = canvasOf(canvas);
  const { conversation } = record;
  const wide = (at, ms) => x(at + ms) - x(at);
  conversation.sides.forEach((side, index) => {
    const top = NUMBERS + index * (LANE + GAP);
    context.fillStyle = colour(index === 0 ? "inbound" : "outbound");
    for (const segment of side.segments) {
      context.fillRect(x(segment.at_ms), top, Math.max(1.5, wide(segment.at_ms, segment.duration_ms)), LANE);
    }
  });
  // Audio of a bot that was sent, and taken back before it was heard.
  context.strokeStyle = colour("outbound");
  context.setLineDash([3, 3]);
  for (const { at_ms: at, sent_ms: sent, heard_ms: heard, cut } of record.bot?.utterances ?? []) {
    const [from, to] = [x(at + heard), Math.min(width, x(at + sent))];
    if (to < 0 || from > width) continue;
    if (cut) context.strokeRect(from + 0.5, NUMBERS + LANE + GAP + 0.5, Math.max(2, to - from - 1), LANE - 1);
  }
  context.fillStyle = colour("accent");
  for (const { at_ms: at, by, overlap_ms: overlap } of conversation.interruptions) {
    const index = conversation.sides.findIndex((side) => side.track === by);
    const top = NUMBERS + index * (LANE + GAP);
    context.fillRect(x(at), top - 2, Math.max(3, wide(at, overlap)), 3);
    context.fillRect(x(at), top - 2, 2, LANE + 4);
  }
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  let free = 0;
  for (const turn of conversation.turns) {
    if (turn.latency_ms === undefined || turn.track !== conversation.sides[1].track) continue;
    const text = span(turn.latency_ms);
    const { width: length } = context.measureText(text);
    const left = Math.min(x(turn.at_ms), width - length - 2);
    if (left < free || x(turn.at_ms) > width) continue;
    context.fillStyle = colour("ink");
    context.fillRect(x(turn.at_ms), NUMBERS - 4, 1, 4 + 2 * LANE + GAP);
    context.fillText(text, left, NUMBERS / 2);
    free = left + length + 8;
  }
  context.fillStyle = colour("accent");
  context.fillRect(x(playedMs) <= width ? Math.min(x(playedMs), width - 2) : width, 0, 2, NUMBERS + 2 * LANE + GAP + 6);
}

/** The facts in words, and a list of turns, interruptions and dead air; a click on one seeks. */
export function listOf(record, seek) {
  if (!record.conversation) return null;
  const { conversation } = record;
  const all = entries(record);
  const items = all.slice(0, ENTRIES_MAX).map(({ at, kind, text }) => {
    const button = el(`button.moment.${kind}`, { type: "button" }, el("span.at", {}, clock(at)), text);
    button.addEventListener("click", () => seek(at / 1000));
    return el("li", {}, button);
  });
  const left = all.length - items.length + (conversation.turns_dropped ?? 0) + (conversation.interruptions_dropped ?? 0);
  return el("details.conversation", {},
    el("summary", {}, el("strong", {}, "Conversation"), ` ${words(record)}`),
    el("ol.turns", {}, ...items),
    left ? el("p.left", {}, `${count(left, "more is", "more are")} not listed`) : null);
}

function words(record) {
  const { sides, turns, turns_dropped: dropped, interruptions, interruptions_dropped: further, ...sums } = record.conversation;
  const name = ({ track }) => nameOf(record, track);
  const cuts = record.bot?.utterances.filter(({ cut }) => cut).length;
  const percent = (ratio) => `${Math.round(100 * ratio)} %`;
  const [caller, bot] = sides;
  const answered = sums.response_median_ms === undefined ? null
    : `${name(bot)} answers after ${span(sums.response_median_ms)}, ${span(sums.response_max_ms)} at most`;
  return [
    count(turns.length + (dropped ?? 0), "turn", "turns"),
    answered,
    count(interruptions.length + (further ?? 0), "interruption", "interruptions"),
    cuts ? count(cuts, "utterance was cut off", "utterances were cut off") : null,
    `${name(caller)} speaks ${percent(caller.talk_ratio)}, ${name(bot)} ${percent(bot.talk_ratio)}, neither ${percent(sums.silence_ratio)}`,
    sums.dead_air_ms ? `${span(sums.dead_air_ms)} of dead air` : null,
  ].filter(Boolean).join("; ");
}

function entries(record) {
  const { turns, interruptions, dead_air: silences } = record.conversation;
  const name = (track) => nameOf(record, track);
  const cuts = record.bot?.utterances.filter(({ cut }) => cut) ?? [];
  // A turn that began with an interruption is told once.
  const begins = new Set(interruptions.map(({ at_ms: at, by }) => `${at} ${by}`));
  const others = turns.filter(({ at_ms: at, track }) => !begins.has(`${at} ${track}`));
  const all = [
    ...others.map(({ at_ms: at, track, latency_ms: latency }) => ({
      at, kind: track === "inbound" ? "inbound" : "outbound",
      text: latency === undefined ? `${name(track)} speaks` : `${name(track)} speaks after ${span(latency)}`,
    })),
    ...interruptions.map(({ at_ms: at, by, overlap_ms: overlap, is_heeded: isHeeded }) => ({
      at, kind: "interruption",
      text: isHeeded ? `${name(by)} interrupts, heeded after ${span(overlap)}` : `${name(by)} speaks in between for ${span(overlap)}`,
    })),
    ...cuts.map(({ at_ms: at, sent_ms: sent, heard_ms: heard, cut }) => ({
      at: at + heard, kind: "interruption",
      text: `${name("outbound")} ${cut === "clear" ? "takes its speech back" : "is cut off by the end"}: ${span(heard)} of ${span(sent)} heard`,
    })),
    ...silences.map(({ at_ms: at, duration_ms: length }) => ({ at, kind: "silence", text: `nobody speaks for ${span(length)}` })),
  ];
  return all.sort((one, other) => one.at - other.at);
}
