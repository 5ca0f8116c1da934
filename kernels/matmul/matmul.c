/* Matrix product on a CPU: packed panels and a register tile, as in BLIS (Van Zee and van de Geijn
 * 2015, ACM TOMS 41(3)).
 *
 * Limit: multiply-add instructions, 2 m n k flops; f32 with two 512-bit units 64 flops a cycle and
 * core, bf16 pairs (AVX512_BF16) twice that. A register tile of MR x NR reads MR + NR words for MR *
 * NR multiply-adds. A panel of a stays in the first level while those of b, which the tile fetches
 * ahead, come from the second: with 8 x 48, 16 bytes a cycle.
 */
#include "ds_cpu_simd.h"

#if DS_LANES == 16 /* 24 of 32 registers hold sums, 3 hold b, 1 holds a */
#define MR 8
#define VECTORS 3
#elif DS_LANES == 8 /* 12 of 16 */
#define MR 6
#define VECTORS 2
#elif defined(__aarch64__) /* 24 of 32 */
#define MR 12
#define VECTORS 2
#else
#define MR 6
#define VECTORS 2
#endif
#define NR (VECTORS * DS_LANES)

/* Panels hold 4-byte words: one f32 each, or with AVX512_BF16 a pair of bf16, neighbours along k.
 * Elsewhere bf16 is widened while it is packed, and on Intel's CPUs too (they are those with
 * AVX512_FP16): their vdpbf16ps takes four times as long as an FMA, measured on Sapphire Rapids. */
#if DS_LANES == 16 && defined(__AVX512BF16__) && !defined(__AVX512FP16__)
#define BF16_PAIRS 1
#else
#define BF16_PAIRS 0
#endif
#define PER_WORD(t) (BF16_PAIRS && (t) == DS_BF16 ? 2 : 1)

/* matmul(a, b) -> c.
 *
 * Phase 0: an item is a panel of b (NR columns) or of a (MR rows), packed into the workspace with
 * the words of one k side by side, zeros where the matrix ends. A matrix that the batch shares is
 * packed once. Phase 1: an item is a tile of c; a call of `tile` computes it over all k. */
enum { A, B, C };

enum {
    K_BLOCK = 384,        /* words of a panel in use at a time: MR * 4 * K_BLOCK is 18 KiB at most */
    FETCHED_LINES = 8,    /* of b, from what is packed to what is fetched */
    AHEAD = 16,           /* words from what is read of b to what is fetched */
    TILE_ROWS = 32,       /* panels */
    TILE_COLUMNS = 16,    /* b's share of a block then takes 1152 KiB at most */
    SUM_ROWS = 8 * MR,    /* of a block whose sums in f32 are kept until they are whole, */
    SUM_COLUMNS = 4 * NR, /* at most 48 KiB */
    ENOUGH_TILES = 64,    /* below that tiles shrink, so that threads share them evenly, */
    TILE_FLOPS = 2 << 20, /* but not below this */
    PACK_WORDS = 32 << 10 /* words in a chunk of phase 0 */
};

/* Strides of 0 make any extents of a few bytes; the max_elements of kernel.json, 2^44, keeps the
 * products below within 64 bits. */
typedef struct {
    int64_t m, n, k;
    int64_t k_words;
    int64_t batch, a_matrices, b_matrices;
    int64_t a_panels, b_panels; /* of one matrix */
    int64_t tile_rows, tile_columns; /* in panels */
    int64_t row_tiles, column_tiles;
} geometry;

/* Whether all matrices of the batch are the same. */
static int is_shared(const ds_tensor *t) {
    for (int32_t d = 0; d < t->ndim - 2; d++)
        if (t->shape[d] > 1 && t->strides[d] != 0) return 0;
    return 1;
}

