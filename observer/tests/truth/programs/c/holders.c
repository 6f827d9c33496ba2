/* What a holder does while others wait. */
#define _GNU_SOURCE
#include "scenes.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t ledger = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t journal = PTHREAD_MUTEX_INITIALIZER;
static int taken;
static int pipes[2];

static void *sleep_long(void *arg)
{
    struct timespec time = {3600, 0};
    pthread_mutex_lock(&ledger);
    reach(&taken);
    nanosleep(&time, NULL);
    return arg;
}

static void *read_pipe(void *arg)
{
    char byte;
    pthread_mutex_lock(&ledger);
    reach(&taken);
    return read(pipes[0], &byte, 1) == 1 ? arg : NULL;
}

static void *poll_forever(void *arg)
{
    struct pollfd one = {pipes[0], POLLIN, 0};
    pthread_mutex_lock(&ledger);
    reach(&taken);
    poll(&one, 1, -1);
    return arg;
}

static void *sync_file(void *arg)
{
    char path[] = "/tmp/observer-truth-XXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    pthread_mutex_lock(&ledger);
    reach(&taken);
    while (write(fd, "x", 1) == 1)
        fsync(fd);
    return arg;
}

static void *spin(void *arg)
{
    pthread_mutex_lock(&ledger);
    reach(&taken);
    for (volatile unsigned long turns = 0;; turns++)
        ;
    return arg;
}

static void *take_ledger(void *arg)
{
    pthread_mutex_lock(&ledger);
    return arg;
}

static void play_holder(void *(*body)(void *), long nr, const char *doing, const char *state)
{
    if (pipe(pipes))
        exit(1);
    struct thread holder = start("holder", body, NULL);
    await(&taken);
    struct thread waiter = start("waiter", take_ledger, NULL);
    asleep(waiter.tid);
    if (nr >= 0)
        asleep_in(holder.tid, nr);
    waits(waiter, (struct wait){&ledger, sizeof ledger, "pthread_mutex", "ledger", holder.tid, doing, state});
}

void holder_asleep(void) { play_holder(sleep_long, SYS_clock_nanosleep, "in clock_nanosleep", "waiting"); }
void holder_in_pipe(void) { play_holder(read_pipe, SYS_read, "in read(pipe:", "waiting"); }
void holder_in_poll(void) { play_holder(poll_forever, SYS_poll, "in poll", "waiting"); }
/* On a file system in memory there is nothing to wait for: it may be seen at work, too. */
void holder_in_io(void) { play_holder(sync_file, -1, NULL, NULL); }
void holder_spins(void) { play_holder(spin, -1, NULL, "running"); }

/* The same, where somebody else takes the CPU from it. */
void holder_throttled(void)
{
    wait_for_go();
    play_holder(spin, -1, "throttled", "throttled");
}

static int inner;

static void *hold_journal(void *arg)
{
    pthread_mutex_lock(&journal);
    reach(&inner);
    for (;;)
        pause();
    return arg;
}

static void *hold_both(void *arg)
{
    pthread_mutex_lock(&ledger);
    reach(&taken);
    pthread_mutex_lock(&journal);
    return arg;
}

/* A chain: the holder waits for a lock itself. */
void chain(void)
{
    struct thread last = start("last", hold_journal, NULL);
    await(&inner);
    struct thread middle = start("middle", hold_both, NULL);
    await(&taken);
    asleep(middle.tid);
    struct thread first = start("first", take_ledger, NULL);
    asleep(first.tid);
    waits(first, (struct wait){&ledger, sizeof ledger, "pthread_mutex", "ledger", middle.tid,
                               "waiting for journal for ", "waiting"});
    waits(middle, (struct wait){&journal, sizeof journal, "pthread_mutex", "journal", last.tid,
                                "in pause", "waiting"});
}
