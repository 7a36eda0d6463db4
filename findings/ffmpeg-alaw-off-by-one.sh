#!/bin/sh
# ffmpeg's A-law encoder misses the nearest code for 381 of the 65 536 samples.
#
# G.711 quantises with decision values half-way between two codes. ffmpeg builds its table of codes from
# 14-bit samples, so just inside some decision values, of negative samples only, a sample gets the
# neighbour of the code that its own decoder puts nearer. Transcoding a recording to A-law twice by two
# tools is therefore not byte for byte the same, though no listener hears it: a test of A-law must compare
# decoded samples with a step of tolerance, or use the reference of ITU-T G.191.
#
# Seen with ffmpeg 7.0.2 (imageio-ffmpeg 0.6.0) on 2026-11-27; ffmpeg 5.1.9 of Debian 12 does the same.
# callreel's A-law follows G.191 (core/src/g711.rs), and its test allows other encoders one step.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv python
python/bin/pip install --quiet imageio-ffmpeg==0.6.0
cat > count.py <<'PYTHON'
import struct
import subprocess

import imageio_ffmpeg

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def run(source, target, data):
    command = [FFMPEG, "-v", "error", "-f", source, "-ar", "8000", "-ac", "1", "-i", "-", "-f", target, "-"]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


samples = range(-32768, 32768)
codes = run("s16le", "alaw", struct.pack("<65536h", *samples))
values = struct.unpack("<256h", run("alaw", "s16le", bytes(range(256))))
missed = [(x, values[c]) for x, c in zip(samples, codes) if abs(values[c] - x) > min(abs(v - x) for v in values)]
print("ffmpeg", imageio_ffmpeg.get_ffmpeg_version())
print(len(missed), "samples miss the nearest code; the first:", *missed[:2])
PYTHON
python/bin/python count.py | tee output

cat > expected <<'TEXT'
381 samples miss the nearest code; the first: (-31743, -32256) (-31742, -32256)
TEXT
grep -v '^ffmpeg' output | diff expected -
