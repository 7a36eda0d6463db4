// Live calls as a table for a thousand of them: only the rows that are seen exist.

import { callEnds, clock, el, loudness, setText, span } from "./dom.js";
import { endOf, linkTo } from "./card.js";

const ROW_PX = 40;
/** Rows above and below those that are seen, so that scrolling shows no holes. */
const SPARE = 6;

export class Wall {
  #lines = new Map();

  /** A table in this list; `onOpen` is called with the call whose row is clicked. */
  constructor(list, onOpen) {
    this.list = list;
    this.onOpen = onOpen;
  }

  /** Shows the rows of these calls that can be seen. */
  draw(calls, openKey) {
    const { list } = this;
    const height = `${calls.length * ROW_PX}px`;
    if (list.style.height !== height) list.style.height = height;
    const top = list.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / ROW_PX) - SPARE);
    const end = Math.min(calls.length, Math.ceil((innerHeight - top) / ROW_PX) + SPARE);
    const seen = new Set();
    for (let index = first; index < end; index += 1) {
      const call = calls[index];
      seen.add(call.key);
      let line = this.#lines.get(call.key);
      if (!line) {
        line = new Line(call, this.onOpen);
        this.#lines.set(call.key, line);
        list.append(line.element);
      }
      line.show(index, call.key === openKey, calls.length);
    }
    for (const [key, line] of this.#lines) {
      if (seen.has(key)) continue;
      line.element.remove();
      this.#lines.delete(key);
    }
  }

  clear() {
    this.list.replaceChildren();
    this.#lines.clear();
  }
}

class Line {
  #troubles = null;
  #index = -1;

  constructor(call, onOpen) {
    this.call = call;
    const { start } = call;
    const tags = [callEnds(start.caller), ...Object.entries(start.parameters).slice(0, 3).map(([name, value]) => `${name} ${value}`)];
    this.clock = el("span.clock");
    this.bars = call.tracks.map((_, index) => el(index === 0 ? "i.inbound" : "i.outbound"));
    this.trouble = el("span.facts");
    this.answer = el("span.answer");
    this.button = el("button.line", { type: "button" },
      this.clock,
      el("span.id", { title: call.id }, call.id),
      el("span.tags", {}, ...tags.filter(Boolean).map((tag) => el("span.tag", { title: tag }, tag))),
      el("span.bars", { "aria-hidden": "true" }, ...this.bars),
      this.trouble, this.answer);
    this.button.addEventListener("click", () => {
      const link = linkTo(call);
      if (link) location.hash = link;
      else onOpen(call);
    });
    this.element = el("li", { "data-key": call.key }, this.button);
  }

  show(index, isOpen, count) {
    const { call } = this;
    if (this.#index !== index) {
      this.#index = index;
      this.element.style.transform = `translateY(${index * ROW_PX}px)`;
      this.element.setAttribute("aria-posinset", String(index + 1));
    }
    if (this.element.ariaSetSize !== String(count)) this.element.setAttribute("aria-setsize", String(count));
    this.element.classList.toggle("opened", isOpen);
    this.element.classList.toggle("ended", call.ended !== null);
    setText(this.clock, clock(call.level.duration_ms));
    call.level.levels.forEach((value, track) => {
      const place = call.ended === null ? loudness(value) : 0;
      this.bars[track].style.transform = `scaleX(${place.toFixed(2)})`;
    });
    setText(this.answer, call.answer === undefined ? "" : span(call.answer));
    const troubles = call.ended === null ? call.troubles : [{ kind: "over", words: linkTo(call) ? `${endOf(call)}: open` : endOf(call) }];
    const text = troubles.map(({ words }) => words).join("|");
    if (this.#troubles === text) return;
    this.#troubles = text;
    this.trouble.replaceChildren(...troubles.map(({ kind, words }) => el(`span.fact.${kind}`, {}, words)));
  }
}
