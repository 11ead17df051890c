/* Hands out a call's items, and lets operations wait for each other.
 *
 * A call is a row of stretches: one operation whose items are shared, or small ones that follow each other and are one
 * item together. All items of all stretches are numbered through. `next` is the first that nobody has taken,
 * `finished` is how many are done. A stretch with a barrier begins when all items before it are finished. So nobody
 * waits for a worker, only for items: one that has lost its core between two tickets, or comes late, holds up nobody.
 *
 * Nobody waits for helpers to leave either. Both words carry the number of the call in their upper half. A helper that
 * slept through the end of a call fails to take a ticket, and until it has one it reads nothing but this file's own
 * plan, which may be the next call's by then. Who holds a ticket holds the call: it cannot end without it. */
#include "job.h"

#include <limits.h>
#include <sched.h>
#include <stdatomic.h>

#include "pool.h"

#define MAX_STRETCHES 4096 /* longer calls are run in pieces */
#define SPINS 1500         /* moments of a short wait, some 40 us: about what sleeping and waking cost */
#define CLOSED UINT32_MAX

typedef struct {
    _Atomic uint32_t end;     /* the first item beyond */
    _Atomic uint32_t gate;    /* somebody may wait until so many are finished: up to the next barrier, or the end */
    _Atomic uint32_t barrier; /* begins when all before it are finished */
    _Atomic uint32_t at_once; /* items of a ticket at least */
    uint32_t op, num_ops;     /* several: they are one item */
} Stretch;

static struct {
    _Alignas(LINE) _Atomic uint64_t next;
    _Alignas(LINE) _Atomic uint64_t finished;
    _Alignas(LINE) _Atomic uint32_t alarm; /* counts wake-ups: what sleepers sleep on */
    _Atomic uint32_t is_asleep;            /* somebody may be */
    _Alignas(LINE) _Atomic uint32_t num_stretches;
    _Atomic uint32_t num_workers;
    uint32_t number; /* of the call */
    Call call;
    Stretch stretches[MAX_STRETCHES];
} job;

/* Tests set it: workers take single items, and dawdle at random while they hold one. No bit may change. */
__attribute__((visibility("default"))) _Atomic uint32_t paceline_dawdle = 0;

static void dawdle(uint32_t item, uint32_t index) {
    const uint32_t seed = atomic_load_explicit(&paceline_dawdle, memory_order_relaxed);
    uint32_t x = seed * 2654435761u ^ item * 40503u ^ index * 7919u;
    if (seed == 0) return;
    x = (x ^ x >> 15) * 2246822519u, x ^= x >> 13;
    for (uint32_t i = 0; i < x % 512; i++) pause_moment();
    if (x >> 16 & 1) sched_yield();
}

typedef struct {
    uint32_t stretch, first, end; /* items from the first of the stretch */
} Ticket;

static void wake_sleepers(void) {
    if (atomic_exchange(&job.is_asleep, 0) == 0) return;
    atomic_fetch_add(&job.alarm, 1);
    unpark(&job.alarm, INT_MAX);
}

/* Waits until `count` items are finished; 0 if the call is over before. */
static int wait_for(uint32_t number, uint32_t count) {
    for (int spins = 0;; spins++) {
        const uint32_t alarm = atomic_load(&job.alarm);
        if (spins >= SPINS) atomic_store(&job.is_asleep, 1);
        const uint64_t finished = atomic_load(&job.finished); /* after is_asleep: see finish */
        if (finished >> 32 != number) return 0;
        if ((uint32_t)finished >= count) return 1;
        if (spins < SPINS) pause_moment();
        else park(&job.alarm, alarm);
    }
}

/* Items of a ticket: fewer and fewer, so that all end together; in runs, which memory is fetched for. */
static uint32_t size_of_ticket(uint32_t left, uint32_t at_once) {
    const uint32_t workers = atomic_load_explicit(&job.num_workers, memory_order_acquire);
    const uint32_t size = left / (2 * workers) > at_once ? left / (2 * workers) : at_once;
    return size < left ? size : left;
}

