/* The product of row-major matrices that ops of several families come to: c = f(a b + bias) + residual.
 *
 * Limit: multiply-add instructions, 2 m n k flops; with two 512-bit units 64 a cycle and core, twice that in
 * pairs of bf16 (DS_HAS_PAIRS). With few rows it is memory, b being read once.
 *
 * Products are of words, f32 or such pairs. a stays where it is if its rows are whole words; else phase 0
 * copies it so. An item of phase 2
 * is a block of rows and a panel of columns. It packs the panel of b, a block of k at a time, and passes all
 * of its rows over it: the panel comes from the second level of the caches then, a from the third. What several
 * blocks of rows would pack again, phase 1 packs for all of them, unless it is large. Panels that few rows pass
 * over, or that a core's caches hold as they are, are not packed. Where few rows meet a large b whose lines are
 * rows, an item is a stripe of those, which it reads from end to end, and phase 3 adds up what stripes give.
 */
#ifndef DS_CPU_PRODUCT_H
#define DS_CPU_PRODUCT_H

#include "ds_cpu_activation.h"
#include "ds_cpu_gemm.h"

enum {
    DS_K_BLOCK = 1024,                 /* words of k in a panel: 192 KiB */
    DS_ROW_BLOCK = 64 * DS_GEMM_ROWS,  /* rows of an item: their sums in f32 take 96 KiB */
    DS_ENOUGH_ITEMS = 24,              /* below that row blocks shrink, so that threads share them evenly, */
    DS_LEAST_ROWS = 8 * DS_GEMM_ROWS,  /* but not below this */
    DS_ITEM_FLOPS = 2 << 20,           /* worth a thread's while */
    DS_COPIED = 32 << 10,              /* numbers in a chunk of phase 0 */
    DS_DIRECT_ROWS = 2 * DS_GEMM_ROWS, /* that are too few to pack for */
    DS_DIRECT_BYTES = 5 << 19,         /* of b, that the second level holds about */
    DS_SHARED_BYTES = 8 << 20,         /* of panels that are packed for all */
    DS_AHEAD_PACKED = 16,              /* words of k from what is read to what is fetched, */
    DS_AHEAD_LINES = 36,               /* the same in lines, where each k begins one of its own, */
    DS_AHEAD_BYTES = 4096,             /* the same where k runs along the lines: into the second level, which has */
                                       /* more misses at once, */
    DS_STRIPE_ROWS = 16,               /* of b that are read side by side, */
    DS_MOST_STRIPES = 16,              /* of all, */
    DS_STRIPE_BYTES = 1 << 17,         /* which are worth an item's while */
    DS_LINES = DS_GEMM_VECTORS,        /* of which so many are read at a time, */
    DS_DOT_COLUMNS = DS_GEMM_COLUMNS,  /* and so many in an item: whole vectors of results, too */
};

/* A product for each matrix of the batch. Strides of 0 make any extents of a few bytes; the max_elements of
 * kernel.json, 2^44, keeps what is computed of them here within 64 bits. */
typedef struct ds_product {
    const ds_tensor *a, *b, *c;
    const ds_tensor *bias, *residual; /* or NULL */
    int64_t kind;                     /* of activation */
    int64_t m, n, k, batch;
    int64_t b_across, b_along; /* from column to column, from one k to the next */
    uint32_t t, form; /* dtype; DS_PAIRS or DS_F32, as `ds_product_form` says */
    /* Where b, a single matrix, is not of numbers, packs its columns from `column` on as `ds_gemm_pack` does,
     * for `n` values of k from `first` on. Else NULL. */
    void (*pack)(const struct ds_product *p, float *panel, int64_t column, int64_t columns, int64_t first, int64_t n);
    /* How it is gone about. */
    int64_t words; /* of k */
    int copies;    /* a, in rows of this many words: */
    int64_t copied_row;
    int few;    /* rows: 0 is one, 1 is up to 4, 2 is more */
    int dots;   /* they are few, and k runs along b's lines */
    int direct; /* columns run along them, and b is not packed */
    int shared; /* panels of b are packed for all blocks of rows */
    int64_t stripes; /* of b's rows; 0 where it is gone about by panels */
    int64_t row_blocks, rows_each, panels, columns_each;
} ds_product;

/* Whether all matrices of the batch are the same. */
static int ds_product_is_shared(const ds_tensor *t) {
    for (int32_t d = 0; d < t->ndim - 2; d++)
        if (t->shape[d] > 1 && t->strides[d] != 0) return 0;
    return 1;
}

static int64_t ds_product_a_matrices(const ds_product *p) { return ds_product_is_shared(p->a) ? 1 : p->batch; }
static int64_t ds_product_b_matrices(const ds_product *p) { return ds_product_is_shared(p->b) ? 1 : p->batch; }
static int64_t ds_product_panel_words(const ds_product *p) { return p->words * DS_GEMM_COLUMNS; }

/* The form that pays for a product of so many rows: pairs have to be packed. */
static inline uint32_t ds_product_form(uint32_t t, int64_t rows) {
    return DS_HAS_PAIRS && t == DS_BF16 && rows > DS_GEMM_ROWS ? DS_PAIRS : DS_F32;
}

