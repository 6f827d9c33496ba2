/* Locks on files. A process that has one thread is their holder; which of several threads it is, nothing tells. */
#define _GNU_SOURCE
#include "scenes.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILE_LOCK "file_lock"
#define FIRST "/memfd:first (deleted)"
#define SECOND "/memfd:second (deleted)"

/* What both sides of a fork see. */
static struct seen {
    int points[4];
    int tid;
} *seen;
static int files[2];

static void prepare(void)
{
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    files[0] = memfd_create("first", 0);
    files[1] = memfd_create("second", 0);
    if (seen == MAP_FAILED || files[0] < 0 || files[1] < 0)
        abort();
}

/* An open file of one's own: a lock of flock is its. */
static int own(int file)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    int fd = open(path, O_RDWR);
    if (fd < 0)
        abort();
    return fd;
}

static void range(int fd, int command, short type, long start, long length)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    fcntl(fd, command, &lock);
}

static void rest(void)
{
    for (;;)
        pause();
}

/* A child that takes something and rests. */
static int child_with(void (*take)(void))
{
    int child = fork_child();
    if (!child) {
        take();
        reach(&seen->points[0]);
        rest();
    }
    process(child);
    return child;
}

static void *wait_flock(void *arg)
{
    flock(own(files[0]), (int)(long)arg);
    return NULL;
}

static void *wait_range(void *arg)
{
    range(own(files[0]), (int)(long)arg, F_WRLCK, 15, 10);
    return NULL;
}

static void held_by(int holder, void *(*body)(void *), long arg, long nr)
{
    struct thread waiter = start("waiter", body, (void *)arg);
    asleep_in(waiter.tid, nr);
    waits(waiter, (struct wait){.class_name = FILE_LOCK, .name = FIRST, .holder = holder, .doing = "in pause"});
}

static void take_flock(void) { flock(own(files[0]), LOCK_EX); }
static void take_range(void) { range(own(files[0]), F_SETLK, F_WRLCK, 10, 10); }
static void take_open_file(void) { range(own(files[0]), F_OFD_SETLK, F_WRLCK, 10, 10); }
static void take_to_read(void) { range(own(files[0]), F_SETLK, F_RDLCK, 0, 0); }

void flock_held(void)
{
    prepare();
    int child = child_with(take_flock);
    await(&seen->points[0]);
    held_by(child, wait_flock, LOCK_EX, SYS_flock);
    held_by(child, wait_flock, LOCK_SH, SYS_flock);
}

/* Taken here, and left to the child. */
void flock_inherited(void)
{
    prepare();
    int fd = own(files[0]);
    flock(fd, LOCK_EX);
    int child = fork_child();
    if (!child)
        rest();
    process(child);
    close(fd);
    held_by(child, wait_flock, LOCK_EX, SYS_flock);
}

static void *hold_flock(void *arg)
{
    take_flock();
    reach(&seen->points[0]);
    rest();
    return arg;
}

/* The process has it; which of its threads, nothing tells. */
void flock_threads(void)
{
    prepare();
    start("holder", hold_flock, NULL);
    await(&seen->points[0]);
    held_by(0, wait_flock, LOCK_EX, SYS_flock);
}

void fcntl_held(void)
{
    prepare();
    int child = child_with(take_range);
    await(&seen->points[0]);
    held_by(child, wait_range, F_SETLKW, SYS_fcntl);
}

void fcntl_open_file(void)
{
    prepare();
    int child = child_with(take_open_file);
    await(&seen->points[0]);
    held_by(child, wait_range, F_OFD_SETLKW, SYS_fcntl);
}

void fcntl_readers(void)
{
    prepare();
    child_with(take_to_read);
    await(&seen->points[0]);
    seen->points[0] = 0;
    child_with(take_to_read);
    await(&seen->points[0]);
    held_by(0, wait_range, F_SETLKW, SYS_fcntl);
}

/* One of two processes in each other's way. */
static int crossed(int one)
{
    int child = fork_child();
    if (!child) {
        flock(own(files[one]), LOCK_EX);
        reach(&seen->points[one]);
        await(&seen->points[!one]);
        flock(own(files[!one]), LOCK_EX);
        _exit(1);
    }
    process(child);
    return child;
}

/* The kernel does not see it: flock looks for no circles. */
void flock_cycle(void)
{
    prepare();
    struct thread both[2] = {{.tid = crossed(0)}, {.tid = crossed(1)}};
    waits(both[0], (struct wait){.class_name = FILE_LOCK, .name = SECOND, .holder = both[1].tid});
    waits(both[1], (struct wait){.class_name = FILE_LOCK, .name = FIRST, .holder = both[0].tid});
    circle(2, both);
}

static pthread_mutex_t *pair;

static void *mutex_then_flock(void *arg)
{
    pthread_mutex_lock(pair);
    reach(&seen->points[0]);
    await(&seen->points[1]);
    wait_flock((void *)(long)LOCK_EX);
    return arg;
}

static void *mutex_then_range(void *arg)
{
    pthread_mutex_lock(pair);
    reach(&seen->points[0]);
    await(&seen->points[1]);
    wait_range((void *)(long)F_SETLKW);
    return arg;
}

/* A circle through the kernel and through memory: the one process has a mutex and wants a file's lock, the other
 * one has that and wants the mutex. */
static __attribute__((noinline)) void with_mutex(void (*take)(void), void *(*body)(void *), const char *want)
{
    prepare();
    pair = shared_pair();
    int child = fork_child();
    if (!child) {
        take();
        reach(&seen->points[1]);
        await(&seen->points[0]);
        pthread_mutex_lock(pair);
        _exit(1);
    }
    process(child);
    struct thread both[2] = {start("mixed", body, NULL), {.tid = child}};
    waits(both[0], (struct wait){.class_name = FILE_LOCK, .name = FIRST, .holder = child});
    waits(both[1], (struct wait){pair, sizeof *pair, "pthread_mutex", want, both[0].tid});
    circle(2, both);
}

void flock_mutex(void) { with_mutex(take_flock, mutex_then_flock, "lock in with_mutex"); }
void fcntl_mutex(void) { with_mutex(take_range, mutex_then_range, "lock in with_mutex"); }

static void *try_in_vain(void *arg)
{
    for (;;) {
        flock(own(files[1]), LOCK_EX | LOCK_NB);
        range(own(files[1]), F_SETLK, F_WRLCK, 0, 0);
        pause();
    }
    return arg;
}

static void take_both(void)
{
    flock(own(files[1]), LOCK_EX);
    take_range();
}

static void *share_flock(void *arg)
{
    flock(own(files[0]), LOCK_SH);
    rest();
    return arg;
}

/* Locks that nobody waits for: of the other call on the same file, shared by readers, asked for in vain. */
void files_idle(void)
{
    prepare();
    child_with(take_both);
    await(&seen->points[0]);
    struct thread all[3] = {start("reader", share_flock, NULL), start("another", share_flock, NULL),
                            start("in_vain", try_in_vain, NULL)};
    for (int i = 0; i < 3; i++) {
        asleep_in(all[i].tid, SYS_pause);
        idle(all[i], NULL);
    }
}
