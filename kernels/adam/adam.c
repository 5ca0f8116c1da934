// One step of Adam or AdamW over a list of tensors.
//
// Limit: memory. An element moves p, m and v in and out and g in: 28 bytes with all in f32, 22 with
// 16-bit parameters and f32 moments, 14 with all in 16 bits. Arithmetic is f32; what depends on the
// step alone is made in f64.
#include <math.h>

#include "ds_simd.h"

// Elements of a chunk: 128 KiB a tensor in f32.
#define BLOCK 32768

enum { PARAMS, GRADS, EXP_AVG, EXP_AVG_SQ, FOUND_INF };
enum { LR, BETA1, BETA2, EPS, WEIGHT_DECAY, STEP };
enum { ADAMW, BIAS_CORRECTION };

static const ds_tensor *tensor(const ds_call *call, int argument, int64_t index) {
  return &call->tensors[call->args[argument].first + index];
}

static int64_t blocks(const ds_tensor *t) { return ds_ceil_div(ds_elements(t), BLOCK); }

// Phase 0 numbers the blocks: workspace[i] is the first block of tensor i. Phase 1 works on them.
static void plan(const ds_call *call, ds_plan *plan) {
  const int64_t count = call->args[PARAMS].count;
  int64_t total = 0;
  for (int64_t i = 0; i < count; i++) total += blocks(tensor(call, PARAMS, i));
  plan->phases = 2;
  plan->phase[0] = (ds_phase){count > 0, 1};
  plan->phase[1] = (ds_phase){total, 1};
  plan->workspace_bytes = (count + 1) * (int64_t)sizeof(int64_t);
}

static void number_blocks(const ds_call *call) {
  int64_t *first = call->workspace, at = 0;
  for (int64_t i = 0; i < call->args[PARAMS].count; i++) {
    first[i] = at;
    at += blocks(tensor(call, PARAMS, i));
  }
  first[call->args[PARAMS].count] = at;
}

// The tensor that `block` belongs to.
static int64_t find(const int64_t *first, int64_t count, int64_t block) {
  int64_t low = 0, high = count;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (first[middle] <= block)
      low = middle;
    else
      high = middle;
  }
  return low;
}

typedef struct coefficients {
  float beta1, rest1, beta2, rest2, eps, root, rate, decay, l2;
} coefficients;

static coefficients make(const ds_call *call) {
  const ds_value *s = call->scalars;
  const int adamw = call->attributes[ADAMW].i != 0;
  double correction1 = 1, correction2 = 1;
  if (call->attributes[BIAS_CORRECTION].i) {
    correction1 = 1 - pow(s[BETA1].f, (double)s[STEP].i);
    correction2 = 1 - pow(s[BETA2].f, (double)s[STEP].i);
  }
  return (coefficients){
      .beta1 = (float)s[BETA1].f,
      .rest1 = (float)(1 - s[BETA1].f),
      .beta2 = (float)s[BETA2].f,
      .rest2 = (float)(1 - s[BETA2].f),
      .eps = (float)s[EPS].f,
      .root = (float)(1 / sqrt(correction2)),
      .rate = (float)(-s[LR].f / correction1),
      .decay = adamw ? (float)(-s[LR].f * s[WEIGHT_DECAY].f) : 0,
      .l2 = adamw ? 0 : (float)s[WEIGHT_DECAY].f,
  };
}

// DS_LANES elements; `k` holds the coefficients.
DS_INLINE void step(const coefficients *k, ds_v *p, ds_v g, ds_v *m, ds_v *v) {
  g = ds_fma(ds_splat(k->l2), *p, g);
  *m = ds_fma(ds_splat(k->beta1), *m, ds_splat(k->rest1) * g);
  *v = ds_fma(ds_splat(k->beta2), *v, ds_splat(k->rest2) * (g * g));
  const ds_v denominator = ds_fma(ds_sqrt(*v), ds_splat(k->root), ds_splat(k->eps));
  *p = ds_fma(ds_splat(k->decay), *p, *p);
  *p = ds_fma(ds_splat(k->rate), *m / denominator, *p);
}

DS_INLINE void update(const ds_call *call, const coefficients *k, int64_t index, int64_t block,
                      uint32_t P, uint32_t M) {
  const ds_tensor *params = tensor(call, PARAMS, index);
  const int64_t begin = block * BLOCK, end = ds_min(begin + BLOCK, ds_elements(params));
  void *p = params->data, *m = tensor(call, EXP_AVG, index)->data;
  void *v = tensor(call, EXP_AVG_SQ, index)->data;
  const void *g = tensor(call, GRADS, index)->data;
  int64_t i = begin;
  for (; i + DS_LANES <= end; i += DS_LANES) {
    ds_v vp = ds_load(p, i, P), vm = ds_load(m, i, M), vv = ds_load(v, i, M);
    step(k, &vp, ds_load(g, i, P), &vm, &vv);
    ds_store(m, i, M, vm, 0);
    ds_store(v, i, M, vv, 0);
    ds_store(p, i, P, vp, 0);
  }
  // The rest as one vector of which only the first lanes count.
  if (i < end) {
    ds_v vp = {0}, vg = {0}, vm = {0}, vv = {0};
    for (int64_t l = 0; i + l < end; l++) {
      vp[l] = ds_load1(p, i + l, P);
      vg[l] = ds_load1(g, i + l, P);
      vm[l] = ds_load1(m, i + l, M);
      vv[l] = ds_load1(v, i + l, M);
    }
    step(k, &vp, vg, &vm, &vv);
    for (int64_t l = 0; i + l < end; l++) {
      ds_store1(m, i + l, M, vm[l]);
      ds_store1(v, i + l, M, vv[l]);
      ds_store1(p, i + l, P, vp[l]);
    }
  }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
  if (phase == 0) {
    number_blocks(call);
    return;
  }
  if (call->args[FOUND_INF].count && *(const float *)tensor(call, FOUND_INF, 0)->data != 0) return;
  const coefficients k = make(call);
  const int64_t *first = call->workspace, count = call->args[PARAMS].count;
  const uint32_t P = tensor(call, PARAMS, 0)->dtype, M = tensor(call, EXP_AVG, 0)->dtype;
  int64_t index = find(first, count, begin);
  for (int64_t b = begin; b < end; b++) {
    while (first[index + 1] <= b) index++;
    const int64_t block = b - first[index];
    if (P == DS_F32)
      update(call, &k, index, block, DS_F32, DS_F32);
    else if (P == DS_BF16 && M == DS_F32)
      update(call, &k, index, block, DS_BF16, DS_F32);
    else if (P == DS_BF16)
      update(call, &k, index, block, DS_BF16, DS_BF16);
    else if (M == DS_F32)
      update(call, &k, index, block, DS_F16, DS_F32);
    else
      update(call, &k, index, block, DS_F16, DS_F16);
  }
}

DS_EXPORT const ds_kernel ds_adam_step = {DS_CPU_ABI, plan, run};
