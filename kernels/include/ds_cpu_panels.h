/* Rows and panels of attention, on a CPU: bringing tokens near, turning rows into the lanes of vectors and
 * back, and the two products of a tile that all is made of.
 *
 * What is near has a form, words of four bytes: f32, or DS_PAIRS of bf16.
 */
#ifndef DS_CPU_PANELS_H
#define DS_CPU_PANELS_H

#include "ds_cpu_math.h"
#include "ds_cpu_gemm.h"

enum {
    DS_MOST_D = 256,                 /* of a head; kernel.json says so, too */
    DS_NEAR_ROWS = 8 * DS_GEMM_ROWS, /* rows that are near at a time */
    DS_ROWS_AHEAD = 32,              /* they lie too far apart for the processor to foresee */
    DS_PANEL_SLACK = 2 * DS_GEMM_ROWS, /* what the last tile reads and writes beyond a head */
};

/* Not worth a copy for each dtype. */
#define DS_OUT_OF_LINE static __attribute__((noinline, unused))

/* log2(e): powers of two take the place of exponentials. */
#define DS_LOG2_E 0x1.715476p+0f

/* Scores start here: -infinity has no difference to itself. */
#define DS_LEAST_SCORE (-0x1.fffffep127f)

/* The form in which heads of `d` numbers are near. Of short ones, pairs would leave half of the words empty. */
static inline uint32_t ds_form_of_heads(uint32_t dtype, int64_t d) {
    enum { LONG = 2 * DS_LANES };
    return d < LONG ? DS_F32 : ds_form_of(dtype);
}

/* Words of `n` numbers that are neighbours along what a product sums. */
DS_INLINE int64_t ds_words(int64_t n, uint32_t form) { return form == DS_PAIRS ? ds_div_up(n, 2) : n; }

/* Words with those that make vectors whole, of which there is one at least. */
DS_INLINE int64_t ds_padded(int64_t words) { return ds_max(1, ds_div_up(words, DS_LANES)) * DS_LANES; }

/* Lines of a panel of results: tiles are whole. */
static inline int64_t ds_panel_lines(int64_t d) { return ds_div_up(d, DS_GEMM_ROWS) * DS_GEMM_ROWS; }

/* Where heads of tokens lie. Those behind the last are fetched, and need not exist. */
typedef struct ds_heads {
    const void *at[DS_NEAR_ROWS + DS_ROWS_AHEAD];
} ds_heads;

/* Sets heads from number `first` on to `n`, and those to fetch, that lie `across` elements apart. */
static inline void ds_heads_along(ds_heads *h, int64_t first, const void *from, int64_t across, int64_t n, uint32_t dtype) {
    n = ds_min(first + n + DS_ROWS_AHEAD, DS_NEAR_ROWS + DS_ROWS_AHEAD) - first;
    for (int64_t i = 0; i < n; i++) h->at[first + i] = (const char *)from + i * across * ds_size(dtype);
}

DS_INLINE void ds_fetch_head(const ds_heads *h, int64_t i, int64_t d, uint32_t t) {
    for (int64_t c = 0; c < d; c += 64 / ds_size(t)) __builtin_prefetch(ds_at(h->at[i + DS_ROWS_AHEAD], c, t), 0, 2);
}

DS_INLINE void ds_bring_of(float *to, const ds_heads *h, int64_t n, int64_t d, uint32_t t) {
    const int64_t stride = ds_padded(d), whole = d / DS_LANES * DS_LANES;
    for (int64_t i = 0; i < n; i++) {
        const void *row = h->at[i];
        ds_fetch_head(h, i, d, t);
        for (int64_t c = 0; c < whole; c += DS_LANES) ds_store(to, i * stride + c, ds_load(row, c, t), DS_F32);
        if (whole < stride) ds_store(to, i * stride + whole, ds_load_first(d - whole, row, whole, t), DS_F32);
    }
}

