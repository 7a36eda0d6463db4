/* Records the call of one connection, with the library's own WebSocket. record_host.c runs it as a program
 * with the connection as its standard input and output, record_mps2.c on a Cortex-M3. */

#include "record.h"

#include "callreel.h"

/* The buffer holds the longest message and the frames around it. */
#define MESSAGE_BYTES_MAX 2048

static callreel_call call;
static uint8_t ring[CALLREEL_RING_BYTES_BOTH_TRACKS];
static uint8_t buffer[MESSAGE_BYTES_MAX + CALLREEL_OVERHEAD_BYTES];
static callreel_answer answer;
static callreel_upgrade_answer upgrade;

static int write_file(void *context, uint32_t at, const uint8_t *bytes, size_t length) {
    (void)context;
    return file_write(at, bytes, length) ? 0 : RECORD_FILE_FAILED;
}

/* Answers the request for a WebSocket. Returns the bytes that are left in the buffer, or SIZE_MAX. */
static size_t shake_hands(void) {
    size_t held = 0;
    for (;;) {
        size_t received = connection_read(buffer + held, sizeof buffer - held);
        int status;
        held += received;
        status = callreel_upgrade(buffer, held, &upgrade);
        if (status != CALLREEL_INCOMPLETE) {
            connection_send(upgrade.bytes, upgrade.length);
            if (status != CALLREEL_OK) {
                return SIZE_MAX;
            }
            break;
        }
        if (received == 0 || held == sizeof buffer) {
            return SIZE_MAX;
        }
    }
    held -= upgrade.head_bytes;
    for (size_t i = 0; i < held; i++) {
        buffer[i] = buffer[upgrade.head_bytes + i];
    }
    return held;
}

int record(void) {
    callreel_file file = {NULL, NULL, write_file, NULL};
    size_t held;
    int status;
    if (callreel_abi_version() != CALLREEL_ABI_VERSION) {
        return RECORD_OTHER_LIBRARY;
    }
    callreel_call_init(&call, &file, ring, sizeof ring, MESSAGE_BYTES_MAX);
    held = shake_hands();
    if (held == SIZE_MAX) {
        return CALLREEL_REJECTED;
    }
    for (;;) {
        size_t received;
        status = callreel_call_feed(&call, buffer, &held, &answer);
        if (answer.length > 0) {
            connection_send(answer.bytes, answer.length);
        }
        if (status != CALLREEL_OK) {
            break;
        }
        /* As often as you like: with each one the file survives a power cut. */
        if (callreel_call_checkpoint(&call) != CALLREEL_OK) {
            break;
        }
        received = connection_read(buffer + held, sizeof buffer - held);
        if (received == 0) {
            break;
        }
        held += received;
    }
    /* However the call ended. */
    if (callreel_call_end(&call) != CALLREEL_OK) {
        return RECORD_FILE_FAILED;
    }
    return status == CALLREEL_OVER ? CALLREEL_OK : status;
}
