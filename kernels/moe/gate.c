/* Which experts take a token, and how many of an expert's rows are before it, on a CPU.
 *
 * Limit: compute, a few dozen cycles for each vector of a row and each choice; bytes are few beside those
 * of the rows that go to the experts.
 *
 * Phase 0: an item is a token; each chunk of tokens lists its places by expert. Phase 1: an item is an
 * expert, which goes through its lists in the order of chunks, so that offsets do not depend on who counts.
 * Of moe_gate alone, phase 2: an item is a token, whose weights are those of the places that were kept; and
 * phase 3, one item: the sum over experts.
 */
#include "ds_cpu_lanes.h"
#include "ds_cpu_rows.h"

typedef struct gate {
    const ds_tensor *logits;
    const float *noise, *priority; /* or NULL */
    const uint8_t *used;
    float *weights;
    int32_t *experts, *offsets;
    int64_t tokens; /* from this one on they are padding */
    int64_t rows, width, places, capacity;
    int choice_major, by_probability;
    /* Of the workspace: a region for each chunk, the places of all chunks by expert, a term of l_aux for
     * each expert. */
    int64_t grain, region_bytes;
    char *regions;
    int32_t *lists;
    double *terms;
} gate;

/* A chunk's region: the row that is at hand, its keys, where the places of each expert end in the list, and
 * the sums of probabilities. */
DS_INLINE int64_t padded(int64_t width) { return ds_div_up(width, 16) * 16; }
DS_INLINE float *row_of(const gate *g, int64_t chunk) { return (float *)(g->regions + chunk * g->region_bytes); }
DS_INLINE int32_t *keys_of(const gate *g, int64_t chunk) { return (int32_t *)row_of(g, chunk) + padded(g->width); }
DS_INLINE int32_t *ends_of(const gate *g, int64_t chunk) { return keys_of(g, chunk) + padded(g->width); }
DS_INLINE float *sums_of(const gate *g, int64_t chunk) { return (float *)ends_of(g, chunk) + padded(g->width); }
DS_INLINE int64_t chunks_of(const gate *g) { return ds_div_up(g->rows, g->grain); }

static void lay_out(gate *g, const ds_call *call, const ds_tensor *logits, const ds_tensor *experts) {
    g->logits = logits;
    g->rows = g->tokens = logits->shape[0];
    g->width = logits->shape[1];
    g->places = experts->shape[1];
    g->capacity = INT64_MAX;
    g->grain = ds_max(ds_row_grain(4 * g->width), ds_div_up(g->rows, DS_MOST_SHARES));
    g->region_bytes = 16 * padded(g->width);
    if (!call) return;
    g->regions = call->workspace;
    g->terms = (double *)(g->regions + chunks_of(g) * g->region_bytes);
    g->lists = (int32_t *)(g->terms + g->width);
}

static void plan_gate(ds_plan *out, const ds_tensor *logits, const ds_tensor *experts) {
    gate g;
    lay_out(&g, 0, logits, experts);
    out->phases = 2;
    out->phase[0].items = g.rows;
    out->phase[0].grain = g.grain;
    out->phase[1].items = g.width;
    out->phase[1].grain = ds_max(1, DS_CHUNK_ELEMENTS * g.width / ds_max(1, 4 * g.rows * g.places));
    out->workspace_bytes = chunks_of(&g) * g.region_bytes + g.width * 8 + g.rows * g.places * 4;
}

/* Integers that are greater the more a value is in front: above all a NaN. Zeros of both signs are one
 * value, and no value is INT32_MIN. */
DS_INLINE ds_vec_i32 key_of(ds_vec v) {
    ds_vec_i32 bits = (ds_vec_i32)(v + 0.0f), nan = v != v;
    return (nan & INT32_MAX) | ((bits ^ (bits >> 31 & INT32_MAX)) & ~nan);
}

DS_INLINE ds_vec_i32 greater(ds_vec_i32 a, ds_vec_i32 b) {
#if DS_LANES == 16 /* compilers make masks of what is compared */
    return (ds_vec_i32)_mm512_max_epi32((__m512i)a, (__m512i)b);
#else
    return ((a > b) & a) | (~(a > b) & b);
#endif
}

DS_INLINE ds_vec_i32 keys_at(const int32_t *keys, int64_t i) {
    ds_vec_i32 v;
    __builtin_memcpy(&v, keys + i, sizeof v);
    return v;
}

