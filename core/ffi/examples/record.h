/* The platform of the recorder of record.c. */

#ifndef RECORD_H
#define RECORD_H

#include <stddef.h>
#include <stdint.h>

#define RECORD_FILE_FAILED 256
#define RECORD_OTHER_LIBRARY 257

/* Waits for bytes of the connection; returns their number, at most `room`, or 0 at its end. */
size_t connection_read(uint8_t *bytes, size_t room);

/* Sends bytes. A connection that is gone is found by the next read. */
void connection_send(const uint8_t *bytes, size_t length);

/* Writes all bytes at this place of the file; returns whether that succeeded. */
int file_write(uint32_t at, const uint8_t *bytes, size_t length);

/* Records one call; returns 0, or one of CALLREEL_* and RECORD_*. */
int record(void);

#endif
