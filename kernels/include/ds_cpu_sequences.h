/* What attention and its gradient share, on a CPU: which queries and keys belong together, and
 * which of them see each other.
 */
#ifndef DS_CPU_SEQUENCES_H
#define DS_CPU_SEQUENCES_H

#include "ds_cpu_panels.h"

enum { MOST_TOKENS = 1 << 30 /* of a sequence, says kernel.json: their differences are i32 */ };

/* A tensor [B, S, H, D] or [S, H, D] whose heads are contiguous. */
typedef struct tokens {
    void *data;
    int64_t batch, token, head; /* strides */
    uint32_t dtype;
} tokens;

static inline tokens tokens_of(const ds_call *call, uint32_t arg) {
    const ds_tensor *t = ds_arg_tensor(call, arg, 0);
    const int64_t *strides = t->strides + t->ndim - 3;
    return (tokens){t->data, t->ndim == 4 ? t->strides[0] : 0, strides[0], strides[1], t->dtype};
}

typedef struct sequence sequence;

/* What a call is about. */
typedef struct geometry geometry;
struct geometry {
    int64_t batch, queries, keys; /* of a batch each; of packed sequences, all together */
    int64_t all_keys;             /* even where no head has them */
    int64_t heads, groups, d;     /* at least one group: one without keys stands for none */
    int64_t shared;               /* most heads of queries that share one of keys */
    int64_t left, right;          /* of the window, -1 for no end */
    int64_t starts;               /* of packed sequences; -1 where there is a batch */
    /* Of packed sequences: copies what tells of them to the table, 1 where it is wrong; and reads one there. */
    int (*copy)(int64_t *to, const ds_call *call, const geometry *g, int starts);
    sequence (*packed)(const int64_t *table, const geometry *g, int64_t n);
};

static int copy_pairs(int64_t *to, const ds_call *call, const geometry *g, int starts);
static sequence packed_sequence(const int64_t *table, const geometry *g, int64_t n);

/* `q` and `k` are the arguments, `starts` that of the queries' in a call of packed sequences, else -1. */
static inline geometry geometry_of(const ds_call *call, uint32_t q_arg, uint32_t k_arg, int starts) {
    const ds_tensor *q = ds_arg_tensor(call, q_arg, 0), *k = ds_arg_tensor(call, k_arg, 0);
    const int64_t *of_q = q->shape + q->ndim - 3, *of_k = k->shape + k->ndim - 3;
    geometry g = {.batch = q->ndim == 4 ? q->shape[0] : 1,
                  .queries = of_q[0],
                  .keys = of_k[0],
                  .all_keys = of_k[0],
                  .heads = of_q[1],
                  .groups = of_k[1],
                  .d = of_q[2],
                  .left = ds_min(call->attributes[1].i, MOST_TOKENS),
                  .right = call->attributes[0].i ? 0 : ds_min(call->attributes[2].i, MOST_TOKENS),
                  .starts = starts < 0 ? -1 : ds_row_length(ds_arg_tensor(call, (uint32_t)starts, 0)),
                  .copy = copy_pairs,
                  .packed = packed_sequence};
    if (g.groups == 0) {
        g.groups = 1;
        g.keys = 0;
    }
    g.shared = ds_div_up(g.heads, g.groups);
    return g;
}

/* The first of the heads of queries that share head `group`; of the next one, the end of them. */
static inline int64_t first_head(const geometry *g, int64_t group) { return ds_div_up(group * g->heads, g->groups); }

/* Tokens that see each other alone. */
struct sequence {
    int64_t batch, first_query, queries, first_key, keys;
    int64_t unseen; /* keys from `first_key` on that stand alone, where `keys` is 0 */
    int is_wrong;   /* its results are NaN */
};

/* Packed sequences have a table in the workspace: so many of them, whether the starts are wrong, the place of
 * each and of their end, and the starts themselves, which are read once: who checks a number that another may
 * change has checked nothing. Tokens before the first and behind the last are sequences without keys. */
enum { TABLE_COUNT, TABLE_WRONG, TABLE_PLACES };

static inline int64_t starts_at(const geometry *g) { return TABLE_PLACES + g->starts + 2; }

static inline int64_t table_bytes(const geometry *g) {
    const int64_t bytes = (starts_at(g) + 2 * g->starts) * 8;
    return g->starts < 0 ? 0 : ds_div_up(bytes, DS_WORKSPACE_ALIGNMENT) * DS_WORKSPACE_ALIGNMENT;
}

/* Sequence `n` of the table. */
DS_OUT_OF_LINE sequence packed_sequence(const int64_t *table, const geometry *g, int64_t n) {
    const int64_t *q = table + starts_at(g), *kv = q + g->starts;
    sequence s = {.queries = g->queries, .unseen = g->all_keys, .is_wrong = (int)table[TABLE_WRONG]};
    if (s.is_wrong || g->starts == 0) return s;
    if (n > 0) {
        s.first_query = q[n - 1];
        s.first_key = kv[n - 1];
    }
    int64_t keys = (n < g->starts ? kv[n] : g->all_keys) - s.first_key;
    s.queries = (n < g->starts ? q[n] : g->queries) - s.first_query;
    int is_apart = n == 0 || n == g->starts;
    s.unseen = is_apart ? keys : 0;
    s.keys = is_apart || !g->keys ? 0 : keys;
    return s;
}

