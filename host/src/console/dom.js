// Elements and words.

/** Finds an element of the page by its id. */
export const $ = (id) => document.getElementById(id);

/**
 * Makes an element. Properties that the element has are set, others become attributes; children
 * are elements or text, never markup.
 */
export function el(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

/** Changes an element's text if it is another one. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tells a screen reader. */
export function say(text) {
  $("say").textContent = text;
}

/** 4:05, or 1:02:03, to the nearest second. */
export function clock(ms) {
  const s = Math.round(ms / 1000);
  const two = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(s / 3600);
  const minutes = Math.floor(s / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}

/** A short time in words: 340 ms, 2.1 s, 4:05. */
export function span(ms) {
  if (ms < 1000) return `${ms} ms`;
  return ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : clock(ms);
}

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  while (count >= 1000 && index < units.length - 1) { count /= 1000; index += 1; }
  return `${count >= 100 || index === 0 ? Math.round(count) : count.toFixed(1)} ${units[index]}`;
}

export const time = (iso) =>
  new Date(iso).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

const STATES = { complete: "Complete", partial: "Partial", recovered: "Recovered", failed: "Failed" };

/** The state of a recording in words. */
export const stateOf = ({ state }) => STATES[state] ?? state;

export const count = (n, one, many) => `${n} ${String(n) === "1" ? one : many}`;

/** The two ends of a call: "+1555… → +1555…"; `undefined` if neither is known. */
export const callEnds = (caller) =>
  caller?.from || caller?.to ? `${caller.from ?? "?"} → ${caller.to ?? "?"}` : undefined;

/** A meter's place for an amplitude: 0 is −60 dB or less, 1 is full scale. */
export function loudness(level, fullScale = 32768) {
  if (level <= 0) return 0;
  return Math.min(1, Math.max(0, 1 + (20 * Math.log10(level / fullScale)) / 60));
}

/** Asks the API; throws what went wrong in words. */
export async function ask(path, options) {
  const response = await fetch(path, options);
  if (response.status === 401) location.assign("login");
  if (response.ok) return response.status === 204 ? null : response.json();
  throw Object.assign(new Error(await problemOf(response)), { status: response.status });
}

/** The reason of a refusal in words. */
export async function problemOf(response) {
  const problem = await response.json().catch(() => ({}));
  return problem.detail ?? `the recorder answered ${response.status}`;
}

/** Asks twice before something is gone for good. */
export async function confirmTwice(first, second) {
  return (await confirmOnce(first)) && (await confirmOnce(second));
}

function confirmOnce({ title, text, yes }) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Makes a canvas as sharp as the screen and returns what to draw with, in CSS pixels. */
export function canvasOf(canvas) {
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

const colours = new Map();
addEventListener("themechange", () => colours.clear());

/** A colour of the style sheet. Asking the browser for one is dear. */
export function colour(name) {
  let value = colours.get(name);
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
    colours.set(name, value);
  }
  return value;
}