/* Whether rows of a are words of pairs as they lie. */
static int ds_product_is_paired(const ds_product *p) {
    const ds_tensor *a = p->a;
    int is_even = p->k % 2 == 0 && (uintptr_t)a->data % 4 == 0 && a->strides[a->ndim - 1] == 1;
    for (int32_t d = 0; d < a->ndim - 1; d++) is_even &= a->shape[d] <= 1 || a->strides[d] % 2 == 0;
    return is_even;
}

/* What `p` lacks, once tensors, extents and b's strides are there. */
static void ds_product_go_about(ds_product *p) {
    const ds_tensor *a = p->a;
    p->t = a->dtype;
    p->words = p->form == DS_PAIRS ? ds_div_up(p->k, 2) : p->k;
    p->copies = p->t != DS_F32 || (a->strides[a->ndim - 1] != 1 && p->k > 1);
    if (p->form == DS_PAIRS) p->copies = !ds_product_is_paired(p);
    p->copied_row = ds_div_up(p->words, DS_GEMM_COLUMNS) * DS_GEMM_COLUMNS;
    int few = p->m <= DS_GEMM_ROWS && p->form == DS_F32, is_lines = !p->pack && (p->b_across == 1 || p->n == 1);
    p->few = p->m <= 1 ? 0 : p->m <= 4 ? 1 : 2;
    p->dots = few && !p->pack && !is_lines && p->b_along == 1;
    int64_t span = p->b_along * p->k * ds_size(p->t);
    p->direct = is_lines && (few || (p->t == DS_F32 && (p->m <= DS_DIRECT_ROWS || (span > 0 && span <= DS_DIRECT_BYTES))));
    p->columns_each = p->dots ? DS_DOT_COLUMNS : DS_GEMM_COLUMNS;
    if (few && p->direct) p->columns_each = DS_LANES * (p->few == 0 ? DS_GEMM_SUMS / 2 : p->few == 1 ? DS_GEMM_SUMS / 4 : DS_GEMM_VECTORS);
    p->panels = ds_div_up(p->n, p->columns_each);
    p->stripes = 0;
    if (few && p->direct && p->batch == 1 && p->n >= p->columns_each) {
        int64_t bytes = p->n * ds_size(p->t), most = ds_min(DS_MOST_STRIPES, p->k * bytes / DS_STRIPE_BYTES);
        p->stripes = ds_min(most, p->k / DS_STRIPE_ROWS) > 1 ? ds_min(most, p->k / DS_STRIPE_ROWS) : 0;
    }
    /* Even shares, of whole tiles. */
    int64_t wanted = ds_div_up(DS_ENOUGH_ITEMS, ds_max(1, p->batch * p->panels));
    int64_t blocks = ds_max(ds_div_up(p->m, DS_ROW_BLOCK), ds_min(wanted, ds_div_up(p->m, DS_LEAST_ROWS)));
    p->rows_each = ds_div_up(ds_div_up(p->m, ds_max(1, blocks)), DS_GEMM_ROWS) * DS_GEMM_ROWS;
    p->row_blocks = p->m ? ds_div_up(p->m, p->rows_each) : 0;
    p->shared = !p->direct && p->row_blocks > 1 && ds_product_panel_words(p) * p->panels * ds_product_b_matrices(p) * 4 <= DS_SHARED_BYTES;
}

static int64_t ds_product_copied_words(const ds_product *p) {
    return p->copies ? ds_product_a_matrices(p) * p->m * p->copied_row : 0;
}

/* Numbers that a stripe leaves: rows of c, by panels. The last panel begins where it is whole. */
static int64_t ds_product_stripe(const ds_product *p) { return p->m * p->panels * p->columns_each; }
static int64_t ds_product_column(const ds_product *p, int64_t panel) {
    return ds_min(panel * p->columns_each, p->n - p->columns_each);
}

static void ds_plan_product(const ds_product *p, ds_plan *out) {
    out->phases = 3;
    out->workspace_bytes = ds_product_copied_words(p) * 4;
    if (p->copies) {
        out->phase[0].items = ds_product_a_matrices(p) * p->m;
        /* Whole squares, which turn columns into rows. */
        out->phase[0].grain = ds_div_up(ds_max(1, DS_COPIED / ds_max(1, p->k)), DS_LANES) * DS_LANES;
    }
    if (p->shared) {
        out->phase[1].items = ds_product_b_matrices(p) * p->panels;
        out->phase[1].grain = ds_max(1, DS_COPIED / ds_max(1, ds_product_panel_words(p)));
        out->workspace_bytes += out->phase[1].items * ds_product_panel_words(p) * 4;
    }
    out->phase[2].items = p->batch * p->row_blocks * p->panels;
    if (p->stripes) {
        out->phases = 4;
        out->phase[2].items = p->stripes;
        out->phase[2].grain = 1;
        out->phase[3].items = p->panels;
        out->phase[3].grain = ds_max(1, DS_COPIED / (p->stripes * p->m * p->columns_each));
        out->workspace_bytes += p->stripes * ds_product_stripe(p) * 4;
        return;
    }
    int64_t flops = 2 * ds_max(1, p->rows_each * p->columns_each * p->k);
    out->phase[2].grain = ds_max(1, DS_ITEM_FLOPS / flops);
}

