/* Tokens drawn from rows of logits, on a CPU.
 *
 * Limit: memory. Logits are read once, by all threads, which leave the greatest of each block and the sum of
 * its exponentials; a draw then looks into one block. Who wants the most probable tokens alone goes over the
 * row again, which the caches hold: for a bound on distances from the greatest logit, of which a digit is
 * found at a time from what each value of it weighs, so that nothing is sorted. Blocks whose greatest logit
 * is beyond a bound are passed over, and top-k finds a bound in the greatest ones of blocks first.
 *
 * Distances are (greatest - logit) / temperature in f32, at least 0, so that their bits are in their order.
 */
#include "ds_cpu_lanes.h"
#include "ds_cpu_rows.h"
#include "ds_cpu_random.h"

/* sample(logits, seed, offset, temperature, top_k, top_p) -> tokens, logprobs. Phase 0: an item is a part
 * of a row. Phase 1: an item is a row. */
enum { LOGITS, TOKENS, LOGPROBS };
enum { SEED, OFFSET, TEMPERATURE, TOP_K, TOP_P };
enum {
    BLOCK = 32 * DS_LANES,
    PART = 64 * BLOCK, /* worth a thread's while */
    MOST_CHUNKS = 64,
    DIGIT_BITS = 11,
    DIGITS = 1 << DIGIT_BITS,
};
/* From here on a token has no weight: exponentials are 0. */
#define BEYOND 104.0f

/* The summary of a block. */
typedef struct block {
    float greatest; /* that is no NaN */
    float weight;   /* exponentials of differences to the greatest; NaN with a NaN or infinity */
} block;

typedef struct row {
    const void *logits;
    uint32_t t;
    int64_t n, blocks_n;
    const block *blocks; /* NULL where nothing is known of them */
    double *weights;     /* of blocks, of what is within the bound alone */
    double *digits;
    float greatest, scale;
    uint32_t bound; /* bits of the greatest distance that counts */
} row;

DS_INLINE int64_t blocks_of(const ds_tensor *logits) { return ds_div_up(ds_row_length(logits), BLOCK); }

static void plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *logits = ds_arg_tensor(call, LOGITS, 0);
    int64_t rows = logits->shape[0], n = ds_row_length(logits), blocks = blocks_of(logits);
    out->phases = 2;
    out->phase[0].items = rows * ds_div_up(n, PART);
    out->phase[0].grain = ds_max(1, PART / ds_max(1, n));
    out->phase[1].items = rows;
    out->phase[1].grain = ds_max(ds_max(1, 4096 / ds_max(1, n)), ds_div_up(rows, MOST_CHUNKS));
    out->workspace_bytes = rows * blocks * (int64_t)sizeof(block) +
                           ds_div_up(rows, out->phase[1].grain) * (blocks + DIGITS) * 8;
}

/* What distances are multiplied with. Without a temperature only those of 0 count, whatever it is. */
DS_INLINE float scale_of(const ds_call *call) {
    double temperature = call->scalars[TEMPERATURE].f;
    if (!(temperature > 0)) return 1;
    return (float)(1 / temperature < 0x1p126 ? 1 / temperature : 0x1p126);
}

/* The summary of `n` elements; the second time they are in the first level of the caches. */
DS_INLINE block summarize(const void *logits, int64_t n, float scale, uint32_t t) {
    const ds_vec least = ds_splat(-__builtin_inff());
    ds_vec2 most = {least, least}, sum = {{0}, {0}};
    int64_t whole = n / DS_PAIR * DS_PAIR;
    for (int64_t i = 0; i < whole; i += DS_PAIR) {
        ds_vec2 v = ds_load2(logits, i, t);
        ds_prefetch2(logits, i + DS_AHEAD, t, 1);
        most = (ds_vec2){ds_vmax(v.a, most.a), ds_vmax(v.b, most.b)};
    }
    for (int64_t i = whole; i < n; i += DS_LANES)
        most.a = ds_vmax(ds_fill_behind(n - i, ds_load_first(n - i, logits, i, t), least), most.a);
    float greatest = ds_greatest_lane(ds_vmax(most.a, most.b));
    ds_vec from = ds_splat(greatest == -__builtin_inff() ? 0 : greatest);
    for (int64_t i = 0; i < whole; i += DS_PAIR) {
        ds_vec2 v = ds_load2(logits, i, t);
        sum = (ds_vec2){sum.a + ds_vexp((v.a - from) * scale), sum.b + ds_vexp((v.b - from) * scale)};
    }
    for (int64_t i = whole; i < n; i += DS_LANES)
        sum.a += ds_keep_first(n - i, ds_vexp((ds_load_first(n - i, logits, i, t) - from) * scale));
    return (block){greatest, (float)ds_vsum(sum.a + sum.b)};
}

