/* Mutexes of every kind, and who holds them. */
#define _GNU_SOURCE
#include "scenes.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define MUTEX "pthread_mutex"

/* One thread of a circle: it takes its own lock, then the next one. */
struct link {
    pthread_mutex_t *own, *next;
    int *here, *others;
};

static void *take_two(void *arg)
{
    struct link *link = arg;
    pthread_mutex_lock(link->own);
    reach(link->here);
    await(link->others);
    pthread_mutex_lock(link->next);
    return NULL;
}

static pthread_mutex_t alpha = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t beta = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t gamma_lock = PTHREAD_MUTEX_INITIALIZER;
static int points[4];

void abba(void)
{
    static struct link links[2] = {
        {&alpha, &beta, &points[0], &points[1]},
        {&beta, &alpha, &points[1], &points[0]},
    };
    wait_for_go();
    struct thread both[2] = {start("ab", take_two, &links[0]), start("ba", take_two, &links[1])};
    asleep(both[0].tid);
    asleep(both[1].tid);
    waits(both[0], (struct wait){&beta, sizeof beta, MUTEX, "beta", both[1].tid, .state = "waiting"});
    waits(both[1], (struct wait){&alpha, sizeof alpha, MUTEX, "alpha", both[0].tid, .state = "waiting"});
    circle(2, both);
}

void three_cycle(void)
{
    static struct link links[3] = {
        {&alpha, &beta, &points[0], &points[1]},
        {&beta, &gamma_lock, &points[1], &points[2]},
        {&gamma_lock, &alpha, &points[2], &points[0]},
    };
    wait_for_go();
    struct thread all[3];
    for (int i = 0; i < 3; i++)
        all[i] = start("link", take_two, &links[i]);
    for (int i = 0; i < 3; i++)
        asleep(all[i].tid);
    pthread_mutex_t *locks[3] = {&beta, &gamma_lock, &alpha};
    const char *names[3] = {"beta", "gamma_lock", "alpha"};
    for (int i = 0; i < 3; i++)
        waits(all[i], (struct wait){locks[i], sizeof alpha, MUTEX, names[i], all[(i + 1) % 3].tid});
    circle(3, all);
}

/* Takes a lock that it holds already. */
static void *take_twice(void *arg)
{
    pthread_mutex_lock(arg);
    pthread_mutex_lock(arg);
    return NULL;
}

void relock(void)
{
    struct thread one = start("again", take_twice, &alpha);
    asleep(one.tid);
    waits(one, (struct wait){&alpha, sizeof alpha, MUTEX, "alpha", one.tid});
    circle(1, &one);
}

static void *hold_and_pause(void *arg)
{
    pthread_mutex_lock(arg);
    reach(&points[0]);
    for (;;)
        pause();
    return NULL;
}

static void *take(void *arg)
{
    pthread_mutex_lock(arg);
    return NULL;
}

/* A lock that one thread holds in pause(2), while another one waits for it. */
static void held(pthread_mutex_t *mutex, const char *name)
{
    struct thread holder = start("holder", hold_and_pause, mutex);
    await(&points[0]);
    struct thread waiter = start("waiter", take, mutex);
    asleep(waiter.tid);
    asleep_in(holder.tid, SYS_pause);
    waits(waiter,
          (struct wait){mutex, sizeof *mutex, MUTEX, name, holder.tid, "in pause", "waiting"});
}

static pthread_mutex_t special;

static void held_of(int type, int protocol, int robust)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, type);
    pthread_mutexattr_setprotocol(&attr, protocol);
    pthread_mutexattr_setrobust(&attr, robust);
    pthread_mutex_init(&special, &attr);
    held(&special, "special");
}

void normal(void) { held(&alpha, "alpha"); }
void pi(void) { held_of(PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_INHERIT, PTHREAD_MUTEX_STALLED); }
void pi_robust(void) { held_of(PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_INHERIT, PTHREAD_MUTEX_ROBUST); }
void recursive(void) { held_of(PTHREAD_MUTEX_RECURSIVE, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_STALLED); }
void errorcheck(void) { held_of(PTHREAD_MUTEX_ERRORCHECK, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_STALLED); }
void adaptive(void) { held_of(PTHREAD_MUTEX_ADAPTIVE_NP, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_STALLED); }
void robust(void) { held_of(PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_NONE, PTHREAD_MUTEX_ROBUST); }

static void *take_and_end(void *arg)
{
    pthread_mutex_lock(arg);
    return NULL;
}

static void *inherit(void *arg)
{
    if (pthread_mutex_lock(arg) != EOWNERDEAD)
        _exit(1);
    reach(&points[0]);
    for (;;)
        pause();
    return NULL;
}

/* The first owner ended, the second one got the lock with EOWNERDEAD and keeps it. */
void robust_dead(void)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&special, &attr);
    struct thread dead = start("dead", take_and_end, &special);
    pthread_join(dead.handle, NULL);
    struct thread heir = start("heir", inherit, &special);
    await(&points[0]);
    struct thread waiter = start("waiter", take, &special);
    asleep(waiter.tid);
    asleep_in(heir.tid, SYS_pause);
    waits(waiter, (struct wait){&special, sizeof special, MUTEX, "special", heir.tid, "in pause"});
}

