/* The scenes in C. */
#ifndef SCENES_H
#define SCENES_H

#include "truth.h"

void abba(void);
void three_cycle(void);
void relock(void);
void normal(void);
void pi(void);
void pi_robust(void);
void recursive(void);
void errorcheck(void);
void adaptive(void);
void robust(void);
void robust_dead(void);
void orphan(void);
void process_shared(void);
void stopped(void);
void shared_abba(void);
void timed(void);
void heap(void);
void member(void);
void c11(void);
void holder_asleep(void);
void holder_in_pipe(void);
void holder_in_poll(void);
void holder_in_io(void);
void holder_spins(void);
void holder_throttled(void);
void chain(void);
void write_held(void);
void read_held(void);
void starved_writer(void);
void sem_queue(void);
void barrier(void);
void join(void);
void once(void);
void pool(void);
void timed_pool(void);
void loops(void);
void busy(void);
void stream(void);
void look_alike(void);
void liar(void);
void liar_robust(void);
void raw_in_once(void);
void nobody(void);
void stranger(void);
void flock_held(void);
void flock_inherited(void);
void flock_threads(void);
void flock_cycle(void);
void flock_mutex(void);
void fcntl_held(void);
void fcntl_open_file(void);
void fcntl_readers(void);
void fcntl_mutex(void);
void files_idle(void);

pthread_mutex_t *shared_pair(void);
int fork_child(void);

#endif
