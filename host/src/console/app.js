// The page: what the recorder tells goes to the views, and the address chooses the view.

import { $, ask, bytes, count, el, say, setText } from "./dom.js";
import { follow } from "./feed.js";
import * as live from "./live.js";
import * as recordings from "./recordings.js";
import * as system from "./system.js";
import * as views from "./views.js";

/** The recorder says something every two seconds; silence for this long means that it is lost. */
const SILENCE_MAX_MS = 7000;
const VIEWS = ["live", "recordings", "system"];
const SYSTEM_EVERY_MS = 10_000;

let heard = performance.now();
let everRecorded = false;
/** Whether the recorder was heard since it was lost; the lists are read anew then. */
let isKnown = false;

/** What each event changes. */
const TAKES = {
  hello({ status, calls }) {
    showStatus(status);
    live.showAll(calls);
    showLive();
    if (isKnown) return;
    isKnown = true;
    recordings.load().then(() => {
      everRecorded ||= !recordings.isEmpty();
      showLive();
      reveal();
    });
  },
  status: showStatus,
  started(call) {
    live.add(call);
    everRecorded = true;
    showLive();
    say("A call began");
  },
  level: ({ calls }) => live.look(calls),
  gap: ({ key, moment }) => live.addMoment(key, moment),
  dtmf: ({ key, moment }) => live.addMoment(key, moment),
  mark: ({ key, moment }) => live.addMoment(key, moment),
  ended({ key }) {
    live.end(key);
    showLive();
  },
  published(recording) {
    everRecorded = true;
    live.publish(recording);
    recordings.arrive(recording);
    showLive();
    say(`A recording is finished: ${recording.state}`);
  },
};

function take(kind, text) {
  if (kind === "error" || kind === "refused") {
    showLost();
    // Asking tells whether it is for want of a login.
    if (kind === "refused") ask("api/v1/status").catch(() => {});
    return;
  }
  heard = performance.now();
  $("lost").hidden = true;
  document.body.classList.remove("stale");
  TAKES[kind](JSON.parse(text));
}

function showLost() {
  isKnown = false;
  $("lost").hidden = false;
  document.body.classList.add("stale");
}

function showStatus(status) {
  setText($("vital-disk"), status.disk ? bytes(status.disk.free_bytes) : "no answer");
  const isFull = status.disk?.free_bytes < status.disk?.keep_free_bytes;
  const isLow = !status.disk || isFull || status.disk.free_bytes < 1e9;
  $("vital-disk").classList.toggle("bad", isLow);
  $("disk-full").hidden = !isFull;
  setText($("vital-cpu"), `${((100 * status.cpus) / status.cpus_total).toFixed(status.cpus < 0.1 ? 1 : 0)} %`);
  $("draining").hidden = !status.is_draining;
  const hook = status.webhook;
  $("webhook-failing").hidden = !hook?.failing_since;
  if (hook?.failing_since) {
    $("webhook-failing").replaceChildren(
      el("strong", {}, "The webhook does not take messages."),
      ` ${count(hook.pending, "message waits", "messages wait")} and will be tried again: ${hook.error ?? "no answer"}`);
  }
  recordings.configure({ allowsDelete: status.allows_delete, hasDisk: Boolean(status.stream_url) });
  $("logout").hidden = !status.has_token;
  setText($("about"), `callreel ${status.version}`);
  if (status.stream_url) showWays(status);
  else showReader();
}

/** A console without a recorder: there are no live calls, and no disk. */
function showReader() {
  $("tab-live").hidden = true;
  $("tab-system").hidden = true;
  $("vital-disk").parentElement.hidden = true;
  if (parts()[0] !== "recordings") location.hash = "#recordings";
}

