/* One step of Adagrad for the rows of an embedding that a batch met, in place, on a CPU.
 *
 * Limit: memory. Of each value an element is read, of each row that is met the parameter and its sum
 * are read and written; the rest of the embedding is not touched. Finding equal indices is a few
 * nanoseconds for each, beside a row of them.
 */
#include "adagrad.h"
#include "ds_cpu_math.h"

/* adagrad_step_sparse(param, indices, values, exp_avg_sq, found_inf?; lr, eps, weight_decay).
 *
 * Phase 0, one item: equal indices are chained, in the order in which they come. Phase 1: an item is
 * an index; that of a chain's head adds up the chain and updates the row, others do nothing. */
enum { PARAM, INDICES, VALUES, EXP_AVG_SQ, FOUND_INF };
enum {
    CHUNK_ELEMENTS = 16 * 1024, /* worth a thread's while */
    LAST = -1,                  /* the end of a chain */
};

/* The workspace begins with a hash table of the rows, twice as many slots as indices. */
typedef struct chain_slot {
    int64_t head, tail; /* places among the indices; -1 in an empty slot */
} chain_slot;

static int64_t slots_of(int64_t n) {
    int64_t slots = 16;
    while (slots < 2 * n) slots *= 2;
    return slots;
}

static void plan(const ds_call *call, ds_plan *out) {
    int64_t n = ds_elements(ds_arg_tensor(call, INDICES, 0));
    int64_t d = ds_row_length(ds_arg_tensor(call, PARAM, 0));
    out->phases = 2;
    out->phase[0] = (ds_phase){.items = 1, .grain = 1};
    out->phase[1] = (ds_phase){.items = n, .grain = ds_max(1, CHUNK_ELEMENTS / ds_max(1, d))};
    out->workspace_bytes = slots_of(n) * (int64_t)sizeof(chain_slot) + n * 9;
}

/* The parts of the workspace. */
typedef struct chains {
    chain_slot *slots;
    int64_t *next;  /* where the row comes next, or LAST */
    uint8_t *heads; /* whether it comes here first */
} chains;

static chains chains_of(const ds_call *call) {
    int64_t n = ds_elements(ds_arg_tensor(call, INDICES, 0));
    chain_slot *slots = call->workspace;
    int64_t *next = (int64_t *)(slots + slots_of(n));
    return (chains){slots, next, (uint8_t *)(next + n)};
}

static void chain(const ds_call *call) {
    const ds_tensor *indices = ds_arg_tensor(call, INDICES, 0);
    int64_t n = ds_elements(indices), rows = ds_arg_tensor(call, PARAM, 0)->shape[0], slots = slots_of(n);
    chains c = chains_of(call);
    __builtin_memset(c.slots, 0xff, (size_t)slots * sizeof *c.slots);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = ds_index_at(indices, i);
        c.next[i] = LAST;
        c.heads[i] = 0;
        if (row < 0 || row >= rows) continue; /* no row of the embedding */
        /* Fibonacci hashing: the upper half of the product is mixed best. */
        uint64_t at = ((uint64_t)row * 0x9e3779b97f4a7c15u >> 32) & (uint64_t)(slots - 1);
        while (c.slots[at].head >= 0 && ds_index_at(indices, c.slots[at].head) != row) at = (at + 1) & (uint64_t)(slots - 1);
        if (c.slots[at].head < 0) {
            c.slots[at].head = i;
            c.heads[i] = 1;
        } else {
            c.next[c.slots[at].tail] = i;
        }
        c.slots[at].tail = i;
    }
}

/* The first index from `i` on whose row has not come before, or `end`. */
DS_INLINE int64_t next_head(chains c, int64_t i, int64_t end) {
    while (i < end && !c.heads[i]) i++;
    return i;
}

/* A sum, and what it lacks from rounding (Kahan 1965): a row that comes thousands of times, as a
 * padding token's does, is as exact as one that comes twice. */
typedef struct sum {
    ds_vec value, lacks;
} sum;

DS_INLINE sum add(sum s, ds_vec v) {
    ds_vec y = v - s.lacks, total = s.value + y, lacks = (total - s.value) - y;
    return (sum){total, ds_vselect(lacks == lacks, lacks, ds_splat(0))}; /* of infinity nothing lacks */
}

/* Sum over the chain of `n` lanes at column `i`. */
DS_INLINE ds_vec chain_sum(const int64_t *next, const void *values, int64_t head, int64_t d, int64_t i, int64_t n,
                           uint32_t p) {
    sum s = {ds_load_first(n, values, head * d + i, p), ds_splat(0)};
    for (int64_t at = next[head]; at != LAST; at = next[at]) s = add(s, ds_load_first(n, values, at * d + i, p));
    return s.value;
}

/* Where row `head` of the values, and what it updates, lie. */
DS_INLINE ds_arrays arrays_of(const ds_call *call, int64_t head, uint32_t p, uint32_t m) {
    const ds_tensor *param = ds_arg_tensor(call, PARAM, 0);
    int64_t d = ds_row_length(param), row = ds_index_at(ds_arg_tensor(call, INDICES, 0), head);
    return (ds_arrays){
        .param = ds_at(param->data, row * d, p),
        .grad = ds_at(ds_arg_tensor(call, VALUES, 0)->data, head * d, p),
        .first = ds_at(ds_arg_tensor(call, EXP_AVG_SQ, 0)->data, row * d, m),
    };
}

/* A row that comes several times. */
static __attribute__((noinline)) void update_chain(const constants *k, const int64_t *next, const void *values,
                                                   int64_t head, ds_arrays at, int64_t d, uint32_t p, uint32_t m) {
    for (int64_t i = 0; i < d; i += DS_LANES) {
        int64_t n = d - i;
        ds_lanes v = {.param = ds_load_first(n, at.param, i, p),
                      .grad = chain_sum(next, values, head, d, i, n, p),
                      .first = ds_load_first(n, at.first, i, m)};
        v = updated(k, v);
        ds_store_first(n, at.param, i, v.param, p);
        ds_store_first(n, at.first, i, v.first, m);
    }
}

/* The rows that come first at the indices from `begin` to `end`. Rows lie anywhere, so that the
 * processor foresees none: while one is updated, the next one is fetched. */
DS_INLINE void update_rows(const ds_call *call, const constants *k, int64_t begin, int64_t end, uint32_t p, uint32_t m) {
    const ds_optimizer adagrad = {updated, 1};
    const void *values = ds_arg_tensor(call, VALUES, 0)->data;
    int64_t d = ds_row_length(ds_arg_tensor(call, PARAM, 0));
    chains c = chains_of(call);
    int64_t head = next_head(c, begin, end);
    while (head < end) {
        int64_t following = next_head(c, head + 1, end);
        ds_arrays at = arrays_of(call, head, p, m), soon = arrays_of(call, following < end ? following : head, p, m);
        if (c.next[head] != LAST) {
            update_chain(k, c.next, values, head, at, d, p, m);
        } else {
            ds_step_part(adagrad, k, at, soon, 0, 0, d, p, m);
        }
        head = following;
    }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    if (phase == 0) return chain(call);
    if (ds_list_skips(call, FOUND_INF)) return;
    const constants k = constants_of(call);
    DS_WITH_DTYPES(p, ds_arg_tensor(call, PARAM, 0)->dtype, m, ds_arg_tensor(call, EXP_AVG_SQ, 0)->dtype,
                   update_rows(call, &k, begin, end, p, m));
}

DS_KERNEL(ds_adagrad_step_sparse, plan, run);