/* Takes the next items, waiting at a barrier if need be; 0 if none are left. */
static int take(uint32_t number, Ticket *ticket) {
    for (;;) {
        uint64_t next = atomic_load_explicit(&job.next, memory_order_acquire);
        const uint32_t item = (uint32_t)next;
        const uint32_t num = atomic_load_explicit(&job.num_stretches, memory_order_acquire);
        uint32_t s = ticket->stretch, start = 0, end = 0;
        while (s < num && item >= (end = atomic_load_explicit(&job.stretches[s].end, memory_order_acquire))) s++;
        if (next >> 32 != number || s == num) return 0;
        ticket->stretch = s;
        if (s > 0) start = atomic_load_explicit(&job.stretches[s - 1].end, memory_order_acquire);
        /* Whoever takes a later item knows by `next` that the first was let through. */
        if (item == start && atomic_load_explicit(&job.stretches[s].barrier, memory_order_acquire) &&
            !wait_for(number, start))
            return 0;
        const uint32_t at_once = atomic_load_explicit(&job.stretches[s].at_once, memory_order_acquire);
        uint32_t size = size_of_ticket(end - item, at_once);
        if (atomic_load_explicit(&paceline_dawdle, memory_order_relaxed)) size = 1;
        if (atomic_compare_exchange_strong_explicit(&job.next, &next, next + size, memory_order_acq_rel,
                                                    memory_order_relaxed)) {
            ticket->first = item - start, ticket->end = ticket->first + size;
            return 1;
        }
    }
}

/* Sequentially consistent with wait_for: either a sleeper sees the items finished, or it is seen here. */
static void finish(const Ticket *ticket) {
    const uint32_t size = ticket->end - ticket->first;
    const uint32_t gate = atomic_load_explicit(&job.stretches[ticket->stretch].gate, memory_order_relaxed);
    if ((uint32_t)atomic_fetch_add(&job.finished, size) + size == gate) wake_sleepers();
}

static void run_op(const Table *table, const Op *op, Worker *worker) {
    const Range all = {0, table->kernels[op->kind].items(op)};
    table->kernels[op->kind].run(op, worker, all);
}

static void work(void *unused, uint32_t number, int index) {
    (void)unused;
    Worker worker = {NULL, NULL, 0};
    Ticket ticket = {0, 0, 0};
    while (take(number, &ticket)) {
        const Stretch *stretch = &job.stretches[ticket.stretch];
        const Op *op = job.call.ops + stretch->op;
        const Range items = {ticket.first, ticket.end};
        dawdle(ticket.stretch * 64 + ticket.first, (uint32_t)index);
        worker.scratch = job.call.scratch + index * job.call.scratch_bytes;
        if (op->is_serial)
            for (uint32_t i = 0; i < stretch->num_ops; i++) run_op(job.call.table, op + i, &worker);
        else job.call.table->kernels[op->kind].run(op, &worker, items);
        finish(&ticket);
    }
}

static void set(_Atomic uint32_t *word, uint32_t value) { atomic_store_explicit(word, value, memory_order_release); }

/* Numbers the items from operation `first` on; gives the first operation that found no room. */
static int64_t plan(const Call *call, int64_t first, uint32_t *total) {
    uint32_t count = 0, barrier = 0, item = 0, gate_from = 0;
    int64_t i = first, next;
    for (; i < call->num_ops && count < MAX_STRETCHES; i = next) {
        const Op *op = call->ops + i;
        const Kernel *kernel = &call->table->kernels[op->kind];
        Stretch *stretch = &job.stretches[count];
        for (next = i + 1; op->is_serial && next < call->num_ops; next++)
            if (!call->ops[next].is_serial || call->ops[next].barrier) break;
        const int64_t items = op->is_serial ? 1 : kernel->items(op);
        if (items > INT32_MAX - item) break;
        barrier |= (uint32_t)op->barrier;
        if (items == 0) continue; /* those that follow may count on its barrier */
        if (barrier)
            for (; gate_from < count; gate_from++) set(&job.stretches[gate_from].gate, item);
        stretch->op = (uint32_t)i, stretch->num_ops = (uint32_t)(next - i);
        item += (uint32_t)items;
        set(&stretch->at_once, (uint32_t)kernel->at_once);
        set(&stretch->barrier, barrier);
        set(&stretch->end, item);
        barrier = 0;
        count++;
    }
    for (; gate_from < count; gate_from++) set(&job.stretches[gate_from].gate, item);
    set(&job.num_stretches, count);
    *total = item;
    return i;
}

void run_call(const Call *call, int num_workers) {
    if (num_workers < 2 || !pool_take()) {
        Worker worker = {call->scratch, NULL, 0};
        for (int64_t i = 0; i < call->num_ops; i++) run_op(call->table, call->ops + i, &worker);
        return;
    }
    for (int64_t first = 0; first < call->num_ops;) {
        uint32_t total;
        const uint32_t number = ++job.number;
        /* Late helpers see the old call's word gone before they see anything of the new plan. */
        atomic_store_explicit(&job.next, (uint64_t)number << 32 | CLOSED, memory_order_release);
        first = plan(call, first, &total);
        set(&job.num_workers, (uint32_t)num_workers);
        job.call = *call;
        atomic_store(&job.finished, (uint64_t)number << 32);
        atomic_store_explicit(&job.next, (uint64_t)number << 32, memory_order_release);
        pool_call(work, NULL, number, num_workers - 1);
        work(NULL, number, 0);
        wait_for(number, total);
    }
    pool_give_back();
}