static __attribute__((noinline)) void ds_product_pack(float *to, int64_t stride, const void *from, int64_t columns, int64_t across,
                                           int64_t along, int64_t n, uint32_t t) {
    DS_WITH_FLOAT(d, t, ds_gemm_pack(to, stride, from, columns, across, along, n, d));
}

#if DS_HAS_PAIRS
/* Words of elements of two lines, `n` of them. */
DS_INLINE ds_vec ds_pairs_of(const void *a, const void *b, int64_t n) {
    const __mmask16 first = n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1);
    const __m256i low = _mm256_maskz_loadu_epi16(first, a);
    const __m256i high = b ? _mm256_maskz_loadu_epi16(first, b) : _mm256_setzero_si256();
    return (ds_vec)_mm512_permutex2var_epi16(_mm512_castsi256_si512(low), ds_words_in_turns(), _mm512_castsi256_si512(high));
}

/* Lines of words: `n` values of k, two in each word, of at most DS_LANES rows of bf16. Rows are `across` apart,
 * values of k `along`. */
static __attribute__((noinline)) void ds_product_square(ds_vec line[DS_LANES], const uint16_t *from, int64_t rows, int64_t across,
                                                        int64_t along, int64_t n) {
    enum { FETCHED = 8 /* lines ahead */ };
    for (int64_t i = 0; i < DS_LANES; i++) line[i] = (ds_vec){0};
    if (across == 1 && along != 1) {
        for (int64_t k = 0; k < n; k += 2) {
            const uint16_t *at = from + k * along;
            __builtin_prefetch(at + FETCHED * along, 0, 3);
            __builtin_prefetch(at + (FETCHED + 1) * along, 0, 3);
            line[k / 2] = ds_pairs_of(at, k + 1 < n ? at + along : 0, rows);
        }
        ds_turn(line);
        return;
    }
    for (int64_t i = 0; i < rows; i++) {
        const uint16_t *at = from + i * across;
        if (along == 1) {
            __builtin_prefetch(at + 2 * FETCHED * DS_LANES, 0, 3);
            line[i] = (ds_vec)ds_load_pairs(at, 0, n);
        } else {
            uint16_t numbers[2 * DS_LANES] = {0};
            for (int64_t k = 0; k < n; k++) numbers[k] = at[k * along];
            line[i] = (ds_vec)ds_load_pairs(numbers, 0, n);
        }
    }
}

/* Packs columns of b in pairs as `ds_gemm_pack` does in f32. */
static void ds_product_pack_pairs(float *to, const uint16_t *from, int64_t columns, int64_t across, int64_t along, int64_t n) {
    enum { FETCHED = 16 /* lines ahead */ };
    for (int64_t k = 0; across == 1 && k < n; k += 2) {
        const uint16_t *a = from + k * along, *b = k + 1 < n ? a + along : 0;
        for (int64_t i = 0; i < DS_GEMM_COLUMNS; i += 32) {
            __builtin_prefetch(a + FETCHED * along + i, 0, 3);
            __builtin_prefetch(a + (FETCHED + 1) * along + i, 0, 3);
        }
#pragma GCC unroll 4
        for (int64_t i = 0; i < DS_GEMM_COLUMNS; i += DS_LANES)
            ds_store(to, k / 2 * DS_GEMM_COLUMNS + i, ds_pairs_of(a + i, b ? b + i : 0, ds_max(0, columns - i)), DS_F32);
    }
    for (int64_t first = 0; across != 1 && first < DS_GEMM_COLUMNS; first += DS_LANES)
        for (int64_t k = 0; k < n; k += 2 * DS_LANES) {
            ds_vec line[DS_LANES];
            int64_t left = ds_min(2 * DS_LANES, n - k), here = ds_max(0, ds_min(DS_LANES, columns - first));
            ds_product_square(line, from + first * across + k * along, here, across, along, left);
            ds_turn(line);
            for (int64_t l = 0; l < ds_div_up(left, 2); l++)
                ds_store(to, (k / 2 + l) * DS_GEMM_COLUMNS + first, line[l], DS_F32);
        }
}

/* Copies rows of a as pairs. */
static void ds_product_copy_pairs(float *to, int64_t row, const uint16_t *from, int64_t rows, int64_t across, int64_t along, int64_t n) {
    for (int64_t first = 0; first < rows; first += DS_LANES)
        for (int64_t k = 0; k < n; k += 2 * DS_LANES) {
            ds_vec line[DS_LANES];
            int64_t here = ds_min(DS_LANES, rows - first);
            ds_product_square(line, from + first * across + k * along, here, across, along, ds_min(2 * DS_LANES, n - k));
            for (int64_t i = 0; i < here; i++) ds_store(to, (first + i) * row + k / 2, line[i], DS_F32);
        }
}
#endif

/* Packs a panel of b: columns that begin at `from`, `n` words of k. */
static void ds_product_pack_panel(const ds_product *p, float *panel, const void *from, int64_t column, int64_t columns,
                                  int64_t first, int64_t n) {
    if (p->pack) return p->pack(p, panel, column, columns, first, n);
#if DS_HAS_PAIRS
    if (p->form == DS_PAIRS)
        return ds_product_pack_pairs(panel, (const uint16_t *)from + 2 * first * p->b_along, columns, p->b_across, p->b_along,
                                     ds_min(2 * n, p->k - 2 * first));
#endif
    ds_product_pack(panel, DS_GEMM_COLUMNS, ds_at(from, first * p->b_along, p->t), columns, p->b_across, p->b_along, n, p->t);
}

