"""A voice bot of pipecat, as its examples for telephones are built, with a script in the place of its services.

Prints its port; ends with its standard input. It answers half a second behind the last sound of the caller with
two seconds of audio, yields to a caller who speaks meanwhile, and hangs up behind its second answer. The first
messages of a call tell the serializer.
"""

import array
import asyncio
import os
import sys
import threading

from loguru import logger

logger.remove()

import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.frames.frames import (
    EndWorkerFrame,
    InputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.exotel import ExotelFrameSerializer
from pipecat.serializers.plivo import PlivoFrameSerializer
from pipecat.serializers.telnyx import TelnyxFrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

RATE = 8000
ANSWER_S = 2
# Silence after which the caller has ended, in samples.
PAUSE = RATE // 2
SOUND = 256


def speech(number):
    """Samples without silence, no two chunks alike."""
    samples = (500 + number * 1000 + at * 37 % 16000 for at in range(ANSWER_S * RATE))
    return array.array("h", samples).tobytes()


class Brain(FrameProcessor):
    def __init__(self):
        super().__init__()
        self.pause = PAUSE
        self.answers = 0

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if not isinstance(frame, InputAudioRawFrame):
            await self.push_frame(frame, direction)
            return
        samples = array.array("h", frame.audio)
        if max(map(abs, samples), default=0) >= SOUND:
            if self.pause >= PAUSE:
                await self.broadcast_interruption()
            self.pause = 0
        elif self.pause < PAUSE:
            self.pause += len(samples)
            if self.pause >= PAUSE:
                await self.answer()

    async def answer(self):
        self.answers += 1
        await self.push_frame(TTSStartedFrame())
        await self.push_frame(TTSAudioRawFrame(speech(self.answers), RATE, 1))
        await self.push_frame(TTSStoppedFrame())
        if self.answers == 2:
            await self.push_frame(EndWorkerFrame(), FrameDirection.UPSTREAM)


def serializer(name, data):
    def options(kind):
        return kind.InputParams(auto_hang_up=False)

    if name == "telnyx":
        return TelnyxFrameSerializer(data.stream_id, "PCMU", "PCMU", params=options(TelnyxFrameSerializer))
    if name == "plivo":
        return PlivoFrameSerializer(data.stream_id, params=options(PlivoFrameSerializer))
    if name == "exotel":
        return ExotelFrameSerializer(data.stream_id)
    return TwilioFrameSerializer(data.stream_id, params=options(TwilioFrameSerializer))


app = FastAPI()


@app.websocket("/{path:path}")
async def call(websocket: WebSocket, path: str):
    await websocket.accept()
    name, data = await parse_telephony_websocket(websocket)
    params = FastAPIWebsocketParams(
        audio_in_enabled=True, audio_out_enabled=True, serializer=serializer(name, data)
    )
    transport = FastAPIWebsocketTransport(websocket, params)
    pipeline = Pipeline([transport.input(), Brain(), transport.output()])
    rates = PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE)
    worker = PipelineWorker(pipeline, params=rates)

    @transport.event_handler("on_client_disconnected")
    async def gone(*_):
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


# Threads of packages are not waited for.
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error")).run()