/* A lock that its owner took into its grave. */
void orphan(void)
{
    struct thread dead = start("dead", take_and_end, &alpha);
    pthread_join(dead.handle, NULL);
    struct thread waiter = start("waiter", take, &alpha);
    asleep(waiter.tid);
    waits(waiter, (struct wait){&alpha, sizeof alpha, MUTEX, "alpha", dead.tid, "ended", "ended"});
}

/* Two mutexes that processes share. */
pthread_mutex_t *shared_pair(void)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutex_t *pair =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutex_init(&pair[0], &attr);
    pthread_mutex_init(&pair[1], &attr);
    return pair;
}

/* Forks; the child ends with its parent. */
int fork_child(void)
{
    int parent = getpid();
    int pid = fork();
    if (pid)
        return pid;
    /* The setting does not outlive a fork, and the parent may be gone before it is made. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    return 0;
}

static volatile int *shared_points;

static void *hold_shared(void *arg)
{
    pthread_mutex_lock(arg);
    shared_points[0] = 1;
    for (;;)
        pause();
    return NULL;
}

static void shared_held(bool stop)
{
    pthread_mutex_t *pair = shared_pair();
    shared_points = (volatile int *)(pair + 2);
    int child = fork_child();
    if (!child)
        hold_shared(pair);
    process(child);
    while (!shared_points[0])
        pass(1);
    if (stop)
        kill(child, SIGSTOP);
    struct thread waiter = start("waiter", take, pair);
    asleep(waiter.tid);
    waits(waiter, (struct wait){pair, sizeof *pair, MUTEX, "lock in take", child,
                                stop ? "stopped" : "in pause", stop ? "stopped" : "waiting"});
}

void process_shared(void) { shared_held(false); }
void stopped(void) { shared_held(true); }

static void *take_crossed(void *arg)
{
    pthread_mutex_t *pair = arg;
    pthread_mutex_lock(&pair[0]);
    shared_points[0] = 1;
    while (!shared_points[1])
        pass(1);
    pthread_mutex_lock(&pair[1]);
    return NULL;
}

/* Two processes in each other's way. */
void shared_abba(void)
{
    pthread_mutex_t *pair = shared_pair();
    shared_points = (volatile int *)(pair + 2);
    int child = fork_child();
    if (!child) {
        pthread_mutex_lock(&pair[1]);
        shared_points[1] = 1;
        while (!shared_points[0])
            pass(1);
        pthread_mutex_lock(&pair[0]);
        _exit(1);
    }
    process(child);
    struct thread both[2] = {start("ab", take_crossed, pair), {.tid = child}};
    asleep(both[0].tid);
    waits(both[0], (struct wait){&pair[1], sizeof *pair, MUTEX, "lock in take_crossed", child});
    waits(both[1], (struct wait){&pair[0], sizeof *pair, MUTEX, "lock in shared_abba", both[0].tid});
    circle(2, both);
}

static void *wait_timed(void *arg)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 3600;
    pthread_mutex_timedlock(arg, &end);
    return NULL;
}

static void *wait_clock(void *arg)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += 3600;
    pthread_mutex_clocklock(arg, CLOCK_MONOTONIC, &end);
    return NULL;
}

void timed(void)
{
    struct thread holder = start("holder", hold_and_pause, &alpha);
    await(&points[0]);
    struct thread all[2] = {start("timed", wait_timed, &alpha), start("clock", wait_clock, &alpha)};
    for (int i = 0; i < 2; i++) {
        asleep(all[i].tid);
        waits(all[i], (struct wait){&alpha, sizeof alpha, MUTEX, "alpha", holder.tid, "in pause"});
    }
}

/* A lock on the heap is named by who waits for it first. */
void heap(void)
{
    pthread_mutex_t *mutex = malloc(sizeof *mutex);
    pthread_mutex_init(mutex, NULL);
    held(mutex, "lock in take");
}

static struct {
    char rows[24];
    pthread_mutex_t lock;
} accounts = {.lock = PTHREAD_MUTEX_INITIALIZER};

void member(void) { held(&accounts.lock, "accounts+0x18"); }

static mtx_t plain;

static void *hold_plain(void *arg)
{
    mtx_lock(arg);
    reach(&points[0]);
    for (;;)
        pause();
    return NULL;
}

static void *take_plain(void *arg)
{
    mtx_lock(arg);
    return NULL;
}

void c11(void)
{
    mtx_init(&plain, mtx_plain);
    struct thread holder = start("holder", hold_plain, &plain);
    await(&points[0]);
    struct thread waiter = start("waiter", take_plain, &plain);
    asleep(waiter.tid);
    waits(waiter, (struct wait){&plain, sizeof plain, MUTEX, "plain", holder.tid, "in pause"});
}
