/* Attention of sequences with heads in groups, windows and ALiBi, on a CPU: as ds_cpu_attend.h has it, rows
 * being queries of all heads that share one of keys. Blocks begin at whole multiples, so that a row's bits do
 * not depend on what shares its panel. Where a sequence has few rows, ds_cpu_flash_few.h has another way.
 */
#ifndef DS_CPU_FLASH_H
#define DS_CPU_FLASH_H

#include "ds_cpu_flash_few.h"

/* Phase 0: the table of packed sequences. Phase 1: an item is a panel, or one of its parts where panels
 * are few and keys many. Phase 2: puts parts together. */
enum {
    ENOUGH_ITEMS = 32, /* below that keys are parted, */
    PART_KEYS = 512,   /* but not into fewer than these */
    MOST_PARTS = 64,
    CHUNK_FLOPS = 1 << 21,
};

static work work_of(const ds_call *call, const layout *at) {
    work w = {.at = at,
              .g = at->geometry(call),
              .dtype = ds_arg_tensor(call, Q, 0)->dtype,
              .vectors = DS_GEMM_VECTORS,
              .parts = 1,
              .part = MOST_TOKENS};
    const geometry *g = &w.g;
    int64_t sequences = g->starts < 0 ? 1 : ds_max(1, g->starts - 1);
    if (g->queries * g->shared <= sequences * DS_LANES) w.vectors = 1;
    w.each = w.vectors * DS_LANES;
    w.slots = places(g, w.each);
    int64_t items = ds_max(1, w.slots * g->groups);
    if ((g->starts < 0 || at->has_long_sequences) && items < ENOUGH_ITEMS) {
        int64_t parts = ds_min(ds_min(g->keys / PART_KEYS, ds_div_up(2 * ENOUGH_ITEMS, items)), MOST_PARTS);
        if (parts > 1) {
            w.part = ds_div_up(ds_div_up(g->keys, parts), DS_NEAR_ROWS) * DS_NEAR_ROWS;
            w.parts = ds_div_up(g->keys, w.part);
        }
    }
    w.partial = w.each * (ds_panel_lines(g->d) + 2);
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
    out->workspace_bytes = table_bytes(&w.g) + (w.parts > 1 ? items * w.parts * w.partial * 4 : 0);
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
    ds_panel_clear(&p->of, g->d, w->vectors);
    return 1;
}

/* Takes from the scores of the keys that are near what distance costs, and hides those that rows do not see. */
DS_INLINE void hide(panel *p, int64_t width, ds_vec *most) {
    for (int64_t j = 0; j < width; j += DS_LANES) {
        ds_vec_i32 from, end, meets;
        __builtin_memcpy(&from, p->seen_from + j, sizeof from);
        __builtin_memcpy(&end, p->seen_end + j, sizeof end);
        __builtin_memcpy(&meets, p->meets + j, sizeof meets);
        ds_vec slope = ds_load(p->slope, j, DS_F32);
        for (int64_t i = 0; i < p->keys; i++) {
            ds_vec_i32 key = (ds_vec_i32){0} + (int32_t)(p->near + i);
            float *at = p->of.scores + i * width + j;
            ds_vec score = ds_load(at, 0, DS_F32);
            if (p->has_slopes) score -= slope * ds_vabs(__builtin_convertvector(meets - key, ds_vec));
            score = ds_vselect((key >= from) & (key < end), score, ds_splat(-__builtin_inff()));
            most[j / DS_LANES] = ds_vmax(score, most[j / DS_LANES]);
            ds_store(at, 0, score, DS_F32);
        }
    }
}

DS_OUT_OF_LINE void hide_in_one(void *p, ds_vec *most) { hide(p, DS_LANES, most); }
DS_OUT_OF_LINE void hide_in_all(void *p, ds_vec *most) { hide(p, DS_GEMM_COLUMNS, most); }

