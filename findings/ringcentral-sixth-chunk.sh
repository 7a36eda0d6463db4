#!/bin/sh
# ev-audio-streaming-transcription-py loses each sixth chunk of a call.
#
# The package of an employee of RingCentral's is one of two sources for the messages of Engage Voice. It
# gathers five chunks of 20 ms to write them together; the chunk that finds five of them is the sign to write,
# and is itself left out. What is left at the end is left out as well. A sixth of the audio is missing in what
# its speech recognition hears, without a word about it.
#
# Seen with ev-audio-streaming-transcription-py 1.0.2 on 2026-11-28. callreel's tests expect that of it, and
# record all chunks.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check --no-deps \
  ev-audio-streaming-transcription-py==1.0.2 websockets==16.0 six==1.17.0
cat > read.py <<'PYTHON'
import asyncio, base64, json, sys, types

# Only its speech recognition needs these.
for name in ("google", "google.cloud", "google.cloud.speech"):
    sys.modules.setdefault(name, types.ModuleType(name))
sys.modules["google.cloud"].speech = sys.modules["google.cloud.speech"]
from ev_audio_streaming_transcription_py import server

heard = []


class Kept:
    def write(self, data):
        heard.extend(data)

    def exit(self):
        pass


class Call:
    """A call of twelve chunks, each of bytes with its number."""

    async def __aiter__(self):
        yield json.dumps({"event": "Connected"})
        yield json.dumps({"event": "Start", "metadata": {"callId": "1"}})
        for number in range(1, 13):
            media = base64.b64encode(bytes([number]) * 160).decode()
            yield json.dumps({"event": "Media", "perspective": "Participant", "media": media})
        yield json.dumps({"event": "Stop"})


server.Transcoder = Kept
server.print = lambda *_: None
asyncio.run(server.handle(Call(), "/"))
chunks = [number for at, number in enumerate(heard) if at % 160 == 0]
print("heard of the chunks 1 to 12:", *chunks)
PYTHON
python/bin/python read.py 2> errors | tee output || { cat errors; exit 1; }

echo "heard of the chunks 1 to 12: 1 2 3 4 5 7 8 9 10 11" > expected
diff expected output
echo "ev-audio-streaming-transcription-py 1.0.2: each sixth chunk is lost"