/* Copies starts; 1 where they descend or leave so many tokens. */
static inline int copy_starts(int64_t *to, const ds_tensor *t, int64_t n, int64_t tokens) {
    int64_t before = 0;
    for (int64_t i = 0; i < n; i++) {
        to[i] = ds_index_at(t, i);
        if (to[i] < before || to[i] > tokens) return 1;
        before = to[i];
    }
    return 0;
}

DS_OUT_OF_LINE int copy_pairs(int64_t *to, const ds_call *call, const geometry *g, int starts) {
    return copy_starts(to, ds_arg_tensor(call, (uint32_t)starts, 0), g->starts, g->queries) ||
           copy_starts(to + g->starts, ds_arg_tensor(call, (uint32_t)starts + 1, 0), g->starts, g->all_keys);
}

/* Writes the table, where a sequence takes a place for each `each` rows: a query of each of the heads
 * that share. With `each` 0 it takes one place, whatever its length. `starts` is the argument of those of
 * the queries. */
DS_OUT_OF_LINE void write_table(const ds_call *call, const geometry *g, int starts, int64_t each) {
    int64_t *table = call->workspace, place = 0;
    table[TABLE_WRONG] = g->copy(table + starts_at(g), call, g, starts);
    table[TABLE_COUNT] = table[TABLE_WRONG] || g->starts == 0 ? 1 : g->starts + 1;
    for (int64_t n = 0; n < table[TABLE_COUNT]; n++) {
        table[TABLE_PLACES + n] = place;
        int64_t rows = g->packed(table, g, n).queries * g->shared;
        place += each ? ds_div_up(rows, each) : 1;
    }
    table[TABLE_PLACES + table[TABLE_COUNT]] = place;
}

/* Places of all sequences, at most. */
static inline int64_t places(const geometry *g, int64_t each) {
    const int64_t rows = each ? g->queries * g->shared : 0;
    if (g->starts < 0) return g->batch * (each ? ds_div_up(rows, each) : 1);
    return (each ? rows / each : 0) + g->starts + 1;
}

/* The sequence that has place `*place`, which becomes that within it. -1 queries where none has. */
DS_OUT_OF_LINE sequence sequence_at(const ds_call *call, const geometry *g, int64_t each, int64_t *place) {
    if (g->starts < 0) {
        int64_t of_one = each ? ds_div_up(g->queries * g->shared, each) : 1;
        sequence s = {.batch = *place / of_one, .queries = g->queries, .keys = g->keys};
        *place %= of_one;
        return s;
    }
    const int64_t *table = call->workspace, *first = table + TABLE_PLACES;
    if (*place >= first[table[TABLE_COUNT]]) return (sequence){.queries = -1};
    int64_t low = 0, high = table[TABLE_COUNT];
    while (low + 1 < high) { /* first[low] <= place < first[high] */
        int64_t middle = low + (high - low) / 2;
        if (first[middle] <= *place) low = middle;
        else high = middle;
    }
    *place -= first[low];
    return g->packed(table, g, low);
}

/* The first element of head `head` of token `token`. */
static inline void *token_at(const tokens *t, int64_t batch, int64_t token, int64_t head) {
    return ds_at(t->data, batch * t->batch + token * t->token + head * t->head, t->dtype);
}

/* Keys that query `i` of a sequence sees. */
typedef struct range {
    int64_t from, end;
} range;

static inline range keys_of(const geometry *g, const sequence *s, int64_t i) {
    int64_t meets = i + s->keys - s->queries;
    int64_t end = g->right < 0 ? s->keys : ds_max(0, ds_min(s->keys, meets + g->right + 1));
    return (range){g->left < 0 ? 0 : ds_max(0, ds_min(end, meets - g->left)), end};
}

/* Where `n` rows of a sequence from `first` on lie: a query of each of the heads that share keys, one query
 * after the other. */
DS_OUT_OF_LINE void heads_of_rows(ds_heads *to, const tokens *t, const geometry *g, const sequence *s, int64_t group,
                                  int64_t first, int64_t n) {
    const int64_t head = first_head(g, group), shared = first_head(g, group + 1) - head;
    for (int64_t i = 0; i < n;) {
        int64_t query = (first + i) / shared, of = (first + i) % shared;
        int64_t now = shared == 1 ? n : ds_min(shared - of, n - i);
        ds_heads_along(to, i, token_at(t, s->batch, s->first_query + query, head + of), shared == 1 ? t->token : t->head,
                       now, t->dtype);
        i += now;
    }
}

#endif
