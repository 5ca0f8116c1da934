// RMS norm over the last dimension, forward and backward.
//
// Limit: memory. Forward moves x in and y out, 2 elements each; backward dy, x in and dx out, 3. The
// second pass over a row finds it in the cache. Sums are f32 in DS_LANES * 4 accumulators.
#include "ds_simd.h"

#define ACCUMULATORS 4
#define STEP (ACCUMULATORS * DS_LANES)
// About this many elements make a chunk: enough to hide what handing out a chunk costs.
#define CHUNK_ELEMENTS 16384
// dweight is summed in this many pieces, whatever the number of threads.
#define PIECES 64
// Columns that one chunk of the second phase of backward adds up.
#define COLUMNS 256

// Rows of a tensor with a contiguous last dimension.
typedef struct rows {
  char *data;
  int64_t count, length, stride_bytes;
} rows;

static rows rows_of(const ds_tensor *t) {
  const int64_t length = t->shape[t->ndim - 1];
  int64_t count = 1;
  for (int32_t d = 0; d + 1 < t->ndim; d++) count *= t->shape[d];
  // Beyond two dimensions the tensor is contiguous (kernel.json).
  const int64_t stride = t->ndim == 2 ? t->strides[0] : length;
  return (rows){t->data, count, length, stride * ds_size(t->dtype)};
}

// ---- forward: rms_norm(x, weight, eps) -> (y, rstd)

static void forward_plan(const ds_call *call, ds_plan *plan) {
  const rows x = rows_of(&call->tensors[0]);
  plan->phases = 1;
  plan->phase[0] = (ds_phase){x.count, ds_max(1, CHUNK_ELEMENTS / ds_max(1, x.length))};
  plan->workspace_bytes = 0;
}

DS_INLINE float sum_of_squares(const void *x, int64_t n, uint32_t T) {
  ds_v s[ACCUMULATORS] = {0};
  int64_t i = 0;
  for (; i + STEP <= n; i += STEP)
    for (int a = 0; a < ACCUMULATORS; a++) {
      const ds_v v = ds_load(x, i + a * DS_LANES, T);
      s[a] = ds_fma(v, v, s[a]);
    }
  for (; i + DS_LANES <= n; i += DS_LANES) {
    const ds_v v = ds_load(x, i, T);
    s[0] = ds_fma(v, v, s[0]);
  }
  float total = ds_sum((s[0] + s[1]) + (s[2] + s[3]));
  for (; i < n; i++) {
    const float v = ds_load1(x, i, T);
    total += v * v;
  }
  return total;
}

DS_INLINE void forward(const ds_call *call, int64_t begin, int64_t end, uint32_t T) {
  const rows x = rows_of(&call->tensors[0]), y = rows_of(&call->tensors[2]);
  const void *weight = call->tensors[1].data;
  float *rstd = call->tensors[3].data;
  const double eps = call->scalars[0].f;
  const int64_t n = x.length;
  const int stream = ds_streams(&call->tensors[2], n) && y.stride_bytes == n * ds_size(T);
  for (int64_t r = begin; r < end; r++) {
    const void *from = x.data + r * x.stride_bytes;
    void *to = y.data + r * y.stride_bytes;
    const double mean = n ? sum_of_squares(from, n, T) / (double)n : 0.0;
    const float scale = (float)(1.0 / __builtin_sqrt(mean + eps));
    const ds_v scales = ds_splat(scale);
    int64_t i = 0;
    if (stream)
      for (; i + DS_LANES <= n; i += DS_LANES)
        ds_store(to, i, T, ds_load(from, i, T) * scales * ds_load(weight, i, T), 1);
    for (; i + DS_LANES <= n; i += DS_LANES)
      ds_store(to, i, T, ds_load(from, i, T) * scales * ds_load(weight, i, T), 0);
    for (; i < n; i++) ds_store1(to, i, T, ds_load1(from, i, T) * scale * ds_load1(weight, i, T));
    rstd[r] = scale;
  }
  if (stream) ds_stream_fence();
}

static void forward_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
  (void)phase;
  switch (call->tensors[0].dtype) {
    case DS_F32: forward(call, begin, end, DS_F32); break;
    case DS_BF16: forward(call, begin, end, DS_BF16); break;
    default: forward(call, begin, end, DS_F16);
  }
}

DS_EXPORT const ds_kernel ds_rms_norm = {DS_CPU_ABI, forward_plan, forward_run};

