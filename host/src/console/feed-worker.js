// The feed of all tabs. It lives as long as one of them does.

import { Feed } from "./feed.js";

const feed = new Feed();
addEventListener("connect", ({ ports }) => feed.join(ports[0]));
