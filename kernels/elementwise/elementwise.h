/* How elementwise kernels go through tensors: from the strides of a call to spans, in which each input
 * is contiguous or one element that repeats, and the output is contiguous.
 */
#ifndef ELEMENTWISE_H
#define ELEMENTWISE_H

#include "ds_cpu_math.h"
#include "ds_cpu_strided.h"

enum {
    MOST_INPUTS = 3,
    PAIR = 2 * DS_LANES,
    BLOCK = 16 * 1024,     /* elements of an item, worth a thread's while */
    PIECE = 512,           /* elements that are gathered at a time, within the first cache */
    REPEATED_BYTES = 2 * sizeof(ds_vec),
    AHEAD = 1024, /* elements from what is computed to what is fetched: functions take so long that the
                     processor's own look ahead does not reach it */
};

/* What a function of this family computes at a time. */
typedef struct {
    const void *in[MOST_INPUTS];
    int64_t step[MOST_INPUTS]; /* 1, or 0 where `in` holds REPEATED_BYTES of one element */
    void *out;
    int64_t n;   /* a multiple of PAIR */
    uint32_t t;  /* dtype of `out` */
    int streams; /* past the caches */
    float k[2];  /* the call's scalars */
} span;

typedef void (*span_fn)(const span *s);

/* An item is a block of a row of the collapsed call. */
static void plan_inputs(const ds_call *call, uint32_t inputs, ds_plan *out) {
    ds_views v = ds_collapse(call, inputs + 1);
    int64_t length = ds_views_length(&v);
    out->phases = 1;
    out->phase[0].items = ds_views_rows(&v) * ds_div_up(length, BLOCK);
    out->phase[0].grain = ds_max(1, BLOCK / ds_max(1, length));
}

/* Room for a piece of each tensor, and for the elements that repeat. */
typedef struct {
    _Alignas(64) char pieces[MOST_INPUTS + 1][PIECE * 8];
    _Alignas(64) char repeated[MOST_INPUTS][REPEATED_BYTES];
} room;

/* A row of a call: where its tensors begin, the output last, and their strides and sizes of elements. */
typedef struct {
    char *data[MOST_INPUTS + 1];
    const int64_t *strides, *bytes;
    uint32_t inputs;
} row_of;

/* `n` elements of the row from `i` on, where they lie or, `apart`, in room for a multiple of PAIR. */
static void run_piece(const row_of *row, span *s, room *room, int64_t i, int64_t n, int apart, span_fn f) {
    s->n = ds_div_up(n, PAIR) * PAIR;
    for (uint32_t k = 0; k < row->inputs; k++) {
        int64_t stride = row->strides[k], bytes = row->bytes[k];
        const char *at = row->data[k] + i * stride * bytes;
        s->in[k] = stride == 0 ? room->repeated[k] : stride == 1 && !apart ? at : room->pieces[k];
        if (s->in[k] != room->pieces[k]) continue;
        ds_gather(room->pieces[k], 1, at, stride, n, bytes);
        __builtin_memset(room->pieces[k] + n * bytes, 0, (size_t)((s->n - n) * bytes));
    }
    int64_t stride = row->strides[row->inputs], bytes = row->bytes[row->inputs];
    char *at = row->data[row->inputs] + i * stride * bytes;
    s->out = stride == 1 && !apart ? at : room->pieces[row->inputs];
    f(s);
    if (s->out != at) ds_gather(at, stride, s->out, 1, n, bytes);
}

/* The first `n` elements of the row. */
static void run_row(const row_of *row, span s, int64_t n, span_fn f) {
    room room;
    int64_t piece = n;
    if (row->strides[row->inputs] != 1) piece = PIECE;
    for (uint32_t k = 0; k < row->inputs; k++) {
        s.step[k] = row->strides[k] != 0;
        int64_t bytes = row->bytes[k];
        if (row->strides[k] == 0) ds_gather(room.repeated[k], 1, row->data[k], 0, REPEATED_BYTES / bytes, bytes);
        else if (row->strides[k] != 1) piece = PIECE;
    }
    int64_t whole = n / PAIR * PAIR;
    for (int64_t i = 0; i < whole; i += piece) run_piece(row, &s, &room, i, ds_min(piece, whole - i), 0, f);
    s.streams = 0;
    if (whole < n) run_piece(row, &s, &room, whole, n - whole, 1, f);
}

/* The items from `begin` to `end`. The output is the argument behind the inputs. */
static void run_inputs(const ds_call *call, uint32_t inputs, int64_t begin, int64_t end, span_fn f, float k0,
                       float k1) {
    ds_views v = ds_collapse(call, inputs + 1);
    int64_t length = ds_views_length(&v), blocks = ds_div_up(length, BLOCK);
    int64_t strides[MOST_INPUTS + 1], bytes[MOST_INPUTS + 1];
    char *data[MOST_INPUTS + 1];
    for (uint32_t k = 0; k <= inputs; k++) {
        const ds_tensor *t = ds_arg_tensor(call, k, 0);
        data[k] = t->data;
        bytes[k] = ds_size(t->dtype);
        strides[k] = v.strides[k][v.ndim - 1];
    }
    const ds_tensor *y = ds_arg_tensor(call, inputs, 0);
    /* In place, what is written is in a cache already. */
    int large = ds_streams(ds_elements(y), y->dtype) && strides[inputs] == 1;
    for (uint32_t k = 0; k < inputs; k++) large = large && data[k] != data[inputs];
    for (int64_t item = begin; item < end; item++) {
        int64_t row = blocks == 1 ? item : item / blocks, i = (item - row * blocks) * BLOCK;
        int64_t n = ds_min(BLOCK, length - i);
        span s = {.t = y->dtype, .k = {k0, k1}};
        row_of of = {.strides = strides, .bytes = bytes, .inputs = inputs};
        for (uint32_t k = 0; k <= inputs; k++)
            of.data[k] = data[k] + (ds_views_offset(&v, k, row) + i * strides[k]) * bytes[k];
        s.streams = large && ds_aligned(of.data[inputs]);
        run_row(&of, s, n, f);
    }
    if (large) ds_fence();
}

#endif