static geometry geometry_of(const ds_call *call, uint32_t t) {
    const ds_tensor *a = ds_arg_tensor(call, A, 0), *b = ds_arg_tensor(call, B, 0);
    geometry g;
    g.batch = 1;
    for (int32_t d = 0; d < a->ndim - 2; d++) g.batch *= a->shape[d];
    g.m = a->shape[a->ndim - 2];
    g.k = ds_row_length(a);
    g.n = ds_row_length(b);
    g.k_words = ds_div_up(g.k, PER_WORD(t));
    g.a_matrices = is_shared(a) ? 1 : g.batch;
    g.b_matrices = is_shared(b) ? 1 : g.batch;
    g.a_panels = ds_div_up(g.m, MR);
    g.b_panels = ds_div_up(g.n, NR);
    int64_t rows = TILE_ROWS, columns = TILE_COLUMNS;
    for (;;) {
        g.row_tiles = ds_div_up(g.a_panels, rows);
        g.column_tiles = ds_div_up(g.b_panels, columns);
        /* Even shares: 17 panels are tiles of 9 and 8, not of 16 and 1. */
        g.tile_rows = ds_div_up(g.a_panels, ds_max(1, g.row_tiles));
        g.tile_columns = ds_div_up(g.b_panels, ds_max(1, g.column_tiles));
        int64_t flops = 2 * MR * NR * g.tile_rows * g.tile_columns * g.k;
        if (g.batch * g.row_tiles * g.column_tiles >= ENOUGH_TILES || flops < 2 * TILE_FLOPS) return g;
        if (columns > 1 && (rows == 1 || g.tile_rows * MR <= g.tile_columns * NR)) columns = g.tile_columns / 2 > 0 ? ds_div_up(g.tile_columns, 2) : 1;
        else if (rows > 1) rows = ds_div_up(g.tile_rows, 2);
        else return g;
    }
}

DS_INLINE void plan(const ds_call *call, ds_plan *out, uint32_t t) {
    geometry g = geometry_of(call, t);
    out->phases = 2;
    out->phase[0].items = g.b_matrices * g.b_panels + g.a_matrices * g.a_panels;
    out->phase[0].grain = ds_max(1, PACK_WORDS / (NR * ds_max(1, g.k_words)));
    out->phase[1].items = g.batch * g.row_tiles * g.column_tiles;
    int64_t flops = 2 * MR * NR * g.tile_rows * g.tile_columns * ds_max(1, g.k);
    out->phase[1].grain = ds_max(1, TILE_FLOPS / ds_max(1, flops));
    int64_t words = g.b_matrices * g.b_panels * NR + g.a_matrices * g.a_panels * MR;
    out->workspace_bytes = words * g.k_words * 4;
}

/* Word `k` of a line whose elements lie `along` apart. */
DS_INLINE uint32_t word(const void *line, int64_t k, int64_t along, int64_t length, uint32_t t) {
    if (t == DS_F32) {
        uint32_t bits;
        __builtin_memcpy(&bits, (const float *)line + k * along, 4);
        return bits;
    }
    const uint16_t *half = line;
    if (PER_WORD(t) == 1) return (uint32_t)half[k * along] << 16;
    uint32_t high = 2 * k + 1 < length ? half[(2 * k + 1) * along] : 0;
    return half[2 * k * along] | high << 16;
}

#if DS_LANES == 16
/* Packs 16 words of each of 8 lines that are whole in memory: three times the elements of vectors i and
 * i + 4 take turns, and the lines' number has become the lowest part of an element's place. */
DS_INLINE void turn(float *panel, const void *from, int64_t across, uint32_t t) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    __m512 line[MR], turned[MR];
    for (int i = 0; i < MR; i++) line[i] = (__m512)ds_load(from, i * across, t);
#pragma GCC unroll 3
    for (int round = 0; round < 3; round++) {
#pragma GCC unroll 4
        for (int i = 0; i < MR / 2; i++) {
            turned[2 * i] = _mm512_permutex2var_ps(line[i], low, line[i + MR / 2]);
            turned[2 * i + 1] = _mm512_permutex2var_ps(line[i], high, line[i + MR / 2]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < MR; i++) line[i] = turned[i];
    }
    for (int i = 0; i < MR; i++) ds_store(panel, i * DS_LANES, (ds_vec)line[i], DS_F32);
}
#endif

/* Packs `lines` lines, `across` apart, of `width` that the panel has room for. */
DS_INLINE void pack(uint32_t *panel, int64_t width, const void *from, int64_t lines, int64_t across,
                    int64_t along, int64_t length, uint32_t t) {
    int64_t words = ds_div_up(length, PER_WORD(t)), full = length / PER_WORD(t);
    if (lines < width) __builtin_memset(panel, 0, (size_t)(words * width) * 4);
    if (across == 1 && lines == width) {
        for (int64_t k = 0; k < full; k++) {
            for (int64_t i = 0; i < width; i += 64 / ds_size(t))
                __builtin_prefetch(ds_at(from, (k + FETCHED_LINES) * along + i, t), 0, 3);
            for (int64_t i = 0; i < width; i++)
                panel[k * width + i] = word(ds_at(from, i, t), k, along, length, t);
        }
        for (int64_t k = full; k < words; k++)
            for (int64_t i = 0; i < width; i++)
                panel[k * width + i] = word(ds_at(from, i, t), k, along, length, t);
        return;
    }
    /* A cache line of each line at a time: lines a power of two apart share few places in cache. */
    int64_t start = 0;
#if DS_LANES == 16
    if (width == MR && lines == MR && along == 1 && PER_WORD(t) == 1)
        for (; start + DS_LANES <= words; start += DS_LANES)
            turn((float *)panel + start * MR, ds_at(from, start, t), across, t);
#endif
    for (; start < words; start += 16) {
        int64_t stop = ds_min(start + 16, words);
        for (int64_t i = 0; i < lines; i++)
            for (int64_t k = start; k < stop; k++)
                panel[k * width + i] = word(ds_at(from, i * across, t), k, along, length, t);
    }
}