static void run_parts(const ds_call *call, int64_t begin, int64_t end) {
    const ds_tensor *logits = ds_arg_tensor(call, LOGITS, 0);
    int64_t n = ds_row_length(logits), parts = ds_div_up(n, PART), blocks = blocks_of(logits);
    float scale = scale_of(call);
    for (int64_t item = begin; item < end; item++) {
        int64_t of = item / parts, first = item % parts * PART, last = ds_min(first + PART, n);
        block *to = (block *)call->workspace + of * blocks;
        const char *from = ds_at(logits->data, ds_row_offset(logits, of), logits->dtype);
        DS_WITH_FLOAT(t, logits->dtype,
                      for (int64_t i = first; i < last; i += BLOCK)
                          to[i / BLOCK] = summarize(ds_at(from, i, t), ds_min(BLOCK, n - i), scale, t));
    }
}

DS_INLINE uint32_t bits_of(float v) { return DS_BITS_OF(v); }

/* A vector of distances, those behind the end beyond everything. The dtype is asked each time. */
DS_INLINE ds_vec distances(const row *r, int64_t i) {
    if (r->t > DS_BF16) __builtin_unreachable();
    ds_vec v = (r->greatest - ds_load_first(r->n - i, r->logits, i, r->t)) * r->scale;
    return ds_fill_behind(r->n - i, v, ds_splat(__builtin_inff()));
}

/* The least distance in a block. */
DS_INLINE float distance_of(const row *r, int64_t b) {
    return r->blocks ? (r->greatest - r->blocks[b].greatest) * r->scale : 0;
}

/* Whether a block has anything within the bound. */
DS_INLINE int is_within(const row *r, int64_t b) { return bits_of(distance_of(r, b)) <= r->bound; }

DS_INLINE int64_t end_of(const row *r, int64_t b) { return ds_min((b + 1) * BLOCK, r->n); }

/* Adds what the distances of a vector from `from` to `bound` weigh to those of their digits. */
DS_INLINE void add_digits(const row *r, int64_t i, uint32_t from, uint32_t bound, int shift, int by_weight) {
    ds_vec v = distances(r, i);
    uint32_t out = ds_not_at_most(v, ds_splat(DS_FLOAT_OF(bound))) | ds_not_at_most(ds_splat(DS_FLOAT_OF(from)), v);
    uint32_t in = ~out & ((1u << DS_LANES) - 1);
    if (!in) return;
    uint32_t bits[DS_LANES];
    float weights[DS_LANES];
    __builtin_memcpy(bits, &v, sizeof bits);
    if (by_weight) v = ds_vexp(-v);
    __builtin_memcpy(weights, &v, sizeof weights);
    for (; in; in &= in - 1) {
        int lane = __builtin_ctz(in);
        r->digits[(bits[lane] - from) >> shift] += by_weight ? (double)weights[lane] : 1;
    }
}

/* Lowers the bound to the least one within which distances weigh `wanted`: by their exponentials, or 1
 * each. */
static void lower_bound(row *r, double wanted, int by_weight) {
    uint32_t from = 0, bound = r->bound;
    for (int bits = 31; bits > 0;) {
        bits = bits > DIGIT_BITS ? bits - DIGIT_BITS : 0;
        __builtin_memset(r->digits, 0, DIGITS * 8);
        for (int64_t b = 0; b < r->blocks_n; b++) {
            if (!is_within(r, b)) continue;
            for (int64_t i = b * BLOCK; i < end_of(r, b); i += DS_LANES) add_digits(r, i, from, bound, bits, by_weight);
        }
        uint32_t digit = 0, last = (bound - from) >> bits;
        for (; digit < last && r->digits[digit] < wanted; digit++) wanted -= r->digits[digit];
        from += digit << bits;
        bound = (uint32_t)ds_min((int64_t)from + (1 << bits) - 1, bound);
        r->bound = bound;
    }
}

/* The same for `k` tokens. As many blocks have a token that is no further than their greatest. */
static void keep_first(row *r, int64_t k) {
    if (k <= r->blocks_n) {
        float *greatest = (float *)r->weights;
        for (int64_t b = 0; b < r->blocks_n; b++) greatest[b] = r->blocks[b].greatest;
        row of = *r;
        of.logits = greatest;
        of.t = DS_F32;
        of.n = r->blocks_n;
        of.blocks_n = ds_div_up(of.n, BLOCK);
        of.blocks = 0;
        lower_bound(&of, (double)k, 0);
        r->bound = of.bound;
    }
    lower_bound(r, (double)k, 0);
}

