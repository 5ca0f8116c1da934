/* What attention and its gradient share, on a CPU: which queries and keys belong together, how tokens
 * come near, and what hides a key from a query.
 */
#ifndef DS_ATTENTION_H
#define DS_ATTENTION_H

#include "ds_cpu_math.h"
#include "ds_cpu_tile.h"

enum {
    MOST_D = 256,              /* of a head; kernel.json says so, too, */
    MOST_TOKENS = 1 << 30,     /* and that there are no more of these: their differences are i32 */
    BLOCK = 8 * DS_TILE_ROWS,  /* keys, or queries, that are near at a time */
    WIDTH = DS_TILE_COLUMNS,   /* rows, or keys, side by side in a panel */
    SLACK = 2 * DS_TILE_ROWS,  /* what the last tile reads and writes beyond a head */
};

/* Not worth a copy for each dtype. */
#define OUT_OF_LINE static __attribute__((noinline, unused))

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

/* What a call is about. */
typedef struct geometry {
    int64_t batch, queries, keys; /* of a batch each; of packed sequences, all together */
    int64_t heads, groups, d;     /* at least one group: one without keys stands for none */
    int64_t shared;               /* most heads of queries that share one of keys */
    int64_t left, right;          /* of the window, -1 for no end */
    int64_t starts;               /* of packed sequences; -1 where there is a batch */
} geometry;

/* `q` and `k` are the arguments, `starts` that of the queries' in a call of packed sequences, else -1. */
static inline geometry geometry_of(const ds_call *call, uint32_t q_arg, uint32_t k_arg, int starts) {
    const ds_tensor *q = ds_arg_tensor(call, q_arg, 0), *k = ds_arg_tensor(call, k_arg, 0);
    const int64_t *of_q = q->shape + q->ndim - 3, *of_k = k->shape + k->ndim - 3;
    geometry g = {.batch = q->ndim == 4 ? q->shape[0] : 1,
                  .queries = of_q[0],
                  .keys = of_k[0],
                  .heads = of_q[1],
                  .groups = of_k[1],
                  .d = of_q[2],
                  .left = ds_min(call->attributes[1].i, MOST_TOKENS),
                  .right = call->attributes[0].i ? 0 : ds_min(call->attributes[2].i, MOST_TOKENS),
                  .starts = starts < 0 ? -1 : ds_row_length(ds_arg_tensor(call, (uint32_t)starts, 0))};
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
typedef struct sequence {
    int64_t batch, first_query, queries, first_key, keys;
    int is_wrong; /* its results are NaN */
} sequence;

/* Packed sequences have a table in the workspace: so many of them, whether the starts are wrong, and the
 * place of each and of their end. Tokens before the first and behind the last are sequences without keys.
 */
enum { TABLE_COUNT, TABLE_WRONG, TABLE_PLACES };

static inline int64_t table_bytes(const geometry *g) {
    return g->starts < 0 ? 0 : ds_div_up((TABLE_PLACES + g->starts + 3) * 8, DS_WORKSPACE_ALIGNMENT) * DS_WORKSPACE_ALIGNMENT;
}

/* Sequence `n` of the table. */
OUT_OF_LINE sequence packed_sequence(const ds_call *call, const geometry *g, int starts, int64_t n) {
    const ds_tensor *q = ds_arg_tensor(call, (uint32_t)starts, 0), *kv = ds_arg_tensor(call, (uint32_t)starts + 1, 0);
    const int64_t *table = call->workspace;
    sequence all = {.queries = g->queries, .is_wrong = (int)table[TABLE_WRONG]};
    if (all.is_wrong || g->starts == 0) return all;
    if (n == 0) return (sequence){.queries = ds_index_at(q, 0)};
    int64_t first = ds_index_at(q, n - 1), key = ds_index_at(kv, n - 1);
    if (n == g->starts) return (sequence){.first_query = first, .queries = g->queries - first};
    return (sequence){.first_query = first,
                      .queries = ds_index_at(q, n) - first,
                      .first_key = key,
                      .keys = g->groups && g->keys ? ds_index_at(kv, n) - key : 0};
}

static inline int starts_are_wrong(const ds_tensor *t, int64_t n, int64_t tokens) {
    int64_t before = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t start = ds_index_at(t, i);
        if (start < before || start > tokens) return 1;
        before = start;
    }
    return 0;
}

/* Writes the table, where a sequence takes a place for each `each` rows: a query of each of the heads
 * that share. With `each` 0 it takes one place, whatever its length. */
