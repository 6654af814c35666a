/* A wrong clock for one process, which a test can change while it runs.
 *
 * LD_PRELOAD it; SKEW_FILE names a file with one int64: the seconds to add to the time of day.
 * The monotonic clocks and all waiting stay right. (libfaketime 0.9.10 cannot do that: with
 * Python 3.11 and later either time.sleep fails with EINVAL or timed waits on locks never end.)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *skew_s;

__attribute__((constructor)) static void open_skew(void) {
    const char *path = getenv("SKEW_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *found = mmap(NULL, sizeof *skew_s, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) skew_s = found;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    int is_time_of_day = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    if (result == 0 && is_time_of_day && skew_s) now->tv_sec += *skew_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec at;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &at) != 0) return -1;
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec at;
    if (clock_gettime(CLOCK_REALTIME, &at) != 0) return (time_t)-1;
    if (now) *now = at.tv_sec;
    return at.tv_sec;
}
