/* What layers with quantised weights share: y = f(x w^T + bias) + residual, w being codes in groups.
 *
 * Limit: with many rows multiply-add instructions, as of any product, a panel of w becoming numbers where it
 * is packed. With few rows it is memory, the codes being read once, straight into products.
 */
#ifndef DS_QUANTIZED_LAYER_H
#define DS_QUANTIZED_LAYER_H

#include "ds_cpu_narrow.h"
#include "ds_cpu_product.h"

enum {
    FEW_ROWS = 8,
    CODES_AHEAD = 4096, /* bytes from what is read to what is fetched, into the second level: it has more misses at once */
    AT_ONCE = 4,        /* columns that a single row meets at a time, */
    AT_ONCE_OF_ROWS = 2 /* and that several do: their values are loaded once for both */
};

typedef struct layer {
    ds_product p; /* first, as `pack` gets this one */
    ds_tensor x, w;  /* as matrices; w's strides are none, because a number of it has no address */
    int64_t extents[2], strides[2], w_extents[2], w_strides[2];
    const uint8_t *codes;
    const float *params; /* step and offset of each group, or its step alone */
    int64_t has_offset;
    int64_t groups, length;     /* of a row, values of a group */
    int64_t per, bytes;         /* so many codes lie in so many bytes */
    int kind;                   /* of codes */
    int few;                    /* rows, to which codes go straight */
} layer;

/* What `l` lacks, once its codes, how they are packed, and the product's other tensors are there. x is
 * [M, G, H, P] and contiguous. */
static void layer_extents(layer *l, const ds_tensor *x, const ds_tensor *codes) {
    l->groups = x->shape[1];
    l->length = x->shape[2] * l->per;
    l->x = (ds_tensor){x->data, l->extents, l->strides, 2, x->dtype};
    l->extents[0] = l->p.m = x->shape[0];
    l->extents[1] = l->p.k = l->strides[0] = l->groups * l->length;
    l->strides[1] = 1;
    l->p.a = &l->x;
    l->w = (ds_tensor){codes->data, l->w_extents, l->w_strides, 2, x->dtype};
    l->w_extents[0] = l->p.n = codes->shape[0];
    l->w_extents[1] = l->p.k;
    l->p.b = &l->w;
    l->p.batch = 1;
    ds_product_go_about(&l->p);
    l->few = l->p.m <= FEW_ROWS && l->length % DS_LANES == 0;
}

/* DS_LANES codes of a kind, which begin with a byte, as numbers. */
typedef ds_vec (*numbers_fn)(const uint8_t *codes, int kind);

DS_INLINE const uint8_t *codes_at(const layer *l, int64_t column, int64_t k) {
    return l->codes + (column * l->p.k + k) / l->per * l->bytes;
}

typedef struct {
    float step, offset;
} affine;

DS_INLINE affine affine_of(const layer *l, int64_t column, int64_t group) {
    int64_t at = column * l->groups + group;
    if (!l->has_offset) return (affine){l->params[at], 0};
    return (affine){l->params[2 * at], l->params[2 * at + 1]};
}

/* The weights of `n` values of k from `k` on, wherever groups end; 0 in the other lanes. */
DS_INLINE ds_vec weights_first(const layer *l, int64_t column, int64_t k, int64_t n, int kind, numbers_fn numbers) {
    uint8_t few[4 * DS_LANES] = {0};
    __builtin_memcpy(few, codes_at(l, column, k), (size_t)(n / l->per * l->bytes));
    ds_vec v = numbers(few, kind), w = {0};
    for (int64_t i = 0; i < n; i++) {
        affine of = affine_of(l, column, (k + i) / l->length);
        w[i] = v[i] * of.step + of.offset;
    }
    return w;
}

