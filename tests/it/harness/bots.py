"""Voice bots, each with a package of its provider's make, or of others for it, and a script in the place of its
services.

Prints its port; ends with its standard input. The path of a call names the package. A bot answers half a second
behind the last sound of the caller with two seconds of audio, yields to a caller who speaks meanwhile, and hangs
up when its second answer has been played.
"""

import array
import asyncio
import contextlib
import importlib
import logging
import os
import sys

import websockets

RATE = 8000
ANSWER_S = 2
# Silence after which the caller has ended, in samples.
PAUSE = RATE // 2
SOUND = 256


def linear(code):
    """The sample of a mu-law code."""
    code = ~code & 0xFF
    size = (((code & 0x0F) << 3) + 132 << (code >> 4 & 7)) - 132
    return -size if code & 0x80 else size


LINEAR = [linear(code) for code in range(256)]


def codes(number):
    """An answer in mu-law, without silence, no two chunks alike."""
    return bytes((number * 13 + at * 7 + at // 251) % 96 for at in range(ANSWER_S * RATE))


class Ear:
    """Tells when the caller begins to speak, and when a turn of the caller is over."""

    def __init__(self, begin, answer):
        self.begin, self.answer = begin, answer
        self.pause = PAUSE
        self.turns = 0

    async def hear(self, samples):
        if max(map(abs, samples), default=0) >= SOUND:
            if self.pause >= PAUSE and self.turns > 0:
                await self.begin()
            self.pause = 0
        elif self.pause < PAUSE:
            self.pause += len(samples)
            if self.pause >= PAUSE:
                self.turns += 1
                await self.answer(self.turns)


async def plivo(ws):
    from plivo_stream import PlivoWebsocketStreamingHandler

    handler = PlivoWebsocketStreamingHandler()

    async def answer(turn):
        await handler.send_media(codes(turn))
        await handler.send_checkpoint(f"answer {turn}")

    ear = Ear(handler.send_clear_audio, answer)
    is_linear = False

    @handler.on_start
    async def start(event):
        nonlocal is_linear
        is_linear = event.start.media_format.encoding == "audio/x-l16"

    @handler.on_media
    async def media(event):
        audio = event.get_raw_media()
        linear = array.array("h", audio) if is_linear else [LINEAR[code] for code in audio]
        await ear.hear(linear)

    @handler.on_played_stream
    async def played(event):
        if event.name == "answer 2":
            await ws.close()

    await handler.handle(ws)


async def tring(ws):
    # It leaves the end to the caller.
    from tring.agent import AgentSpec
    from tring.events import Interruption
    from tring.primitives.interruption import PlaybackLedger
    from tring.runtimes.base import AudioFrame, RuntimeAdapter, RuntimeCapabilities
    from tring.session import CallSession
    from tring.transports.twilio import _TwilioBridge

    class Script(RuntimeAdapter):
        def __init__(self):
            super().__init__(CallSession(AgentSpec(name="bot", persona="none")))
            self.ledger = PlaybackLedger(self.session)
            self.ear = Ear(self.yield_, self.say)

        capabilities = RuntimeCapabilities(
            live_transcripts=False, mid_call_tool_calls=False, barge_in=True, exact_usage_reporting=False
        )

        async def start(self):
            pass

        async def push_audio(self, frame):
            samples = array.array("h", frame.pcm)
            await self.ear.hear(samples[::2])

        async def stop(self, reason="completed"):
            pass

        async def yield_(self):
            self.ledger.caller_started_speaking()

        async def say(self, turn):
            self.ledger.utterance_started(f"answer {turn}", "a" * 30)
            # The bridge takes note of the utterance on a task of its own.
            for _ in range(3):
                await asyncio.sleep(0)
            pcm = array.array("h", (LINEAR[code] for code in codes(turn) for _ in range(2))).tobytes()
            for at in range(0, len(pcm), 6400):
                self.on_bot_audio(AudioFrame(pcm[at : at + 6400]))

    await _TwilioBridge(ws, Script()).run()
    await ws.close()


CALLS = {call.__name__: call for call in (plivo, tring)}


async def main():
    async def take(ws):
        await CALLS[ws.request.path.strip("/")](ws)

    # Those that are installed here, before the first call: on a busy machine that takes seconds.
    for package in ("plivo_stream", "tring.transports.twilio"):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(package)
    async with websockets.serve(take, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    asyncio.run(main())
    # Threads of packages are not waited for.
    os._exit(0)
