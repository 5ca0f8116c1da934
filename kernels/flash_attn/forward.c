/* Attention that never holds the matrix of scores, on a CPU (Dao 2023, arXiv 2307.08691).
 *
 * Limit: multiply-add instructions, 4 d flops for each key that a query sees; beside them the
 * exponentials take a tenth of the time where d is 64. Steps of generation are bound by memory: keys and
 * values are read once.
 *
 * Rows lie on the lanes of vectors: a panel has as many queries side by side as the register tile has
 * columns, and the heads of queries that share one of keys are rows, too. For each block of keys, scores
 * are a tile of keys x rows; a row's greatest score, its sum and its mask are then lanes of a few vectors.
 * Weights multiply values as they lie, into results that stay turned until all keys were seen. Blocks
 * begin at whole multiples, so that a row's bits do not depend on what shares its panel. Where a sequence
 * has few rows, few.h has another way.
 */
#include "few.h"

/* flash_attn(q, k, v, alibi, scale, ...) -> (o, lse) and
 * flash_attn_varlen(q, k, v, q_starts, kv_starts, alibi, scale, ...) -> (o, lse).
 *
 * Phase 0: the table of packed sequences. Phase 1: an item is a panel, or one of its parts where panels
 * are few and keys many. Phase 2: puts parts together. */
static const layout BATCH = {-1, 3, 4, 5}, PACKED = {3, 5, 6, 7};

enum {
    ENOUGH_ITEMS = 32, /* below that keys are parted, */
    PART_KEYS = 512,   /* but not into fewer than these */
    MOST_PARTS = 64,
    CHUNK_FLOPS = 1 << 21,
};

static work work_of(const ds_call *call, const layout *at) {
    work w = {.g = geometry_of(call, Q, K, at->starts), .vectors = DS_TILE_VECTORS, .parts = 1, .part = MOST_TOKENS};
    const geometry *g = &w.g;
    int64_t sequences = g->starts < 0 ? 1 : ds_max(1, g->starts - 1);
    if (g->queries * g->shared <= sequences * DS_LANES) w.vectors = 1;
    w.each = w.vectors * DS_LANES;
    w.slots = places(g, w.each);
    int64_t items = ds_max(1, w.slots * g->groups);
    if (g->starts < 0 && items < ENOUGH_ITEMS) {
        int64_t parts = ds_min(ds_min(g->keys / PART_KEYS, ds_div_up(2 * ENOUGH_ITEMS, items)), MOST_PARTS);
        if (parts > 1) {
            w.part = ds_div_up(ds_div_up(g->keys, parts), DS_NEAR_ROWS) * DS_NEAR_ROWS;
            w.parts = ds_div_up(g->keys, w.part);
        }
    }
    w.partial = w.each * (ds_tile_lines(g->d) + 2);
    return w;
}

static void plan(const ds_call *call, ds_plan *out, const layout *at) {
    work w = work_of(call, at);
    int64_t items = w.slots * w.g.groups;
    int64_t flops = 4 * w.each * ds_max(1, w.g.d) * ds_max(1, ds_min(w.part, w.g.keys));
    out->phases = 3;
    out->phase[0].items = w.g.starts >= 0;
    out->phase[0].grain = 1;
    out->phase[1].items = items * w.parts;
    out->phase[1].grain = ds_max(1, CHUNK_FLOPS / flops);
    out->phase[2].items = w.parts > 1 ? items : 0;
    out->phase[2].grain = 1;
    out->workspace_bytes = w.parts > 1 ? items * w.parts * w.partial * 4 : table_bytes(&w.g);
}