/* Lets the rows see the keys from `from` to `end`. */
DS_INLINE void attend(panel *p, const ds_call *call, const work *w, int64_t from, int64_t end, int vectors, uint32_t form) {
    const tokens q = tokens_of(call, Q);
    const int64_t d = w->g.d;
    ds_heads heads, values;
    heads_of_rows(&heads, &q, &w->g, &p->s, p->group, p->first, p->rows);
    ds_panel_queries(&p->of, &heads, p->rows, d, (float)call->scalars[0].f, vectors, w->dtype);
    for (p->near = from / DS_NEAR_ROWS * DS_NEAR_ROWS; p->near < end; p->near += DS_NEAR_ROWS) {
        p->keys = ds_min(DS_NEAR_ROWS, end - p->near);
        w->at->keys(&heads, &values, p, call, p->near, p->keys);
        ds_panel_keys(&p->of, &heads, &values, p->keys, d, w->dtype);
        int hides = p->has_slopes || p->near < p->all_from || p->near + ds_panel_lines(p->keys) > p->all_end;
        ds_panel_see(&p->of, p->keys, d, vectors, form, !hides ? 0 : vectors == 1 ? hide_in_one : hide_in_all, p);
    }
}

/* Writes the results of all rows. */
DS_OUT_OF_LINE void finish(panel *p, const ds_call *call, const work *w, const layout *at) {
    const geometry *g = &w->g;
    const tokens o = tokens_of(call, (uint32_t)at->o);
    float *lse = at->lse < 0 ? 0 : ds_arg_tensor(call, (uint32_t)at->lse, 0)->data, log[DS_GEMM_COLUMNS];
    const float nan = __builtin_nanf("");
    ds_panel_results(&p->of, g->d, w->vectors, p->s.is_wrong ? nan : 0, p->s.is_wrong ? nan : -__builtin_inff(), log);
    for (int64_t i = 0; i < p->rows; i++) {
        row r = row_at(w, p, i);
        int64_t query = p->s.first_query + r.query;
        ds_put_head(token_at(&o, p->s.batch, query, r.head), p->of.k + i * ds_padded(g->d), g->d, o.dtype);
        if (lse) lse[(p->s.batch * g->heads + r.head) * g->queries + query] = log[i];
    }
}

/* Where part `part` of an item leaves its greatest scores, its sums and its results. */
static float *partial_at(const ds_call *call, const work *w, int64_t item, int64_t part) {
    return (float *)ds_at(call->workspace, table_bytes(&w->g), DS_I8) + (item * w->parts + part) * w->partial;
}

DS_OUT_OF_LINE void leave(const panel *p, float *to, const work *w) {
    __builtin_memcpy(to, p->of.most, (size_t)w->each * 4);
    __builtin_memcpy(to + w->each, p->of.sum, (size_t)w->each * 4);
    __builtin_memcpy(to + 2 * w->each, p->of.o, (size_t)(w->partial - 2 * w->each) * 4);
}

/* Adds what a part has left. */
DS_OUT_OF_LINE void add_part(panel *p, const float *from, const work *w) {
    for (int j = 0; j < w->vectors; j++) {
        ds_vec its_most = ds_load(from, j * DS_LANES, DS_F32), most = ds_vmax(p->of.most[j], its_most);
        ds_vec own = ds_vexp2(p->of.most[j] - most), its = ds_vexp2(its_most - most);
        p->of.most[j] = most;
        p->of.sum[j] = p->of.sum[j] * own + its * ds_load(from, w->each + j * DS_LANES, DS_F32);
        for (int64_t at = j * DS_LANES; at < w->partial - 2 * w->each; at += w->each) {
            ds_vec more = ds_load(from, 2 * w->each + at, DS_F32);
            ds_store(p->of.o, at, ds_load(p->of.o, at, DS_F32) * own + its * more, DS_F32);
        }
    }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end, const layout *at) {
    work w = work_of(call, at);
    if (phase == 0) {
        write_table(call, &w.g, at->starts, w.each);
        return;
    }
    const uint32_t form = ds_form_of_heads(w.dtype, w.g.d);
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
            else if (w.vectors == 1) DS_WITH_FORM(f, form, attend(&p, call, &w, from, stop, 1, f));
            else DS_WITH_FORM(f, form, attend(&p, call, &w, from, stop, DS_GEMM_VECTORS, f));
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

#endif
