/* Products of the rows of each expert and its weights, on a CPU. Limit: ds_cpu_product.h; weights of experts
 * without rows are not read.
 *
 * Where rows begin is known when the call runs, and not when it is planned. So an item is an expert and some
 * of its columns, and goes about a product of as many rows as it then finds.
 */
#include "ds_cpu_product.h"

/* grouped_matmul(x, w, starts, bias?; kind) -> y */
enum { X, W, STARTS, BIAS, Y };
enum { WIDTH = DS_GEMM_SUMS / 2 * DS_LANES /* columns of an item: whole ones of a product of any kind */ };

typedef struct {
    ds_product all; /* what is alike for all experts; m is all rows */
    const ds_tensor *w, *starts, *bias;
    int64_t experts, widths;
} grouped;

static grouped grouped_of(const ds_call *call) {
    grouped g = {.w = ds_arg_tensor(call, W, 0), .starts = ds_arg_tensor(call, STARTS, 0)};
    if (call->args[BIAS].count) g.bias = ds_arg_tensor(call, BIAS, 0);
    g.all.a = ds_arg_tensor(call, X, 0);
    g.all.b = g.w;
    g.all.c = ds_arg_tensor(call, Y, 0);
    g.all.kind = call->attributes[0].i;
    g.all.batch = 1;
    g.all.m = g.all.a->shape[0];
    g.all.k = g.all.a->shape[1];
    g.all.n = g.w->shape[1];
    g.all.b_across = g.w->strides[1];
    g.all.b_along = g.w->strides[2];
    g.all.form = ds_product_form(g.all.a->dtype, ds_div_up(g.all.m, ds_max(1, g.w->shape[0])));
    ds_product_go_about(&g.all);
    g.experts = g.w->shape[0];
    g.widths = ds_div_up(g.all.n, WIDTH);
    return g;
}

static void plan(const ds_call *call, ds_plan *out) {
    grouped g = grouped_of(call);
    g.all.shared = 0;
    ds_plan_product(&g.all, out);
    out->phases = 2;
    /* The columns of a first expert have the rows of none, too. */
    out->phase[1].items = ds_max(1, g.experts) * g.widths;
    int64_t rows = ds_div_up(g.all.m, ds_max(1, g.experts));
    out->phase[1].grain = ds_max(1, DS_ITEM_FLOPS / (2 * ds_max(1, rows * WIDTH * g.all.k)));
}

/* Where the rows of an expert begin. Within all rows, even if another changes what has been checked. */
static int64_t start_of(const grouped *g, int64_t expert) {
    return ds_min(ds_max(0, ds_index_at(g->starts, expert)), g->all.m);
}

/* Whether starts ascend within the rows. */
static int are_starts(const grouped *g) {
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
static void fill(const ds_product *p, int64_t begin, int64_t end, int64_t column, float value) {
    _Alignas(64) float values[WIDTH];
    for (int64_t j = 0; j < WIDTH; j++) values[j] = value;
    const ds_tensor *c = p->c;
    for (int64_t row = begin; row < end; row++) {
        void *to = ds_at(c->data, row * c->strides[0] + column * c->strides[1], p->t);
        ds_product_store(to, c->strides[1], values, ds_min(WIDTH, p->n - column), p->t);
    }
}

/* The product of an expert: columns from `column` on of an item. */
static void run_expert(const ds_call *call, const grouped *g, int64_t expert, int64_t begin, int64_t end, int64_t column) {
    ds_product p = g->all;
    const ds_tensor *x = p.a, *y = p.c;
    ds_tensor a = *x, b = *g->w, c = *y, bias;
    int64_t a_shape[] = {end - begin, p.k}, c_shape[] = {end - begin, p.n};
    a.shape = a_shape, a.data = ds_at(x->data, begin * x->strides[0], p.t);
    c.shape = c_shape, c.data = ds_at(y->data, begin * y->strides[0], p.t);
    b.shape++, b.strides++, b.ndim--, b.data = ds_at(b.data, expert * g->w->strides[0], p.t);
    p.a = &a, p.b = &b, p.c = &c, p.m = end - begin;
    if (g->bias) {
        bias = *g->bias;
        bias.data = ds_at(bias.data, expert * p.n, p.t);
        p.bias = &bias;
    }
    ds_product_go_about(&p);
    /* All rows are this item's, so no other shares their blocks. */
    p.row_blocks = ds_div_up(p.m, DS_ROW_BLOCK);
    p.rows_each = ds_div_up(ds_div_up(p.m, p.row_blocks), DS_GEMM_ROWS) * DS_GEMM_ROWS;
    p.row_blocks = ds_div_up(p.m, p.rows_each);
    p.shared = 0;
    ds_call of_rows = *call; /* of which phase 0 has copied those of all experts */
    of_rows.workspace = (float *)call->workspace + (p.copies ? begin * p.copied_row : 0);
    int64_t first = column / p.columns_each, last = ds_min(p.panels, (column + WIDTH) / p.columns_each);
    ds_run_product(&of_rows, &p, 2, first * p.row_blocks, last * p.row_blocks);
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    grouped g = grouped_of(call);
    if (phase == 0) return ds_run_product(call, &g.all, 0, begin, end);
    int told = are_starts(&g);
    for (; begin < end; begin++) {
        int64_t expert = begin / g.widths, column = begin % g.widths * WIDTH;
        if (!told) {
            if (expert == 0) fill(&g.all, 0, g.all.m, column, __builtin_nanf(""));
            continue;
        }
        int64_t from = start_of(&g, expert), to = expert < g.experts ? start_of(&g, expert + 1) : from;
        if (expert == 0) {
            fill(&g.all, 0, from, column, 0);
            fill(&g.all, start_of(&g, g.experts), g.all.m, column, 0);
        }
        if (from < to) run_expert(call, &g, expert, from, to, column);
    }
}

DS_KERNEL(ds_grouped_matmul, plan, run);
