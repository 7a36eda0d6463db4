// A call by the package `ws` of npm: URL, file of the authority, version of TLS, id of the stream, and the
// place for the mu-law. It ends with the close code.

const fs = require("fs");
const WebSocket = require("ws");

const [url, ca, version, id, sent] = process.argv.slice(2);
const tls = { ca: fs.readFileSync(ca), minVersion: version, maxVersion: version };
// Compression is offered.
const line = new WebSocket(url, { ...tls, perMessageDeflate: true });
line.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
line.on("open", () => {
  const socket = line._socket;
  console.log(`${socket.getProtocol()} extensions=${line.extensions}`);
  const say = (message) => line.send(JSON.stringify(message));
  say({ event: "connected", protocol: "Call", version: "1.0.0" });
  const start = { streamSid: id, callSid: "CAnode", tracks: ["inbound"] };
  say({ event: "start", sequenceNumber: "1", start });
  const codes = Buffer.from(Array.from({ length: 160 * 100 }, (_, n) => (n * 7 + (n >> 8)) & 0xff));
  for (let n = 0; n < 100; n++) {
    const payload = codes.subarray(160 * n, 160 * (n + 1)).toString("base64");
    const media = { track: "inbound", chunk: String(n + 1), timestamp: String(20 * n), payload };
    say({ event: "media", sequenceNumber: String(n + 2), media, streamSid: id });
  }
  // The answer to a ping comes when all before it is read.
  line.ping();
  line.on("pong", () => say({ event: "stop", sequenceNumber: "102", streamSid: id }));
  fs.writeFileSync(sent, codes);
});
line.on("close", (code) => console.log(`closed with ${code}`));