/* The greatest key's place, which is taken out; -1 where none is left. */
static int32_t take_first(int32_t *keys, int64_t n) {
    ds_vec_i32 most = keys_at(keys, 0);
    for (int64_t i = DS_LANES; i < n; i += DS_LANES) most = greater(most, keys_at(keys, i));
    int32_t greatest = most[0];
#if DS_LANES == 16
    greatest = _mm512_reduce_max_epi32((__m512i)most);
#else
    for (int i = 1; i < DS_LANES; i++) greatest = most[i] > greatest ? most[i] : greatest;
#endif
    if (greatest == INT32_MIN) return -1;
    most = (ds_vec_i32){0} + greatest;
    uint32_t equal;
    int64_t i = 0;
    while (!(equal = ds_equal_i32(keys_at(keys, i), most))) i += DS_LANES;
    i += __builtin_ctz(equal);
    keys[i] = INT32_MIN;
    return (int32_t)i;
}

/* Keys of a row, with noise where that is not NULL. */
static void make_keys(int32_t *keys, const float *row, const float *noise, int64_t n) {
    for (int64_t i = 0; i < n; i += DS_LANES) {
        ds_vec v = ds_load_first(n - i, row, i, DS_F32);
        if (noise) v += ds_load_first(n - i, noise, i, DS_F32);
        ds_vec_i32 key = key_of(v), behind = {0};
        key = (ds_vec_i32)ds_fill_behind(n - i, (ds_vec)key, (ds_vec)(behind + INT32_MIN));
        __builtin_memcpy(keys + i, &key, sizeof key);
    }
}

/* What probabilities of a row are made of: exp(logit - greatest) * scale. */
typedef struct softmax {
    float greatest, scale;
} softmax;

DS_INLINE ds_vec powers(const float *row, int64_t i, int64_t n, float greatest) {
    return ds_keep_first(n - i, ds_vexp(ds_load_first(n - i, row, i, DS_F32) - greatest));
}

static softmax softmax_of(const float *row, int64_t n) {
    const ds_vec least = ds_splat(-__builtin_inff());
    ds_vec most = least;
    for (int64_t i = 0; i < n; i += DS_LANES)
        most = ds_vmax(most, ds_fill_behind(n - i, ds_load_first(n - i, row, i, DS_F32), least));
    softmax of = {ds_greatest_lane(most), 0};
    double sum = 0;
    for (int64_t i = 0; i < n;) {
        ds_vec block = {0};
        for (int64_t end = ds_min(i + 16 * DS_LANES, n); i < end; i += DS_LANES) block += powers(row, i, n, of.greatest);
        sum += ds_vsum(block);
    }
    of.scale = (float)(1 / sum);
    return of;
}

static float probability(const softmax *of, const float *row, int64_t i) {
    return ds_vexp(ds_splat(row[i] - of->greatest))[0] * of->scale;
}

/* The choices of a token and their probabilities; adds all probabilities to `sums` where that is not NULL. */
static void choose(const gate *g, int64_t token, const float *row, int32_t *keys, float *sums) {
    int64_t n = g->width, first = token * g->places;
    int is_used = token < g->tokens && (!g->used || g->used[token]);
    softmax of = {0};
    if (is_used || sums) of = softmax_of(row, n);
    for (int64_t i = 0; sums && i < n; i += DS_LANES) {
        ds_vec sum = ds_load_first(n - i, sums, i, DS_F32);
        ds_store_first(n - i, sums, i, ds_vfma(powers(row, i, n, of.greatest), ds_splat(of.scale), sum), DS_F32);
    }
    const float *noise = g->noise ? g->noise + token * n : 0;
    if (is_used && n > 0) make_keys(keys, row, g->choice_major ? 0 : noise, n);
    for (int64_t k = 0; k < g->places; k++) {
        int32_t expert = is_used && n > 0 ? take_first(keys, n) : -1;
        g->experts[first + k] = expert;
        g->offsets[first + k] = -1;
        g->weights[first + k] = expert < 0 ? 0 : probability(&of, row, expert);
        if (k > 0 || !g->choice_major || !noise || expert < 0) continue;
        make_keys(keys, row, noise, n);
        keys[expert] = INT32_MIN;
    }
}

