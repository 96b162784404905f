/* Preloaded before libfaketime, which knows `pthread_cond_timedwait` and not that glibc has its
   own way around it in C11's threads. librdkafka waits so, until a time of a clock that is faked
   on a clock that is not: it would wait for as long as the step. */
#include <errno.h>
#include <pthread.h>
#include <threads.h>

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until)
{
    /* In glibc they are the same. */
    switch (pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until)) {
    case 0:
        return thrd_success;
    case ETIMEDOUT:
        return thrd_timedout;
    default:
        return thrd_error;
    }
}