/* Phase 0: rows begin to end of all matrices of a. */
static void ds_product_copy_rows(const ds_call *call, const ds_product *p, int64_t begin, int64_t end) {
    const ds_tensor *a = p->a;
    int64_t across = a->strides[a->ndim - 2], along = a->strides[a->ndim - 1];
    while (begin < end) {
        int64_t matrix = begin / p->m, row = begin % p->m, rows = ds_min(end - begin, p->m - row);
        float *to = (float *)call->workspace + begin * p->copied_row;
        const void *from = ds_at(a->data, ds_offset(a, a->ndim - 2, matrix) + row * across, p->t);
#if DS_HAS_PAIRS
        if (p->form == DS_PAIRS) ds_product_copy_pairs(to, p->copied_row, from, rows, across, along, p->k);
#endif
        for (int64_t k = 0; p->form == DS_F32 && k < p->k; k += DS_GEMM_COLUMNS) {
            const void *part = ds_at(from, k * along, p->t);
            ds_product_pack(to + k, p->copied_row, part, p->k - k, along, across, rows, p->t);
        }
        begin += rows;
    }
}

/* Where an item's part of a product lies. */
typedef struct {
    const float *a;
    int64_t a_across;
    const void *b;
    const float *panel; /* of b, where phase 1 has packed it; or NULL */
    int64_t rows, columns;
    int64_t column; /* the first one */
    void *c;
    int64_t c_across, c_along;
    const void *residual; /* or NULL */
    int64_t residual_across, residual_along;
    const void *bias; /* or NULL */
} ds_part;

/* Phase 1: panels begin to end of all matrices of b. */
static void ds_product_pack_panels(const ds_call *call, const ds_product *p, int64_t begin, int64_t end) {
    const ds_tensor *b = p->b;
    for (int64_t i = begin; i < end; i++) {
        int64_t matrix = i / p->panels, column = i % p->panels * DS_GEMM_COLUMNS;
        const void *from = ds_at(b->data, ds_offset(b, b->ndim - 2, matrix) + column * p->b_across, p->t);
        float *to = (float *)call->workspace + ds_product_copied_words(p) + i * ds_product_panel_words(p);
        int64_t columns = ds_min(DS_GEMM_COLUMNS, p->n - column);
        ds_product_pack_panel(p, to, from, column, columns, 0, p->words);
    }
}

static ds_part ds_product_part_of(const ds_call *call, const ds_product *p, int64_t item) {
    int64_t row = item % p->row_blocks * p->rows_each;
    int64_t column = item / p->row_blocks % p->panels * p->columns_each;
    int64_t matrix = item / (p->row_blocks * p->panels);
    const ds_tensor *a = p->a, *b = p->b, *c = p->c, *r = p->residual;
    ds_part at;
    at.rows = ds_min(p->rows_each, p->m - row);
    at.columns = ds_min(p->columns_each, p->n - column);
    at.column = column;
    if (p->copies) {
        at.a_across = p->copied_row;
        at.a = (const float *)call->workspace + ((ds_product_a_matrices(p) > 1 ? matrix : 0) * p->m + row) * p->copied_row;
    } else {
        const int each = p->form == DS_PAIRS ? 2 : 1; /* elements of a word */
        at.a_across = a->strides[a->ndim - 2] / each;
        at.a = (const float *)a->data + ds_offset(a, a->ndim - 2, matrix) / each + row * at.a_across;
    }
    at.b = ds_at(b->data, ds_offset(b, b->ndim - 2, matrix) + column * p->b_across, p->t);
    at.panel = 0;
    if (p->shared) {
        int64_t index = (ds_product_b_matrices(p) > 1 ? matrix : 0) * p->panels + column / DS_GEMM_COLUMNS;
        at.panel = (const float *)call->workspace + ds_product_copied_words(p) + index * ds_product_panel_words(p);
    }
    at.c_across = c->strides[c->ndim - 2];
    at.c_along = c->strides[c->ndim - 1];
    at.c = ds_at(c->data, ds_offset(c, c->ndim - 2, matrix) + row * at.c_across + column * at.c_along, p->t);
    at.residual = 0;
    at.residual_across = at.residual_along = 0;
    if (r) {
        at.residual_across = r->strides[r->ndim - 2];
        at.residual_along = r->strides[r->ndim - 1];
        int64_t offset = ds_offset(r, r->ndim - 2, matrix) + row * at.residual_across + column * at.residual_along;
        at.residual = ds_at(r->data, offset, p->t);
    }
    at.bias = p->bias ? ds_at(p->bias->data, column, p->t) : 0;
    return at;
}

/* Which rows and columns of a part. */
typedef struct {
    int64_t row, rows, column, columns;
} ds_range;

/* What a product is between two blocks of k, in f32. In c itself where that is possible. */
typedef struct {
    float *sums;
    int64_t across;
    int in_c;
} ds_rest;