DS_INLINE void pack_panels(const ds_call *call, int64_t begin, int64_t end, uint32_t t) {
    const ds_tensor *a = ds_arg_tensor(call, A, 0), *b = ds_arg_tensor(call, B, 0);
    geometry g = geometry_of(call, t);
    int64_t in_b = g.b_matrices * g.b_panels;
    const int64_t *sa = a->strides + a->ndim - 2, *sb = b->strides + b->ndim - 2;
    for (int64_t item = begin; item < end; item++) {
        uint32_t *panel = call->workspace;
        if (item < in_b) {
            int64_t matrix = item / g.b_panels, column = item % g.b_panels * NR;
            int64_t offset = ds_offset(b, b->ndim - 2, matrix) + column * sb[1];
            pack(panel + item * NR * g.k_words, NR, ds_at(b->data, offset, t), ds_min(NR, g.n - column),
                 sb[1], sb[0], g.k, t);
        } else {
            int64_t i = item - in_b, matrix = i / g.a_panels, row = i % g.a_panels * MR;
            int64_t offset = ds_offset(a, a->ndim - 2, matrix) + row * sa[0];
            pack(panel + (in_b * NR + i * MR) * g.k_words, MR, ds_at(a->data, offset, t),
                 ds_min(MR, g.m - row), sa[0], sa[1], g.k, t);
        }
    }
}

/* sum + a * b of f32, or sum + the products of the pairs in a and b. */
DS_INLINE ds_vec multiply_add(ds_vec sum, ds_vec a, ds_vec b, uint32_t t) {
#if BF16_PAIRS
    if (t == DS_BF16) return (ds_vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
    (void)t;
    return ds_vfma(a, b, sum);
}

/* MR x `vectors` of c from `words` words of a panel of a and of b: the loop that all is about. */
DS_INLINE void register_tile(ds_vec sums[MR][VECTORS], const float *a, const float *b, int64_t words, int vectors,
                             uint32_t t) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) sums[i][j] = (ds_vec){0};
    for (int64_t k = 0; k < words; k++, a += MR, b += NR) {
        ds_vec right[VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            right[j] = ds_load(b, j * DS_LANES, DS_F32);
            __builtin_prefetch(b + AHEAD * NR + j * DS_LANES, 0, 3);
        }
#pragma GCC unroll 16
        for (int i = 0; i < MR; i++) {
            ds_vec left = ds_splat(a[i]);
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) sums[i][j] = multiply_add(sums[i][j], left, right[j], t);
        }
    }
}

typedef struct {
    void *data; /* first element of the block */
    int64_t rows, columns;
    int64_t row_stride, column_stride;
} block;

/* Writes sums to a c of f32, or adds them to what is there. */
DS_INLINE void store_tile(ds_vec sums[MR][VECTORS], block c, int add) {
    if (c.rows == MR && c.columns == NR && c.column_stride == 1) {
#pragma GCC unroll 16
        for (int64_t i = 0; i < MR; i++)
#pragma GCC unroll 4
            for (int64_t j = 0; j < VECTORS; j++) {
                int64_t at = i * c.row_stride + j * DS_LANES;
                ds_store(c.data, at, add ? sums[i][j] + ds_load(c.data, at, DS_F32) : sums[i][j], DS_F32);
            }
        return;
    }
    for (int64_t i = 0; i < c.rows; i++)
        for (int64_t j = 0; j < c.columns; j++) {
            float sum = sums[i][j / DS_LANES][j % DS_LANES];
            float *to = (float *)c.data + i * c.row_stride + j * c.column_stride;
            *to = add ? *to + sum : sum;
        }
}

