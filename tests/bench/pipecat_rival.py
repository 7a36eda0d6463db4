"""Times the serializer of pipecat for a provider: the CPU time of a media message, in microseconds.

    python pipecat_rival.py PROVIDER PATH/callreel

Takes the messages of one call from `callreel call --as PROVIDER`, and turns them into frames of pipecat, again
and again for two seconds. Exit code 3: pipecat has no serializer for the provider.
"""

import asyncio
import importlib
import json
import sys
import time

import websockets
from pipecat.frames.frames import InputAudioRawFrame, StartFrame

SECONDS = 2
IDS = {
    "twilio": ("twilio", "TwilioFrameSerializer", {"stream_sid": "MZ1"}),
    "telnyx": ("telnyx", "TelnyxFrameSerializer", {"stream_id": "1", "outbound_encoding": "PCMU", "inbound_encoding": "PCMU"}),
    "plivo": ("plivo", "PlivoFrameSerializer", {"stream_id": "1"}),
    "exotel": ("exotel", "ExotelFrameSerializer", {"stream_sid": "MZ1"}),
    "vonage": ("vonage", "VonageFrameSerializer", {}),
    "genesys": ("genesys", "GenesysAudioHookSerializer", {}),
}


async def messages_of(provider, program):
    """The messages of one call, as a server of others' make receives them."""
    messages = []

    async def receive(ws):
        async for message in ws:
            messages.append(message)
            if isinstance(message, str) and provider == "genesys":
                await answer(ws, json.loads(message))
            elif isinstance(message, str) and '"stop"' in message:
                break

    async with websockets.serve(receive, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        words = ["call", "--as", provider, "--flood", "--duration", "10s", "--url", f"ws://127.0.0.1:{port}/"]
        caller = await asyncio.create_subprocess_exec(program, *words, stdout=asyncio.subprocess.DEVNULL)
        await caller.wait()
    return messages


async def answer(ws, message):
    """Answers AudioHook's client, so that it sends audio of one track and takes its leave."""
    answers = {"open": "opened", "ping": "pong", "close": "closed"}
    parameters = {"media": message["parameters"]["media"][1:2]} if message["type"] == "open" else {}
    said = {"version": "2", "type": answers[message["type"]], "seq": message["seq"], "clientseq": message["seq"]}
    await ws.send(json.dumps({**said, "id": message["id"], "parameters": parameters}))


def serializer_of(provider):
    module, name, ids = IDS[provider]
    made = getattr(importlib.import_module(f"pipecat.serializers.{module}"), name)
    params = made.InputParams(auto_hang_up=False) if "auto_hang_up" in made.InputParams.model_fields else None
    return made(**ids, params=params) if params else made(**ids)


async def main(provider, program):
    if provider not in IDS:
        sys.exit(3)
    serializer = serializer_of(provider)
    await serializer.setup(StartFrame(audio_in_sample_rate=8000, audio_out_sample_rate=8000))
    messages = await messages_of(provider, program)
    frames, begun = 0, time.process_time()
    while time.process_time() < begun + SECONDS:
        for message in messages:
            frames += isinstance(await serializer.deserialize(message), InputAudioRawFrame)
    if not frames:
        sys.exit("no message became audio")
    print(f"{1e6 * (time.process_time() - begun) / frames:.1f}")


asyncio.run(main(*sys.argv[1:]))
