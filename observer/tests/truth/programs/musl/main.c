/* Scenes of musl's locks. Only mutexes of a type other than the default have their owner's number in them. */
#define _GNU_SOURCE
#include "truth.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MUTEX "pthread_mutex"

/* Taken by the threads one after the other. */
static int points[4];

static pthread_mutex_t alpha = PTHREAD_MUTEX_INITIALIZER, beta, gamma_;
static pthread_rwlock_t table = PTHREAD_RWLOCK_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t work_mutex = PTHREAD_MUTEX_INITIALIZER;
static sem_t queue;

static void rest(void)
{
    for (;;)
        pause();
}

static void *hold(void *arg)
{
    pthread_mutex_lock(arg);
    reach(&points[0]);
    rest();
    return NULL;
}

static void *take(void *arg)
{
    pthread_mutex_lock(arg);
    return NULL;
}

static void init(pthread_mutex_t *mutex, int type)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, type);
    pthread_mutex_init(mutex, &attr);
}

static void held(pthread_mutex_t *mutex, const char *name)
{
    struct thread holder = start("holder", hold, mutex);
    await(&points[0]);
    struct thread waiter = start("waiter", take, mutex);
    asleep(waiter.tid);
    waits(waiter, (struct wait){mutex, sizeof *mutex, MUTEX, name, holder.tid, "in pause"});
}

static void musl_normal(void) { held(&alpha, "alpha"); }

static void musl_errorcheck(void)
{
    init(&beta, PTHREAD_MUTEX_ERRORCHECK);
    held(&beta, "beta");
}

static void musl_recursive(void)
{
    init(&gamma_, PTHREAD_MUTEX_RECURSIVE);
    held(&gamma_, "gamma_");
}

static void *cross(void *arg)
{
    pthread_mutex_t *both[2] = {&beta, &gamma_};
    int one = arg != NULL;
    pthread_mutex_lock(both[one]);
    reach(&points[one]);
    await(&points[!one]);
    pthread_mutex_lock(both[!one]);
    return NULL;
}

static void musl_abba(void)
{
    init(&beta, PTHREAD_MUTEX_ERRORCHECK);
    init(&gamma_, PTHREAD_MUTEX_RECURSIVE);
    struct thread both[2] = {start("ab", cross, NULL), start("ba", cross, &beta)};
    asleep(both[0].tid);
    asleep(both[1].tid);
    waits(both[0], (struct wait){&gamma_, sizeof gamma_, MUTEX, "gamma_", both[1].tid});
    waits(both[1], (struct wait){&beta, sizeof beta, MUTEX, "beta", both[0].tid});
    circle(2, both);
}

static void *write_held(void *arg)
{
    pthread_rwlock_wrlock(arg);
    reach(&points[0]);
    rest();
    return NULL;
}

static void *read_wanted(void *arg)
{
    pthread_rwlock_rdlock(arg);
    return NULL;
}

static void musl_rwlock(void)
{
    struct thread writer = start("writer", write_held, &table);
    await(&points[0]);
    struct thread reader = start("reader", read_wanted, &table);
    asleep(reader.tid);
    waits(reader, (struct wait){&table, sizeof table, "pthread_rwlock", "table", writer.tid});
}

static void *wait_for_work(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&work_mutex);
    for (;;)
        pthread_cond_wait(&work, &work_mutex);
    return NULL;
}

static void *wait_for_post(void *arg)
{
    sem_wait(arg);
    return NULL;
}

static void musl_idle(void)
{
    for (int i = 0; i < 3; i++) {
        struct thread worker = start("worker", wait_for_work, NULL);
        asleep(worker.tid);
        idle(worker, "pthread_cond");
    }
    sem_init(&queue, 0, 0);
    struct thread consumer = start("consumer", wait_for_post, &queue);
    asleep(consumer.tid);
    idle(consumer, "sem");
}

#define SCENE(name) {#name, name}

int main(int argc, char **argv)
{
    static const struct scene scenes[] = {
        SCENE(musl_normal), SCENE(musl_errorcheck), SCENE(musl_recursive), SCENE(musl_abba),
        SCENE(musl_rwlock), SCENE(musl_idle),       {0},
    };
    return play(argc, argv, scenes);
}
