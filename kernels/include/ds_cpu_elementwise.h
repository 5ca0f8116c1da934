/* Elementwise CPU kernels: each element of the outputs from the elements at its place, and from those
 * at its column of vectors that every row shares. The work is blocks of rows of contiguous elements,
 * one row where nothing keeps the rows apart.
 */
#ifndef DS_CPU_ELEMENTWISE_H
#define DS_CPU_ELEMENTWISE_H

#include "ds_cpu_rows.h"

/* What is called once a block, and would only be compiled again for every function. */
#define DS_ONCE __attribute__((noinline, unused)) static

enum {
    DS_MOST_INPUTS = 5,
    DS_MOST_OUTPUTS = 2,
    DS_TILE = 4 * DS_PAIR, /* elements taken at a time */
    DS_TILE_VECTORS = DS_TILE / DS_LANES,
};

/* The arguments of a call by what they are: matrices [S..., D], then vectors [D], then outputs. */
typedef struct {
    int matrices, vectors, outputs;
} ds_elementwise;

typedef struct {
    int64_t length; /* of a row */
    int64_t blocks_per_row;
    int64_t blocks; /* of DS_CHUNK_ELEMENTS, a row's last one of fewer */
    int one_row;
} ds_blocks;

/* Whether the elements lie one after another. */
DS_INLINE int ds_is_contiguous(const ds_tensor *t) {
    int64_t stride = 1;
    for (int32_t d = t->ndim - 1; d >= 0; d--) {
        if (t->shape[d] != 1 && t->strides[d] != stride) return 0;
        stride *= t->shape[d];
    }
    return 1;
}

DS_ONCE ds_blocks ds_blocks_of(const ds_call *call, ds_elementwise e) {
    const ds_tensor *first = ds_arg_tensor(call, 0, 0);
    ds_blocks b;
    b.one_row = 1;
    for (int i = 0; i < e.matrices + e.vectors + e.outputs; i++) {
        if (!call->args[i].count) continue;
        int is_vector = i >= e.matrices && i < e.matrices + e.vectors;
        if (is_vector || !ds_is_contiguous(ds_arg_tensor(call, (uint32_t)i, 0))) b.one_row = 0;
    }
    b.one_row |= first->ndim == 0;
    b.length = b.one_row ? ds_elements(first) : ds_row_length(first);
    b.blocks_per_row = ds_div_up(b.length, DS_CHUNK_ELEMENTS);
    b.blocks = b.blocks_per_row * (b.one_row ? 1 : ds_rows(first));
    return b;
}

/* An item is a block. */
DS_ONCE void ds_plan_elementwise(const ds_call *call, ds_plan *out, ds_elementwise e) {
    ds_blocks b = ds_blocks_of(call, e);
    out->phases = 1;
    out->phase[0].items = b.blocks;
    out->phase[0].grain = ds_max(1, DS_CHUNK_ELEMENTS / ds_max(1, b.length));
}

/* Where the elements of a block lie: inputs in the order of arguments, missing ones NULL. */
typedef struct {
    const void *in[DS_MOST_INPUTS];
    void *out[DS_MOST_OUTPUTS];
    int64_t index; /* of its first element in the tensor, row-major */
    int64_t count;
} ds_block;

DS_ONCE ds_block ds_block_at(const ds_call *call, ds_elementwise e, const ds_blocks *b, int64_t block,
                                   uint32_t t) {
    int64_t row = block / b->blocks_per_row, i = block % b->blocks_per_row * DS_CHUNK_ELEMENTS;
    ds_block at = {.index = row * b->length + i, .count = ds_min(DS_CHUNK_ELEMENTS, b->length - i)};
    for (int a = 0; a < e.matrices + e.vectors + e.outputs; a++) {
        if (!call->args[a].count) continue;
        const ds_tensor *tensor = ds_arg_tensor(call, (uint32_t)a, 0);
        int is_vector = a >= e.matrices && a < e.matrices + e.vectors;
        int64_t offset = b->one_row || is_vector ? 0 : ds_row_offset(tensor, row);
        void *p = ds_at(tensor->data, offset + i, t);
        if (a < e.matrices + e.vectors) at.in[a] = p;
        else at.out[a - e.matrices - e.vectors] = p;
    }
    return at;
}

/* The rest of a block, less than a tile, with room around it: an elementwise loop has one body. */
typedef struct {
    uint32_t in[DS_MOST_INPUTS][DS_TILE], out[DS_MOST_OUTPUTS][DS_TILE];
} ds_rest;

