/* Stands between a program and its disk: fails, delays and writes down what is done below one
 * directory. Loaded with LD_PRELOAD; see disk.rs for what the rules mean. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define RULES_MAX 256
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

struct rule {
    char path[128], op[16], kind[16];
    long from, to, value, seen;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES_MAX];
static int rule_count;
static struct stat rules_seen;
static int log_fd = -1;

static void load(void) {
    const char *name = getenv("DISK_RULES");
    struct stat now;
    if (!name || stat(name, &now) != 0) return;
    /* Two files may be of one instant, but each new one takes the place of one that is still there. */
    if (now.st_ino == rules_seen.st_ino && now.st_mtim.tv_sec == rules_seen.st_mtim.tv_sec
        && now.st_mtim.tv_nsec == rules_seen.st_mtim.tv_nsec) return;
    rules_seen = now;
    rule_count = 0;
    FILE *file = REAL(fopen)(name, "re");
    if (!file) return;
    struct rule r = {0};
    while (rule_count < RULES_MAX &&
           fscanf(file, "%127s %15s %ld %ld %15s %ld", r.path, r.op, &r.from, &r.to, r.kind, &r.value) == 6)
        rules[rule_count++] = r;
    fclose(file);
}

static int is_below(const char *path) {
    const char *dir = getenv("DISK_DIR");
    return dir && path && strncmp(path, dir, strlen(dir)) == 0;
}

/* The path of an open file; none of a file without a name, which no end of the process leaves behind. */
static const char *path_of(int fd, char *into) {
    char link[64];
    const char gone[] = " (deleted)";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, into, PATH_MAX - 1);
    ssize_t name = length - (ssize_t)strlen(gone);
    into[length < 0 ? 0 : length] = 0;
    if (name > 0 && strcmp(into + name, gone) == 0) into[0] = 0;
    return into;
}

/* Whether a rule is for this path: any, one that ends with what stands before the `$`, or one with it. */
static int is_meant(const char *rule, const char *path) {
    size_t length = strlen(rule), all = strlen(path);
    if (strcmp(rule, "*") == 0) return 1;
    if (length == 0 || rule[length - 1] != '$') return strstr(path, rule) != NULL;
    return all >= length - 1 && strncmp(path + all - (length - 1), rule, length - 1) == 0;
}

