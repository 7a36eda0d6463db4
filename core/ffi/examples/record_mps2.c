/* The recorder on QEMU's mps2-an385, a Cortex-M3. Semihosting stands in for network and card: its command line
 * names a file with the bytes of the connection, and the WAV file. */

#include "record.h"

extern uint32_t stack_end, data_start, data_end, data_source, bss_start, bss_end;

static int connection, wav;

/* Asks the debugger for an operation of Arm's semihosting. */
static int semihost(int operation, const void *parameter) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = parameter;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

enum { OPEN = 0x01, CLOSE = 0x02, WRITE = 0x05, READ = 0x06, SEEK = 0x0A, COMMAND_LINE = 0x15, EXIT = 0x20 };
enum { MODE_RB = 1, MODE_WB = 5 };

static void leave(int status) {
    const uint32_t parameter[] = {0x20026, (uint32_t)status};
    for (;;) {
        semihost(EXIT, parameter);
    }
}

/* A fault of the library. */
void callreel_panic(void);

void callreel_panic(void) {
    leave(3);
}

size_t connection_read(uint8_t *bytes, size_t room) {
    /* Less than a message, as a network may have it. */
    size_t count = room < 300 ? room : 300;
    const uint32_t parameter[] = {(uint32_t)connection, (uint32_t)(uintptr_t)bytes, count};
    return count - (size_t)semihost(READ, parameter);
}

void connection_send(const uint8_t *bytes, size_t length) {
    (void)bytes;
    (void)length;
}

int file_write(uint32_t at, const uint8_t *bytes, size_t length) {
    const uint32_t place[] = {(uint32_t)wav, at};
    const uint32_t parameter[] = {(uint32_t)wav, (uint32_t)(uintptr_t)bytes, length};
    return semihost(SEEK, place) == 0 && semihost(WRITE, parameter) == 0;
}

/* Opens the file that is the next word of the command line. */
static int open_word(char **rest, uint32_t mode) {
    char *word = *rest;
    uint32_t length = 0;
    while (word[length] != '\0' && word[length] != ' ') {
        length++;
    }
    *rest = word + length + (word[length] == ' ');
    word[length] = '\0';
    {
        const uint32_t parameter[] = {(uint32_t)(uintptr_t)word, mode, length};
        return semihost(OPEN, parameter);
    }
}

int main(void);

int main(void) {
    static char line[512];
    uint32_t parameter[] = {(uint32_t)(uintptr_t)line, sizeof line};
    char *rest = line;
    if (semihost(COMMAND_LINE, parameter) != 0) {
        return 2;
    }
    connection = open_word(&rest, MODE_RB);
    wav = open_word(&rest, MODE_WB);
    if (connection < 0 || wav < 0) {
        return 2;
    }
    {
        const int status = record();
        const uint32_t closed[] = {(uint32_t)wav};
        semihost(CLOSE, closed);
        return status;
    }
}

void reset(void);

void reset(void) {
    const uint32_t *source = &data_source;
    uint32_t *place;
    for (place = &data_start; place < &data_end; place++) {
        *place = *source++;
    }
    for (place = &bss_start; place < &bss_end; place++) {
        *place = 0;
    }
    leave(main());
}

static void fault(void) {
    leave(4);
}

/* The first words of the memory: the stack, then the handlers of reset and of faults. */
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*handlers[15])(void);
} vectors = {&stack_end, {reset, fault, fault, fault, fault, fault}};
