/* Puts a program's wall clock forward or back by so many seconds. Loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *into) {
    int result = syscall(SYS_clock_gettime, clock, into);
    const char *seconds = getenv("CLOCK_SHIFT");
    if (result == 0 && clock == CLOCK_REALTIME && seconds) into->tv_sec += atol(seconds);
    return result;
}
