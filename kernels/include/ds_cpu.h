/* What a CPU kernel file and the cpu accelerator, which owns the threads, promise each other.
 *
 * A kernel is one exported `const ds_kernel`. For each call the accelerator
 *   1. asks `plan` how the work splits, from shapes, strides and attributes alone;
 *   2. for each phase in order, has its threads call `run` on ranges of items, in any order and at
 *      the same time; all of a phase has finished before the next one starts.
 *
 * The accelerator hands out whole chunks: `begin` is a multiple of the phase's `grain`, and so is
 * `end`, unless it is the number of items. A range may span several chunks. Chunks never depend on
 * the number of threads; a kernel that keeps one partial sum a chunk gives the same bits on any
 * machine size. A phase without items is passed over.
 *
 * A kernel never allocates, starts threads, keeps state, or touches errno or the rounding mode. It
 * needs no library, libc included, beyond what compilers call by themselves (memcpy, memset). It takes
 * less than 512 KiB of stack: a block of a matrix may be packed there.
 */
#ifndef DS_CPU_H
#define DS_CPU_H

#include <stddef.h>
#include <stdint.h>

#define DS_CPU_ABI 1
#define DS_MAX_PHASES 4
/* Alignment of `ds_call.workspace`, in bytes: a cache line, and the widest vector. */
#define DS_WORKSPACE_ALIGNMENT 64

/* `ds_tensor.dtype`; the numbers of the plugin ABI's DS_DTYPE_*. */
enum {
    DS_F32 = 0,
    DS_F16 = 1,
    DS_BF16 = 2,
    DS_F64 = 3,
    DS_I8 = 4,
    DS_U8 = 5,
    DS_I16 = 6,
    DS_I32 = 7,
    DS_I64 = 8,
    DS_BOOL = 9, /* a byte, 0 or 1 */
    DS_F8E4M3 = 10,
    DS_F8E5M2 = 11,
};

typedef struct ds_tensor {
    void *data;             /* first element; NULL in `plan` */
    const int64_t *shape;   /* `ndim` extents */
    const int64_t *strides; /* `ndim` strides, in elements */
    int32_t ndim;
    uint32_t dtype;
} ds_tensor;

typedef union ds_value {
    int64_t i; /* integers and booleans */
    double f;
} ds_value;

/* Which tensors serve one argument of the schema: a list has any number, a missing optional none. */
typedef struct ds_arg {
    uint32_t first, count;
} ds_arg;

typedef struct ds_call {
    const ds_tensor *tensors;
    const ds_arg *args;         /* in schema order, inputs before outputs; scalars have none */
    const ds_value *attributes; /* static attributes in schema order */
    const ds_value *scalars;    /* launch scalars in schema order; NULL in `plan` */
    void *workspace;            /* `workspace_bytes` of the plan, not cleared; NULL in `plan` */
} ds_call;

typedef struct ds_phase {
    int64_t items;
    int64_t grain; /* items in a chunk, at least 1; a chunk should be worth 10 us or more */
} ds_phase;

typedef struct ds_plan {
    uint32_t phases; /* in: 0, like all else */
    ds_phase phase[DS_MAX_PHASES];
    int64_t workspace_bytes;
} ds_plan;

typedef struct ds_kernel {
    uint32_t abi;                                    /* DS_CPU_ABI */
    void (*plan)(const ds_call *call, ds_plan *out); /* cheap: it is called for every launch */
    void (*run)(const ds_call *call, uint32_t phase, int64_t begin, int64_t end);
} ds_kernel;

/* `DS_KERNEL(ds_negate_f32, plan, run);` */
#define DS_KERNEL(symbol, plan, run)                                   \
    extern __attribute__((visibility("default"))) const ds_kernel symbol; \
    const ds_kernel symbol = {DS_CPU_ABI, plan, run}

/* Kernel bodies are written once with the dtype as an argument; inlined where it is a constant,
 * they become one loop a dtype. */
#define DS_INLINE static inline __attribute__((always_inline))