/* The places of a chunk's tokens by expert, those of one in rising order. */
static void list_places(const gate *g, int64_t begin, int64_t end) {
    int32_t *ends = ends_of(g, begin / g->grain), *list = g->lists + begin * g->places;
    const int32_t *experts = g->experts + begin * g->places;
    int64_t count = (end - begin) * g->places;
    __builtin_memset(ends, 0, (size_t)g->width * 4);
    for (int64_t i = 0; i < count; i++)
        if (experts[i] >= 0) ends[experts[i]]++;
    int32_t before = 0;
    for (int64_t e = 0; e < g->width; e++) {
        int32_t n = ends[e];
        ends[e] = before;
        before += n;
    }
    for (int64_t i = 0; i < count; i++) /* moves each beginning to its end */
        if (experts[i] >= 0) list[ends[experts[i]]++] = (int32_t)i;
}

/* Row `token` of the logits as f32. */
static void widen(const gate *g, int64_t token, float *to) {
    int64_t n = g->width, at = ds_row_offset(g->logits, token);
    DS_WITH_FLOAT(t, g->logits->dtype,
                  for (int64_t i = 0; i < n; i += DS_LANES)
                      ds_store_first(n - i, to, i, ds_load_first(n - i, g->logits->data, at + i, t), DS_F32));
}

static void choose_all(const gate *g, int64_t begin, int64_t end, int sums_too) {
    for (int64_t first = begin; first < end; first += g->grain) {
        int64_t last = ds_min(first + g->grain, end), chunk = first / g->grain;
        float *sums = sums_too ? sums_of(g, chunk) : 0;
        if (sums) __builtin_memset(sums, 0, (size_t)g->width * 4);
        for (int64_t token = first; token < last; token++) {
            widen(g, token, row_of(g, chunk));
            choose(g, token, row_of(g, chunk), keys_of(g, chunk), sums);
        }
        list_places(g, first, last);
    }
}

/* The places of expert `e` in a chunk, counted from the chunk's first one. */
typedef struct places {
    const int32_t *at, *end;
    int64_t first;
} places;

DS_INLINE places places_of(const gate *g, int64_t chunk, int64_t e) {
    const int32_t *ends = ends_of(g, chunk), *list = g->lists + chunk * g->grain * g->places;
    return (places){list + (e ? ends[e - 1] : 0), list + ends[e], chunk * g->grain * g->places};
}

DS_INLINE uint32_t rank_of(const gate *g, int64_t place) {
    float v = g->priority ? g->priority[place / g->places] : g->weights[place];
    uint32_t bits = DS_BITS_OF(v + 0.0f);
    return v != v ? 0xffffffff : bits & 0x80000000 ? ~bits : bits | 0x80000000;
}

/* The rank of the last place of an expert that is kept, found by a digit at a time, and into `equal` how
 * many of that rank are. */
static uint32_t last_rank(const gate *g, int64_t e, int64_t *equal) {
    uint32_t rank = 0, known = 0;
    int64_t wanted = g->capacity;
    for (int shift = 24; shift >= 0; shift -= 8) {
        int64_t counts[256] = {0};
        for (int64_t chunk = 0; chunk < chunks_of(g); chunk++) {
            places p = places_of(g, chunk, e);
            for (; p.at < p.end; p.at++) {
                uint32_t of = rank_of(g, p.first + *p.at);
                if ((of & known) == rank) counts[of >> shift & 255]++;
            }
        }
        uint32_t digit = 255;
        for (; counts[digit] < wanted; digit--) wanted -= counts[digit];
        rank |= digit << shift;
        known |= 255u << shift;
    }
    *equal = wanted;
    return rank;
}

/* Offsets of the places of an expert that it keeps; the others lose it. Gives how many places there were,
 * and into `first_choices` how many of them were a token's first one. */
static int64_t settle(const gate *g, int64_t e, int64_t *first_choices) {
    int64_t count = 0, kept = 0, equal = 0;
    for (int64_t chunk = 0; chunk < chunks_of(g); chunk++) {
        places p = places_of(g, chunk, e);
        count += p.end - p.at;
    }
    int by_rank = count > g->capacity && g->capacity > 0 && (g->priority || g->by_probability);
    uint32_t last = by_rank ? last_rank(g, e, &equal) : 0;
    *first_choices = 0;
    for (int64_t k = 0; k < (g->choice_major ? g->places : 1); k++) {
        for (int64_t chunk = 0; chunk < chunks_of(g); chunk++) {
            places p = places_of(g, chunk, e);
            for (; p.at < p.end; p.at++) {
                int64_t place = p.first + *p.at;
                if (g->choice_major && place % g->places != k) continue;
                *first_choices += place % g->places == 0;
                int keeps = kept < g->capacity;
                if (by_rank) {
                    uint32_t rank = rank_of(g, place);
                    keeps = rank > last || (rank == last && equal-- > 0);
                }
                g->offsets[place] = keeps ? (int32_t)kept++ : -1;
                if (!keeps) g->experts[place] = -1;
            }
        }
    }
    return count;
}

