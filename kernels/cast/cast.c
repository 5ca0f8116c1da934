// Conversion between f32, f16 and bf16.
//
// Limit: memory, one element in and one out.
#include "ds_simd.h"

#define CHUNK_ELEMENTS 32768

static void plan(const ds_call *call, ds_plan *plan) {
  plan->phases = 1;
  plan->phase[0] = (ds_phase){ds_elements(&call->tensors[0]), CHUNK_ELEMENTS};
  plan->workspace_bytes = 0;
}

DS_INLINE void convert(const ds_call *call, int64_t begin, int64_t end, uint32_t A, uint32_t B) {
  const void *x = call->tensors[0].data;
  void *y = call->tensors[1].data;
  // Chunks begin at a multiple of DS_LANES, so what holds of the first element holds of each.
  const int stream = ds_streams(&call->tensors[1], DS_LANES);
  int64_t i = begin;
  if (A == B) {
    memcpy((char *)y + i * ds_size(B), (const char *)x + i * ds_size(A),
           (size_t)((end - begin) * ds_size(A)));
    return;
  }
  if (stream)
    for (; i + DS_LANES <= end; i += DS_LANES) ds_store(y, i, B, ds_load(x, i, A), 1);
  for (; i + DS_LANES <= end; i += DS_LANES) ds_store(y, i, B, ds_load(x, i, A), 0);
  for (; i < end; i++) ds_store1(y, i, B, ds_load1(x, i, A));
  if (stream) ds_stream_fence();
}

DS_INLINE void from(const ds_call *call, int64_t begin, int64_t end, uint32_t A) {
  switch (call->tensors[1].dtype) {
    case DS_F32: convert(call, begin, end, A, DS_F32); break;
    case DS_BF16: convert(call, begin, end, A, DS_BF16); break;
    default: convert(call, begin, end, A, DS_F16);
  }
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
  (void)phase;
  switch (call->tensors[0].dtype) {
    case DS_F32: from(call, begin, end, DS_F32); break;
    case DS_BF16: from(call, begin, end, DS_BF16); break;
    default: from(call, begin, end, DS_F16);
  }
}

DS_EXPORT const ds_kernel ds_cast = {DS_CPU_ABI, plan, run};
