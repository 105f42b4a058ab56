/* A clock that a test can put to sleep: preloaded, it adds the seconds in a mapped file to some clocks.
 *
 * In a suspend CLOCK_REALTIME and CLOCK_BOOTTIME go on, and CLOCK_MONOTONIC stands still. So the offset is added to the
 * first two and their coarse forms. The file, named in $BEARERD_SUSPENDED, holds one little-endian double.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile double *asleep;

__attribute__((constructor)) static void map(void)
{
    const char *name = getenv("BEARERD_SUSPENDED");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *asleep, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        asleep = mapped;
    if (file >= 0)
        close(file);
}

int clock_gettime(clockid_t which, struct timespec *now)
{
    int result = syscall(SYS_clock_gettime, which, now);
    if (result == 0 && asleep
        && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE || which == CLOCK_BOOTTIME)) {
        long long nanoseconds = now->tv_nsec + (long long)(*asleep * 1e9);
        now->tv_sec += nanoseconds / 1000000000;
        now->tv_nsec = nanoseconds % 1000000000;
    }
    return result;
}