/* Whether the operation is to fail; or how many of its bytes it may write. */
static int disturbed(const char *op, const char *path, size_t *bytes) {
    if (!is_below(path)) return 0;
    long delay = 0, error = 0;
    pthread_mutex_lock(&lock);
    load();
    for (int i = 0; i < rule_count; i++) {
        struct rule *r = &rules[i];
        if (strcmp(r->op, "*") != 0 && strcmp(r->op, op) != 0) continue;
        if (!is_meant(r->path, path)) continue;
        r->seen++;
        if (r->seen < r->from || r->seen > r->to) continue;
        if (!strcmp(r->kind, "error")) error = r->value;
        if (!strcmp(r->kind, "delay")) delay = r->value;
        if (!strcmp(r->kind, "short") && bytes && *bytes > (size_t)r->value) *bytes = r->value;
    }
    pthread_mutex_unlock(&lock);
    if (delay) {
        struct timespec pause = {delay / 1000, delay % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    if (error) errno = error;
    return error != 0;
}

static void note(const char *op, const char *path, const char *to, long offset, const void *data, size_t length) {
    const char *name = getenv("DISK_LOG");
    if (!name || !is_below(path)) return;
    if (getenv("DISK_NO_DATA")) length = 0;
    int saved = errno;
    char line[2 * PATH_MAX + 128];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    pthread_mutex_lock(&lock);
    if (log_fd < 0) log_fd = syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int n = snprintf(line, sizeof line, "%ld %s %s %s %ld %zu\n",
                     now.tv_sec * 1000 + now.tv_nsec / 1000000, op, path, to ? to : "-", offset, length);
    syscall(SYS_write, log_fd, line, n);
    if (length) syscall(SYS_write, log_fd, data, length);
    pthread_mutex_unlock(&lock);
    errno = saved;
}

static int open_any(int dir, const char *path, int flags, mode_t mode) {
    int writes = flags & (O_WRONLY | O_RDWR | O_CREAT);
    if (disturbed(writes ? "open" : "read", path, NULL)) return -1;
    int fd = syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= 0 && flags & O_CREAT) note(flags & O_TRUNC ? "empty" : "create", path, NULL, 0, NULL, 0);
    return fd;
}

#define OPEN(name)                                     \
    int name(const char *path, int flags, ...) {       \
        va_list rest;                                  \
        va_start(rest, flags);                         \
        mode_t mode = va_arg(rest, mode_t);            \
        va_end(rest);                                  \
        return open_any(AT_FDCWD, path, flags, mode);  \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                   \
    int name(int dir, const char *path, int flags, ...) { \
        va_list rest;                                  \
        va_start(rest, flags);                         \
        mode_t mode = va_arg(rest, mode_t);            \
        va_end(rest);                                  \
        return open_any(dir, path, flags, mode);       \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t length) {
    char path[PATH_MAX];
    if (fd > 2 && disturbed("write", path_of(fd, path), &length)) return -1;
    long offset = fd > 2 && is_below(path) ? syscall(SYS_lseek, fd, 0, SEEK_CUR) : 0;
    ssize_t written = syscall(SYS_write, fd, data, length);
    if (fd > 2 && written > 0) note("write", path, NULL, offset, data, written);
    return written;
}

static ssize_t write_at(int fd, const void *data, size_t length, off64_t offset) {
    char path[PATH_MAX];
    if (disturbed("write", path_of(fd, path), &length)) return -1;
    ssize_t written = syscall(SYS_pwrite64, fd, data, length, offset);
    if (written > 0) note("write", path, NULL, offset, data, written);
    return written;
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return write_at(fd, data, length, offset); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return write_at(fd, data, length, offset); }

/* What is read where the position does not say. */
ssize_t pread64(int fd, void *into, size_t length, off64_t offset) {
    char path[PATH_MAX];
    if (disturbed("pread", path_of(fd, path), NULL)) return -1;
    note("pread", path, NULL, offset, NULL, 0);
    return syscall(SYS_pread64, fd, into, length, offset);
}
ssize_t pread(int fd, void *into, size_t length, off_t offset) { return pread64(fd, into, length, offset); }

static int sync_any(int fd, long number, const char *op) {
    char path[PATH_MAX];
    if (disturbed("sync", path_of(fd, path), NULL)) return -1;
    int result = syscall(number, fd);
    if (result == 0) note(op, path, NULL, 0, NULL, 0);
    return result;
}
int fsync(int fd) { return sync_any(fd, SYS_fsync, "fsync"); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync, "fsync"); }
int syncfs(int fd) { return sync_any(fd, SYS_syncfs, "syncfs"); }

int ftruncate64(int fd, off64_t length) {
    char path[PATH_MAX];
    if (disturbed("truncate", path_of(fd, path), NULL)) return -1;
    int result = syscall(SYS_ftruncate, fd, length);
    if (result == 0) note("truncate", path, NULL, length, NULL, 0);
    return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    if (disturbed(flags ? "rename-new" : "rename", from, NULL)) return -1;
    int result = syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (result == 0) note("rename", from, to, 0, NULL, 0);
    return result;
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    if (disturbed("link", from, NULL)) return -1;
    return syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlink(const char *path) {
    if (disturbed("unlink", path, NULL)) return -1;
    int result = syscall(SYS_unlink, path);
    if (result == 0) note("unlink", path, NULL, 0, NULL, 0);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    if (disturbed("mkdir", path, NULL)) return -1;
    int result = syscall(SYS_mkdir, path, mode);
    if (result == 0) note("mkdir", path, NULL, 0, NULL, 0);
    return result;
}

int fchown(int fd, uid_t owner, gid_t group) {
    char path[PATH_MAX];
    if (disturbed("chown", path_of(fd, path), NULL)) return -1;
    return syscall(SYS_fchown, fd, owner, group);
}

int fchownat(int dir, const char *path, uid_t owner, gid_t group, int flags) {
    if (disturbed("chown", path, NULL)) return -1;
    return syscall(SYS_fchownat, dir, path, owner, group, flags);
}
