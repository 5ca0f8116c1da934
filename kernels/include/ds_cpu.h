// The contract between a CPU kernel file and the cpu accelerator, which owns memory and threads.
//
// A kernel is two functions. `plan` looks at shapes and splits the work into phases of items;
// `run` does a range of items. A kernel never allocates, starts no thread, keeps no state, and does
// not touch errno or the floating-point mode.
//
// Items are given out in chunks of `grain`, which depends on the shapes alone: a range begins at a
// multiple of `grain` and ends at one, or at the last item. Ranges of one phase run at the same
// time in any order and share no output; a phase begins when the one before it has ended. So a
// result never depends on how many threads there are.
#ifndef DS_CPU_H
#define DS_CPU_H

#include <stddef.h>
#include <stdint.h>

#define DS_CPU_ABI 1
#define DS_MAX_PHASES 4

// Numbers of dtypes, as in ds_plugin.h.
enum { DS_F32 = 0, DS_F16 = 1, DS_BF16 = 2, DS_F64 = 3 };

typedef struct ds_tensor {
  void *data;              // first element; null in `plan`
  const int64_t *shape;    // extents
  const int64_t *strides;  // in elements
  int32_t ndim;
  uint32_t dtype;
} ds_tensor;

// Which tensors serve one argument of the schema: none for a missing optional, any number for a list.
typedef struct ds_arg {
  uint32_t first, count;
} ds_arg;

typedef union ds_value {
  int64_t i;  // i64, and bool as 0 or 1
  double f;   // f64
} ds_value;

typedef struct ds_call {
  const ds_tensor *tensors;
  const ds_arg *args;          // in schema order, inputs before outputs
  const ds_value *attributes;  // static attributes in schema order
  const ds_value *scalars;     // launch scalars in schema order; null in `plan`
  void *workspace;             // 64-byte aligned, `workspace_bytes` long; null in `plan`
} ds_call;

typedef struct ds_phase {
  int64_t items;
  int64_t grain;
} ds_phase;

typedef struct ds_plan {
  uint32_t phases;
  ds_phase phase[DS_MAX_PHASES];
  int64_t workspace_bytes;
} ds_plan;

// Exported by name, as `const ds_kernel`; `kernel.json` says which.
typedef struct ds_kernel {
  uint32_t abi;  // DS_CPU_ABI
  void (*plan)(const ds_call *call, ds_plan *plan);
  void (*run)(const ds_call *call, uint32_t phase, int64_t begin, int64_t end);
} ds_kernel;

#define DS_EXPORT __attribute__((visibility("default")))

static inline int64_t ds_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t ds_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ds_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Product of all extents.
static inline int64_t ds_elements(const ds_tensor *t) {
  int64_t n = 1;
  for (int32_t d = 0; d < t->ndim; d++) n *= t->shape[d];
  return n;
}

#endif