#if DS_HAS_PAIRS
DS_OUT_OF_LINE void ds_bring_pairs(float *to, const ds_heads *h, int64_t n, int64_t d) {
    const int64_t stride = ds_padded(ds_words(d, DS_PAIRS));
    for (int64_t i = 0; i < n; i++) {
        ds_fetch_head(h, i, d, DS_BF16);
        for (int64_t c = 0; c < stride; c += DS_LANES)
            _mm512_storeu_si512(to + i * stride + c, ds_load_pairs(h->at[i], 2 * c, ds_max(0, d - 2 * c)));
    }
}

DS_OUT_OF_LINE void ds_bring_pairs_across(float *to, const ds_heads *h, int64_t n, int64_t d) {
    const __m512i low = ds_words_in_turns();
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    const int64_t stride = ds_padded(d);
    for (int64_t i = 0; i < n; i += 2) {
        ds_fetch_head(h, i, d, DS_BF16);
        if (i + 1 < n) ds_fetch_head(h, i + 1, d, DS_BF16);
        for (int64_t c = 0; c < stride; c += 2 * DS_LANES) {
            const __m512i a = ds_load_pairs(h->at[i], c, ds_max(0, d - c));
            const __m512i b = i + 1 < n ? ds_load_pairs(h->at[i + 1], c, ds_max(0, d - c)) : _mm512_setzero_si512();
            float *line = to + i / 2 * stride + c;
            _mm512_storeu_si512(line, _mm512_permutex2var_epi16(a, low, b));
            if (c + DS_LANES < stride) _mm512_storeu_si512(line + DS_LANES, _mm512_permutex2var_epi16(a, high, b));
        }
    }
}
#endif

/* Copies `n` heads side by side, zeros behind each: words are neighbours of a head. */
DS_OUT_OF_LINE void ds_bring(float *to, const ds_heads *h, int64_t n, int64_t d, uint32_t dtype, uint32_t form) {
#if DS_HAS_PAIRS
    if (form == DS_PAIRS) return ds_bring_pairs(to, h, n, d);
#endif
    (void)form;
    DS_WITH_FLOAT(t, dtype, ds_bring_of(to, h, n, d, t));
}

/* The same where words are of neighbouring heads, and a line holds so many of them. */
DS_OUT_OF_LINE void ds_bring_across(float *to, const ds_heads *h, int64_t n, int64_t d, uint32_t dtype, uint32_t form) {
#if DS_HAS_PAIRS
    if (form == DS_PAIRS) return ds_bring_pairs_across(to, h, n, d);
#endif
    ds_bring(to, h, n, d, dtype, form);
}

DS_INLINE void ds_put_of(void *to, const float *from, int64_t d, uint32_t t) {
    for (int64_t c = 0; c < d; c += DS_LANES) ds_store_first(d - c, to, c, ds_load(from, c, DS_F32), t);
}

/* Stores a head. */
DS_OUT_OF_LINE void ds_put_head(void *to, const float *from, int64_t d, uint32_t dtype) {
    DS_WITH_FLOAT(t, dtype, ds_put_of(to, from, d, t));
}

/* Panel from rows, of which word k of row i becomes word i of line k; f32 times `scale`. */
DS_OUT_OF_LINE void ds_turn_in(float *panel, int64_t width, const float *rows, int64_t words, float scale, uint32_t form) {
    const int64_t stride = ds_padded(words);
    for (int64_t first = 0; first < width; first += DS_LANES)
        for (int64_t c = 0; c < stride; c += DS_LANES) {
            ds_vec line[DS_LANES];
            for (int64_t i = 0; i < DS_LANES; i++) {
                line[i] = ds_load(rows, (first + i) * stride + c, DS_F32);
                if (form == DS_F32) line[i] *= scale;
            }
            ds_turn(line);
            for (int64_t i = 0; i < DS_LANES && c + i < words; i++) ds_store(panel, (c + i) * width + first, line[i], DS_F32);
        }
}

