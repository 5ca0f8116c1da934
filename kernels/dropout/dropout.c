/* Dropout whose mask is drawn again wherever it is needed, on a CPU.
 *
 * Limit: memory for f32, and the random words for half types: ten rounds of Philox are 30 cycles for
 * 32 elements with AVX-512. dropout moves 2 elements an element, bias_dropout_add 3.
 */
#include "ds_cpu_elementwise.h"
#include "ds_cpu_random.h"

/* What is kept, and what it is multiplied with. */
typedef struct {
    uint64_t seed, offset;
    int any;       /* whether there is such a word at all */
    uint32_t least; /* word of those that are */
    ds_vec scale;
} keep;

/* seed, offset and p; a uniform number is the upper 24 bits of a word, so u >= p is u * 2^24 >= least. */
static keep keep_of(const ds_call *call) {
    enum { SEED, OFFSET, P };
    double p = call->scalars[P].f, steps = p * 0x1p24;
    double clamped = steps >= 0x1p24 ? 0x1p24 : steps > 0 ? steps : 0;
    int32_t least = (int32_t)clamped;
    least += (double)least < clamped;
    return (keep){
        .seed = (uint64_t)call->scalars[SEED].i,
        .offset = (uint64_t)call->scalars[OFFSET].i,
        .any = least < 1 << 24,
        .least = (uint32_t)least << 8,
        .scale = ds_splat((float)(1 / (1 - p))),
    };
}

/* v times the scale, or 0, as the word of its place says. */
DS_INLINE ds_vec kept(ds_vec v, ds_vec_u32 word, const keep *k) {
#if DS_LANES == 16
    __mmask16 all = k->any ? 0xffff : 0;
    __mmask16 on = _mm512_mask_cmpge_epu32_mask(all, (__m512i)word, _mm512_set1_epi32((int)k->least));
    return (ds_vec)_mm512_maskz_mul_ps(on, (__m512)v, (__m512)k->scale);
#else
    ds_vec_u32 on = (ds_vec_u32)(word >= k->least);
    return (ds_vec)((ds_vec_u32)(v * k->scale) & on & (k->any ? ~0u : 0));
#endif
}

/* The words of a pair: those of bf16 are even and odd ones, of others one vector after the other. */
DS_INLINE void words_of(const uint32_t *words, ds_vec_u32 w[2], uint32_t t) {
    __builtin_memcpy(w, words, 2 * sizeof w[0]);
    if (t != DS_BF16) return;
#if DS_LANES == 16
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    __m512i a = (__m512i)w[0], b = (__m512i)w[1];
    w[0] = (ds_vec_u32)_mm512_permutex2var_epi32(a, even, b);
    w[1] = (ds_vec_u32)_mm512_permutex2var_epi32(a, odd, b);
#else
    for (int i = 0; i < DS_LANES; i++) {
        w[0][i] = words[2 * i];
        w[1][i] = words[2 * i + 1];
    }
#endif
}

DS_INLINE ds_vec2 kept2(ds_vec2 v, const uint32_t *words, const keep *k, uint32_t t) {
    ds_vec_u32 w[2];
    words_of(words, w, t);
    return (ds_vec2){kept(v.a, w[0], k), kept(v.b, w[1], k)};
}

/* Drawn at a time: of f32, which memory limits, so few that the processor draws the next ones while it waits
 * for these elements. Half types wait for the words, and the more of these at a time the better. */
DS_INLINE int64_t drawn_at_a_time(uint32_t t) { return t == DS_F32 ? 2 * DS_RANDOM_STEP : 8 * DS_RANDOM_STEP; }

DS_INLINE void dropout_rows(const ds_call *call, ds_elementwise e, int64_t begin, int64_t end, uint32_t t) {
    const keep k = keep_of(call);
    const ds_tensor *x = ds_arg_tensor(call, 0, 0);
    const int large = ds_streams(ds_elements(x), t);
    const ds_blocks blocks = ds_blocks_of(call, e);
    ds_random random;
    ds_rest rest;
    for (int64_t block = begin; block < end; block++) {
        const ds_block whole = ds_block_at(call, e, &blocks, block, t);
        const void *residual = e.vectors ? whole.in[1] : 0, *bias = e.vectors ? whole.in[2] : 0;
        const int streams = large && ds_aligned(whole.out[0]);
        for (int64_t tile = 0; tile < whole.count; tile += drawn_at_a_time(t)) {
            int64_t stop = ds_min(tile + drawn_at_a_time(t), whole.count), i = tile;
            uint64_t position = k.offset + (uint64_t)(whole.index + tile);
            const uint32_t *words = ds_random_words(&random, k.seed, position, stop - tile);
            for (; i + DS_PAIR <= stop; i += DS_PAIR) {
                ds_vec2 v = kept2(ds_biased(whole.in[0], bias, i, t), words + (i - tile), &k, t);
                if (residual) v = ds_add_pair(v, ds_biased(residual, 0, i, t));
                ds_store2(whole.out[0], i, v, t, streams);
            }
            if (i == stop) continue;
            ds_block at = ds_rest_of(&rest, &whole, i, t);
            ds_vec2 v = kept2(ds_biased(at.in[0], e.vectors ? at.in[2] : 0, 0, t), words + (i - tile), &k, t);
            if (residual) v = ds_add_pair(v, ds_load2(at.in[1], 0, t));
            ds_store2(at.out[0], 0, v, t, 0);
            ds_rest_back(&rest, &whole, i, t);
        }
    }
    if (large) ds_fence();
}

/* dropout(x; seed, offset, p) -> y */
static const ds_elementwise DROPOUT = {.matrices = 1, .vectors = 0, .outputs = 1};

static void plan(const ds_call *call, ds_plan *out) { ds_plan_elementwise(call, out, DROPOUT); }

static void dropout(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, 0, 0)->dtype, dropout_rows(call, DROPOUT, begin, end, t));
}

/* bias_dropout_add(x, residual, bias?; seed, offset, p) -> y */
static const ds_elementwise ADD = {.matrices = 2, .vectors = 1, .outputs = 1};

static void plan_add(const ds_call *call, ds_plan *out) { ds_plan_elementwise(call, out, ADD); }

static void bias_dropout_add(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    DS_WITH_FLOAT(t, ds_arg_tensor(call, 0, 0)->dtype, dropout_rows(call, ADD, begin, end, t));
}

DS_KERNEL(ds_dropout, plan, dropout);
DS_KERNEL(ds_bias_dropout_add, plan_add, bias_dropout_add);
