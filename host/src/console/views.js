// Saved views: searches with names, kept in this browser.

import { $, el } from "./dom.js";
import { addressOf, filled } from "./recordings.js";

const KEY = "callreel.views";

/** Names and addresses; none where the browser keeps nothing. */
function saved() {
  try {
    return Object.entries(JSON.parse(localStorage.getItem(KEY)) ?? {}).filter(([, address]) => address?.startsWith?.("#recordings"));
  } catch {
    return [];
  }
}

function save(views) {
  try {
    localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(views)));
  } catch {
    // The list shows that it was not kept.
  }
  show();
}

export function show() {
  const items = saved().map(([name, address]) => {
    const remove = el("button.plain", { type: "button", "aria-label": `Delete the view ${name}` }, "Delete");
    remove.addEventListener("click", () => save(saved().filter(([other]) => other !== name)));
    return el("li", {}, el("a", { href: address }, name), remove);
  });
  $("views").replaceChildren(...items);
  $("views-none").hidden = items.length > 0;
  $("save-view").hidden = !filled().length;
}

$("save-view").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = event.target.elements.name;
  const name = field.value.trim();
  if (!name) return;
  save([...saved().filter(([other]) => other !== name), [name, addressOf()]]);
  field.value = "";
});
// Another tab saves as well.
addEventListener("storage", show);
