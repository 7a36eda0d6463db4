# Takes the messages of a call through the library for C; prints the samples as hexadecimal digits.
import ctypes
import json
import sys


class Text(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Event(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_uint32),
        ("sample_rate_hz", ctypes.c_uint32),
        ("at", ctypes.c_uint64),
        ("text", Text),
        ("call_id", Text),
        ("channels", ctypes.c_uint16),
    ]


OK, REJECTED, UNDRAINED = 0, 2, 4
STARTED, MEDIA, STOPPED, RESTART = 1, 2, 5, 6

given = json.load(sys.stdin)
library = ctypes.CDLL(given["library"])
assert library.callreel_abi_version() == 1
library.callreel_session_size.restype = ctypes.c_size_t
library.callreel_session_align.restype = ctypes.c_size_t
library.callreel_poll_pcm.restype = ctypes.c_size_t
library.callreel_text_copy.restype = ctypes.c_size_t
library.callreel_text_copy.argtypes = [Text, ctypes.c_char_p, ctypes.c_size_t]
library.callreel_rejected.restype = ctypes.c_uint64
assert library.callreel_session_align() <= 8

session = (ctypes.c_uint64 * (library.callreel_session_size() // 8))()
ring = ctypes.create_string_buffer(3202)
library.callreel_session_init(session, ring, ctypes.c_size_t(len(ring)))
event, pcm, samples = Event(), (ctypes.c_int16 * 100)(), bytearray()


def drain():
    while count := library.callreel_poll_pcm(session, pcm, ctypes.c_size_t(len(pcm))):
        samples.extend(bytes(pcm)[: 2 * count])


rejected = 0
for message in given["messages"]:
    message = message.encode()
    text = ctypes.create_string_buffer(message, len(message))
    status = library.callreel_handle_text(session, text, ctypes.c_size_t(len(message)), ctypes.byref(event))
    if status != OK:
        rejected += 1
        continue
    if event.kind == STARTED:
        assert (event.sample_rate_hz, event.channels) in ((8000, 1), (8000, 2))
        room = ctypes.create_string_buffer(200)
        length = library.callreel_text_copy(event.text, room, 3)
        assert library.callreel_text_copy(event.text, room, 200) == length
        start = json.loads(message)
        told = start.get("streamSid") or start["start"].get("streamSid") or ""
        assert room.raw[:length].decode() == str(told), (room.raw[:length], told)
    if event.kind == RESTART:
        break
    if event.kind == MEDIA:
        count = library.callreel_poll_pcm(session, pcm, ctypes.c_size_t(2))
        samples.extend(bytes(pcm)[: 2 * count])
        # The library notices that the samples of a message are not fetched, and loses none.
        another = ctypes.create_string_buffer(b"{}", 2)
        undrained = library.callreel_handle_text(session, another, ctypes.c_size_t(2), ctypes.byref(event))
        assert undrained in (REJECTED, UNDRAINED)
    drain()
assert library.callreel_rejected(session) >= rejected
library.callreel_handle_end(session, ctypes.byref(event))
assert event.kind == STOPPED
drain()
print(samples.hex())
