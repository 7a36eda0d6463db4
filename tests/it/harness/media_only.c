/* The whole way of a call through the library for C but the HTTP before it. Linked without `callreel_panic`, it
 * proves that no message and no error of a file can cause a panic. It is not run. */

#include "callreel.h"

static callreel_call call;
static callreel_session session;
static uint8_t ring[CALLREEL_RING_BYTES_BOTH_TRACKS];
static uint8_t buffer[2048 + CALLREEL_OVERHEAD_BYTES];
static callreel_answer answer;
static int16_t samples[160];

/* Bytes and numbers that the compiler cannot foresee. */
extern volatile int outside;
volatile int outside;

static int begin(void *context, const callreel_start *start) {
    (void)context;
    callreel_text_copy(start->call_id, buffer, sizeof buffer);
    return outside;
}

static int write_file(void *context, uint32_t at, const uint8_t *bytes, size_t length) {
    (void)context;
    outside = (int)(at + bytes[0] + length);
    return outside;
}

static int flush(void *context) {
    (void)context;
    return outside;
}

static void take_session(void) {
    callreel_event event;
    callreel_session_init(&session, ring, sizeof ring);
    outside = callreel_handle_text(&session, buffer, (size_t)outside, &event);
    while (callreel_poll_pcm(&session, samples, (size_t)outside) > 0) {
        outside = samples[0];
    }
    outside = callreel_handle_end(&session, &event);
    outside = (int)callreel_rejected(&session);
}

void reset(void);

void reset(void) {
    callreel_file file = {NULL, begin, write_file, flush};
    callreel_report report;
    outside = callreel_accept_key(buffer, (size_t)outside, buffer);
    callreel_call_init(&call, &file, ring, (size_t)outside, (size_t)outside);
    for (;;) {
        size_t length = (size_t)outside;
        outside = callreel_call_feed(&call, buffer, &length, &answer);
        outside = callreel_call_checkpoint(&call);
        outside = callreel_call_end(&call);
        callreel_call_report(&call, &report);
        outside = (int)report.data_bytes;
        if (WITH_SESSION) {
            take_session();
        }
    }
}