/* top_k_gating(logits, n_tokens, scores, assignments, offsets) -> expert_counts. */
enum { T_LOGITS, T_TOKENS, T_SCORES, T_ASSIGNMENTS, T_OFFSETS, T_COUNTS };

static void top_k_plan(const ds_call *call, ds_plan *out) {
    plan_gate(out, ds_arg_tensor(call, T_LOGITS, 0), ds_arg_tensor(call, T_ASSIGNMENTS, 0));
}

static void top_k_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    const int32_t *tokens = ds_optional(call, T_TOKENS);
    gate g = {
        .weights = ds_arg_tensor(call, T_SCORES, 0)->data,
        .experts = ds_arg_tensor(call, T_ASSIGNMENTS, 0)->data,
        .offsets = ds_arg_tensor(call, T_OFFSETS, 0)->data,
    };
    lay_out(&g, call, ds_arg_tensor(call, T_LOGITS, 0), ds_arg_tensor(call, T_ASSIGNMENTS, 0));
    if (tokens) g.tokens = *tokens;
    int64_t first_choices;
    if (phase == 0) choose_all(&g, begin, end, 0);
    else
        for (int64_t e = begin; e < end; e++)
            ((int32_t *)ds_arg_tensor(call, T_COUNTS, 0)->data)[e] = (int32_t)settle(&g, e, &first_choices);
}

DS_KERNEL(ds_top_k_gating, top_k_plan, top_k_run);

/* moe_gate(logits, noise, used, priority, weights, assignments, offsets, capacity, choice_major,
 * by_probability, normalize) -> expert_counts, load, l_aux. */
enum { LOGITS, NOISE, USED, PRIORITY, WEIGHTS, ASSIGNMENTS, OFFSETS, COUNTS, LOAD, L_AUX };
enum { CHOICE_MAJOR, BY_PROBABILITY, NORMALIZE };

static void gate_plan(const ds_call *call, ds_plan *out) {
    plan_gate(out, ds_arg_tensor(call, LOGITS, 0), ds_arg_tensor(call, ASSIGNMENTS, 0));
    out->phases = 4;
    out->phase[2].items = out->phase[0].items;
    out->phase[2].grain = DS_CHUNK_ELEMENTS;
    out->phase[3].items = out->phase[3].grain = 1;
}

/* Counts and load of an expert, and its term of l_aux. */
static void weigh(const ds_call *call, const gate *g, int64_t e) {
    int64_t first_choices, count = settle(g, e, &first_choices), counted = g->choice_major ? first_choices : count;
    double choices = (double)g->rows * (double)(g->choice_major ? 1 : g->places);
    double load = choices > 0 ? (double)(g->width * counted) / choices : 0, sum = 0;
    for (int64_t chunk = 0; chunk < chunks_of(g); chunk++) sum += (double)sums_of(g, chunk)[e];
    ((int64_t *)ds_arg_tensor(call, COUNTS, 0)->data)[e] = count;
    ((float *)ds_arg_tensor(call, LOAD, 0)->data)[e] = (float)load;
    g->terms[e] = g->rows > 0 ? load * sum / (double)g->rows : 0;
}

/* The weights of a token: 0 where the place has no expert. */
static void finish(const gate *g, int64_t token, int normalize) {
    float *weights = g->weights + token * g->places, sum = 0, by;
    const int32_t *experts = g->experts + token * g->places;
    for (int64_t k = 0; k < g->places; k++) sum += experts[k] < 0 ? 0 : weights[k];
    by = !normalize ? 1 : sum < 0x1p-23f ? 0x1p-23f : sum;
    for (int64_t k = 0; k < g->places; k++) weights[k] = experts[k] < 0 ? 0 : weights[k] / by;
}