/* Adds `n` numbers that lie `along` apart. */
static __attribute__((noinline)) void ds_product_add(float *sums, const void *from, int64_t along, int64_t n, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, {
        if (along == 1) {
            for (int64_t j = 0; j < n; j += DS_LANES)
                ds_store(sums, j, ds_load(sums, j, DS_F32) + ds_load_first(n - j, from, j, t), DS_F32);
        } else {
            for (int64_t j = 0; j < n; j++) sums[j] += ds_load_first(1, from, j * along, t)[0];
        }
    });
}

static __attribute__((noinline)) void ds_product_store(void *to, int64_t along, const float *sums, int64_t n, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, {
        if (along == 1) {
            for (int64_t j = 0; j < n; j += DS_LANES) ds_store_first(n - j, to, j, ds_load(sums, j, DS_F32), t);
        } else {
            for (int64_t j = 0; j < n; j++) ds_store_first(1, to, j * along, ds_splat(sums[j]), t);
        }
    });
}

DS_INLINE void ds_product_store_rows(void *to, int64_t to_across, const float *sums, int64_t across, ds_range r, uint32_t t) {
    for (int64_t i = 0; i < r.rows; i++)
        for (int64_t j = 0; j < r.columns; j += DS_LANES)
            ds_store_first(r.columns - j, to, i * to_across + j, ds_load(sums, i * across + j, DS_F32), t);
}

static __attribute__((noinline)) void ds_product_activate(float *sums, int64_t n, int64_t kind) {
    for (int64_t j = 0; j < n; j += DS_LANES) {
        ds_vec v = ds_load(sums, j, DS_F32);
        DS_WITH_KIND(f, kind, v = ds_function_for(v, f).value);
        ds_store(sums, j, v, DS_F32);
    }
}

/* Takes the sums of a block of k, rows of whole vectors, to where they rest, or, as they are the last ones,
 * to c. They do not keep what they were. */
static __attribute__((noinline)) void ds_product_settle(const ds_product *p, const ds_part *at, float *sums, int64_t across, ds_range r,
                                             ds_rest to, int first, int last) {
    int64_t kind = ds_kind_for(p->kind, p->t);
    if (first && last && !at->bias && !at->residual && kind == DS_IDENTITY && at->c_along == 1) {
        void *c = ds_at(at->c, r.row * at->c_across + r.column, p->t);
        DS_WITH_FLOAT(t, p->t, ds_product_store_rows(c, at->c_across, sums, across, r, t));
        return;
    }
    for (int64_t i = 0; i < r.rows; i++, sums += across) {
        int64_t x = r.row + i, y = r.column;
        float *resting = to.sums + x * to.across + y;
        if (!first) ds_product_add(sums, resting, 1, r.columns, DS_F32);
        if (!last) {
            ds_product_store(resting, 1, sums, r.columns, DS_F32);
            continue;
        }
        if (at->bias) ds_product_add(sums, ds_at(at->bias, y, p->t), 1, r.columns, p->t);
        if (kind != DS_IDENTITY) ds_product_activate(sums, r.columns, kind);
        const void *residual = ds_at(at->residual, x * at->residual_across + y * at->residual_along, p->t);
        if (at->residual) ds_product_add(sums, residual, at->residual_along, r.columns, p->t);
        ds_product_store(ds_at(at->c, x * at->c_across + y * at->c_along, p->t), at->c_along, sums, r.columns, p->t);
    }
}

/* A block of `n` values of k, from `first` on, of a panel of b. */
typedef struct {
    const void *b;
    int64_t along, ahead; /* from one k to the next, to what is fetched */
    int64_t first, n;
} ds_block;

/* The product of `left` rows of a and a block of b: put at `to`, or added to what is there. A tile has `rows`
 * rows and as many vectors as its shape; those beyond the last row are the last one again. */
DS_INLINE void ds_product_tile(float *to, int64_t across, int add, const float *a, int64_t a_across, int64_t left,
                    const ds_block *k, int rows, int vectors, int is_from_memory, uint32_t t) {
    ds_vec sums[DS_GEMM_SUMS];
    const float *lines[DS_GEMM_ROWS];
    for (int i = 0; i < rows; i++) lines[i] = a + ds_min(i, left - 1) * a_across;
#pragma GCC unroll 24
    for (int i = 0; i < rows * vectors; i++) sums[i] = (ds_vec){0};
    ds_gemm_add(sums, lines, k->b, k->along, k->n, rows, vectors, k->ahead, is_from_memory, t);
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 12
        for (int j = 0; j < vectors; j++) {
            float *place = to + i * across + j * DS_LANES;
            ds_vec before = {0};
            if (add) before = ds_load(place, 0, DS_F32);
            ds_store(place, 0, before + sums[i * vectors + j], DS_F32);
        }
}

typedef struct {
    int rows, vectors;
    void (*product)(float *to, int64_t across, int add, const float *a, int64_t a_across, int64_t left, const ds_block *k);
} ds_shape;