/* Begins the panel of an item, without its queries; 0 where it has no rows. */
DS_OUT_OF_LINE int begin_panel(panel *p, const ds_call *call, const work *w, const layout *at, int64_t item) {
    const geometry *g = &w->g;
    int64_t place = item % w->slots;
    p->group = item / w->slots;
    p->s = sequence_at(call, g, w->each, &place);
    int64_t shared = first_head(g, p->group + 1) - first_head(g, p->group);
    p->first = place * w->each;
    p->rows = ds_min(w->each, p->s.queries * shared - p->first);
    if (p->rows <= 0) return 0;
    const float *slopes = ds_optional(call, (uint32_t)at->alibi);
    p->has_slopes = slopes != 0;
    p->from = p->all_end = p->s.keys;
    p->end = p->all_from = 0;
    for (int64_t i = 0; i < w->each; i++) {
        row r = row_at(w, p, ds_min(i, p->rows - 1)); /* what no row has is like the last one */
        range seen = keys_of(g, &p->s, r.query);
        p->from = ds_min(p->from, seen.from);
        p->end = ds_max(p->end, seen.end);
        p->all_from = ds_max(p->all_from, seen.from);
        p->all_end = ds_min(p->all_end, seen.end);
        p->seen_from[i] = (int32_t)seen.from;
        p->seen_end[i] = (int32_t)seen.end;
        p->meets[i] = (int32_t)(r.query + p->s.keys - p->s.queries);
        p->slope[i] = slopes ? DS_LOG2_E * slopes[r.head] : 0;
    }
    for (int j = 0; j < w->vectors; j++) {
        p->most[j] = ds_splat(DS_LEAST_SCORE);
        p->sum[j] = ds_splat(0);
    }
    __builtin_memset(p->o, 0, (size_t)(ds_tile_lines(g->d) * w->each) * 4);
    return 1;
}

/* Brings the queries, times what makes powers of two of their products. */
DS_OUT_OF_LINE void bring_queries(panel *p, const ds_call *call, const work *w) {
    const tokens q = tokens_of(call, Q);
    const int64_t stride = ds_padded(w->g.d);
    bring_rows(p->k, &q, &w->g, &p->s, p->group, p->first, p->rows);
    __builtin_memset(p->k + p->rows * stride, 0, (size_t)((w->each - p->rows) * stride) * 4);
    ds_turn_in(p->q, w->each, p->k, w->g.d, (float)call->scalars[0].f * DS_LOG2_E);
}

/* Takes from the scores of `n` keys from `first` on what distance costs, and hides those that rows do not
 * see. */
DS_OUT_OF_LINE void hide(panel *p, int64_t width, int64_t first, int64_t n, ds_vec *most) {
    for (int64_t j = 0; j < width; j += DS_LANES) {
        ds_vec_i32 from, end, meets;
        __builtin_memcpy(&from, p->seen_from + j, sizeof from);
        __builtin_memcpy(&end, p->seen_end + j, sizeof end);
        __builtin_memcpy(&meets, p->meets + j, sizeof meets);
        ds_vec slope = ds_load(p->slope, j, DS_F32);
        for (int64_t i = 0; i < n; i++) {
            ds_vec_i32 key = (ds_vec_i32){0} + (int32_t)(first + i);
            ds_vec score = ds_load(p->scores, i * width + j, DS_F32);
            if (p->has_slopes) score -= slope * ds_vabs(__builtin_convertvector(meets - key, ds_vec));
            score = ds_vselect((key >= from) & (key < end), score, ds_splat(-__builtin_inff()));
            most[j / DS_LANES] = ds_vmax(score, most[j / DS_LANES]);
            ds_store(p->scores, i * width + j, score, DS_F32);
        }
    }
}

/* Scores of `n` keys. `most` becomes the greatest ones, where none is hidden. */
DS_INLINE void score(panel *p, int64_t n, int64_t d, ds_vec *most, int vectors) {
    const int64_t width = vectors * DS_LANES, stride = ds_padded(d);
    for (int64_t i = 0; i < n; i += DS_TILE_ROWS) {
        ds_tile sums;
        ds_tile_clear(sums);
        ds_tile_multiply(sums, p->k + i * stride, stride, 1, p->q, width, d, vectors);
        ds_tile_keep(p->scores + i * width, sums, vectors);
#pragma GCC unroll 32
        for (int l = 0; l < DS_TILE_ROWS * vectors; l++)
            most[l % vectors] = ds_vmax(sums[l], most[l % vectors]); /* no NaN: the sum has it */
    }
}

