// Preloaded into the processes of an exchange under test: their wall clock can be moved, each by itself.
//
// EVENKEEL_CLOCK names a file with two numbers of 64 bits for each process id: by how many ns its wall clock is off,
// which the lab writes, and how often it was read while it was off, which is written here. Monotonic clocks stay true.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static volatile int64_t *slots;
static int64_t slot_count;

__attribute__((constructor)) static void open_slots(void) {
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("EVENKEEL_CLOCK");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    struct stat seen;
    if (fstat(file, &seen) == 0) {
        void *mapped = mmap(NULL, seen.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (mapped != MAP_FAILED) {
            slot_count = seen.st_size / 16;
            slots = mapped;
        }
    }
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!real_clock_gettime) real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real_clock_gettime(clock, now);
    int64_t pid = getpid();
    if (result || clock != CLOCK_REALTIME || !slots || pid >= slot_count) return result;
    int64_t off_ns = slots[2 * pid];
    if (!off_ns) return result;
    slots[2 * pid + 1]++;
    int64_t ns = now->tv_nsec + off_ns % 1000000000;
    now->tv_sec += off_ns / 1000000000 + (ns >= 1000000000) - (ns < 0);
    now->tv_nsec = ns < 0 ? ns + 1000000000 : ns % 1000000000;
    return result;
}