/* The product of panels, of T, in a c of f32. */
DS_INLINE void tile(const geometry *g, const float *a, const float *b, block c, uint32_t t) {
    int64_t k = 0;
    do {
        int64_t words = ds_min(K_BLOCK, g->k_words - k);
        for (int64_t row = 0; row < c.rows; row += MR) {
            for (int64_t column = 0; column < c.columns; column += NR) {
                ds_vec sums[MR][VECTORS];
                const float *panel_a = a + row * g->k_words + k * MR;
                const float *panel_b = b + column * g->k_words + k * NR;
                block part = c;
                part.data = ds_at(c.data, row * c.row_stride + column * c.column_stride, DS_F32);
                part.rows = ds_min(MR, c.rows - row);
                part.columns = ds_min(NR, c.columns - column);
                /* The last panel may be of fewer columns. */
                int64_t vectors = ds_div_up(part.columns, DS_LANES);
                if (vectors == VECTORS) register_tile(sums, panel_a, panel_b, words, VECTORS, t);
                else if (vectors == 2) register_tile(sums, panel_a, panel_b, words, 2, t);
                else register_tile(sums, panel_a, panel_b, words, 1, t);
                store_tile(sums, part, k > 0);
            }
        }
        k += K_BLOCK;
    } while (k < g->k_words);
}

/* The same in a c of bf16, where sums cannot rest: a block of them is kept in f32. */
DS_INLINE void tile_of_half(const geometry *g, const float *a, const float *b, block c, uint32_t t) {
    _Alignas(64) float sums[SUM_ROWS * SUM_COLUMNS];
    for (int64_t row = 0; row < c.rows; row += SUM_ROWS)
        for (int64_t column = 0; column < c.columns; column += SUM_COLUMNS) {
            block part = {sums, ds_min(SUM_ROWS, c.rows - row), ds_min(SUM_COLUMNS, c.columns - column), SUM_COLUMNS, 1};
            tile(g, a + row * g->k_words, b + column * g->k_words, part, t);
            for (int64_t i = 0; i < part.rows; i++) {
                const float *from = sums + i * SUM_COLUMNS;
                uint16_t *to = (uint16_t *)c.data + (row + i) * c.row_stride + column * c.column_stride;
                for (int64_t j = 0; c.column_stride == 1 && j < part.columns; j += DS_LANES)
                    ds_store_first(part.columns - j, to, j, ds_load(from, j, DS_F32), t);
                for (int64_t j = 0; c.column_stride != 1 && j < part.columns; j++)
                    to[j * c.column_stride] = ds_f32_to_bf16(from[j]);
            }
        }
}

DS_INLINE void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end, uint32_t t) {
    if (phase == 0) {
        pack_panels(call, begin, end, t);
        return;
    }
    const ds_tensor *c = ds_arg_tensor(call, C, 0);
    geometry g = geometry_of(call, t);
    const float *panels_b = call->workspace;
    const float *panels_a = panels_b + g.b_matrices * g.b_panels * NR * g.k_words;
    for (int64_t item = begin; item < end; item++) {
        int64_t row_tile = item % g.row_tiles, column_tile = item / g.row_tiles % g.column_tiles;
        int64_t matrix = item / (g.row_tiles * g.column_tiles);
        int64_t row = row_tile * g.tile_rows * MR, column = column_tile * g.tile_columns * NR;
        if (row >= g.m || column >= g.n) continue;
        int64_t first_a = (g.a_matrices > 1 ? matrix : 0) * g.a_panels * MR + row;
        int64_t first_b = (g.b_matrices > 1 ? matrix : 0) * g.b_panels * NR + column;
        block part;
        part.row_stride = c->strides[c->ndim - 2];
        part.column_stride = c->strides[c->ndim - 1];
        int64_t offset = ds_offset(c, c->ndim - 2, matrix) + row * part.row_stride + column * part.column_stride;
        part.data = ds_at(c->data, offset, t);
        part.rows = ds_min(g.tile_rows * MR, g.m - row);
        part.columns = ds_min(g.tile_columns * NR, g.n - column);
        const float *left = panels_a + first_a * g.k_words, *right = panels_b + first_b * g.k_words;
        if (t == DS_F32) tile(&g, left, right, part, t);
        else tile_of_half(&g, left, right, part, t);
    }
}

#define KERNEL(name, t)                                                                  \
    static void plan_##name(const ds_call *c, ds_plan *out) { plan(c, out, t); }         \
    static void run_##name(const ds_call *c, uint32_t phase, int64_t begin, int64_t end) { \
        run(c, phase, begin, end, t);                                                    \
    }                                                                                    \
    DS_KERNEL(ds_matmul_##name, plan_##name, run_##name)

KERNEL(f32, DS_F32);
KERNEL(bf16, DS_BF16);
