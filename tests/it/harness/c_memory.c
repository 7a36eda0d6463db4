/* The functions for memory that every C library has, as small as they get. A program with these takes none of
 * Rust's own. */

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t count) {
    char *out = to;
    const char *in = from;
    while (count--) {
        *out++ = *in++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t count) {
    char *out = to;
    const char *in = from;
    if (out < in) {
        return memcpy(to, from, count);
    }
    while (count--) {
        out[count] = in[count];
    }
    return to;
}

void *memset(void *to, int byte, size_t count) {
    char *out = to;
    while (count--) {
        *out++ = (char)byte;
    }
    return to;
}

int memcmp(const void *one, const void *other, size_t count) {
    const unsigned char *a = one, *b = other;
    for (; count--; a++, b++) {
        if (*a != *b) {
            return *a - *b;
        }
    }
    return 0;
}

/* The names that compilers for Arm call them by. */

void __aeabi_memcpy(void *to, const void *from, size_t count);
void __aeabi_memcpy(void *to, const void *from, size_t count) { memcpy(to, from, count); }

void __aeabi_memcpy4(void *to, const void *from, size_t count);
void __aeabi_memcpy4(void *to, const void *from, size_t count) { memcpy(to, from, count); }

void __aeabi_memcpy8(void *to, const void *from, size_t count);
void __aeabi_memcpy8(void *to, const void *from, size_t count) { memcpy(to, from, count); }

void __aeabi_memmove(void *to, const void *from, size_t count);
void __aeabi_memmove(void *to, const void *from, size_t count) { memmove(to, from, count); }

void __aeabi_memset(void *to, size_t count, int byte);
void __aeabi_memset(void *to, size_t count, int byte) { memset(to, byte, count); }

void __aeabi_memclr(void *to, size_t count);
void __aeabi_memclr(void *to, size_t count) { memset(to, 0, count); }

void __aeabi_memclr4(void *to, size_t count);
void __aeabi_memclr4(void *to, size_t count) { memset(to, 0, count); }

void __aeabi_memclr8(void *to, size_t count);
void __aeabi_memclr8(void *to, size_t count) { memset(to, 0, count); }