/* Weights from the scores of `n` keys, and what is to become of results so far. */
DS_INLINE void weigh(panel *p, int64_t n, const ds_vec *most, ds_vec *before, int vectors) {
    const int64_t width = vectors * DS_LANES;
    ds_vec sum[DS_TILE_VECTORS];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) {
        before[j] = ds_vexp2(p->most[j] - most[j]);
        sum[j] = p->sum[j] * before[j];
        p->most[j] = most[j];
    }
    for (int64_t i = 0; i < n; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) {
            ds_vec weight = ds_vexp2(ds_load(p->scores, i * width + j * DS_LANES, DS_F32) - most[j]);
            sum[j] += weight;
            ds_store(p->scores, i * width + j * DS_LANES, weight, DS_F32);
        }
#pragma GCC unroll 4
    for (int j = 0; j < vectors; j++) p->sum[j] = sum[j];
}

/* Lets the rows see the keys from `from` to `end`. */
DS_INLINE void attend(panel *p, const ds_call *call, const work *w, int64_t from, int64_t end, int vectors) {
    const tokens k = tokens_of(call, K), v = tokens_of(call, V);
    const int64_t d = w->g.d, stride = ds_padded(d);
    bring_queries(p, call, w);
    for (int64_t first = from / DS_NEAR_ROWS * DS_NEAR_ROWS; first < end; first += DS_NEAR_ROWS) {
        int64_t n = ds_min(DS_NEAR_ROWS, end - first), whole = ds_div_up(n, DS_TILE_ROWS) * DS_TILE_ROWS;
        ds_bring(p->k, token_at(&k, p->s.batch, p->s.first_key + first, p->group), k.token, n, d, k.dtype);
        ds_bring(p->v, token_at(&v, p->s.batch, p->s.first_key + first, p->group), v.token, n, d, v.dtype);
        __builtin_memset(p->k + n * stride, 0, (size_t)((whole - n) * stride) * 4);
        ds_vec most[DS_TILE_VECTORS], before[DS_TILE_VECTORS];
        for (int j = 0; j < vectors; j++) most[j] = p->most[j];
        score(p, n, d, most, vectors);
        if (p->has_slopes || first < p->all_from || first + whole > p->all_end) {
            for (int j = 0; j < vectors; j++) most[j] = p->most[j];
            hide(p, vectors * DS_LANES, first, n, most);
        }
        weigh(p, n, most, before, vectors);
        ds_add_rows(p->o, before, p->v, p->scores, n, d, vectors);
    }
}

/* Writes the results of all rows. */
DS_OUT_OF_LINE void finish(panel *p, const ds_call *call, const work *w, const layout *at) {
    const geometry *g = &w->g;
    const tokens o = tokens_of(call, (uint32_t)at->o);
    float *lse = ds_arg_tensor(call, (uint32_t)at->lse, 0)->data, logarithm[DS_TILE_WIDTH];
    const ds_vec none = ds_splat(p->s.is_wrong ? __builtin_nanf("") : 0);
    ds_vec scale[DS_TILE_VECTORS];
    for (int j = 0; j < w->vectors; j++) {
        ds_vec_i32 is_seen = p->sum[j] != 0; /* NaN is */
        scale[j] = ds_vselect(is_seen, 1 / p->sum[j], none);
        /* Two parts of log(2), and the logarithm of the sum: of 0, -infinity. */
        ds_vec log = ds_vselect(is_seen, ds_vfma(p->most[j], ds_splat(0x1.62e43p-1f), ds_vlog(p->sum[j])),
                                p->s.is_wrong ? none : ds_splat(-__builtin_inff()));
        ds_store(logarithm, j * DS_LANES, log, DS_F32);
    }
    ds_turn_out(p->k, p->o, w->each, g->d, scale);
    for (int64_t i = 0; i < p->rows; i++) {
        row r = row_at(w, p, i);
        int64_t query = p->s.first_query + r.query;
        ds_put_head(token_at(&o, p->s.batch, query, r.head), p->k + i * ds_padded(g->d), g->d, o.dtype);
        lse[(p->s.batch * g->heads + r.head) * g->queries + query] = logarithm[i];
    }
}

