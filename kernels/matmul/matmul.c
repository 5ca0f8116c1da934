/* Matrix products on a CPU. Limit: ds_cpu_product.h. */
#include "ds_cpu_product.h"

/* matmul(a, b) -> c */
enum { A, B, C };

static ds_product matmul_of(const ds_call *call) {
    ds_product p = {.a = ds_arg_tensor(call, A, 0), .b = ds_arg_tensor(call, B, 0), .c = ds_arg_tensor(call, C, 0)};
    p.batch = ds_extents(p.a, p.a->ndim - 2);
    p.m = p.a->shape[p.a->ndim - 2];
    p.k = ds_row_length(p.a);
    p.n = ds_row_length(p.b);
    p.b_along = p.b->strides[p.b->ndim - 2];
    p.b_across = p.b->strides[p.b->ndim - 1];
    p.form = ds_product_form(p.a->dtype, p.m);
    ds_product_go_about(&p);
    return p;
}

static void plan_matmul(const ds_call *call, ds_plan *out) {
    ds_product p = matmul_of(call);
    ds_plan_product(&p, out);
}

static void run_matmul(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    ds_product p = matmul_of(call);
    ds_run_product(call, &p, phase, begin, end);
}

/* linear(x, w, bias?, residual?; kind) -> y: a is x and b is w with its dimensions exchanged. */
enum { X, W, BIAS, RESIDUAL, Y };

static ds_product linear_of(const ds_call *call) {
    ds_product p = {.a = ds_arg_tensor(call, X, 0), .b = ds_arg_tensor(call, W, 0), .c = ds_arg_tensor(call, Y, 0)};
    if (call->args[BIAS].count) p.bias = ds_arg_tensor(call, BIAS, 0);
    if (call->args[RESIDUAL].count) p.residual = ds_arg_tensor(call, RESIDUAL, 0);
    p.kind = call->attributes[0].i;
    p.batch = 1;
    p.m = p.a->shape[0];
    p.k = p.a->shape[1];
    p.n = p.b->shape[0];
    p.b_across = p.b->strides[0];
    p.b_along = p.b->strides[1];
    p.form = ds_product_form(p.a->dtype, p.m);
    ds_product_go_about(&p);
    return p;
}

static void plan_linear(const ds_call *call, ds_plan *out) {
    ds_product p = linear_of(call);
    ds_plan_product(&p, out);
}

static void run_linear(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    ds_product p = linear_of(call);
    ds_run_product(call, &p, phase, begin, end);
}

DS_KERNEL(ds_matmul, plan_matmul, run_matmul);
DS_KERNEL(ds_linear, plan_linear, run_linear);