#define DS_SHAPE(name, rows, vectors, is_from_memory, t)                                                               \
    static void ds_product_of_##name(float *to, int64_t across, int add, const float *a, int64_t a_across, int64_t left, \
                          const ds_block *k) {                                                                         \
        ds_product_tile(to, across, add, a, a_across, left, k, rows, vectors, is_from_memory, t);                      \
    }                                                                                                                  \
    static const ds_shape ds_shape_##name = {rows, vectors, ds_product_of_##name}

/* For panels of f32, with as many vectors as the panel has columns for. */
DS_SHAPE(whole, DS_GEMM_ROWS, DS_GEMM_VECTORS, 0, DS_F32);
DS_SHAPE(two, DS_GEMM_ROWS, 2, 0, DS_F32);
DS_SHAPE(one, DS_GEMM_ROWS, 1, 0, DS_F32);

#if DS_HAS_PAIRS
DS_SHAPE(whole_of_pairs, DS_GEMM_ROWS, DS_GEMM_VECTORS, 0, DS_PAIRS);
DS_SHAPE(two_of_pairs, DS_GEMM_ROWS, 2, 0, DS_PAIRS);
DS_SHAPE(one_of_pairs, DS_GEMM_ROWS, 1, 0, DS_PAIRS);
#endif

/* For few rows: these leave registers for more columns, which are then read in longer pieces. */
DS_SHAPE(row, 1, DS_GEMM_SUMS / 2, 1, DS_F32);
DS_SHAPE(row_f16, 1, DS_GEMM_SUMS / 2, 1, DS_F16);
DS_SHAPE(row_bf16, 1, DS_GEMM_SUMS / 2, 1, DS_BF16);
DS_SHAPE(rows, 4, DS_GEMM_SUMS / 4, 1, DS_F32);
DS_SHAPE(rows_f16, 4, DS_GEMM_SUMS / 4, 1, DS_F16);
DS_SHAPE(rows_bf16, 4, DS_GEMM_SUMS / 4, 1, DS_BF16);
DS_SHAPE(whole_f16, DS_GEMM_ROWS, DS_GEMM_VECTORS, 1, DS_F16);
DS_SHAPE(whole_bf16, DS_GEMM_ROWS, DS_GEMM_VECTORS, 1, DS_BF16);

static const ds_shape *const DS_FEW[3][3] = {
    [DS_F32] = {&ds_shape_row, &ds_shape_rows, &ds_shape_whole},
    [DS_F16] = {&ds_shape_row_f16, &ds_shape_rows_f16, &ds_shape_whole_f16},
    [DS_BF16] = {&ds_shape_row_bf16, &ds_shape_rows_bf16, &ds_shape_whole_bf16},
};

/* Asks for what a tile's results meet, while its sums are made. */
DS_INLINE void ds_product_fetch_results(const ds_product *p, const ds_part *at, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    for (int64_t i = row; i < row + rows; i++)
        for (int64_t j = column; j < column + columns; j += 64 / ds_size(p->t)) {
            if (at->c_along == 1) __builtin_prefetch(ds_at(at->c, i * at->c_across + j, p->t), 1, 3);
            if (at->residual_along == 1)
                __builtin_prefetch(ds_at(at->residual, i * at->residual_across + j, p->t), 0, 3);
        }
}

/* Passes all rows of the part over a block of b, of `columns` columns from `column` on. */
static void ds_product_pass(const ds_product *p, const ds_part *at, const ds_shape *s, const ds_block *k, int64_t column, int64_t columns, ds_rest to) {
    _Alignas(64) float sums[DS_GEMM_SUMS * DS_LANES];
    int64_t across = s->vectors * DS_LANES;
    int first = k->first == 0, last = k->first + k->n >= p->words;
    int as_it_is = !last || (to.in_c && !at->bias && !at->residual && p->kind == DS_IDENTITY);
    for (int64_t row = 0; row < at->rows; row += s->rows) {
        int64_t left = ds_min(s->rows, at->rows - row);
        const float *a = at->a + row * at->a_across + k->first;
        if (last && !as_it_is) ds_product_fetch_results(p, at, row, left, column, columns);
        if (as_it_is && left == s->rows && columns == across) {
            s->product(to.sums + row * to.across + column, to.across, !first, a, at->a_across, left, k);
        } else {
            s->product(sums, across, 0, a, at->a_across, left, k);
            ds_product_settle(p, at, sums, across, (ds_range){row, left, column, columns}, to, first, last);
        }
    }
}

static const ds_shape *ds_product_shape_for(int64_t columns, uint32_t form) {
    int64_t vectors = ds_div_up(columns, DS_LANES);
#if DS_HAS_PAIRS
    if (form == DS_PAIRS) return vectors == 1 ? &ds_shape_one_of_pairs : vectors == 2 ? &ds_shape_two_of_pairs : &ds_shape_whole_of_pairs;
#endif
    (void)form;
    return vectors == 1 ? &ds_shape_one : vectors < DS_GEMM_VECTORS ? &ds_shape_two : &ds_shape_whole;
}

/* Panels of b as they are, all of k at once. */
static void ds_product_run_direct(const ds_product *p, const ds_part *at) {
    ds_rest to = {at->c, at->c_across, p->t == DS_F32 && at->c_along == 1};
    int64_t ahead = ds_max(1, DS_AHEAD_LINES * 64 / (p->columns_each * ds_size(p->t)));
    ds_block k = {at->b, p->b_along, ahead * p->b_along, 0, p->k};
    const ds_shape *s = p->m <= DS_GEMM_ROWS ? DS_FEW[p->t][p->few] : ds_product_shape_for(at->columns, DS_F32);
    ds_product_pass(p, at, s, &k, 0, at->columns, to);
}

