"""Servers for calls with pipecat's serializers, and with those that Bandwidth, Wavix and users of Vobiz made.

As `sdks.py`: the path of a call names the serializer, and may tell options, like `/telnyx?inbound_encoding=PCMA`.
The audio is 16-bit PCM.
"""

import asyncio
import importlib
import json
import os
import sys
from urllib.parse import parse_qsl, urlsplit

from loguru import logger

logger.remove()

from pipecat.frames.frames import InputAudioRawFrame, InputDTMFFrame, OutputTransportMessageUrgentFrame, StartFrame
from pipecat.runner.utils import parse_telephony_websocket

from sdks import serve

# Module and class, and arguments without which there is no serializer.
SERIALIZERS = {
    "twilio": ("pipecat.serializers.twilio", "TwilioFrameSerializer", {"stream_sid": "1"}),
    "telnyx": (
        "pipecat.serializers.telnyx",
        "TelnyxFrameSerializer",
        {"stream_id": "1", "inbound_encoding": "PCMU", "outbound_encoding": "PCMU"},
    ),
    "plivo": ("pipecat.serializers.plivo", "PlivoFrameSerializer", {"stream_id": "1"}),
    "exotel": ("pipecat.serializers.exotel", "ExotelFrameSerializer", {"stream_sid": "1"}),
    "vonage": ("pipecat.serializers.vonage", "VonageFrameSerializer", {}),
    "genesys": ("pipecat.serializers.genesys", "GenesysAudioHookSerializer", {}),
    "bandwidth": ("pipecat_bandwidth", "BandwidthFrameSerializer", {"stream_id": "1"}),
    "wavix": ("pipecat_wavix.wavix_serializer", "WavixFrameSerializer", {"stream_id": "1"}),
    "vobiz": ("pipecat.serializers.vobiz", "VobizFrameSerializer", {"stream_id": "1", "call_id": "1"}),
}


class Kept:
    """The messages of a call, for the function that finds out the provider by the first ones."""

    def __init__(self, messages):
        self.messages = messages

    async def iter_text(self):
        for message in self.messages:
            yield message


def is_stop(message):
    return "stop" in (message.get("event"), message.get("eventType"))


async def hear(ws):
    url = urlsplit(ws.request.path)
    asked = dict(parse_qsl(url.query))
    module, name, arguments = SERIALIZERS[url.path.strip("/")]
    rate = int(asked.pop("rate", 8000))
    made = getattr(importlib.import_module(module), name)
    fields = made.InputParams.model_fields
    options = {name: rate for name in fields if name.endswith("_sample_rate") or name == "sample_rate"}
    if "auto_hang_up" in fields:
        options["auto_hang_up"] = False
    options.update((name, value) for name, value in asked.items() if name in fields)
    arguments = {name: asked.get(name, value) for name, value in arguments.items()}
    serializer = made(**arguments, params=made.InputParams(**options))
    await serializer.setup(StartFrame(audio_in_sample_rate=rate, audio_out_sample_rate=rate))
    audio, keys, answers, first = [], [], [], []
    async for message in ws:
        if isinstance(message, str) and len(first) < 2:
            first.append(message)
        frame = await serializer.deserialize(message)
        if isinstance(frame, InputAudioRawFrame):
            assert (frame.sample_rate, frame.num_channels) == (rate, 1)
            audio.append(frame.audio)
        elif isinstance(frame, InputDTMFFrame):
            keys.append(frame.button.value)
        elif isinstance(frame, OutputTransportMessageUrgentFrame):
            answer = await serializer.serialize(frame)
            answers.append(json.loads(answer)["type"])
            await ws.send(answer)
        if isinstance(message, str) and is_stop(json.loads(message)):
            break
    told = {"keys": "".join(keys), "answers": answers}
    if url.path.strip("/") in ("twilio", "telnyx", "plivo", "exotel", "vobiz"):
        provider, data = await parse_telephony_websocket(Kept(first))
        told.update(provider=provider, data=data.model_dump(exclude_defaults=True))
    return b"".join(audio), told


if __name__ == "__main__":
    asyncio.run(serve({name: hear for name in SERIALIZERS}))
    os._exit(0)
