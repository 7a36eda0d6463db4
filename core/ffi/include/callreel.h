/* callreel-core for C. A test of callreel holds this file to core/ffi/src, from which cbindgen makes it. */

#ifndef CALLREEL_H
#define CALLREEL_H

#include <stddef.h>
#include <stdint.h>

#if UINTPTR_MAX == 0xFFFFFFFF
#define CALLREEL_POINTERS_OF_32_BITS
#endif

/*
 Version of this interface. It grows with each change of a function, a type or a number that is there.
 */
#define CALLREEL_ABI_VERSION 1

/*
 Done.
 */
#define CALLREEL_OK 0

/*
 The call is over: send the answer, a close frame, then end the connection and the call.
 */
#define CALLREEL_OVER 1

/*
 The message is not valid, or not for this call. It is counted and left out: go on with the next one.
 */
#define CALLREEL_REJECTED 2

/*
 The ring does not serve the tracks of the call: `CALLREEL_RING_BYTES_BOTH_TRACKS` always do.
 */
#define CALLREEL_RING 3

/*
 Samples of the message before are not fetched yet. Nothing has changed.
 */
#define CALLREEL_UNDRAINED 4

/*
 The file would pass the 4 GiB that a WAV can describe.
 */
#define CALLREEL_FULL 5

/*
 No more than this can be told yet: more bytes must come.
 */
#define CALLREEL_INCOMPLETE 6

/*
 Bytes of the smallest ring for calls of one track.
 */
#define CALLREEL_RING_BYTES_ONE_TRACK 641

/*
 Bytes of the smallest ring for calls of both tracks, and of one.
 */
#define CALLREEL_RING_BYTES_BOTH_TRACKS 3202

/*
 Bytes that a receive buffer needs beyond the longest message.
 */
#define CALLREEL_OVERHEAD_BYTES 131

/*
 Bytes of the longest answer of `callreel_call_feed`.
 */
#define CALLREEL_ANSWER_BYTES 127

#if defined(CALLREEL_POINTERS_OF_32_BITS)
/*
 Words of 8 bytes of a call.
 */
#define CALLREEL_CALL_WORDS 104
#endif

#if !defined(CALLREEL_POINTERS_OF_32_BITS)
/*
 Words of 8 bytes of a call.
 */
#define CALLREEL_CALL_WORDS 192
#endif

/*
 Bytes of `Sec-WebSocket-Accept`.
 */
#define CALLREEL_ACCEPT_BYTES 28

/*
 Bytes of the longest answer of `callreel_upgrade`.
 */
#define CALLREEL_UPGRADE_BYTES 192

#if defined(CALLREEL_POINTERS_OF_32_BITS)
/*
 Words of 8 bytes of a session.
 */
#define CALLREEL_SESSION_WORDS 136
#endif

#if !defined(CALLREEL_POINTERS_OF_32_BITS)
/*
 Words of 8 bytes of a session.
 */
#define CALLREEL_SESSION_WORDS 352
#endif

/*
 Nothing for a recorder to do.
 */
#define CALLREEL_EVENT_NONE 0

/*
 The recording begins: `text` is the id of the stream, `call_id` that of the call.
 */
#define CALLREEL_EVENT_STARTED 1

/*
 Audio was placed: fetch it.
 */
#define CALLREEL_EVENT_MEDIA 2

/*
 Keys were pressed: `text`, behind `at` samples.
 */
#define CALLREEL_EVENT_DTMF 3

/*
 A mark came back: `text`, behind `at` samples.
 */
#define CALLREEL_EVENT_MARK 4

/*
 The recording is over: fetch its last samples.
 */
#define CALLREEL_EVENT_STOPPED 5

/*
 Another stream begins; this one is unchanged. Give the message to another session.
 */
#define CALLREEL_EVENT_RESTART 6

/*
 The start announces audio that is not recorded, in the encoding of `text`.
 */
#define CALLREEL_EVENT_REFUSED 7

/*
 Text of a message, as JSON spells it between its quotes: not terminated by zero. It lies in the message and
 lives as long. `callreel_text_copy` copies it as it is meant.
 */
typedef struct callreel_text {
  /*
   First byte; never null.
   */
  const uint8_t *bytes;
  /*
   Number of bytes; 0 for a text that the message does not have.
   */
  size_t length;
} callreel_text;

/*
 A call, in memory of the caller's: one connection behind its handshake, and the file of its stream. Its
 content is the library's.
 */
typedef struct callreel_call {
  /*
   Not for you.
   */
  uint64_t words[CALLREEL_CALL_WORDS];
} callreel_call;

/*
 The start of a recording.
 */
typedef struct callreel_start {
  /*
   Id of the stream, not checked in any way: not fit for a path.
   */
  struct callreel_text stream_id;
  /*
   Id of the call, as unchecked.
   */
  struct callreel_text call_id;
  /*
   Samples a second of each channel.
   */
  uint32_t sample_rate_hz;
  /*
   1, or 2 with both tracks.
   */
  uint16_t channels;
} callreel_start;

