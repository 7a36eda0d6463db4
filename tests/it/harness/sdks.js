// Servers for calls, each with the provider's own package of npm. It prints its port, and then a line for each
// call that is over: the name, which is the path of the call; the audio as the package gives it, in base64; and
// all else that the package tells. It ends with its standard input.

const http = require("http");
const { AudioClient } = require("@jambonz/sdk/websocket");
const { StreamingData } = require("@azure/communication-call-automation");
const { WebSocketServer } = require("ws");

const tell = (name, audio, told) =>
  console.log(JSON.stringify({ name, audio: Buffer.concat(audio).toString("base64"), ...told }));

const silent = { debug() {}, info() {}, warn() {}, error() {} };
const jambonz = new AudioClient(silent, "/jambonz");
jambonz.on("connection", (stream) => {
  const [audio, keys, marks] = [[], [], []];
  stream.on("audio", (samples) => audio.push(samples));
  stream.on("dtmf", ({ digit }) => keys.push(digit));
  stream.on("mark", ({ name, event }) => marks.push(`${name} ${event}`));
  stream.on("close", (code) => {
    const { callSid, sampleRate, metadata } = stream;
    tell("jambonz", audio, { call: callSid, rate: sampleRate, mix: metadata.mixType, keys, marks, code });
  });
});

const acs = (ws) => {
  const [audio, told] = [[], { kinds: {}, keys: [], participants: {} }];
  ws.on("message", (text) => {
    const message = StreamingData.parse(text.toString());
    const kind = StreamingData.getStreamingKind();
    told.kinds[kind] = (told.kinds[kind] ?? 0) + 1;
    if (kind === "AudioMetadata") {
      told.metadata = message;
    } else if (kind === "AudioData") {
      const participant = message.participant?.rawId ?? JSON.stringify(message.participant) ?? "";
      told.participants[participant] = (told.participants[participant] ?? 0) + 1;
      told.begun ??= message.timestamp;
      told.ended = message.timestamp;
      told.silent = message.isSilent;
      audio.push(Buffer.from(message.data, "base64"));
    } else {
      told.keys.push(message.data);
    }
  });
  ws.on("close", () => tell("acs", audio, told));
};

const server = http.createServer();
// The first subprotocol on offer.
const sockets = new WebSocketServer({ noServer: true, handleProtocols: (offered) => [...offered][0] });
server.on("upgrade", (request, socket, head) =>
  sockets.handleUpgrade(request, socket, head, (ws) =>
    request.url === "/jambonz" ? jambonz.handle(ws, request) : acs(ws),
  ),
);
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
