/* Matrix products in registers, for CPU kernels: sums of a tile stay there while k runs, as in BLIS (Van Zee
 * and van de Geijn 2015, ACM TOMS 41(3)).
 *
 * Limit: multiply-add instructions. For each k a tile of R rows and V vectors reads V vectors of b and R
 * numbers of a, for R * V of them.
 */
#ifndef DS_CPU_GEMM_H
#define DS_CPU_GEMM_H

#include "ds_cpu_simd.h"

/* The shape that is best where a has rows enough, and the vectors of sums that registers have room for. */
#if DS_LANES == 16 /* 24 of 32 registers hold sums, 3 hold b, 1 holds a */
#define DS_GEMM_ROWS 8
#define DS_GEMM_VECTORS 3
#elif defined(__aarch64__) /* 24 of 32 */
#define DS_GEMM_ROWS 12
#define DS_GEMM_VECTORS 2
#else /* 12 of 16 */
#define DS_GEMM_ROWS 6
#define DS_GEMM_VECTORS 2
#endif
#define DS_GEMM_SUMS (DS_GEMM_ROWS * DS_GEMM_VECTORS)
#define DS_GEMM_COLUMNS (DS_GEMM_VECTORS * DS_LANES)

/* What products are made of beside the dtypes: words of two bf16 that are neighbours along k. */
enum { DS_PAIRS = 64 };

/* What is loaded as words. */
DS_INLINE uint32_t ds_word_of(uint32_t t) { return t == DS_PAIRS ? DS_F32 : t; }

/* The form in which numbers of `dtype` meet others of theirs. */
static inline uint32_t ds_form_of(uint32_t dtype) { return DS_HAS_PAIRS && dtype == DS_BF16 ? DS_PAIRS : DS_F32; }

/* Calls a statement with the form `f` as a constant. */
#if DS_HAS_PAIRS
#define DS_WITH_FORM(f, form, ...)                                          \
    do {                                                                    \
        if ((form) == DS_PAIRS) { enum { f = DS_PAIRS }; __VA_ARGS__; }     \
        else { enum { f = DS_F32 }; __VA_ARGS__; }                          \
    } while (0)
#else
#define DS_WITH_FORM(f, form, ...) do { enum { f = DS_F32 }; (void)(form); __VA_ARGS__; } while (0)
#endif

#if DS_HAS_PAIRS
/* 32 bf16 of a row, or the first `n` and zeros. */
DS_INLINE __m512i ds_load_pairs(const void *row, int64_t c, int64_t n) {
    const __mmask32 first = n >= 32 ? 0xffffffff : (1u << n) - 1;
    return _mm512_maskz_loadu_epi16(first, (const uint16_t *)row + c);
}

/* The order in which the first 16 elements of two rows become words of both. */
DS_INLINE __m512i ds_words_in_turns(void) {
    return _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8,
                            39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
}
#endif

/* sum + a * b, or the two products of pairs. */
DS_INLINE ds_vec ds_multiply_add(ds_vec a, ds_vec b, ds_vec sum, uint32_t t) {
#if DS_HAS_PAIRS
    if (t == DS_PAIRS) return (ds_vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
    (void)t;
    return ds_vfma(a, b, sum);
}

/* sums += a b, for `rows` rows, `vectors` vectors of columns and `n` values of k. Value k of row i is
 * a[i][k * a_along], vector j of row k of b at b + k * b_along + j * DS_LANES, of dtype t, and their sum
 * sums[i * vectors + j]; with DS_PAIRS, words of both take the place of values. `rows` and `vectors` have to be
 * constants, and t had better be. Fetches what of b is `ahead` elements ahead: into the first level, or into the
 * second, which has more misses at once, where it comes from memory. */
DS_INLINE void ds_gemm_add_along(ds_vec *sums, const float *const *a, int64_t a_along, const void *b, int64_t b_along,
                                 int64_t n, int rows, int vectors, int64_t ahead, int is_from_memory, uint32_t t) {
    const uint32_t word = ds_word_of(t);
    for (int64_t k = 0; k < n; k++) {
        ds_vec right[DS_GEMM_SUMS];
#pragma GCC unroll 24
        for (int j = 0; j < vectors; j++) {
            right[j] = ds_load(b, j * DS_LANES, word);
            if (j * DS_LANES * ds_size(word) % 64 != 0) continue;
            if (is_from_memory) __builtin_prefetch(ds_at(b, ahead + j * DS_LANES, word), 0, 2);
            else __builtin_prefetch(ds_at(b, ahead + j * DS_LANES, word), 0, 3);
        }
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            ds_vec left = ds_splat(a[i][k * a_along]);
#pragma GCC unroll 24
            for (int j = 0; j < vectors; j++)
                sums[i * vectors + j] = ds_multiply_add(left, right[j], sums[i * vectors + j], t);
        }
        b = ds_at(b, b_along, word);
    }
}

