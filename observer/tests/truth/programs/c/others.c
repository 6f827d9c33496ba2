/* What nobody holds, and idle threads: the innocents. */
#define _GNU_SOURCE
#include "scenes.h"

#include <poll.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static sem_t jobs;

static void *take_job(void *arg)
{
    sem_wait(&jobs);
    return arg;
}

void sem_queue(void)
{
    sem_init(&jobs, 0, 0);
    for (int i = 0; i < 3; i++) {
        struct thread worker = start("worker", take_job, NULL);
        asleep(worker.tid);
        idle(worker, "sem");
    }
}

static pthread_barrier_t phase;

static void *arrive(void *arg)
{
    pthread_barrier_wait(&phase);
    return arg;
}

void barrier(void)
{
    pthread_barrier_init(&phase, NULL, 3);
    for (int i = 0; i < 2; i++) {
        struct thread early = start("early", arrive, NULL);
        asleep(early.tid);
        idle(early, "pthread_barrier");
    }
}

static void *sleep_for_ever(void *arg)
{
    for (;;)
        pause();
    return arg;
}

static struct thread joined;

static void *join_it(void *arg)
{
    pthread_join(joined.handle, NULL);
    return arg;
}

void join(void)
{
    joined = start("worker", sleep_for_ever, NULL);
    asleep_in(joined.tid, SYS_pause);
    struct thread joiner = start("joiner", join_it, NULL);
    asleep(joiner.tid);
    waits(joiner, (struct wait){.class_name = "pthread_join", .holder = joined.tid, .doing = "in pause"});
}

static pthread_once_t ready_once = PTHREAD_ONCE_INIT;
static int inside;

static void initialise(void)
{
    reach(&inside);
    for (;;)
        pause();
}

static void *want_it(void *arg)
{
    pthread_once(&ready_once, initialise);
    return arg;
}

void once(void)
{
    struct thread first = start("first", want_it, NULL);
    await(&inside);
    struct thread second = start("second", want_it, NULL);
    asleep(second.tid);
    asleep_in(first.tid, SYS_pause);
    waits(second, (struct wait){&ready_once, sizeof ready_once, "pthread_once", "ready_once", first.tid});
}

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pool_work = PTHREAD_COND_INITIALIZER;

static void *wait_for_work(void *arg)
{
    pthread_mutex_lock(&pool_lock);
    for (;;)
        pthread_cond_wait(&pool_work, &pool_lock);
    return arg;
}

void pool(void)
{
    for (int i = 0; i < 4; i++) {
        struct thread worker = start("worker", wait_for_work, NULL);
        asleep(worker.tid);
        idle(worker, "pthread_cond");
    }
}

static void *wait_a_while(void *arg)
{
    pthread_mutex_lock(&pool_lock);
    for (;;) {
        struct timespec end;
        clock_gettime(CLOCK_REALTIME, &end);
        end.tv_sec += arg ? 3600 : 1;
        pthread_cond_timedwait(&pool_work, &pool_lock, &end);
    }
    return arg;
}

void timed_pool(void)
{
    struct thread ticker = start("ticker", wait_a_while, NULL);
    struct thread patient = start("patient", wait_a_while, &pool_work);
    asleep(ticker.tid);
    asleep(patient.tid);
    idle(ticker, "pthread_cond");
    idle(patient, "pthread_cond");
}

static int events, loop_fd;

static void *read_events(void *arg)
{
    uint64_t count;
    while (read(events, &count, sizeof count) == sizeof count)
        ;
    return arg;
}

static void *run_loop(void *arg)
{
    struct epoll_event event;
    while (epoll_wait(loop_fd, &event, 1, -1) >= 0)
        ;
    return arg;
}

static void *tick(void *arg)
{
    for (;;)
        pass(700);
    return arg;
}

static void *poll_nothing(void *arg)
{
    poll(NULL, 0, -1);
    return arg;
}

void loops(void)
{
    events = eventfd(0, 0);
    loop_fd = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    epoll_ctl(loop_fd, EPOLL_CTL_ADD, events, &event);
    struct thread reader = start("reader", read_events, NULL);
    struct thread loop = start("loop", run_loop, NULL);
    struct thread poller = start("poller", poll_nothing, NULL);
    struct thread timer = start("timer", tick, NULL);
    asleep_in(reader.tid, SYS_read);
    asleep_in(loop.tid, SYS_epoll_wait);
    asleep_in(poller.tid, SYS_poll);
    idle(reader, NULL);
    idle(loop, NULL);
    idle(poller, NULL);
    idle(timer, NULL);
}

/* A lock for every job, and a queue that is never empty for long: busy, and in nobody's way. */
static void *work(void *arg)
{
    for (;;) {
        pthread_mutex_lock(&pool_lock);
        pthread_mutex_unlock(&pool_lock);
        pass(1);
    }
    return arg;
}

void busy(void)
{
    for (int i = 0; i < 3; i++)
        idle(start("worker", work, NULL), NULL);
}

static int streaming;

static void *keep_stream(void *arg)
{
    flockfile(arg);
    reach(&streaming);
    for (;;)
        pause();
    return NULL;
}

static void *want_stream(void *arg)
{
    flockfile(arg);
    return arg;
}

/* A lock inside the C library, which keeps its owner to itself. */
void stream(void)
{
    struct thread holder = start("holder", keep_stream, stderr);
    await(&streaming);
    struct thread waiter = start("waiter", want_stream, stderr);
    asleep(waiter.tid);
    waits(waiter, (struct wait){.class_name = "libc_lock", .holder = holder.tid});
}