static void gate_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    gate g = {
        .noise = ds_optional(call, NOISE),
        .used = ds_optional(call, USED),
        .priority = ds_optional(call, PRIORITY),
        .weights = ds_arg_tensor(call, WEIGHTS, 0)->data,
        .experts = ds_arg_tensor(call, ASSIGNMENTS, 0)->data,
        .offsets = ds_arg_tensor(call, OFFSETS, 0)->data,
        .choice_major = call->attributes[CHOICE_MAJOR].i != 0,
        .by_probability = call->attributes[BY_PROBABILITY].i != 0,
    };
    lay_out(&g, call, ds_arg_tensor(call, LOGITS, 0), ds_arg_tensor(call, ASSIGNMENTS, 0));
    g.capacity = call->scalars[0].i;
    if (phase == 0) choose_all(&g, begin, end, 1);
    for (int64_t e = begin; phase == 1 && e < end; e++) weigh(call, &g, e);
    for (int64_t i = begin; phase == 2 && i < end; i++) finish(&g, i, call->attributes[NORMALIZE].i != 0);
    if (phase < 3) return;
    double sum = 0;
    for (int64_t e = 0; e < g.width; e++) sum += g.terms[e];
    *(float *)ds_arg_tensor(call, L_AUX, 0)->data = (float)sum;
}

DS_KERNEL(ds_moe_gate, gate_plan, gate_run);

/* moe_gate_backward(dweights, dl_aux, logits, assignments, load, normalize) -> dlogits. An item is a token.
 * The gradient of its probability of expert e is that of l_aux, and of its weight where e was kept. */
enum { B_DWEIGHTS, B_DL_AUX, B_LOGITS, B_ASSIGNMENTS, B_LOAD, B_DLOGITS };

static void backward_plan(const ds_call *call, ds_plan *out) {
    const ds_tensor *logits = ds_arg_tensor(call, B_LOGITS, 0);
    out->phases = 1;
    out->phase[0].items = logits->shape[0];
    out->phase[0].grain = ds_row_grain(4 * logits->shape[1]);
}

/* The gradients of the probabilities into `to`, from those of the weights. */
static void add_weights(float *to, const float *row, const softmax *of, const float *dweights, const int32_t *experts,
                        int64_t places, int64_t n, int normalize) {
    float sum = 0, shared = 0;
    for (int64_t k = 0; normalize && k < places; k++) {
        if (experts[k] < 0 || experts[k] >= n) continue;
        float p = probability(of, row, experts[k]);
        sum += p;
        shared += dweights[k] * p;
    }
    /* Where the sum is too small to divide by, it is a constant. */
    float by = !normalize ? 1 : sum < 0x1p-23f ? 0x1p-23f : sum;
    shared = normalize && sum >= 0x1p-23f ? shared / sum : 0;
    if (sum != sum) shared = sum;
    for (int64_t k = 0; k < places; k++)
        if (experts[k] >= 0 && experts[k] < n) to[experts[k]] += (dweights[k] - shared) / by;
}

static void backward_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *logits = ds_arg_tensor(call, B_LOGITS, 0);
    int64_t n = logits->shape[1], places = ds_arg_tensor(call, B_ASSIGNMENTS, 0)->shape[1];
    const float *load = ds_arg_tensor(call, B_LOAD, 0)->data, *dweights = ds_arg_tensor(call, B_DWEIGHTS, 0)->data;
    const int32_t *experts = ds_arg_tensor(call, B_ASSIGNMENTS, 0)->data;
    float each = *(const float *)ds_arg_tensor(call, B_DL_AUX, 0)->data / (float)logits->shape[0];
    for (int64_t token = begin; token < end; token++) {
        const float *row = (const float *)logits->data + ds_row_offset(logits, token);
        float *to = (float *)ds_arg_tensor(call, B_DLOGITS, 0)->data + token * n;
        softmax of = softmax_of(row, n);
        for (int64_t e = 0; e < n; e++) to[e] = each * load[e];
        add_weights(to, row, &of, dweights + token * places, experts + token * places, places, n,
                    call->attributes[0].i != 0);
        double shared = 0;
        for (int64_t i = 0; i < n; i += DS_LANES)
            shared += ds_vsum(powers(row, i, n, of.greatest) * of.scale * ds_load_first(n - i, to, i, DS_F32));
        for (int64_t i = 0; i < n; i += DS_LANES) {
            ds_vec p = powers(row, i, n, of.greatest) * of.scale;
            ds_store_first(n - i, to, i, p * (ds_load_first(n - i, to, i, DS_F32) - (float)shared), DS_F32);
        }
    }
}

DS_KERNEL(ds_moe_gate_backward, backward_plan, backward_run);
