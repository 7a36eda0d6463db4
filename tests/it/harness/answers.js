// Webhooks as five providers send them, signed as they sign, and the answers as their own packages write them.
// Input: {port, url, token, texts, password}. Output: for each provider the status and the answer to the
// genuine webhook, the answer that is expected, and the status of a forged one.
const crypto = require("node:crypto");
const http = require("node:http");

const plivo = require("plivo");
const bandwidth = require("bandwidth-sdk").Bxml;
const { RestClient } = require("@signalwire/compatibility-api");
const { verifySignature } = require("@vonage/jwt");
const { Connect, NCCOBuilder, Talk } = require("@vonage/voice");

const input = JSON.parse(require("node:fs").readFileSync(0));
const [greeting, ready] = input.texts;
const DAY = 86400;

function ask(method, path, headers, body) {
  return new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", port: input.port, method, path, headers };
    const request = http.request(options, (response) => {
      let text = "";
      response.on("data", (piece) => (text += piece));
      response.on("end", () => resolve({ status: response.statusCode, text }));
    });
    request.on("error", reject);
    request.end(body);
  });
}

const FORM = { "Content-Type": "application/x-www-form-urlencoded" };
const hmac = (hash, key, text, form) => crypto.createHmac(hash, key).update(text).digest(form);
const stream = (name) => `${input.url.replace("https", "wss")}/${name}/media-stream`;
// Without the parts that XML leaves to its writer: the declaration, and a blank before the end of an empty element.
const plain = (xml) => xml.replace(/<\?xml[^>]*\?>/, "").replaceAll(" />", "/>");
const must = (is, told) => { if (!is) throw new Error(told); };

function laml() {
  const response = new RestClient.LaML.VoiceResponse();
  response.say(greeting);
  response.pause({ length: 1 });
  response.say(ready);
  return response;
}

