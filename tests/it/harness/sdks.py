"""Servers for calls of several providers, each with a package of the provider's make or of others for it.

Prints its port, and then a line for each call that is over, an object of JSON: the name, which is the path of
the call; the audio as the package gives it, in base64; and all else that the package tells. Ends with its
standard input.
"""

import asyncio
import base64
import json
import logging
import os
import sys
import types

import websockets


async def plivo(ws):
    from plivo_stream import PlivoWebsocketStreamingHandler

    handler, audio, told = PlivoWebsocketStreamingHandler(), [], {"errors": [], "keys": "", "chunks": []}

    @handler.on_start
    async def start(event):
        told.update(tracks=event.start.tracks, encoding=event.start.media_format.encoding)
        told.update(rate=event.start.media_format.sample_rate, headers=event.extra_headers)

    @handler.on_media
    async def media(event):
        audio.append(event.get_raw_media())
        told["chunks"].append(event.media.chunk)

    @handler.on_dtmf
    async def key(event):
        told["keys"] += event.dtmf.digit

    @handler.on_error
    async def error(error):
        told["errors"].append(str(error))

    await handler.handle(ws)
    told.update(stream=handler.get_stream_id(), call=handler.get_call_id())
    return b"".join(audio), told


async def vonage(ws):
    from audio_connector_sdk.vonage_video.core.audio_connector_server import AudioConnectorServer

    server, audio, told = AudioConnectorServer(), [], {"texts": []}

    async def connect(connection):
        data = connection.info()
        told.update(stream=data.connectionId, call=data.sessionId)

        async def message(message):
            audio.append(message) if isinstance(message, bytes) else told["texts"].append(message)

        connection.set_handler(on_message=message)

    server.on_connect = connect
    await server._handler(ws)
    return b"".join(audio), told


async def ringcentral(ws):
    # Only its speech recognition needs these.
    for name in ("google", "google.cloud", "google.cloud.speech"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["google.cloud"].speech = sys.modules["google.cloud.speech"]
    from ev_audio_streaming_transcription_py import server

    audio = []

    class Kept:
        def write(self, data):
            audio.append(data)

        def exit(self):
            pass

    server.Transcoder = Kept
    server.print = lambda *_: None
    await server.handle(ws, ws.request.path)
    return b"".join(audio), {}


async def asterisk(ws):
    from galcymedia.session import Session

    audio, told = [], {"events": []}

    class Provider:
        async def start(self):
            pass

        async def send_audio(self, chunk):
            audio.append(chunk)

        async def on_dtmf(self, digit):
            pass

        async def close(self):
            pass

    def begin(session):
        media = session.media
        told.update(stream=media.connection_id, call=media.channel_id, rate=media.sample_rate)
        told.update(encoding=media.audio_format, frame=media.optimal_frame_size)
        session.accept_audio()
        return Provider()

    def note(name, payload):
        told["events"].append(name)
        told["key"] = payload.get("digit", told.get("key"))

    await Session(ws, begin, None, note).run()
    return b"".join(audio), told


CALLS = {call.__name__: call for call in (plivo, vonage, ringcentral, asterisk)}


async def serve(calls):
    """Serves until the standard input ends."""

    async def take(ws):
        name = ws.request.path.strip("/").split("?")[0]
        audio, told = await calls[name](ws)
        print(json.dumps({"name": name, "audio": base64.b64encode(audio).decode(), **told}), flush=True)

    # The first subprotocol on offer, as callreel answers.
    def choose(_, offered):
        return offered[0] if offered else None

    async with websockets.serve(take, "127.0.0.1", 0, select_subprotocol=choose) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    asyncio.run(serve(CALLS))
    # Threads of packages are not waited for.
    os._exit(0)
