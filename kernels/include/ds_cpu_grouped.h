/* Products of the rows of each expert and its weights, on a CPU; weights of experts without rows are not read.
 *
 * Where rows begin is known when the call runs, and not when it is planned. So an item is an expert and some
 * of its columns, and goes about a product of as many rows as it then finds.
 */
#ifndef DS_CPU_GROUPED_H
#define DS_CPU_GROUPED_H

#include "ds_cpu_product.h"

enum { DS_GROUPED_WIDTH = DS_GEMM_SUMS / 2 * DS_LANES /* columns of an item: whole ones of a product of any kind */ };

typedef struct ds_grouped {
    ds_product all; /* what is alike for all experts; m is all rows */
    const ds_tensor *starts;
    int64_t experts;
} ds_grouped;

static int64_t ds_grouped_widths(const ds_grouped *g) { return ds_div_up(g->all.n, DS_GROUPED_WIDTH); }

/* Phase 0 copies rows of all experts. */
static void ds_plan_grouped(ds_grouped *g, ds_plan *out) {
    g->all.shared = 0;
    g->all.stripes = 0;
    ds_plan_product(&g->all, out);
    out->phases = 2;
    /* The columns of a first expert have the rows of none, too. */
    out->phase[1].items = ds_max(1, g->experts) * ds_grouped_widths(g);
    int64_t rows = ds_div_up(g->all.m, ds_max(1, g->experts));
    out->phase[1].grain = ds_max(1, DS_ITEM_FLOPS / (2 * ds_max(1, rows * DS_GROUPED_WIDTH * g->all.k)));
}

/* Where the rows of an expert begin. Within all rows, even if another changes what has been checked. */
static int64_t ds_grouped_start(const ds_grouped *g, int64_t expert) {
    return ds_min(ds_max(0, ds_index_at(g->starts, expert)), g->all.m);
}

/* Whether starts ascend within the rows. */
static int ds_grouped_is_told(const ds_grouped *g) {
    int64_t before = 0;
    if (ds_elements(g->starts) != g->experts + 1) return 0;
    for (int64_t e = 0; e <= g->experts; e++) {
        int64_t start = ds_index_at(g->starts, e);
        if (start < before || start > g->all.m) return 0;
        before = start;
    }
    return 1;
}

/* Writes `value` to the columns of an item, of rows begin to end. */
static void ds_grouped_fill(const ds_product *p, int64_t begin, int64_t end, int64_t column, float value) {
    _Alignas(64) float values[DS_GROUPED_WIDTH];
    for (int64_t j = 0; j < DS_GROUPED_WIDTH; j++) values[j] = value;
    const ds_tensor *c = p->c;
    for (int64_t row = begin; row < end; row++) {
        void *to = ds_at(c->data, row * c->strides[0] + column * c->strides[1], p->t);
        ds_product_store(to, c->strides[1], values, ds_min(DS_GROUPED_WIDTH, p->n - column), p->t);
    }
}

/* An expert's part of a call: the copies of its rows as workspace, and the items of its product. */
typedef struct ds_grouped_part {
    ds_call of_rows;
    int64_t first, last;
} ds_grouped_part;

/* The part that has the columns from `column` on of an item, of a product whose m and tensors are those of an
 * expert's rows, from `begin` of all on. It goes about the product for these rows alone. */
static ds_grouped_part ds_grouped_part_of(const ds_call *call, ds_product *p, int64_t begin, int64_t column) {
    ds_grouped_part part = {*call, column / p->columns_each, ds_min(p->panels, (column + DS_GROUPED_WIDTH) / p->columns_each)};
    /* The rows of others do not tell how this one's are shared. */
    p->row_blocks = ds_div_up(p->m, DS_ROW_BLOCK);
    p->rows_each = ds_div_up(ds_div_up(p->m, p->row_blocks), DS_GEMM_ROWS) * DS_GEMM_ROWS;
    p->row_blocks = ds_div_up(p->m, p->rows_each);
    p->shared = 0;
    p->stripes = 0;
    part.of_rows.workspace = (float *)call->workspace + (p->copies ? begin * p->copied_row : 0);
    part.first *= p->row_blocks;
    part.last *= p->row_blocks;
    return part;
}

/* Runs items of phase 1: `run` for the columns from `column` on of an expert with rows begin to end. */
static void ds_run_grouped(const ds_call *call, const ds_grouped *g, int64_t item, int64_t end,
                           void (*run)(const ds_call *call, const ds_grouped *g, int64_t expert, int64_t begin, int64_t end,
                                       int64_t column)) {
    int told = ds_grouped_is_told(g);
    for (; item < end; item++) {
        int64_t expert = item / ds_grouped_widths(g), column = item % ds_grouped_widths(g) * DS_GROUPED_WIDTH;
        if (!told) {
            if (expert == 0) ds_grouped_fill(&g->all, 0, g->all.m, column, __builtin_nanf(""));
            continue;
        }
        int64_t from = ds_grouped_start(g, expert), to = expert < g->experts ? ds_grouped_start(g, expert + 1) : from;
        if (expert == 0) {
            ds_grouped_fill(&g->all, 0, from, column, 0);
            ds_grouped_fill(&g->all, ds_grouped_start(g, g->experts), g->all.m, column, 0);
        }
        if (from < to) run(call, g, expert, from, to, column);
    }
}

#endif