const providers = {
  telnyx() {
    const seed = Buffer.alloc(32, 7);
    const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), seed]);
    const key = crypto.createPrivateKey({ key: der, format: "der", type: "pkcs8" });
    const body = new URLSearchParams({
      AccountSid: "f5586561", CallSid: "v3:abc_-", From: "+15550100001", To: "+15550100002",
      Direction: "inbound", CallStatus: "ringing",
    }).toString();
    const time = Math.floor(Date.now() / 1000).toString();
    const signature = crypto.sign(null, Buffer.from(`${time}|${body}`), key).toString("base64");
    const headers = { ...FORM, "Telnyx-Timestamp": time, "Telnyx-Signature-Ed25519": signature };
    const response = laml();
    response.connect().stream({ url: `${stream("telnyx")}?callreel_call=v3%3Aabc_-`, track: "both_tracks" });
    return { headers, body, expected: plain(response.toString()), read: plain };
  },
  signalwire() {
    const fields = {
      CallSid: "76ac3c36-56da-4a3e-a0d6-b5f8df6d0001", From: "+15550100001", To: "+15550100002",
      Direction: "inbound", CallStatus: "ringing",
    };
    const url = `${input.url}/signalwire/incoming-call`;
    const text = url + Object.keys(fields).sort().map((name) => name + fields[name]).join("");
    const signature = hmac("sha1", input.token, text, "base64");
    must(RestClient.validateRequest(input.token, signature, url, fields, true), "not SignalWire's signature");
    const headers = { ...FORM, "X-SignalWire-Signature": signature };
    const response = laml();
    response.start().stream({ url: stream("signalwire"), track: "both_tracks" });
    response.pause({ length: DAY });
    const body = new URLSearchParams(fields).toString();
    return { headers, body, expected: plain(response.toString()), read: plain };
  },
  plivo() {
    const fields = {
      CallUUID: "12345678-1234-1234-1234-123456789abc", From: "+15550100001", To: "+15550100002",
      Direction: "inbound", CallStatus: "ringing", Event: "StartApp",
    };
    const url = `${input.url}/plivo/incoming-call`;
    const text = Object.keys(fields).sort().map((name) => name + fields[name]).join("");
    const signature = hmac("sha256", input.token, `${url}?${text}.77`, "base64");
    const is = plivo.validateV3Signature("POST", url, "77", input.token, signature, fields);
    must(is, "not Plivo's signature");
    const headers = { ...FORM, "X-Plivo-Signature-V3": signature, "X-Plivo-Signature-V3-Nonce": "77" };
    const response = plivo.Response();
    response.addSpeak(greeting);
    response.addWait({ length: 1 });
    response.addSpeak(ready);
    response.addStream(stream("plivo"), {
      bidirectional: false, audioTrack: "both", keepCallAlive: true, streamTimeout: DAY,
      contentType: "audio/x-mulaw;rate=8000",
    });
    const body = new URLSearchParams(fields).toString();
    return { headers, body, expected: plain(response.toXML()), read: plain };
  },
  bandwidth() {
    const login = Buffer.from(`me:${input.password}`).toString("base64");
    const headers = { "Content-Type": "application/json", Authorization: `Basic ${login}` };
    const body = JSON.stringify({
      eventType: "initiate", accountId: "5500001", callId: "c-1", direction: "inbound",
      from: "+15550100001", to: "+15550100002", startTime: "2026-11-27T10:00:00.000Z",
    });
    const name = "callreel";
    const response = new bandwidth.Response([
      new bandwidth.SpeakSentence(greeting),
      new bandwidth.Pause({ duration: 1 }),
      new bandwidth.SpeakSentence(ready),
      new bandwidth.StartStream({
        name, tracks: "both", destination: stream("bandwidth"), destinationUsername: "me",
        destinationPassword: input.password,
      }),
      new bandwidth.StopStream({ name, wait: "true" }),
    ]);
    return { headers, body, expected: plain(response.toBxml()), read: plain };
  },
  vonage() {
    const fields = { to: "15550100002", from: "15550100001", uuid: "aaaa-1", conversation_uuid: "CON-1" };
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const seconds = Math.floor(Date.now() / 1000);
    const claims = { iat: seconds, jti: "1", iss: "Vonage", api_key: "a", exp: seconds + 300 };
    const signed = `${part({ typ: "JWT", alg: "HS256" })}.${part(claims)}`;
    const token = `${signed}.${hmac("sha256", input.token, signed, "base64url")}`;
    must(verifySignature(token, input.token), "not Vonage's signature");
    const builder = new NCCOBuilder();
    builder.addAction(new Talk(greeting));
    builder.addAction(new Talk(ready));
    builder.addAction(new Connect({
      type: "websocket", uri: stream("vonage"), contentType: "audio/l16;rate=16000",
      headers: { callreel_call: "aaaa-1" }, authorization: { type: "vonage" },
    }));
    // The package leaves this name as it is in JavaScript; the interface wants it with a hyphen.
    const sorted = (_, value) => value && typeof value === "object" && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k === "contentType" ? "content-type" : k, v]).sort())
      : value;
    const expected = JSON.stringify(JSON.parse(JSON.stringify(builder.build())), sorted);
    return {
      method: "GET", query: `?${new URLSearchParams(fields)}`, headers: { Authorization: `Bearer ${token}` },
      expected, read: (text) => JSON.stringify(JSON.parse(text), sorted),
    };
  },
};

(async () => {
  const all = {};
  for (const [name, make] of Object.entries(providers)) {
    const { method = "POST", query = "", headers, body, expected, read } = make();
    const path = `/${name}/incoming-call`;
    const genuine = await ask(method, path + query, headers, body);
    const proof = Object.keys(headers).find((header) => /signature(-ed25519|-v3)?$|authorization/i.test(header));
    const forged = { ...headers, [proof]: headers[proof].replace(/[A-Za-z](?=[^A-Za-z]*$)/, (c) => (c === "A" ? "B" : "A")) };
    const other = await ask(method, path + query, forged, body);
    all[name] = {
      status: genuine.status, answer: genuine.status === 200 ? read(genuine.text) : genuine.text, expected,
      forged: other.status,
    };
  }
  console.log(JSON.stringify(all));
})();