/*
 The file of a call, by callbacks. Each returns 0, or an error number of yours above 255, which comes back
 from the function that was called. None may call a function with the same call.
 */
typedef struct callreel_file {
  /*
   Given to each callback.
   */
  void *context;
  /*
   Begins an empty file. The texts of `start` live as long as this callback. May be null.
   */
  int (*begin)(void *context, const struct callreel_start *start);
  /*
   Writes all `length` bytes at this place, in bytes from the start of the file: at the end, or over
   bytes that are there. After an error nothing is written before `callreel_call_checkpoint` or `callreel_call_end`.
   */
  int (*write)(void *context, uint32_t at, const uint8_t *bytes, size_t length);
  /*
   Makes durable the bytes written so far, before any that is written later. May be null.
   */
  int (*flush)(void *context);
} callreel_file;

/*
 A WebSocket frame to be sent.
 */
typedef struct callreel_answer {
  /*
   Bytes of the frame; 0 if there is nothing to send.
   */
  size_t length;
  /*
   The frame.
   */
  uint8_t bytes[CALLREEL_ANSWER_BYTES];
} callreel_answer;

/*
 Counts of a call.
 */
typedef struct callreel_report {
  /*
   Bytes of samples in the file.
   */
  uint64_t data_bytes;
  /*
   Messages with audio in the recording.
   */
  uint64_t media;
  /*
   Messages missing by their numbers.
   */
  uint64_t missing;
  /*
   Messages that were rejected.
   */
  uint64_t rejected;
  /*
   First error of the file or of its ring that ended the call; 0 if there was none.
   */
  int error;
  /*
   Close code of the answer that ended the call; 0 while it goes on.
   */
  uint16_t close_code;
} callreel_report;

/*
 The answer to the request that a WebSocket begins with.
 */
typedef struct callreel_upgrade_answer {
  /*
   Bytes of the request's head: those of the WebSocket begin behind them.
   */
  size_t head_bytes;
  /*
   Path of the request, with its query. It lies in the request's bytes.
   */
  struct callreel_text path;
  /*
   Bytes of the answer.
   */
  size_t length;
  /*
   The answer.
   */
  uint8_t bytes[CALLREEL_UPGRADE_BYTES];
} callreel_upgrade_answer;

/*
 A session, in memory of the caller's: one recording, from its start message to its end. Its content is the
 library's.
 */
typedef struct callreel_session {
  /*
   Not for you.
   */
  uint64_t words[CALLREEL_SESSION_WORDS];
} callreel_session;

/*
 Meaning of a message. A field that its kind does not name is zero.
 */
typedef struct callreel_event {
  /*
   One of `CALLREEL_EVENT_*`.
   */
  uint32_t kind;
  /*
   Of `CALLREEL_EVENT_STARTED`: samples a second of each channel.
   */
  uint32_t sample_rate_hz;
  /*
   Samples of one channel before the event.
   */
  uint64_t at;
  /*
   See the kinds.
   */
  struct callreel_text text;
  /*
   Of `CALLREEL_EVENT_STARTED`: the call.
   */
  struct callreel_text call_id;
  /*
   Of `CALLREEL_EVENT_STARTED`: 1, or 2 with both tracks: samples come interleaved, inbound first.
   */
  uint16_t channels;
} callreel_event;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Version of the interface of the library that is linked. A program compiled with another
 `CALLREEL_ABI_VERSION` must not go on.
 */
uint32_t callreel_abi_version(void);

/*
 Copies a text as it is meant, in UTF-8, escapes undone, as far as it fits into `room` bytes at `out`; adds
 no zero. Returns the bytes of the whole text, which are more than `room` if it did not fit.

 # Safety
 `text` is from an event or a start, its message is still there, and `out` has `room` bytes.
 */
size_t callreel_text_copy(struct callreel_text text,
                          uint8_t *out,
                          size_t room);

/*
 Supplied by a program on bare metal: called if the library has a fault, must not return. Bytes of a peer
 cannot cause it on the way of a media message, which is proven by linking; where the linker leaves
 unused sections out, a program that uses no other way links without this function.
 */
extern void callreel_panic(void);

/*
 Bytes of a call, for languages that cannot read a header.
 */
size_t callreel_call_size(void);

/*
 Alignment of a call, in bytes.
 */
size_t callreel_call_align(void);

/*
 Makes a call that waits for its start, for a stream of Twilio's Media Streams. It copies `file` and keeps
 `ring`, see `CALLREEL_RING_BYTES_ONE_TRACK`. A message longer than `message_bytes_max` ends the call: 2048 is
 sound where memory is scarce. The receive buffer needs `CALLREEL_OVERHEAD_BYTES` more.

 # Safety
 `call` can be written; `file` can be read, and its callbacks called, as long as the call is used; `ring` has
 `ring_bytes` bytes, which belong to the call from now on.
 */
void callreel_call_init(struct callreel_call *call,
                        const struct callreel_file *file,
                        uint8_t *ring,
                        size_t ring_bytes,
                        size_t message_bytes_max);