/* See ds_product: columns of weights side by side, for each k. */
DS_INLINE void pack_codes(const layer *l, float *panel, int64_t column, int64_t columns, int64_t first, int64_t n,
                          int kind, numbers_fn numbers) {
    int in_one_group = l->length % DS_LANES == 0;
    for (int64_t at = 0; at < DS_GEMM_COLUMNS; at += DS_LANES)
        for (int64_t k = 0; k < n; k += DS_LANES) {
            ds_vec line[DS_LANES];
            int64_t left = ds_min(DS_LANES, n - k), group = (first + k) / l->length;
#pragma GCC unroll 1
            for (int64_t i = 0; i < DS_LANES; i++) {
                int64_t c = column + at + i;
                line[i] = (ds_vec){0};
                if (at + i >= columns) continue;
                if (in_one_group) {
                    const uint8_t *codes = codes_at(l, c, first + k);
                    affine of = affine_of(l, c, group);
                    __builtin_prefetch(codes + 256, 0, 3);
                    line[i] = ds_vfma(numbers(codes, kind), ds_splat(of.step), ds_splat(of.offset));
                } else {
                    line[i] = weights_first(l, c, first + k, left, kind, numbers);
                }
            }
            ds_turn(line);
#pragma GCC unroll 1
            for (int64_t i = 0; i < left; i++) ds_store(panel + at, (k + i) * DS_GEMM_COLUMNS, line[i], DS_F32);
        }
}

DS_INLINE int64_t column_bytes(const layer *l) { return l->p.k / l->per * l->bytes; }

/* How far ahead of byte `at` of each of so many columns of `bytes` lies what is fetched: where a column ends, in the
 * one that takes its place. */
DS_INLINE int64_t codes_ahead(int64_t bytes, int64_t at, int columns) {
    return at + CODES_AHEAD < bytes ? CODES_AHEAD : CODES_AHEAD + (columns - 1) * bytes;
}

/* Products of AT_ONCE_OF_ROWS columns and `rows` rows, the groups being whole vectors. Where rows end is known to
 * the caller: totals are FEW_ROWS for each column. */
DS_INLINE void dots_of_rows(const layer *l, const int64_t *columns, const float *const *x, ds_vec *totals, int rows, int kind,
                            numbers_fn numbers) {
    const uint8_t *codes[AT_ONCE_OF_ROWS];
    ds_vec sums[AT_ONCE_OF_ROWS * FEW_ROWS];
    const int64_t vector_bytes = DS_LANES * l->bytes / l->per, bytes = column_bytes(l);
    int64_t k = 0, at = 0;
#pragma GCC unroll 2
    for (int j = 0; j < AT_ONCE_OF_ROWS; j++) codes[j] = codes_at(l, columns[j], 0);
#pragma GCC unroll 16
    for (int i = 0; i < AT_ONCE_OF_ROWS * rows; i++) sums[i] = (ds_vec){0};
    for (int64_t group = 0; group < l->groups; group++) {
        ds_vec step[AT_ONCE_OF_ROWS], offset[AT_ONCE_OF_ROWS];
#pragma GCC unroll 2
        for (int j = 0; j < AT_ONCE_OF_ROWS; j++) {
            affine of = affine_of(l, columns[j], group);
            step[j] = ds_splat(of.step), offset[j] = ds_splat(of.offset);
        }
        for (int64_t end = k + l->length; k < end; k += DS_LANES, at += vector_bytes) {
            const int64_t ahead = codes_ahead(bytes, at, AT_ONCE_OF_ROWS);
            ds_vec w[AT_ONCE_OF_ROWS];
#pragma GCC unroll 2
            for (int j = 0; j < AT_ONCE_OF_ROWS; j++) {
                w[j] = ds_vfma(numbers(codes[j] + at, kind), step[j], offset[j]);
                __builtin_prefetch(codes[j] + at + ahead, 0, 2);
            }
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) {
                ds_vec v = ds_load(x[i], k, DS_F32);
#if defined(__x86_64__) /* compilers would load it again for each product */
                __asm__("" : "+v"(v));
#endif
#pragma GCC unroll 2
                for (int j = 0; j < AT_ONCE_OF_ROWS; j++) sums[j * rows + i] = ds_vfma(w[j], v, sums[j * rows + i]);
            }
        }
    }
#pragma GCC unroll 2
    for (int j = 0; j < AT_ONCE_OF_ROWS; j++)
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) totals[j * FEW_ROWS + i] = sums[j * rows + i];
}