OUT_OF_LINE void write_table(const ds_call *call, const geometry *g, int starts, int64_t each) {
    int64_t *table = call->workspace;
    const int64_t all_keys = ds_arg_tensor(call, 1, 0)->shape[0];
    table[TABLE_WRONG] = starts_are_wrong(ds_arg_tensor(call, (uint32_t)starts, 0), g->starts, g->queries) ||
                         starts_are_wrong(ds_arg_tensor(call, (uint32_t)starts + 1, 0), g->starts, all_keys);
    table[TABLE_COUNT] = table[TABLE_WRONG] || g->starts == 0 ? 1 : g->starts + 1;
    int64_t place = 0;
    for (int64_t n = 0; n < table[TABLE_COUNT]; n++) {
        table[TABLE_PLACES + n] = place;
        int64_t rows = packed_sequence(call, g, starts, n).queries * g->shared;
        place += each ? ds_div_up(rows, each) : 1;
    }
    table[TABLE_PLACES + table[TABLE_COUNT]] = place;
}

/* Places of all sequences, at most. */
static inline int64_t places(const geometry *g, int64_t each) {
    if (g->starts < 0) return g->batch * ds_div_up(g->queries * g->shared, each);
    return g->queries * g->shared / each + g->starts + 1;
}

/* The sequence that has place `*place`, which becomes that within it. -1 queries where none has. */
OUT_OF_LINE sequence sequence_at(const ds_call *call, const geometry *g, int starts, int64_t each, int64_t *place) {
    if (g->starts < 0) {
        int64_t of_one = ds_div_up(g->queries * g->shared, each);
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
    return packed_sequence(call, g, starts, low);
}

/* The first element of head `head` of token `token`. */
static inline void *token_at(const tokens *t, int64_t batch, int64_t token, int64_t head) {
    return ds_at(t->data, batch * t->batch + token * t->token + head * t->head, t->dtype);
}

/* What of a head fills whole vectors. */
static inline int64_t padded(int64_t d) { return ds_div_up(d, DS_LANES) * DS_LANES; }

DS_INLINE void bring_of(float *to, const void *from, int64_t across, int64_t n, int64_t d, uint32_t t) {
    const int64_t stride = padded(d), whole = d / DS_LANES * DS_LANES;
    for (int64_t i = 0; i < n; i++) {
        const void *row = ds_at(from, i * across, t);
        for (int64_t c = 0; c < whole; c += DS_LANES) ds_store(to, i * stride + c, ds_load(row, c, t), DS_F32);
        if (whole < d) ds_store(to, i * stride + whole, ds_load_first(d - whole, row, whole, t), DS_F32);
    }
}

/* Copies `n` heads that lie `across` apart side by side in f32, zeros behind each. */
OUT_OF_LINE void bring(float *to, const void *from, int64_t across, int64_t n, int64_t d, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, bring_of(to, from, across, n, d, t));
}

DS_INLINE void put_of(void *to, const float *from, int64_t d, uint32_t t) {
    for (int64_t c = 0; c < d; c += DS_LANES) ds_store_first(d - c, to, c, ds_load(from, c, DS_F32), t);
}

/* Stores a head. */
OUT_OF_LINE void put(void *to, const float *from, int64_t d, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, put_of(to, from, d, t));
}

/* Panel from rows, of which number k of row i becomes number i of line k, times `scale`. */
OUT_OF_LINE void turn_in(float *panel, int64_t width, const float *rows, int64_t d, float scale) {
    const int64_t stride = padded(d);
    for (int64_t first = 0; first < width; first += DS_LANES)
        for (int64_t c = 0; c < stride; c += DS_LANES) {
            ds_vec line[DS_LANES];
            for (int64_t i = 0; i < DS_LANES; i++) line[i] = scale * ds_load(rows, (first + i) * stride + c, DS_F32);
            ds_turn(line);
            for (int64_t i = 0; i < DS_LANES && c + i < d; i++) ds_store(panel, (c + i) * width + first, line[i], DS_F32);
        }
}

/* And back: rows from a panel, row i times number i of `scale`. */
OUT_OF_LINE void turn_out(float *rows, const float *panel, int64_t width, int64_t d, const ds_vec *scale) {
    const int64_t stride = padded(d);
    for (int64_t first = 0; first < width; first += DS_LANES)
        for (int64_t c = 0; c < stride; c += DS_LANES) {
            ds_vec line[DS_LANES];
            for (int64_t i = 0; i < DS_LANES; i++)
                line[i] = c + i < d ? ds_load(panel, (c + i) * width + first, DS_F32) * scale[first / DS_LANES] : (ds_vec){0};
            ds_turn(line);
            for (int64_t i = 0; i < DS_LANES; i++) ds_store(rows, (first + i) * stride + c, line[i], DS_F32);
        }
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

/* log2(e): powers of two take the place of exponentials. */
#define LOG2_E 0x1.715476p+0f

#endif