DS_ONCE ds_block ds_rest_of(ds_rest *rest, const ds_block *at, int64_t i, uint32_t t) {
    ds_block copy = {.index = at->index + i, .count = DS_TILE};
    size_t bytes = (size_t)((at->count - i) * ds_size(t));
    for (int a = 0; a < DS_MOST_INPUTS; a++) {
        if (!at->in[a]) continue;
        __builtin_memset(rest->in[a], 0, sizeof rest->in[a]);
        __builtin_memcpy(rest->in[a], ds_at(at->in[a], i, t), bytes);
        copy.in[a] = rest->in[a];
    }
    for (int a = 0; a < DS_MOST_OUTPUTS; a++)
        if (at->out[a]) copy.out[a] = rest->out[a];
    return copy;
}

DS_ONCE void ds_rest_back(const ds_rest *rest, const ds_block *at, int64_t i, uint32_t t) {
    for (int a = 0; a < DS_MOST_OUTPUTS; a++)
        if (at->out[a]) __builtin_memcpy(ds_at(at->out[a], i, t), rest->out[a], (size_t)((at->count - i) * ds_size(t)));
}

DS_INLINE ds_vec2 ds_add_pair(ds_vec2 a, ds_vec2 b) { return (ds_vec2){a.a + b.a, a.b + b.b}; }

/* Pair `i` of an input of all rows plus that of a vector, where there is one. */
DS_INLINE ds_vec2 ds_biased(const void *x, const void *bias, int64_t i, uint32_t t) {
    ds_fetch_pair(x, i, t);
    ds_vec2 v = ds_load2(x, i, t);
    return bias ? ds_add_pair(v, ds_load2(bias, i, t)) : v;
}

/* A tile of f32, on the stack. What is done to it has no dtype, and needs no loop of its own for each:
 * the dtype is asked once a tile, on the way to it and from it. So few fit in the window of a processor,
 * which computes one while it waits for the next. */
typedef struct {
    ds_vec v[DS_TILE_VECTORS];
} ds_tile;

/* Tile `i` of an input plus that of a vector, where there is one. */
DS_ONCE void ds_load_tile(ds_tile *to, const void *x, const void *bias, int64_t i, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, for (int v = 0; v < DS_TILE_VECTORS; v += 2) {
        ds_vec2 pair = ds_biased(x, bias, i + v * DS_LANES, t);
        to->v[v] = pair.a;
        to->v[v + 1] = pair.b;
    });
}

DS_ONCE void ds_store_tile(void *y, int64_t i, const ds_tile *from, uint32_t dtype, int streams) {
    DS_WITH_FLOAT(t, dtype, for (int v = 0; v < DS_TILE_VECTORS; v += 2) {
        ds_store2(y, i + v * DS_LANES, (ds_vec2){from->v[v], from->v[v + 1]}, t, streams);
    });
}

/* The same times tile `i` of an input plus that of a vector, where there is one. */
DS_ONCE void ds_store_product(void *y, int64_t i, const ds_tile *from, const void *x, const void *bias,
                              uint32_t dtype, int streams) {
    DS_WITH_FLOAT(t, dtype, for (int v = 0; v < DS_TILE_VECTORS; v += 2) {
        ds_vec2 by = ds_biased(x, bias, i + v * DS_LANES, t);
        ds_store2(y, i + v * DS_LANES, (ds_vec2){from->v[v] * by.a, from->v[v + 1] * by.b}, t, streams);
    });
}

/* `DS_ELEMENTWISE(call, e, begin, end, at, i, t, streams, tile(...))`: the statement for each tile of
 * the blocks from `begin` to `end`, of the block `at` from its element `i`. The dtype `t` is asked at
 * run time: one body a function rather than three. */
#define DS_ELEMENTWISE(call, e, begin, end, at, i, t, streams, statement)                     \
    do {                                                                                      \
        const ds_tensor *of_ = ds_arg_tensor(call, 0, 0);                                     \
        uint32_t t = of_->dtype;                                                              \
        const int large_ = ds_streams(ds_elements(of_), t);                                   \
        const ds_blocks blocks_ = ds_blocks_of(call, e);                                      \
        for (int64_t block_ = begin; block_ < end; block_++) {                                \
            const ds_block whole_ = ds_block_at(call, e, &blocks_, block_, t);                \
            ds_block at = whole_;                                                             \
            int streams = large_;                                                             \
            for (int a_ = 0; a_ < DS_MOST_OUTPUTS; a_++) streams &= ds_aligned(at.out[a_]);   \
            ds_rest rest_;                                                                    \
            for (int64_t from_ = 0; from_ < whole_.count; from_ += DS_TILE) {                 \
                int64_t i = from_;                                                            \
                int is_rest_ = whole_.count - from_ < DS_TILE;                                \
                if (is_rest_) {                                                               \
                    at = ds_rest_of(&rest_, &whole_, from_, t);                               \
                    i = 0;                                                                    \
                    streams = 0;                                                              \
                }                                                                             \
                statement;                                                                    \
                if (is_rest_) ds_rest_back(&rest_, &whole_, from_, t);                        \
            }                                                                                 \
        }                                                                                     \
        if (large_) ds_fence();                                                               \
    } while (0)

#endif
