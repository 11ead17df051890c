/* See pool.h. A helper sleeps until a bell rings, takes one of the call's places if there is one left, helps, and
 * sleeps again. After fork a child has no helpers, and makes its own when it calls. */
#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#if defined(__linux__) && !defined(WITHOUT_FUTEX)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define LINE 64
#define PLACE_BITS 16 /* of `places`: the call's number is above */
#define MAX_HELPERS 1024
#define EXPECTING 4000 /* moments that a helper stays awake for a call that is about to come: some 100 us */

static struct {
    _Alignas(LINE) _Atomic uint32_t bell;   /* rings at each call, and before: what helpers sleep on */
    _Alignas(LINE) _Atomic uint64_t places; /* the call and how many of its places are taken */
    _Atomic int count;                      /* places of the call */
    _Atomic(Help) help;
    _Atomic(void *) data;
    _Alignas(LINE) atomic_int is_taken;
    int num_helpers; /* of whoever has taken the pool */
} pool;

#if defined(__linux__) && !defined(WITHOUT_FUTEX)
void park(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

void unpark(_Atomic uint32_t *word, int count) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}
#else
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

void park(_Atomic uint32_t *word, uint32_t seen) {
    pthread_mutex_lock(&lock);
    if (atomic_load(word) == seen) pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

void unpark(_Atomic uint32_t *word, int count) {
    (void)word, (void)count;
    pthread_mutex_lock(&lock); /* who has seen the old value is asleep by now */
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}
#endif

/* A place in a call other than `last`, from 1 on; 0 if there is none, or all are taken. */
static int take_place(uint32_t *last) {
    uint64_t places = atomic_load_explicit(&pool.places, memory_order_acquire);
    while (places != 0 && (uint32_t)(places >> PLACE_BITS) != *last) {
        const int place = (int)(places & ((1 << PLACE_BITS) - 1));
        if (place >= atomic_load_explicit(&pool.count, memory_order_acquire)) return 0;
        if (atomic_compare_exchange_weak_explicit(&pool.places, &places, places + 1, memory_order_acq_rel,
                                                  memory_order_acquire)) {
            *last = (uint32_t)(places >> PLACE_BITS);
            return place + 1;
        }
    }
    return 0;
}

static void *helper(void *unused) {
    (void)unused;
    uint32_t heard = 0, last = 0;
    for (int spins = 0;;) {
        const uint32_t bell = atomic_load_explicit(&pool.bell, memory_order_acquire);
        if (bell == heard) {
            if (spins-- > 0) pause_moment();
            else park(&pool.bell, heard);
            continue;
        }
        heard = bell;
        const int place = take_place(&last);
        spins = place > 0 ? 0 : EXPECTING;
        if (place > 0)
            atomic_load_explicit(&pool.help, memory_order_acquire)(
                atomic_load_explicit(&pool.data, memory_order_acquire), last, place);
    }
    return NULL;
}

/* In the child of a fork: threads are not copied. Whoever had the pool is no more. */
static void forget(void) {
    pool.num_helpers = 0;
    atomic_store(&pool.is_taken, 0);
}

static void once(void) { pthread_atfork(NULL, NULL, forget); }

/* Helpers up to `count`, as far as the system gives threads. They leave signals to the threads of the program. */
static void make_helpers(int count) {
    static pthread_once_t is_prepared = PTHREAD_ONCE_INIT;
    sigset_t all, before;
    pthread_t thread;
    pthread_once(&is_prepared, once);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.num_helpers < count && pool.num_helpers < MAX_HELPERS) {
        if (pthread_create(&thread, NULL, helper, NULL) != 0) break;
        pthread_detach(thread);
        pool.num_helpers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int pool_take(void) { return atomic_exchange_explicit(&pool.is_taken, 1, memory_order_acquire) == 0; }

void pool_give_back(void) {
    atomic_store_explicit(&pool.places, 0, memory_order_release); /* whoever comes now has come too late */
    atomic_store_explicit(&pool.is_taken, 0, memory_order_release);
}

void pool_expect(int count) {
    atomic_fetch_add(&pool.bell, 1);
    unpark(&pool.bell, count);
}

void pool_call(Help help, void *data, uint32_t call, int count) {
    if (pool.num_helpers < count) make_helpers(count);
    /* Until `places` names the call, helpers get none: they never see half of it. */
    atomic_store_explicit(&pool.places, 0, memory_order_release);
    atomic_store_explicit(&pool.count, count, memory_order_release);
    atomic_store_explicit(&pool.help, help, memory_order_release);
    atomic_store_explicit(&pool.data, data, memory_order_release);
    atomic_store_explicit(&pool.places, (uint64_t)call << PLACE_BITS, memory_order_release);
    pool_expect(count);
}
