// Threads that block for good, each in a way that is hard to unwind. Built in several ways by the tests.
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))
// What follows a call keeps it from becoming a jump.
#define KEEP __asm__ volatile("" ::: "memory")

static pthread_mutex_t the_mutex = PTHREAD_MUTEX_INITIALIZER;

NOINLINE void wait_forever(void)
{
	for (;;) {
		pause();
		KEEP;
	}
}

NOINLINE void lock_inner(void)
{
	pthread_mutex_lock(&the_mutex);
	KEEP;
}

NOINLINE void lock_outer(int depth)
{
	if (depth > 0)
		lock_outer(depth - 1);
	else
		lock_inner();
	KEEP;
}

static void *in_mutex(void *arg)
{
	prctl(PR_SET_NAME, "mutex");
	lock_outer(3);
	return arg;
}

NOINLINE void with_alloca(size_t size)
{
	char *room = alloca(size);
	memset(room, 'x', size);
	__asm__ volatile("" ::"r"(room) : "memory");
	wait_forever();
	KEEP;
}

static void *in_alloca(void *arg)
{
	prctl(PR_SET_NAME, "alloca");
	with_alloca((size_t)arg);
	return arg;
}

NOINLINE void in_handler(int signal)
{
	(void)signal;
	wait_forever();
	KEEP;
}

NOINLINE void interrupted(void)
{
	pthread_kill(pthread_self(), SIGUSR1);
	KEEP;
}

static void *in_signal(void *arg)
{
	prctl(PR_SET_NAME, "signal");
	interrupted();
	return arg;
}

NOINLINE void on_other_stack(void)
{
	pthread_kill(pthread_self(), SIGUSR2);
	KEEP;
}

static void *in_altstack(void *arg)
{
	stack_t other = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
	prctl(PR_SET_NAME, "altstack");
	sigaltstack(&other, NULL);
	on_other_stack();
	return arg;
}

int main(void)
{
	struct sigaction action = {.sa_handler = in_handler};
	pthread_t thread;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "first");
	sigaction(SIGUSR1, &action, NULL);
	action.sa_flags = SA_ONSTACK;
	sigaction(SIGUSR2, &action, NULL);
	pthread_mutex_lock(&the_mutex);
	pthread_create(&thread, NULL, in_mutex, NULL);
	pthread_create(&thread, NULL, in_alloca, (void *)20000);
	pthread_create(&thread, NULL, in_signal, NULL);
	pthread_create(&thread, NULL, in_altstack, NULL);
	wait_forever();
	return 0;
}