/** What to do on an empty console. */
function showWays(status) {
  const isDefault = new URL(status.stream_url).port === "5050";
  show("try-command", isDefault ? "callreel call" : `callreel call --url ${status.stream_url}`);
  if (status.webhook_url) {
    setText($("twilio-how"), "Set your number’s “A call comes in” webhook to:");
    show("twilio-url", status.webhook_url);
  } else {
    const { port, pathname } = new URL(status.stream_url);
    const path = pathname.replace("media-stream", "incoming-call");
    setText($("twilio-how"), `Make this machine reachable, then set your number’s “A call comes in” webhook to https://‹your address›${path}:`);
    show("twilio-url", `ngrok http ${port}`);
  }
}

function show(id, text) {
  const code = $(id);
  if (code.textContent === text) return;
  code.textContent = text;
  if (!navigator.clipboard || code.nextSibling) return;
  const button = el("button.plain", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  code.after(button);
}

function showLive() {
  const calls = live.callCount();
  $("live-count").hidden = calls === 0;
  setText($("live-count"), String(calls));
  setText($("live-lead"), calls ? `${count(calls, "call is", "calls are")} being recorded` : "");
  $("welcome").hidden = everRecorded || calls > 0;
  $("live-none").hidden = !everRecorded || calls > 0;
  document.title = calls ? `● ${calls} · callreel` : "callreel";
}

/** What the address names: a view, perhaps a day and a recording of it, and behind a `?` what is searched for. */
const parts = () => location.hash.slice(1).split("?")[0].split("/");
const searched = () => location.hash.split("?")[1] ?? "";

function route() {
  const here = VIEWS.includes(parts()[0]) ? parts()[0] : "live";
  for (const view of VIEWS) {
    $(`view-${view}`).hidden = view !== here;
    if (view === here) $(`tab-${view}`).setAttribute("aria-current", "page");
    else $(`tab-${view}`).removeAttribute("aria-current");
  }
  if (here === "live") live.schedule();
  if (here === "system") system.load();
}

/** Opens the recording that the address names, if it names one. */
async function reveal() {
  const [view, day, id, instance] = parts();
  if (view === "live") live.reveal(day && decodeURIComponent(day)).catch((error) => say(error.message));
  else live.reveal();
  if (view === "recordings" && recordings.fill(searched())) await recordings.load();
  showAddress();
  if (view === "recordings") recordings.reveal(day && id ? { day, id, ...(instance ? { instance, home: true } : {}) } : null);
}

/** The way to the list keeps what is asked for. */
function showAddress() {
  $("tab-recordings").href = recordings.addressOf();
  views.show();
}

let typing = 0;
/** The field that was changed last: a text that is typed in one go is one step of the way back. */
let typedIn = null;
function search({ target, type }) {
  const isSame = typedIn === target && target.type === "search";
  typedIn = type === "input" ? target : null;
  const address = recordings.addressOf();
  if (searched() === (address.split("?")[1] ?? "")) return;
  history[isSame ? "replaceState" : "pushState"](null, "", address);
  showAddress();
  clearTimeout(typing);
  typing = setTimeout(recordings.load, 200);
}
for (const type of ["input", "change"]) $("filters").addEventListener(type, search);
$("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  recordings.load();
});
$("more").addEventListener("click", recordings.loadMore);
addEventListener("hashchange", () => {
  route();
  reveal();
});
addEventListener("resize", live.schedule);
addEventListener("themechange", live.schedule);
addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.target.closest("input, select, textarea")) {
    event.preventDefault();
    location.hash = recordings.addressOf();
    route();
    $("filters").elements.q.focus();
  }
});
setInterval(() => {
  if (!document.hidden && parts()[0] === "system") system.load();
}, SYSTEM_EVERY_MS);
setInterval(() => {
  if (performance.now() - heard > SILENCE_MAX_MS) showLost();
}, 1000);
route();
recordings.fill(searched());
showAddress();
setText($("zone"), `in ${Intl.DateTimeFormat(undefined, { timeZoneName: "short" }).formatToParts().find(({ type }) => type === "timeZoneName").value}`);
// A page that is kept for the way back takes no events.
let leave = follow(take);
addEventListener("pagehide", () => leave());
addEventListener("pageshow", ({ persisted }) => { if (persisted) leave = follow(take); });
