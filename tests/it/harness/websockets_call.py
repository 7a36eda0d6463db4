"""A call at real pace by the `websockets` library: URL, seconds, and where to put the mu-law."""

import asyncio
import base64
import json
import random
import sys

import websockets


async def call(url, seconds, path):
    voice = random.Random(7)
    sent = b""
    async with websockets.connect(url) as line:
        start = {"streamSid": "MZpy", "callSid": "CApy", "tracks": ["inbound"]}
        await line.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        await line.send(json.dumps({"event": "start", "sequenceNumber": "1", "start": start}))
        clock = asyncio.get_running_loop()
        begun = clock.time()
        for number in range(seconds * 50):
            chunk = voice.randbytes(160)
            sent += chunk
            media = {
                "track": "inbound",
                "chunk": str(number + 1),
                "timestamp": str(number * 20),
                "payload": base64.b64encode(chunk).decode(),
            }
            message = {"event": "media", "sequenceNumber": str(number + 2), "media": media}
            await line.send(json.dumps(message))
            await asyncio.sleep(max(0, begun + (number + 1) * 0.02 - clock.time()))
        await line.send(json.dumps({"event": "stop", "sequenceNumber": str(number + 3)}))
        await line.wait_closed()
    with open(path, "wb") as file:
        file.write(sent)
    if line.close_code != 1000:
        sys.exit(f"closed with {line.close_code}")


asyncio.run(call(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