/* The same of a row and AT_ONCE columns, a total each. The sums of a group's codes meet its step once, and those of the
 * row's values, which columns share, its offset. */
DS_INLINE void dots_of_columns(const layer *l, const int64_t *columns, const float *x, ds_vec *totals, int kind,
                               numbers_fn numbers) {
    const uint8_t *codes[AT_ONCE];
    ds_vec sums[AT_ONCE];
    const float *params[AT_ONCE];
    const int64_t has_offset = l->has_offset, of_group = 1 + has_offset;
    const int64_t vector_bytes = DS_LANES * l->bytes / l->per, bytes = column_bytes(l);
    int64_t k = 0, at = 0;
#pragma GCC unroll 4
    for (int j = 0; j < AT_ONCE; j++) {
        codes[j] = codes_at(l, columns[j], 0);
        params[j] = l->params + columns[j] * l->groups * of_group;
        sums[j] = (ds_vec){0};
    }
    for (int64_t group = 0, end = l->groups * of_group; group < end; group += of_group) {
        ds_vec parts[AT_ONCE] = {{0}}, sum = {0};
        for (int64_t of_next = k + l->length; k < of_next; k += DS_LANES, at += vector_bytes) {
            const int64_t ahead = codes_ahead(bytes, at, AT_ONCE);
            ds_vec v = ds_load(x, k, DS_F32);
            sum += v;
#pragma GCC unroll 4
            for (int j = 0; j < AT_ONCE; j++) {
                parts[j] = ds_vfma(numbers(codes[j] + at, kind), v, parts[j]);
                __builtin_prefetch(codes[j] + at + ahead, 0, 2);
            }
        }
#pragma GCC unroll 4
        for (int j = 0; j < AT_ONCE; j++) {
            sums[j] = ds_vfma(parts[j], ds_splat(params[j][group]), sums[j]);
            __builtin_prefetch(params[j] + group + AT_ONCE * end, 0, 3);
            if (has_offset) sums[j] = ds_vfma(sum, ds_splat(params[j][group + 1]), sums[j]);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < AT_ONCE; j++) totals[j * FEW_ROWS] = sums[j];
}

/* Lane by lane, the products of rows of x and columns: of a single row with AT_ONCE, of more with
 * AT_ONCE_OF_ROWS, FEW_ROWS totals each. What is beyond the last row or column is that one again. */
typedef void (*dots_fn)(const layer *l, const int64_t *columns, const float *const *x, ds_vec *totals);

/* The rows that `dots` of them take, for a constant. */
#define WITH_ROWS(rows, m, statement)           \
    do {                                        \
        switch ((m) <= 4) {                     \
        case 1: DS_WITH(rows, 4, statement)     \
        case 0: DS_WITH(rows, FEW_ROWS, statement) \
        }                                       \
    } while (0)

/* Few rows and the columns of a part. */
static void run_few(const layer *l, const ds_part *at, dots_fn dots) {
    _Alignas(64) float results[FEW_ROWS * DS_DOT_COLUMNS];
    const float *x[FEW_ROWS];
    for (int i = 0; i < FEW_ROWS; i++) x[i] = at->a + ds_min(i, at->rows - 1) * at->a_across;
    int64_t at_once = at->rows == 1 ? AT_ONCE : AT_ONCE_OF_ROWS;
    for (int64_t column = 0; column < at->columns; column += at_once) {
        ds_vec totals[AT_ONCE * FEW_ROWS];
        int64_t columns[AT_ONCE], left = ds_min(at_once, at->columns - column);
        for (int j = 0; j < AT_ONCE; j++) columns[j] = at->column + column + ds_min(j, left - 1);
        dots(l, columns, x, totals);
        for (int64_t j = 0; j < left; j++)
            for (int64_t i = 0; i < at->rows; i++)
                results[i * DS_DOT_COLUMNS + column + j] = (float)ds_vsum(totals[j * FEW_ROWS + i]);
    }
    ds_product_settle(&l->p, at, results, DS_DOT_COLUMNS, (ds_range){0, at->rows, 0, at->columns}, (ds_rest){0}, 1, 1);
}

#endif
