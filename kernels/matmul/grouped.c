/* Products of the rows of each expert and its weights, on a CPU. Limit: ds_cpu_product.h.
 */
#include "ds_cpu_grouped.h"

/* grouped_matmul(x, w, starts, bias?; kind) -> y */
enum { X, W, STARTS, BIAS, Y };

static ds_grouped grouped_of(const ds_call *call) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *w = ds_arg_tensor(call, W, 0);
    ds_grouped g = {.starts = ds_arg_tensor(call, STARTS, 0), .experts = w->shape[0]};
    g.all.a = x;
    g.all.b = w;
    g.all.c = ds_arg_tensor(call, Y, 0);
    g.all.kind = call->attributes[0].i;
    g.all.batch = 1;
    g.all.m = x->shape[0];
    g.all.k = x->shape[1];
    g.all.n = w->shape[1];
    g.all.b_across = w->strides[1];
    g.all.b_along = w->strides[2];
    g.all.form = ds_product_form(x->dtype, ds_div_up(g.all.m, ds_max(1, g.experts)));
    ds_product_go_about(&g.all);
    return g;
}

static void plan(const ds_call *call, ds_plan *out) {
    ds_grouped g = grouped_of(call);
    ds_plan_grouped(&g, out);
}

static void run_expert(const ds_call *call, const ds_grouped *g, int64_t expert, int64_t begin, int64_t end, int64_t column) {
    ds_product p = g->all;
    const ds_tensor *x = p.a, *w = p.b, *y = p.c;
    ds_tensor a = *x, b = *w, c = *y, bias;
    int64_t a_shape[] = {end - begin, p.k}, c_shape[] = {end - begin, p.n};
    a.shape = a_shape, a.data = ds_at(x->data, begin * x->strides[0], p.t);
    c.shape = c_shape, c.data = ds_at(y->data, begin * y->strides[0], p.t);
    b.shape++, b.strides++, b.ndim--, b.data = ds_at(b.data, expert * w->strides[0], p.t);
    p.a = &a, p.b = &b, p.c = &c, p.m = end - begin;
    if (call->args[BIAS].count) {
        bias = *ds_arg_tensor(call, BIAS, 0);
        bias.data = ds_at(bias.data, expert * p.n, p.t);
        p.bias = &bias;
    }
    ds_product_go_about(&p);
    ds_grouped_part part = ds_grouped_part_of(call, &p, begin, column);
    ds_run_product(&part.of_rows, &p, 2, part.first, part.last);
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    ds_grouped g = grouped_of(call);
    if (phase == 0) return ds_run_product(call, &g.all, 0, begin, end);
    ds_run_grouped(call, &g, begin, end, run_expert);
}

DS_KERNEL(ds_grouped_matmul, plan, run);