/* And back: rows from a panel, row i times number i of `scale`. */
DS_OUT_OF_LINE void ds_turn_out(float *rows, const float *panel, int64_t width, int64_t d, const ds_vec *scale) {
    const int64_t stride = ds_padded(d);
    for (int64_t first = 0; first < width; first += DS_LANES)
        for (int64_t c = 0; c < stride; c += DS_LANES) {
            ds_vec line[DS_LANES];
            for (int64_t i = 0; i < DS_LANES; i++)
                line[i] = c + i < d ? ds_load(panel, (c + i) * width + first, DS_F32) * scale[first / DS_LANES] : (ds_vec){0};
            ds_turn(line);
            for (int64_t i = 0; i < DS_LANES; i++) ds_store(rows, (first + i) * stride + c, line[i], DS_F32);
        }
}

/* Sums of DS_GEMM_ROWS rows of as many vectors as the caller says. */
typedef ds_vec ds_sums[DS_GEMM_SUMS];

/* sums += rows * panel, for the DS_GEMM_ROWS rows that begin `across` apart and whose `n` words are `along`
 * apart; lines of the panel are `width` apart. */
DS_INLINE void ds_panel_multiply(ds_sums sums, const float *rows, int64_t across, int64_t along, const float *panel,
                                 int64_t width, int64_t n, int vectors, uint32_t form) {
    enum { AHEAD = 8 /* lines */ };
    const float *row[DS_GEMM_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < DS_GEMM_ROWS; i++) row[i] = rows + i * across;
    ds_gemm_add_along(sums, row, along, panel, width, n, DS_GEMM_ROWS, vectors, AHEAD * width, 0, form);
}

DS_INLINE void ds_sums_clear(ds_sums sums) {
#pragma GCC unroll 32
    for (int i = 0; i < DS_GEMM_SUMS; i++) sums[i] = (ds_vec){0};
}

/* Stores a tile in `to`, whose lines are as wide as it is. */
DS_INLINE void ds_sums_keep(float *to, ds_sums sums, int vectors) {
#pragma GCC unroll 32
    for (int i = 0; i < DS_GEMM_ROWS * vectors; i++) ds_store(to, i * DS_LANES, sums[i], DS_F32);
}

/* panel = factor * panel + rows' * weights: to line c, number c of each of `n` rows times its weights for
 * the columns. Words of both are of neighbouring rows. */
DS_INLINE void ds_add_rows(float *panel, const ds_vec *factor, const float *rows, const float *weights, int64_t n,
                           int64_t d, int vectors, uint32_t form) {
    const int64_t width = vectors * DS_LANES;
    for (int64_t c = 0; c < d; c += DS_GEMM_ROWS) {
        ds_sums sums;
#pragma GCC unroll 32
        for (int i = 0; i < DS_GEMM_ROWS * vectors; i++) {
            sums[i] = ds_load(panel, c * width + i * DS_LANES, DS_F32);
            if (factor) sums[i] *= factor[i % vectors];
        }
        ds_panel_multiply(sums, rows + c, 1, ds_padded(d), weights, width, ds_words(n, form), vectors, form);
        ds_sums_keep(panel + c * width, sums, vectors);
    }
}

/* A head of `d` numbers times another. */
DS_INLINE double ds_dot_of(const void *a, const void *b, int64_t d, uint32_t t) {
    ds_vec sum = ds_splat(0);
    for (int64_t c = 0; c < d; c += DS_LANES) sum = ds_vfma(ds_load_first(d - c, a, c, t), ds_load_first(d - c, b, c, t), sum);
    return ds_vsum(sum);
}

DS_OUT_OF_LINE float ds_dot(const void *a, const void *b, int64_t d, uint32_t dtype) {
    double sum = 0;
    DS_WITH_FLOAT(t, dtype, sum = ds_dot_of(a, b, d, t));
    return (float)sum;
}

#endif
