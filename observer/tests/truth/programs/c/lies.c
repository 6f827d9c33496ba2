/* Memory that looks like a lock and is none, and owners that are not. */
#define _GNU_SOURCE
#include "scenes.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As pthread_mutex_t of glibc: word, count, owner, users, kind. */
static struct {
    int word;
    unsigned count;
    int owner;
    unsigned users;
    int kind;
    char rest[20];
} lookalike = {.word = 2, .users = 1};

static pthread_mutex_t overwritten = PTHREAD_MUTEX_INITIALIZER;

static void *sleep_for_ever(void *arg)
{
    for (;;)
        pause();
    return arg;
}

static void *wait_raw(void *arg)
{
    syscall(SYS_futex, arg, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    return arg;
}

static void *wait_raw_bitset(void *arg)
{
    syscall(SYS_futex, arg, FUTEX_WAIT_BITSET_PRIVATE, 2, NULL, NULL, FUTEX_BITSET_MATCH_ANY);
    return arg;
}

static void raw(void *at, void *(*body)(void *))
{
    struct thread waiter = start("raw", body, at);
    asleep(waiter.tid);
    waits(waiter, (struct wait){at, 4, "futex"});
}

void look_alike(void)
{
    struct thread other = start("other", sleep_for_ever, NULL);
    lookalike.owner = other.tid;
    raw(&lookalike, wait_raw);
    raw(&lookalike, wait_raw_bitset);
}

/* A mutex whose memory names a thread that never took it, while somebody waits for its word. */
void liar(void)
{
    struct thread other = start("other", sleep_for_ever, NULL);
    int words[5] = {2, 0, other.tid, 1, 0};
    memcpy(&overwritten, words, sizeof words);
    raw(&overwritten, wait_raw);
}

/* The words that a robust mutex would be waited for with. */
void liar_robust(void)
{
    struct thread other = start("other", sleep_for_ever, NULL);
    int words[5] = {2, 0, other.tid, 1, 0x10};
    memcpy(&overwritten, words, sizeof words);
    raw(&overwritten, wait_raw);
}

static pthread_once_t begun = PTHREAD_ONCE_INIT;

static void wait_in_once(void)
{
    wait_raw(&lookalike);
}

static void *call_once_first(void *arg)
{
    pthread_once(&begun, wait_in_once);
    return arg;
}

/* A wait of the program's own below a function of the library's that waits itself at other times. */
void raw_in_once(void)
{
    struct thread waiter = start("raw", call_once_first, NULL);
    asleep(waiter.tid);
    waits(waiter, (struct wait){&lookalike, 4, "futex"});
}

static void *lock_it(void *arg)
{
    pthread_mutex_lock(arg);
    return arg;
}

/* The owner's number is that of no thread. */
void nobody(void)
{
    int words[5] = {2, 0, 0x3ffffffe, 1, 0};
    memcpy(&overwritten, words, sizeof words);
    struct thread waiter = start("waiter", lock_it, &overwritten);
    asleep(waiter.tid);
    waits(waiter, (struct wait){&overwritten, sizeof overwritten, "pthread_mutex", "overwritten"});
}

/* A thread of another process, which does not share the memory. */
void stranger(void)
{
    int words[5] = {2, 0, getppid(), 1, 0};
    memcpy(&overwritten, words, sizeof words);
    struct thread waiter = start("waiter", lock_it, &overwritten);
    asleep(waiter.tid);
    waits(waiter, (struct wait){&overwritten, sizeof overwritten, "pthread_mutex", "overwritten"});
}
