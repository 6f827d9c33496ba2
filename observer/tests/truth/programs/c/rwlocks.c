/* Reader-writer locks. */
#define _GNU_SOURCE
#include "scenes.h"

#include <sys/syscall.h>
#include <unistd.h>

#define RWLOCK "pthread_rwlock"

static pthread_rwlock_t table = PTHREAD_RWLOCK_INITIALIZER;
static int taken;

static void *hold_write(void *arg)
{
    pthread_rwlock_wrlock(&table);
    reach(&taken);
    for (;;)
        pause();
    return arg;
}

static void *hold_read(void *arg)
{
    pthread_rwlock_rdlock(&table);
    reach(&taken);
    for (;;)
        pause();
    return arg;
}

static void *want_read(void *arg)
{
    pthread_rwlock_rdlock(&table);
    return arg;
}

static void *want_write(void *arg)
{
    pthread_rwlock_wrlock(&table);
    return arg;
}

void write_held(void)
{
    struct thread holder = start("holder", hold_write, NULL);
    await(&taken);
    struct thread all[3] = {start("writer", want_write, NULL), start("reader", want_read, NULL),
                            start("reader2", want_read, NULL)};
    for (int i = 0; i < 3; i++) {
        asleep(all[i].tid);
        waits(all[i],
              (struct wait){&table, sizeof table, RWLOCK, "table", holder.tid, "in pause", "waiting"});
    }
}

void read_held(void)
{
    struct thread holder = start("holder", hold_read, NULL);
    await(&taken);
    struct thread writer = start("writer", want_write, NULL);
    asleep(writer.tid);
    waits(writer, (struct wait){&table, sizeof table, RWLOCK, "table", holder.tid});
}

/* Its readers overlap for ever. */
static void *read_often(void *arg)
{
    int *entered = arg;
    for (;;) {
        pthread_rwlock_rdlock(&table);
        reach(entered);
        pass(30);
        pthread_rwlock_unlock(&table);
    }
    return NULL;
}

void starved_writer(void)
{
    static int entered[3];
    for (int i = 0; i < 3; i++) {
        start("reader", read_often, &entered[i]);
        await(&entered[i]);
        pass(10);
    }
    struct thread writer = start("writer", want_write, NULL);
    asleep(writer.tid);
    waits(writer, (struct wait){&table, sizeof table, RWLOCK, "table"});
}
