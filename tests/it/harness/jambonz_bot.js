// A voice bot of @jambonz/sdk, with a script in the place of its services. It prints its port, and ends with its
// standard input. It answers half a second behind the last sound of the caller with two seconds of audio, yields
// to a caller who speaks meanwhile, and hangs up when its second answer has been played.

const http = require("http");
const { AudioClient } = require("@jambonz/sdk/websocket");
const { WebSocketServer } = require("ws");

const RATE = 8000;
const PAUSE = RATE / 2;
const SOUND = 256;

// Samples without silence, no two chunks alike.
const answer = (number) => {
  const audio = Buffer.alloc(4 * RATE);
  for (let at = 0; at < 2 * RATE; at += 1) {
    audio.writeInt16LE(500 + number * 1000 + ((at * 37) % 16000), 2 * at);
  }
  return audio;
};

const silent = { debug() {}, info() {}, warn() {}, error() {} };
const client = new AudioClient(silent, "/jambonz");
client.on("connection", (stream) => {
  let [pause, turns] = [PAUSE, 0];
  stream.on("audio", (audio) => {
    let isSound = false;
    for (let at = 0; at + 1 < audio.length; at += 2) {
      isSound ||= Math.abs(audio.readInt16LE(at)) >= SOUND;
    }
    if (isSound) {
      if (pause >= PAUSE && turns > 0) {
        stream.killAudio();
        stream.clearMarks();
      }
      pause = 0;
    } else if (pause < PAUSE) {
      pause += audio.length / 2;
      if (pause >= PAUSE) {
        turns += 1;
        // As a model gives it.
        const all = answer(turns);
        for (let at = 0; at < all.length; at += 3200) {
          stream.sendAudio(all.subarray(at, at + 3200));
        }
        stream.sendMark(`answer ${turns}`);
      }
    }
  });
  stream.on("mark", ({ name, event }) => {
    if (name === "answer 2" && event === "playout") {
      stream.disconnect();
      stream.close();
    }
  });
});

const server = http.createServer();
// The first subprotocol on offer.
const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => [...offered][0] });
server.on("upgrade", (request, socket, head) =>
  sockets.handleUpgrade(request, socket, head, (ws) => client.handle(ws, request)),
);
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