/* The same where the values of a row of a are neighbours. */
DS_INLINE void ds_gemm_add(ds_vec *sums, const float *const *a, const void *b, int64_t b_along, int64_t n,
                           int rows, int vectors, int64_t ahead, int is_from_memory, uint32_t t) {
    ds_gemm_add_along(sums, a, 1, b, b_along, n, rows, vectors, ahead, is_from_memory, t);
}

/* Turns a square: number k of line i becomes number i of line k. Each round the lines of the first half
 * and those of the second take turns, and a bit of an element's line becomes a bit of its place. Not
 * inline: it is long, and the same for every dtype. */
static __attribute__((noinline, unused)) void ds_turn(ds_vec line[DS_LANES]) {
    ds_vec turned[DS_LANES];
#pragma GCC unroll 4
    for (int round = 1; round < DS_LANES; round *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < DS_LANES / 2; i++) {
            ds_vec2 both = ds_zip(line[i], line[i + DS_LANES / 2]);
            turned[2 * i] = both.a;
            turned[2 * i + 1] = both.b;
        }
#pragma GCC unroll 16
        for (int i = 0; i < DS_LANES; i++) line[i] = turned[i];
    }
}

/* The sum of the lanes of each vector: that of vector l in lane l. Each round adds two halves of as many, and
 * a bit of a vector's number becomes a bit of a lane's. */
static __attribute__((noinline, unused)) ds_vec ds_lane_sums(const ds_vec v[DS_LANES]) {
    ds_vec half[DS_LANES];
#pragma GCC unroll 16
    for (int i = 0; i < DS_LANES; i++) half[i] = v[i];
#pragma GCC unroll 4
    for (int n = DS_LANES / 2; n > 0; n /= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            ds_vec2 both = ds_zip(half[i], half[i + n]);
            half[i] = both.a + both.b;
        }
    }
    return half[0];
}

/* Packs columns of a b of dtype t as `ds_gemm_add` finds them soonest: at most DS_GEMM_COLUMNS side by side
 * in f32 for each of `n` values of k, `stride` apart, and zeros in place of what `columns` lacks of them. In b
 * columns are `across` apart, values of k `along`. */
DS_INLINE void ds_gemm_pack(float *panel, int64_t stride, const void *b, int64_t columns, int64_t across,
                            int64_t along, int64_t n, uint32_t t) {
    enum { FETCHED = 8 /* lines ahead */, WIDTH = DS_GEMM_COLUMNS };
    if (across == 1) {
        for (int64_t k = 0; k < n; k++) {
            const void *row = ds_at(b, k * along, t);
            for (int64_t i = 0; i < WIDTH; i += 64 / ds_size(t))
                __builtin_prefetch(ds_at(row, FETCHED * along + i, t), 0, 3);
            if (columns >= WIDTH) {
#pragma GCC unroll 4
                for (int64_t i = 0; i < WIDTH; i += DS_LANES)
                    ds_store(panel, k * stride + i, ds_load(row, i, t), DS_F32);
            } else {
#pragma GCC unroll 1
                for (int64_t i = 0; i < WIDTH; i += DS_LANES)
                    ds_store(panel, k * stride + i, ds_load_first(ds_max(0, columns - i), row, i, t), DS_F32);
            }
        }
        return;
    }
    for (int64_t first = 0; first < WIDTH; first += DS_LANES)
        for (int64_t k = 0; k < n; k += DS_LANES) {
            ds_vec line[DS_LANES];
            int64_t left = ds_min(DS_LANES, n - k);
#pragma GCC unroll 1
            for (int64_t i = 0; i < DS_LANES; i++) {
                const void *from = ds_at(b, (first + i) * across + k * along, t);
                line[i] = (ds_vec){0};
                if (first + i >= columns) continue;
                if (along == 1 && left == DS_LANES) {
                    line[i] = ds_load(from, 0, t);
                    __builtin_prefetch(ds_at(from, FETCHED * DS_LANES, t), 0, 3);
                } else {
#pragma GCC unroll 1
                    for (int64_t l = 0; l < left; l++) line[i][l] = ds_load_first(1, from, l * along, t)[0];
                }
            }
            ds_turn(line);
#pragma GCC unroll 1
            for (int64_t l = 0; l < left; l++) ds_store(panel + first, (k + l) * stride, line[l], DS_F32);
        }
}

#endif