/* Where part `part` of an item leaves its greatest scores, its sums and its results. */
static float *partial_at(const ds_call *call, const work *w, int64_t item, int64_t part) {
    return (float *)call->workspace + (item * w->parts + part) * w->partial;
}

DS_OUT_OF_LINE void leave(const panel *p, float *to, const work *w) {
    __builtin_memcpy(to, p->most, (size_t)w->each * 4);
    __builtin_memcpy(to + w->each, p->sum, (size_t)w->each * 4);
    __builtin_memcpy(to + 2 * w->each, p->o, (size_t)(w->partial - 2 * w->each) * 4);
}

/* Adds what a part has left. */
DS_OUT_OF_LINE void add_part(panel *p, const float *from, const work *w) {
    for (int j = 0; j < w->vectors; j++) {
        ds_vec its_most = ds_load(from, j * DS_LANES, DS_F32), most = ds_vmax(p->most[j], its_most);
        ds_vec own = ds_vexp2(p->most[j] - most), its = ds_vexp2(its_most - most);
        p->most[j] = most;
        p->sum[j] = p->sum[j] * own + its * ds_load(from, w->each + j * DS_LANES, DS_F32);
        for (int64_t at = j * DS_LANES; at < w->partial - 2 * w->each; at += w->each) {
            ds_vec more = ds_load(from, 2 * w->each + at, DS_F32);
            ds_store(p->o, at, ds_load(p->o, at, DS_F32) * own + its * more, DS_F32);
        }
    }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end, const layout *at) {
    work w = work_of(call, at);
    if (phase == 0) {
        write_table(call, &w.g, at->starts, w.each);
        return;
    }
    panel p;
    for (int64_t item = begin; item < end; item++) {
        int64_t of = phase == 1 ? item / w.parts : item, part = item % w.parts;
        if (!begin_panel(&p, call, &w, at, of)) continue;
        if (phase == 2) {
            for (int64_t i = 0; i < w.parts; i++) add_part(&p, partial_at(call, &w, of, i), &w);
            finish(&p, call, &w, at);
            continue;
        }
        int64_t from = ds_max(p.from, part * w.part), stop = ds_min(p.end, part * w.part + w.part);
        if (from < stop) {
            int64_t all = p.s.queries * (first_head(&w.g, p.group + 1) - first_head(&w.g, p.group));
            if (all <= FEW_ROWS) attend_few(&p, call, &w, from, stop);
            else if (w.vectors == 1) attend(&p, call, &w, from, stop, 1);
            else attend(&p, call, &w, from, stop, DS_TILE_VECTORS);
        }
        if (w.parts > 1) leave(&p, partial_at(call, &w, of, part), &w);
        else finish(&p, call, &w, at);
    }
}

#define KERNEL(symbol, at)                                                                          \
    static void plan_##symbol(const ds_call *call, ds_plan *out) { plan(call, out, &at); }          \
    static void run_##symbol(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {     \
        run(call, phase, begin, end, &at);                                                          \
    }                                                                                               \
    DS_KERNEL(symbol, plan_##symbol, run_##symbol)

KERNEL(ds_flash_attn, BATCH);
KERNEL(ds_flash_attn_varlen, PACKED);