/* `DS_WITH_FLOAT(t, dtype, body(call, begin, end, t))`: the statement with `t` a constant, for each
 * of the dtypes that vectors load and store. One kernel serves them all, and the call chooses. */
#define DS_WITH_FLOAT(t, dtype, statement)        \
    do {                                          \
        switch (dtype) {                          \
        case DS_F32: DS_WITH(t, DS_F32, statement) \
        case DS_BF16: DS_WITH(t, DS_BF16, statement) \
        case DS_F16: DS_WITH(t, DS_F16, statement) \
        }                                         \
    } while (0)
#define DS_WITH(t, constant, statement) \
    {                                   \
        enum { t = constant };          \
        statement;                      \
    }                                   \
    break;

DS_INLINE int64_t ds_min(int64_t a, int64_t b) { return a < b ? a : b; }
DS_INLINE int64_t ds_max(int64_t a, int64_t b) { return a > b ? a : b; }
DS_INLINE int64_t ds_div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Tensor `index` of argument `arg`. */
DS_INLINE const ds_tensor *ds_arg_tensor(const ds_call *call, uint32_t arg, uint32_t index) {
    return &call->tensors[call->args[arg].first + index];
}

/* The data of the optional argument `arg`; NULL where the call has none. */
DS_INLINE void *ds_optional(const ds_call *call, uint32_t arg) {
    return call->args[arg].count ? ds_arg_tensor(call, arg, 0)->data : 0;
}

/* Element `i`, in memory's order, of a tensor of i32 or i64. */
DS_INLINE int64_t ds_index_at(const ds_tensor *t, int64_t i) {
    return t->dtype == DS_I32 ? ((const int32_t *)t->data)[i] : ((const int64_t *)t->data)[i];
}

/* Keeps what a loop asks of `a` and `b` a question of each turn: the compiler would make a loop of its own
 * for every answer, and the branches are foreseen. */
#define DS_ASK_EACH_TIME(a, b) __asm__ volatile("" : "+r"(a), "+r"(b))

/* The product of the first `dims` extents. The empty assembly keeps compilers from making vectors of
 * it, which would be most of the code of many a kernel. */
DS_INLINE int64_t ds_extents(const ds_tensor *t, int32_t dims) {
    int64_t n = 1;
    for (int32_t d = 0; d < dims; d++) {
        n *= t->shape[d];
        __asm__("" : "+r"(n));
    }
    return n;
}

DS_INLINE int64_t ds_elements(const ds_tensor *t) { return ds_extents(t, t->ndim); }

/* Extent of the last dimension. */
DS_INLINE int64_t ds_row_length(const ds_tensor *t) { return t->shape[t->ndim - 1]; }

/* Number of rows, a row being the last dimension. */
DS_INLINE int64_t ds_rows(const ds_tensor *t) { return ds_extents(t, t->ndim - 1); }

/* Elements from the first one to that of index 0 in the dimensions from `dims` on and of row-major
 * number `i` in those before. */
DS_INLINE int64_t ds_offset(const ds_tensor *t, int32_t dims, int64_t i) {
    int64_t offset = 0;
    for (int32_t d = dims - 1; d > 0; d--) {
        offset += i % t->shape[d] * t->strides[d];
        i /= t->shape[d];
    }
    return dims > 0 ? offset + i * t->strides[0] : 0;
}

/* Elements from the first one to row `row`. */
DS_INLINE int64_t ds_row_offset(const ds_tensor *t, int64_t row) {
    return ds_offset(t, t->ndim - 1, row);
}

/* Bytes of an element. */
DS_INLINE int64_t ds_size(uint32_t dtype) {
    switch (dtype) {
    case DS_F64: case DS_I64: return 8;
    case DS_F32: case DS_I32: return 4;
    case DS_F16: case DS_BF16: case DS_I16: return 2;
    default: return 1;
    }
}

/* Address of element `offset` of a tensor of `dtype`. */
DS_INLINE void *ds_at(const void *data, int64_t offset, uint32_t dtype) {
    return (char *)data + offset * ds_size(dtype);
}

#endif
