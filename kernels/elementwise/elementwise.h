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
};

/* What a function of this family computes at a time. */
typedef struct {
    const void *in[MOST_INPUTS];
    int64_t step[MOST_INPUTS]; /* 1, or 0 where `in` holds REPEATED_BYTES of one element */
    void *out;
    int64_t n;
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

/* REPEATED_BYTES of the element. */
static void repeat(void *to, const void *element, int64_t bytes) {
    ds_gather(to, 1, element, 0, REPEATED_BYTES / bytes, bytes);
}

/* One row's elements from `i` on: `in` and `out` are their first ones, a stride apart each. */
static void run_row(span s, const int64_t *strides, const int64_t *bytes, uint32_t inputs, span_fn f) {
    _Alignas(64) char repeated[MOST_INPUTS][REPEATED_BYTES];
    _Alignas(64) char gathered[MOST_INPUTS + 1][PIECE * 8];
    const char *from[MOST_INPUTS];
    char *to = s.out;
    int64_t n = s.n, piece = n;
    if (strides[inputs] != 1) piece = PIECE;
    for (uint32_t k = 0; k < inputs; k++) {
        from[k] = s.in[k];
        s.step[k] = strides[k] != 0;
        if (strides[k] == 0) repeat(repeated[k], s.in[k], bytes[k]);
        else if (strides[k] != 1) piece = PIECE;
    }
    for (int64_t i = 0; i < n; i += piece) {
        s.n = ds_min(piece, n - i);
        for (uint32_t k = 0; k < inputs; k++) {
            const char *at = from[k] + i * strides[k] * bytes[k];
            s.in[k] = strides[k] == 0 ? repeated[k] : strides[k] == 1 ? at : gathered[k];
            if (s.in[k] == gathered[k]) ds_gather(gathered[k], 1, at, strides[k], s.n, bytes[k]);
        }
        char *at = to + i * strides[inputs] * bytes[inputs];
        s.out = strides[inputs] == 1 ? at : gathered[MOST_INPUTS];
        f(&s);
        if (s.out != at) ds_gather(at, strides[inputs], s.out, 1, s.n, bytes[inputs]);
    }
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
        span s = {.n = ds_min(BLOCK, length - i), .k = {k0, k1}};
        char *at[MOST_INPUTS + 1];
        for (uint32_t k = 0; k <= inputs; k++)
            at[k] = data[k] + (ds_views_offset(&v, k, row) + i * strides[k]) * bytes[k];
        for (uint32_t k = 0; k < inputs; k++) s.in[k] = at[k];
        s.out = at[inputs];
        s.streams = large && ds_aligned(s.out);
        run_row(s, strides, bytes, inputs, f);
    }
    if (large) ds_fence();
}

/* A span function for each dtype that vectors load and store. */
#define FLOAT_SPANS(name, through, lanes)                                         \
    static void name##_f32(const span *s) { through(s, DS_F32, lanes); }          \
    static void name##_bf16(const span *s) { through(s, DS_BF16, lanes); }        \
    static void name##_f16(const span *s) { through(s, DS_F16, lanes); }          \
    static span_fn name##_of(uint32_t dtype) {                                    \
        return dtype == DS_F32 ? name##_f32 : dtype == DS_BF16 ? name##_bf16 : name##_f16; \
    }

#endif