/* What is within the bound weighs, block by block and in all. */
static double weigh(row *r, int is_bounded) {
    double total = 0;
    for (int64_t b = 0; b < r->blocks_n; b++) {
        double weight = 0;
        if (is_within(r, b) && !is_bounded) {
            weight = (double)(ds_vexp(ds_splat(-distance_of(r, b)))[0] * r->blocks[b].weight);
        } else if (is_within(r, b)) {
            ds_vec sum = {0}, bound = ds_splat(DS_FLOAT_OF(r->bound));
            for (int64_t i = b * BLOCK; i < end_of(r, b); i += DS_LANES) {
                ds_vec v = distances(r, i);
                sum += ds_vselect(v <= bound, ds_vexp(-v), (ds_vec){0});
            }
            weight = ds_vsum(sum);
        }
        r->weights[b] = weight;
        total += weight;
    }
    return total;
}

/* The first token of which, with those before it, the weight is more than `wanted`; the last one that counts
 * where rounding leaves none. */
static int64_t pick(const row *r, double wanted, float *distance) {
    int64_t in = 0, found = -1;
    for (int64_t b = 0; b < r->blocks_n; b++) {
        if (!(r->weights[b] > 0)) continue;
        in = b;
        if (r->weights[b] > wanted) break;
        wanted -= r->weights[b];
    }
    for (int64_t i = in * BLOCK; i < end_of(r, in); i += DS_LANES) {
        ds_vec v = distances(r, i), weights = ds_vexp(-v);
        for (int lane = 0; lane < DS_LANES; lane++) {
            if (bits_of(v[lane]) > r->bound) continue;
            found = i + lane;
            *distance = v[lane];
            if ((double)weights[lane] > wanted) return found;
            wanted -= (double)weights[lane];
        }
    }
    return found;
}

/* Number `index` of the draw, in [0, 1). */
static double uniform(const ds_call *call, int64_t index) {
    ds_random random;
    uint64_t position = (uint64_t)call->scalars[OFFSET].i + 2 * (uint64_t)index;
    const uint32_t *words = ds_random_words(&random, (uint64_t)call->scalars[SEED].i, position, 2);
    return (double)(((uint64_t)words[0] << 32 | words[1]) >> 11) * 0x1p-53;
}

/* Whether the row has a greatest logit that is finite, and no NaN. */
static int find_greatest(row *r) {
    r->greatest = -__builtin_inff();
    for (int64_t b = 0; b < r->blocks_n; b++) {
        if (r->blocks[b].weight != r->blocks[b].weight) return 0;
        r->greatest = r->greatest < r->blocks[b].greatest ? r->blocks[b].greatest : r->greatest;
    }
    r->greatest += 0.0f; /* zero has no sign then, nor has any distance */
    return r->greatest != -__builtin_inff();
}

static int64_t sample(const ds_call *call, row *r, int64_t index, float *logprob) {
    int64_t k = call->scalars[TOP_K].i;
    double p = call->scalars[TOP_P].f;
    int is_greedy = !(call->scalars[TEMPERATURE].f > 0), is_bounded = 0;
    *logprob = __builtin_nanf("");
    if (!find_greatest(r)) return -1;
    r->bound = is_greedy ? 0 : bits_of(BEYOND);
    if (!is_greedy && k > 0 && k < r->n) {
        keep_first(r, k);
        is_bounded = 1;
    }
    if (!is_greedy && p < 1) {
        lower_bound(r, p * weigh(r, is_bounded), 1);
        is_bounded = 1;
    }
    double total = weigh(r, is_bounded || is_greedy);
    float distance = 0;
    int64_t token = pick(r, is_greedy ? 0 : uniform(call, index) * total, &distance);
    *logprob = is_greedy ? 0 : -distance - ds_vlog(ds_splat((float)total))[0];
    return token;
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    if (phase == 0) return run_parts(call, begin, end);
    const ds_tensor *logits = ds_arg_tensor(call, LOGITS, 0);
    int64_t rows = logits->shape[0], blocks = blocks_of(logits);
    ds_plan made = {0};
    plan(call, &made);
    double *own = (double *)((block *)call->workspace + rows * blocks) + begin / made.phase[1].grain * (blocks + DIGITS);
    for (int64_t i = begin; i < end; i++) {
        row r = {
            .logits = ds_at(logits->data, ds_row_offset(logits, i), logits->dtype),
            .t = logits->dtype,
            .n = ds_row_length(logits),
            .blocks_n = blocks,
            .blocks = (const block *)call->workspace + i * blocks,
            .digits = own,
            .weights = own + DIGITS,
            .scale = scale_of(call),
        };
        float *logprobs = ds_arg_tensor(call, LOGPROBS, 0)->data;
        ((int64_t *)ds_arg_tensor(call, TOKENS, 0)->data)[i] = sample(call, &r, i, &logprobs[i]);
    }
}

DS_KERNEL(ds_sample, plan, run);
