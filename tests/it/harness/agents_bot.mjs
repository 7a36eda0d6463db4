// A voice bot of @openai/agents-extensions, with a scripted model in the place of OpenAI's: it speaks for three
// seconds once it has heard a second of the caller, and is interrupted after another second.
import { appendFileSync } from "node:fs";
import { RealtimeAgent, RealtimeSession } from "@openai/agents/realtime";
import { TwilioRealtimeTransportLayer } from "@openai/agents-extensions";
import { WebSocketServer } from "ws";

const [log] = process.argv.slice(2);
const note = (who, data) => appendFileSync(log, JSON.stringify([who, data]) + "\n");

const model = new WebSocketServer({ host: "127.0.0.1", port: 0 });
model.on("connection", (socket) => {
  const send = (message) => socket.send(JSON.stringify(message));
  let heard = 0;
  let told = 0;
  send({ type: "session.created", event_id: "e0", session: { id: "sess_1" } });
  socket.on("message", (text) => {
    const message = JSON.parse(text);
    if (message.type !== "input_audio_buffer.append") {
      note("to the model", message.type);
      return;
    }
    heard += 1;
    if (heard === 50 || heard === 150) {
      told += 1;
      const ids = { response_id: `resp_${told}`, item_id: `item_${told}`, output_index: 0, content_index: 0 };
      send({ type: "response.created", event_id: "e1", response: { id: ids.response_id } });
      for (let at = 0; at < 24000; at += 1600) {
        const delta = Buffer.alloc(1600, 0x20 + told).toString("base64");
        send({ type: "response.output_audio.delta", event_id: "e2", ...ids, delta });
      }
      send({ type: "response.output_audio.done", event_id: "e3", ...ids });
      send({ type: "response.done", event_id: "e4", response: { id: ids.response_id, status: "completed", output: [] } });
    } else if (heard === 100) {
      send({ type: "input_audio_buffer.speech_started", event_id: "e5", item_id: "item_0", audio_start_ms: 2000 });
    } else if (heard === 120) {
      send({ type: "input_audio_buffer.speech_stopped", event_id: "e6", item_id: "item_0", audio_end_ms: 2400 });
    }
  });
});
await new Promise((listening) => model.once("listening", listening));

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
server.on("connection", async (twilioWebSocket) => {
  twilioWebSocket.on("message", (text) => note("from the provider", text.toString()));
  const send = twilioWebSocket.send.bind(twilioWebSocket);
  twilioWebSocket.send = (text, ...rest) => {
    note("to the provider", text.toString());
    return send(text, ...rest);
  };
  const transport = new TwilioRealtimeTransportLayer({ twilioWebSocket });
  const session = new RealtimeSession(new RealtimeAgent({ name: "bot" }), { transport });
  session.on("error", (error) => note("error", String(error?.error?.message ?? error)));
  await session.connect({ apiKey: "none", url: `ws://127.0.0.1:${model.address().port}` });
});
await new Promise((listening) => server.once("listening", listening));
console.log(server.address().port);
