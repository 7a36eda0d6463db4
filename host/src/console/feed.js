// The recorder's events, for all tabs of a browser over two connections: a browser makes no more than six to a
// server, and a page that holds one of its own shuts the seventh tab out.

/** All but the levels, which only tabs that are seen ask for. */
const NEWS = "hello,status,started,gap,dtmf,mark,ended,published";
const RETRY_MS = 2000;
const API = new URL("../api/v1/", import.meta.url);

/** The two streams, and the tabs that take their events. */
export class Feed {
  /** By port: whether the tab is seen, and the events that wait until it has its picture. */
  #tabs = new Map();
  #news = null;
  #levels = null;

  /** Takes the messages of a tab: "seen", "hidden" or "gone". Posts it pairs: the kind of an event, and its text. */
  join(port) {
    port.onmessage = ({ data }) => {
      if (data === "gone") this.#tabs.delete(port);
      else this.#note(port, data === "seen");
      this.#show();
    };
    port.start();
  }

  #note(port, isSeen) {
    const tab = this.#tabs.get(port);
    if (tab) {
      tab.isSeen = isSeen;
      return;
    }
    // The stream itself begins with a picture.
    const waits = this.#news ? [] : null;
    this.#tabs.set(port, { isSeen, waits });
    if (waits) this.#picture(port);
  }

  /** Gives a tab that comes later the picture that a stream begins with, and then the events since it joined. */
  async #picture(port) {
    try {
      const [status, calls] = await Promise.all(["status", "calls"].map(async (part) => {
        const response = await fetch(new URL(part, API));
        if (!response.ok) throw new Error(part);
        return response.json();
      }));
      port.postMessage(["hello", JSON.stringify({ status, calls: calls.calls })]);
    } catch {
      port.postMessage(["error", ""]);
    }
    const tab = this.#tabs.get(port);
    if (!tab) return;
    tab.waits.forEach((event) => port.postMessage(event));
    tab.waits = null;
  }

  /** Opens the streams that are wanted, and closes the others. */
  #show() {
    if (this.#tabs.size) this.#news ??= this.#open(NEWS, () => { this.#news = null; });
    else {
      this.#news?.close();
      this.#news = null;
    }
    const isSeen = [...this.#tabs.values()].some((tab) => tab.isSeen);
    if (isSeen && this.#news) this.#levels ??= this.#open("level", () => { this.#levels = null; });
    else {
      this.#levels?.close();
      this.#levels = null;
    }
  }

  /** Opens a stream of these kinds. One that the recorder refuses is given up, and tried again later. */
  #open(kinds, giveUp) {
    const source = new EventSource(new URL(`events?kind=${kinds}`, API));
    for (const kind of kinds.split(",")) source.addEventListener(kind, ({ data }) => this.#tell(kind, data));
    source.addEventListener("error", () => {
      const isRefused = source.readyState === EventSource.CLOSED;
      this.#tell(isRefused ? "refused" : "error", "");
      if (!isRefused) return;
      giveUp();
      setTimeout(() => this.#show(), RETRY_MS);
    });
    return source;
  }

  #tell(kind, data) {
    for (const [port, tab] of this.#tabs) {
      if (kind === "level" && (!tab.isSeen || tab.waits)) continue;
      // A picture for all: the events that waited are in it.
      if (kind === "hello" && tab.waits) tab.waits = [];
      if (tab.waits) tab.waits.push([kind, data]);
      else port.postMessage([kind, data]);
    }
  }
}

/** Follows the feed of the browser, or one of this tab where tabs cannot share; returns a function that leaves it. */
export function follow(take) {
  const { port1, port2 } = new MessageChannel();
  let port = port1;
  const begin = () => {
    port.onmessage = ({ data: [kind, text] }) => take(kind, text);
    port.postMessage(document.hidden ? "hidden" : "seen");
  };
  const alone = () => {
    port = port1;
    new Feed().join(port2);
    begin();
  };
  if (typeof SharedWorker === "undefined") alone();
  else {
    const worker = new SharedWorker(new URL("feed-worker.js", import.meta.url), { type: "module" });
    worker.addEventListener("error", alone, { once: true });
    port = worker.port;
    begin();
  }
  const tell = () => port.postMessage(document.hidden ? "hidden" : "seen");
  document.addEventListener("visibilitychange", tell);
  return () => {
    document.removeEventListener("visibilitychange", tell);
    port.postMessage("gone");
  };
}
