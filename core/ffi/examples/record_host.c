/* record FILE.wav: standard input and output are the connection, as behind
 * socat TCP-LISTEN:8080 EXEC:'./record call.wav' */

#include <stdio.h>
#include <unistd.h>

#include "record.h"

static FILE *wav;

size_t connection_read(uint8_t *bytes, size_t room) {
    ssize_t count = read(STDIN_FILENO, bytes, room);
    return count > 0 ? (size_t)count : 0;
}

void connection_send(const uint8_t *bytes, size_t length) {
    while (length > 0) {
        ssize_t count = write(STDOUT_FILENO, bytes, length);
        if (count <= 0) {
            return;
        }
        bytes += count;
        length -= (size_t)count;
    }
}

int file_write(uint32_t at, const uint8_t *bytes, size_t length) {
    return fseek(wav, (long)at, SEEK_SET) == 0 && fwrite(bytes, 1, length, wav) == length;
}

int main(int count, char **words) {
    int status;
    if (count != 2) {
        fprintf(stderr, "usage: record FILE.wav\n");
        return 2;
    }
    wav = fopen(words[1], "wb");
    if (wav == NULL) {
        perror(words[1]);
        return 2;
    }
    status = record();
    if (fclose(wav) != 0 || status != 0) {
        fprintf(stderr, "the call was not recorded: %d\n", status);
        return 1;
    }
    return 0;
}