/* Where the sums of the stripes begin, for the panels of the first. */
static float *ds_product_stripes_at(const ds_call *call, const ds_product *p) {
    return (float *)call->workspace + ds_product_copied_words(p);
}

/* A stripe of k, all of its columns, some rows of it at a time. */
static void ds_product_run_stripe(const ds_call *call, const ds_product *p, int64_t stripe) {
    const ds_part at = ds_product_part_of(call, p, 0);
    const ds_shape *s = DS_FEW[p->t][p->few];
    float *to = ds_product_stripes_at(call, p) + stripe * ds_product_stripe(p);
    const int64_t begin = p->k * stripe / p->stripes, end = p->k * (stripe + 1) / p->stripes;
    for (int64_t first = begin; first < end; first += DS_STRIPE_ROWS)
        for (int64_t panel = 0; panel < p->panels; panel++) {
            const int64_t column = ds_product_column(p, panel);
            const ds_block k = {ds_at(at.b, first * p->b_along + column, p->t), p->b_along, p->columns_each, first,
                                ds_min(DS_STRIPE_ROWS, end - first)};
            float sums[DS_GEMM_SUMS * DS_LANES], *of = to + panel * p->m * p->columns_each;
            s->product(sums, p->columns_each, 0, at.a + first, at.a_across, p->m, &k);
            for (int64_t i = 0; i < p->m * p->columns_each; i += DS_LANES)
                ds_store(of, i, first == begin ? ds_load(sums, i, DS_F32) : ds_load(of, i, DS_F32) + ds_load(sums, i, DS_F32), DS_F32);
        }
}

/* The sums of all stripes, in their order, for a panel of columns. */
static void ds_product_add_stripes(const ds_call *call, const ds_product *p, int64_t panel) {
    const ds_part at = ds_product_part_of(call, p, 0);
    const float *from = ds_product_stripes_at(call, p) + panel * p->m * p->columns_each;
    float sums[(DS_GEMM_SUMS + 1) * DS_LANES];
    for (int64_t i = 0; i < p->m * p->columns_each; i += DS_LANES) {
        ds_vec sum = ds_load(from, i, DS_F32);
        for (int64_t stripe = 1; stripe < p->stripes; stripe++) sum += ds_load(from + stripe * ds_product_stripe(p), i, DS_F32);
        ds_store(sums, i, sum, DS_F32);
    }
    /* The last panel shares its first columns with the one before. */
    const int64_t column = panel * p->columns_each, shared = column - ds_product_column(p, panel);
    const ds_range own = {0, p->m, column, p->columns_each - shared};
    ds_product_settle(p, &at, sums + shared, p->columns_each, own, (ds_rest){0}, 1, 1);
}

static void ds_product_run_packed(const ds_product *p, const ds_part *at) {
    _Alignas(64) float panel[DS_K_BLOCK * DS_GEMM_COLUMNS], sums[DS_ROW_BLOCK * DS_GEMM_COLUMNS];
    for (int64_t column = 0; column < at->columns; column += DS_GEMM_COLUMNS) {
        int64_t columns = ds_min(DS_GEMM_COLUMNS, at->columns - column);
        ds_rest to = {sums - column, DS_GEMM_COLUMNS, 0};
        if (p->t == DS_F32 && at->c_along == 1) to = (ds_rest){at->c, at->c_across, 1};
        ds_block k = {panel, DS_GEMM_COLUMNS, DS_AHEAD_PACKED * DS_GEMM_COLUMNS, 0, 0};
        do {
            k.n = ds_min(DS_K_BLOCK, p->words - k.first);
            if (at->panel) {
                k.b = at->panel + k.first * DS_GEMM_COLUMNS;
            } else {
                ds_product_pack_panel(p, panel, ds_at(at->b, column * p->b_across, p->t), at->column + column, columns, k.first, k.n);
            }
            ds_product_pass(p, at, ds_product_shape_for(columns, p->form), &k, column, columns, to);
            k.first += DS_K_BLOCK;
        } while (k.first < p->words);
    }
}

/* Rows of a by columns of b that are lines of n numbers: `rows` of the one by DS_LINES of the other. Fetches what is
 * ahead of each, and where it ends, of the line that takes its place, `next` elements from its beginning. */
