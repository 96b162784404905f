/* Preloaded before libfaketime, which fakes `timespec_get` and not glibc's `cnd_timedwait`:
   whoever waits until now and 20 ms, as librdkafka does, would wait for the whole step. */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int timespec_get(struct timespec *time, int base)
{
    return base == TIME_UTC && syscall(SYS_clock_gettime, CLOCK_REALTIME, time) == 0 ? base : 0;
}
