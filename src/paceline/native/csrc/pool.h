/* Threads of our own that help a call: made at first use, asleep whenever there is no call. */
#ifndef PACELINE_POOL_H
#define PACELINE_POOL_H

#include <stdatomic.h>
#include <stdint.h>

/* What a helper runs: `index` from 1 on is its own in this call. */
typedef void (*Help)(void *data, uint32_t call, int index);

/* Takes the pool for a call, or says that another thread has it: whoever does not get it works alone. */
int pool_take(void);
void pool_give_back(void);

/* Wakes helpers for call number `call`: up to `count` of them run `help`, as soon as they can or never. Nobody waits
 * for them: what they read must stay readable, and what they may do is for `help` to find out. */
void pool_call(Help help, void *data, uint32_t call, int count);

/* Wakes up to `count` helpers before a call that is about to come: they wait for it awake, but not for long. */
void pool_expect(int count);

/* Sleeps until `word` differs from `seen`, or for no reason; and wakes up to `count` who do. */
void park(_Atomic uint32_t *word, uint32_t seen);
void unpark(_Atomic uint32_t *word, int count);

/* A moment of a short wait: leaves the core's units to the other hyperthread. */
static inline void pause_moment(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield");
#endif
}

#endif