DS_INLINE void ds_product_dots(ds_vec *to, const float *const *a, const void *const *b, int64_t n, int64_t next, int rows,
                               uint32_t t) {
    const int64_t ahead = DS_AHEAD_BYTES / ds_size(t);
    ds_vec sums[DS_GEMM_SUMS]; /* of its own: what others may point to would be stored at each step */
#pragma GCC unroll 24
    for (int i = 0; i < rows * DS_LINES; i++) sums[i] = (ds_vec){0};
    for (int64_t k = 0; k < n; k += DS_LANES) {
        ds_vec right[DS_LINES];
#pragma GCC unroll 4
        for (int j = 0; j < DS_LINES; j++) {
            right[j] = ds_load(b[j], k, t);
            /* f32 ends more rarely, and leaves less time for the question. */
            const int is_here = t == DS_F32 || k + ahead < n;
            __builtin_prefetch(ds_at(b[j], is_here ? k + ahead : next + k + ahead - n, t), 0, 2);
        }
#pragma GCC unroll 12
        for (int i = 0; i < rows; i++) {
            ds_vec left = ds_load(a[i], k, DS_F32);
#if defined(__x86_64__) /* compilers would load it again for each product, which loads have no time for */
            __asm__("" : "+v"(left));
#endif
#pragma GCC unroll 4
            for (int j = 0; j < DS_LINES; j++) sums[i * DS_LINES + j] = ds_vfma(left, right[j], sums[i * DS_LINES + j]);
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < rows * DS_LINES; i++) to[i] = sums[i];
}

static void ds_product_dots_of_1(ds_vec *sums, const float *const *a, const void *const *b, int64_t n, int64_t next, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, ds_product_dots(sums, a, b, n, next, 1, t));
}
static void ds_product_dots_of_4(ds_vec *sums, const float *const *a, const void *const *b, int64_t n, int64_t next, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, ds_product_dots(sums, a, b, n, next, 4, t));
}
static void ds_product_dots_of_all(ds_vec *sums, const float *const *a, const void *const *b, int64_t n, int64_t next, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, ds_product_dots(sums, a, b, n, next, DS_GEMM_ROWS, t));
}

/* Few rows, and columns that are lines. */
static void ds_product_run_dots(const ds_product *p, const ds_part *at) {
    enum { GROUPS = (DS_GEMM_ROWS * DS_LINES + DS_LANES - 1) / DS_LANES };
    _Alignas(64) float results[DS_GEMM_ROWS * DS_DOT_COLUMNS], totals[GROUPS * DS_LANES];
    ds_vec sums[GROUPS * DS_LANES] = {0};
    const float *a[DS_GEMM_ROWS];
    const void *b[DS_LINES];
    for (int i = 0; i < DS_GEMM_ROWS; i++) a[i] = at->a + ds_min(i, at->rows - 1) * at->a_across;
    int64_t whole = p->k / DS_LANES * DS_LANES, left = p->k - whole;
    for (int64_t column = 0; column < at->columns; column += DS_LINES) {
        int64_t columns = ds_min(DS_LINES, at->columns - column);
        for (int j = 0; j < DS_LINES; j++) b[j] = ds_at(at->b, (column + ds_min(j, columns - 1)) * p->b_across, p->t);
        (p->few == 0 ? ds_product_dots_of_1 : p->few == 1 ? ds_product_dots_of_4 : ds_product_dots_of_all)(sums, a, b, whole, DS_LINES * p->b_across, p->t);
        for (int64_t i = 0; left > 0 && i < at->rows; i++)
            for (int64_t j = 0; j < DS_LINES; j++) {
                ds_vec end = ds_load_first(left, a[i], whole, DS_F32);
                DS_WITH_FLOAT(t, p->t, sums[i * DS_LINES + j] += end * ds_load_first(left, b[j], whole, t));
            }
        for (int64_t i = 0; i < at->rows * DS_LINES; i += DS_LANES) ds_store(totals, i, ds_lane_sums(sums + i), DS_F32);
        for (int64_t i = 0; i < at->rows; i++)
            for (int64_t j = 0; j < columns; j++) results[i * DS_DOT_COLUMNS + column + j] = totals[i * DS_LINES + j];
    }
    ds_product_settle(p, at, results, DS_DOT_COLUMNS, (ds_range){0, at->rows, 0, at->columns}, (ds_rest){0}, 1, 1);
}

/* A product whose b is packed, whatever its rows. */
static __attribute__((unused)) void ds_run_packed_product(const ds_call *call, const ds_product *p, uint32_t phase,
                                                          int64_t begin, int64_t end) {
    if (phase == 0) return ds_product_copy_rows(call, p, begin, end);
    if (phase == 1) return ds_product_pack_panels(call, p, begin, end);
    for (; begin < end; begin++) {
        ds_part at = ds_product_part_of(call, p, begin);
        ds_product_run_packed(p, &at);
    }
}

static __attribute__((unused)) void ds_run_product(const ds_call *call, const ds_product *p, uint32_t phase, int64_t begin, int64_t end) {
    if (phase == 0) return ds_product_copy_rows(call, p, begin, end);
    if (phase == 1) return ds_product_pack_panels(call, p, begin, end);
    for (int64_t item = begin; item < end; item++) {
        if (phase == 3) {
            ds_product_add_stripes(call, p, item);
            continue;
        }
        if (p->stripes) {
            ds_product_run_stripe(call, p, item);
            continue;
        }
        ds_part at = ds_product_part_of(call, p, item);
        if (p->dots) ds_product_run_dots(p, &at);
        /* What the last panel has too few columns for is packed, with zeros beside it. */
        else if (p->direct && at.columns % (p->m <= DS_GEMM_ROWS ? p->columns_each : DS_LANES) == 0) ds_product_run_direct(p, &at);
        else ds_product_run_packed(p, &at);
    }
}

#endif