// ---- backward: rms_norm_backward(dy, x, weight, rstd) -> (dx, dweight)
//
// With m = mean(dy * weight * x): dx = rstd * (dy * weight - x * rstd^2 * m),
// dweight = sum over rows of dy * x * rstd.

static int64_t rows_a_piece(int64_t rows) { return ds_max(1, ds_ceil_div(rows, PIECES)); }

static int64_t pieces(int64_t rows) { return ds_ceil_div(rows, rows_a_piece(rows)); }

static void backward_plan(const ds_call *call, ds_plan *plan) {
  const rows x = rows_of(&call->tensors[1]);
  plan->phases = 2;
  plan->phase[0] = (ds_phase){pieces(x.count), 1};
  plan->phase[1] = (ds_phase){x.length, COLUMNS};
  plan->workspace_bytes = pieces(x.count) * x.length * (int64_t)sizeof(float);
}

DS_INLINE void backward_row(const void *dy, const void *x, const void *w, void *dx, float *sum,
                            float rstd, int64_t n, uint32_t T, int stream) {
  ds_v s[2] = {0};
  int64_t i = 0;
  for (; i + 2 * DS_LANES <= n; i += 2 * DS_LANES)
    for (int a = 0; a < 2; a++) {
      const int64_t k = i + a * DS_LANES;
      s[a] = ds_fma(ds_load(dy, k, T) * ds_load(w, k, T), ds_load(x, k, T), s[a]);
    }
  float dot = ds_sum(s[0] + s[1]);
  for (; i < n; i++) dot += ds_load1(dy, i, T) * ds_load1(w, i, T) * ds_load1(x, i, T);
  const float c = (float)(-(double)rstd * rstd * rstd * dot / (double)n);
  const ds_v rs = ds_splat(rstd), cs = ds_splat(c);
  for (i = 0; i + DS_LANES <= n; i += DS_LANES) {
    const ds_v g = ds_load(dy, i, T) * rs, v = ds_load(x, i, T);
    const ds_v d = ds_fma(v, cs, g * ds_load(w, i, T));
    if (stream)
      ds_store(dx, i, T, d, 1);
    else
      ds_store(dx, i, T, d, 0);
    ds_store(sum, i, DS_F32, ds_fma(g, v, ds_load(sum, i, DS_F32)), 0);
  }
  for (; i < n; i++) {
    const float g = ds_load1(dy, i, T) * rstd, v = ds_load1(x, i, T);
    ds_store1(dx, i, T, v * c + g * ds_load1(w, i, T));
    sum[i] += g * v;
  }
}

DS_INLINE void backward(const ds_call *call, int64_t begin, int64_t end, uint32_t T) {
  const rows dy = rows_of(&call->tensors[0]), x = rows_of(&call->tensors[1]);
  const rows dx = rows_of(&call->tensors[4]);
  const void *weight = call->tensors[2].data;
  const float *rstd = call->tensors[3].data;
  const int64_t n = x.length, piece = rows_a_piece(x.count);
  const int stream = ds_streams(&call->tensors[4], n) && dx.stride_bytes == n * ds_size(T);
  for (int64_t p = begin; p < end; p++) {
    float *sum = (float *)call->workspace + p * n;
    memset(sum, 0, (size_t)n * sizeof *sum);
    for (int64_t r = p * piece; r < ds_min(x.count, (p + 1) * piece); r++)
      backward_row(dy.data + r * dy.stride_bytes, x.data + r * x.stride_bytes, weight,
                   dx.data + r * dx.stride_bytes, sum, rstd[r], n, T, stream);
  }
  if (stream) ds_stream_fence();
}

// Adds the pieces up, in order.
DS_INLINE void combine(const ds_call *call, int64_t begin, int64_t end, uint32_t T) {
  const rows x = rows_of(&call->tensors[1]);
  const float *sums = call->workspace;
  for (int64_t i = begin; i < end; i++) {
    float total = 0;
    for (int64_t p = 0; p < pieces(x.count); p++) total += sums[p * x.length + i];
    ds_store1(call->tensors[5].data, i, T, total);
  }
}

static void backward_run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
  const uint32_t T = call->tensors[1].dtype;
  if (phase == 1) {
    combine(call, begin, end, T);
    return;
  }
  switch (T) {
    case DS_F32: backward(call, begin, end, DS_F32); break;
    case DS_BF16: backward(call, begin, end, DS_BF16); break;
    default: backward(call, begin, end, DS_F16);
  }
}

DS_EXPORT const ds_kernel ds_rms_norm_backward = {DS_CPU_ABI, backward_plan, backward_run};