/*
 Takes the bytes of the connection: `buffer` has `*length` bytes, those that the last call left and all that
 arrived since. Writes the audio in them to the file. Moves the rest to the start of `buffer` and sets
 `*length` to its length: receive behind it.

 Returns `CALLREEL_OK`: send the answer, if it has bytes, and go on. Anything else ends the call: send the
 answer, a close frame, end the connection, call `callreel_call_end`. `CALLREEL_OVER`: the peer is done, or
 broke the protocol. `CALLREEL_RING`: the ring is too small. `CALLREEL_FULL`: the file is. Others are errors of
 your callbacks; the audio of the messages behind it is lost, and the file is as good as at its last
 checkpoint, or better after `callreel_call_end`.

 # Safety
 `call` is initialised; `buffer` has `*length` bytes; `answer` can be written.
 */
int callreel_call_feed(struct callreel_call *call,
                       uint8_t *buffer,
                       size_t *length,
                       struct callreel_answer *answer);

/*
 Writes the sizes of the samples so far into the file's header: the file up to there survives a power cut.
 Returns `CALLREEL_OK`, also before the start of a recording, or the error of a callback: call it again.

 # Safety
 `call` is initialised.
 */
int callreel_call_checkpoint(struct callreel_call *call);

/*
 Completes the file, however the call ended: writes the samples that are held, the sizes and the pad byte.
 Returns `CALLREEL_OK`, also if no recording had begun and there is no file, or the error of a callback: call
 it again to complete the file with the samples so far. Afterwards the memory is yours.

 # Safety
 `call` is initialised.
 */
int callreel_call_end(struct callreel_call *call);

/*
 Tells the counts of a call.

 # Safety
 `call` is initialised; `report` can be written.
 */
void callreel_call_report(const struct callreel_call *call, struct callreel_report *report);

/*
 Reads the head of a request for a WebSocket at the start of `received`, and makes the answer to send: that
 of the handshake, or a refusal.

 Returns `CALLREEL_OK`; `CALLREEL_INCOMPLETE` while the head goes on, which leaves `answer` as it is; or
 `CALLREEL_REJECTED`: send the answer, a status and no body, and end the connection. Compare the path before
 you send the answer, if the path is a secret.

 # Safety
 `received` has `length` bytes; `answer` can be written.
 */
int callreel_upgrade(const uint8_t *received,
                     size_t length,
                     struct callreel_upgrade_answer *answer);

/*
 Computes `Sec-WebSocket-Accept`, 28 bytes without a zero, of a request's `Sec-WebSocket-Key`, for programs
 with HTTP of their own. Returns `CALLREEL_OK`, or `CALLREEL_REJECTED` if the key is not valid.

 # Safety
 `key` has `length` bytes, and `out` has `CALLREEL_ACCEPT_BYTES`.
 */
int callreel_accept_key(const uint8_t *key,
                        size_t length,
                        uint8_t *out);

/*
 Bytes of a session, for languages that cannot read a header. At most `sizeof(callreel_session)`.
 */
size_t callreel_session_size(void);

/*
 Alignment of a session, in bytes.
 */
size_t callreel_session_align(void);

/*
 Makes a session that waits for its start, for messages of Twilio's Media Streams. It keeps `ring`, the
 memory for samples that may still change: see `CALLREEL_RING_BYTES_ONE_TRACK`.

 # Safety
 `session` can be written; `ring` has `ring_bytes` bytes, which belong to the session from now on.
 */
void callreel_session_init(struct callreel_session *session,
                           uint8_t *ring,
                           size_t ring_bytes);

/*
 Takes one whole text message in UTF-8, and rewrites its bytes. Fetch its samples by `callreel_poll_pcm`,
 until that returns 0, before the next message. The session keeps `text` until then.

 Returns `CALLREEL_OK` and tells the `event`, with texts that lie in the message. `CALLREEL_REJECTED`: left out.
 `CALLREEL_RING`: the ring is too small for this start. `CALLREEL_UNDRAINED`: samples of the message before
 are not fetched. Then `event` is `CALLREEL_EVENT_NONE`.

 # Safety
 `session` is initialised; `text` has `length` bytes, which stay until the samples are fetched; `event` can
 be written.
 */
int callreel_handle_text(struct callreel_session *session,
                         uint8_t *text,
                         size_t length,
                         struct callreel_event *event);

/*
 Ends a recording without a stop: however a call ends, call it, then fetch the samples that are left. After
 a stop there are none. Returns and tells as `callreel_handle_text` does.

 # Safety
 `session` is initialised; `event` can be written.
 */
int callreel_handle_end(struct callreel_session *session,
                        struct callreel_event *event);

/*
 Moves samples of the last message to `out`, 16-bit, interleaved where there are two channels; returns their
 number. 0 means that all are fetched. `room` must be at least 2.

 # Safety
 `session` is initialised, the text of the last message is still there, and `out` has `room` samples.
 */
size_t callreel_poll_pcm(struct callreel_session *session,
                         int16_t *out,
                         size_t room);

/*
 Messages of this session that were rejected: the peer's fault.

 # Safety
 `session` is initialised, and all samples are fetched.
 */
uint64_t callreel_rejected(const struct callreel_session *session);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CALLREEL_H */
