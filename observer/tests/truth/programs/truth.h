/* A scene: threads that wait in a known way, and what is true of them.
 *
 * A program takes the name of a scene, sets it up, says in one line of JSON who waits for what and who holds
 * it, and ends when its standard input is closed. */
#ifndef TRUTH_H
#define TRUTH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A thread of a scene. */
struct thread {
    pthread_t handle;
    int tid;
};

/* What a waiting thread waits for. What is 0 is not said. */
struct wait {
    const void *lock;
    size_t size;
    const char *class_name;
    /* The program's own name of the lock. */
    const char *name;
    /* The thread that has to act. */
    int holder;
    /* What that thread does, in observer's words. */
    const char *doing;
    const char *state;
};

/* Starts a thread and waits until its number is known. */
struct thread start(const char *name, void *(*body)(void *), void *arg);

/* Waits until a thread of this process sleeps in this system call. */
void asleep_in(int tid, long nr);

/* Waits until a thread of this process sleeps in a futex call. */
void asleep(int tid);

/* Time passes. */
void pass(long ms);

/* Waits until another thread has come to some point. */
void reach(int *point);
void await(int *point);

/* Says that a thread waits. */
void waits(struct thread thread, struct wait wait);

/* Says that a thread is idle: it waits, and nobody is to blame. */
void idle(struct thread thread, const char *class_name);

/* Says that these threads wait for each other. */
void circle(int count, const struct thread *threads);

/* Says that another process belongs to the scene. */
void process(int pid);

/* Waits for "go" if the scene is to come about only when it is watched. */
void wait_for_go(void);

/* Writes what was said, and ends when standard input is closed. */
void stand(void);

/* A scene by its name. */
struct scene {
    const char *name;
    void (*play)(void);
};

/* Plays the scene that the arguments name. */
int play(int argc, char **argv, const struct scene *scenes);

#ifdef __cplusplus
}
#endif
#endif
