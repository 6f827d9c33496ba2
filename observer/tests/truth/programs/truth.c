/* What the scenes share. Written without locks of the C library, so that nobody waits but the scene's threads. */
#define _GNU_SOURCE
#include "truth.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static char text[8][4096];
enum { WAITS, IDLE, CIRCLES, PROCESSES };
static bool later;

static void say(int list, const char *format, ...)
{
    char *into = text[list];
    size_t used = strlen(into);
    va_list args;
    va_start(args, format);
    vsnprintf(into + used, sizeof text[list] - used, format, args);
    va_end(args);
}

static const char *comma(int list)
{
    return text[list][0] ? "," : "";
}

struct begin {
    const char *name;
    void *(*body)(void *);
    void *arg;
    int tid;
};

static void *begin(void *arg)
{
    struct begin *begin = arg;
    void *(*body)(void *) = begin->body;
    void *own = begin->arg;
    prctl(PR_SET_NAME, begin->name);
    __atomic_store_n(&begin->tid, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
    return body(own);
}

struct thread start(const char *name, void *(*body)(void *), void *arg)
{
    /* Not on the stack: it would hold the address of a lock. Never freed: the thread may be slow. */
    struct begin *with = calloc(1, sizeof *with);
    with->name = name;
    with->body = body;
    with->arg = arg;
    struct thread thread = {0};
    if (pthread_create(&thread.handle, NULL, begin, with)) {
        perror("pthread_create");
        exit(1);
    }
    while (!(thread.tid = __atomic_load_n(&with->tid, __ATOMIC_SEQ_CST)))
        pass(1);
    return thread;
}

void pass(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

void asleep_in(int tid, long nr)
{
    char path[64], got[64], want[32];
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tid);
    size_t length = (size_t)snprintf(want, sizeof want, "%ld ", nr);
    for (;;) {
        int fd = open(path, O_RDONLY);
        ssize_t count = fd < 0 ? -1 : read(fd, got, sizeof got);
        close(fd);
        if (count > (ssize_t)length && !memcmp(got, want, length))
            return;
        pass(1);
    }
}

void asleep(int tid)
{
    asleep_in(tid, SYS_futex);
}

void reach(int *point)
{
    __atomic_add_fetch(point, 1, __ATOMIC_SEQ_CST);
}

void await(int *point)
{
    while (!__atomic_load_n(point, __ATOMIC_SEQ_CST))
        pass(1);
}

static void field(const char *name, const char *value)
{
    if (value)
        say(WAITS, ",\"%s\":\"%s\"", name, value);
}

void waits(struct thread thread, struct wait wait)
{
    say(WAITS, "%s{\"tid\":%d", comma(WAITS), thread.tid);
    field("class", wait.class_name);
    field("name", wait.name);
    field("doing", wait.doing);
    field("state", wait.state);
    if (wait.lock)
        say(WAITS, ",\"addr\":%lu,\"size\":%zu", (unsigned long)wait.lock, wait.size);
    if (wait.holder)
        say(WAITS, ",\"holder\":%d", wait.holder);
    say(WAITS, "}");
}

void idle(struct thread thread, const char *class_name)
{
    say(IDLE, "%s{\"tid\":%d", comma(IDLE), thread.tid);
    if (class_name)
        say(IDLE, ",\"class\":\"%s\"", class_name);
    say(IDLE, "}");
}

void circle(int count, const struct thread *threads)
{
    say(CIRCLES, "%s[", comma(CIRCLES));
    for (int i = 0; i < count; i++)
        say(CIRCLES, "%s%d", i ? "," : "", threads[i].tid);
    say(CIRCLES, "]");
}

void process(int pid)
{
    say(PROCESSES, "%s%d", comma(PROCESSES), pid);
}

void wait_for_go(void)
{
    char byte;
    if (!later)
        return;
    while (read(0, &byte, 1) == 1 && byte != '\n')
        ;
}

void stand(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    dprintf(1,
            "{\"stands_ns\":%lld,\"waits\":[%s],\"idle\":[%s],\"circles\":[%s],\"processes\":[%s]}\n",
            now.tv_sec * 1000000000ll + now.tv_nsec, text[WAITS], text[IDLE], text[CIRCLES],
            text[PROCESSES]);
    char byte;
    while (read(0, &byte, 1) == 1)
        ;
    _exit(0);
}

int play(int argc, char **argv, const struct scene *scenes)
{
    /* A process that a scene forks ends with its parent; so does this one. */
    prctl(PR_SET_PDEATHSIG, 9);
    later = argc > 2 && !strcmp(argv[2], "later");
    for (; argc > 1 && scenes->name; scenes++) {
        if (!strcmp(scenes->name, argv[1])) {
            scenes->play();
            stand();
        }
    }
    fprintf(stderr, "no such scene\n");
    return 2;
}
