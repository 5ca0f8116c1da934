// Kernels: what they are called, what they take, and their arithmetic.
//
// On real hardware the arithmetic is a device program and only the list at the end stays. The list
// says in C what plugin.json says as data; the host reads the data and never asks for a call that
// it refuses.

#include "sim.h"

#include <math.h>
#include <string.h>

#define F32 (UINT64_C(1) << DS_DTYPE_F32)
#define F16 (UINT64_C(1) << DS_DTYPE_F16)
#define BF16 (UINT64_C(1) << DS_DTYPE_BF16)

// ---- Shapes

static bool same_extent(int64_t a, int64_t b)
{
    return a == b || a == DS_DIM_DYNAMIC || b == DS_DIM_DYNAMIC;
}

// Whether the first `rank` extents are the same; false when one has fewer.
static bool same_shape(const struct sim_tensor *a, const struct sim_tensor *b, int32_t rank)
{
    if (rank > a->rank || rank > b->rank) {
        return false;
    }
    for (int32_t i = 0; i < rank; i++) {
        if (!same_extent(a->shape[i], b->shape[i])) {
            return false;
        }
    }
    return true;
}

// ---- op rms_norm(x: T[S..., D], weight: T[D], eps: f64) -> (y: T[S..., D], rstd: f32[S...])

// Partial sums of a row, in the launch's workspace. A fixed number: the order of additions, and so
// the result, does not depend on anything but the row.
#define LANES 32

static const char *check_rms_norm(const struct sim_tensor *tensors)
{
    const struct sim_tensor *x = &tensors[0];
    const struct sim_tensor *weight = &tensors[1];
    const struct sim_tensor *y = &tensors[2];
    const struct sim_tensor *rstd = &tensors[3];
    if (weight->rank != 1 || !same_extent(weight->shape[0], x->shape[x->rank - 1])) {
        return "weight is not as long as the rows of x";
    }
    if (y->rank != x->rank || !same_shape(y, x, x->rank)) {
        return "y has not the shape of x";
    }
    if (rstd->rank != x->rank - 1 || !same_shape(rstd, x, rstd->rank)) {
        return "rstd has not one element for each row of x";
    }
    return NULL;
}

static void run_rms_norm(const struct sim_tensor *tensors, const double *scalars, void *workspace)
{
    const float *x = tensors[0].data;
    const float *weight = tensors[1].data;
    float *y = tensors[2].data;
    float *rstd = tensors[3].data;
    double *partial = workspace;
    int64_t length = tensors[1].elements;
    for (int64_t row = 0; row < tensors[3].elements; row++) {
        memset(partial, 0, LANES * sizeof *partial);
        for (int64_t i = 0; i < length; i++) {
            partial[i % LANES] += (double)x[row * length + i] * x[row * length + i];
        }
        double sum = 0;
        for (int lane = 0; lane < LANES; lane++) {
            sum += partial[lane];
        }
        double scale = 1 / sqrt(sum / (double)length + scalars[0]);
        for (int64_t i = 0; i < length; i++) {
            y[row * length + i] = (float)(x[row * length + i] * scale * weight[i]);
        }
        rstd[row] = (float)scale;
    }
}

// ---- op cast(x: A[S...]) -> y: B[S...]

static const char *check_same_shape(const struct sim_tensor *tensors)
{
    return tensors[1].rank == tensors[0].rank && same_shape(&tensors[1], &tensors[0], tensors[0].rank)
        ? NULL
        : "y has not the shape of x";
}

// `bits` of a fraction to be cut off, rounded to nearest, ties to even.
static uint32_t round_shift(uint32_t number, unsigned bits)
{
    uint32_t half = UINT32_C(1) << (bits - 1);
    uint32_t rest = number & ((half << 1) - 1);
    uint32_t kept = number >> bits;
    return kept + (rest > half || (rest == half && (kept & 1)));
}

static uint16_t bf16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (isnan(value)) {
        return (uint16_t)(bits >> 16 | 0x40); // quiet, and never cut down to infinity
    }
    return (uint16_t)round_shift(bits, 16);
}

static float of_bf16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint16_t f16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7FFFFFFF;
    if (bits > 0x7F800000) {
        return (uint16_t)(sign | 0x7E00 | (bits >> 13 & 0x3FF));
    }
    if (bits >= 0x477FF000) { // from 65520 on, halfway between the largest and 2^16
        return (uint16_t)(sign | 0x7C00);
    }
    if (bits >= 0x38800000) { // from 2^-14 on: normal
        return (uint16_t)(sign | round_shift(bits - 0x38000000, 13));
    }
    if (bits < 0x33000000) { // below 2^-25, half of the smallest
        return (uint16_t)sign;
    }
    uint32_t fraction = (bits & 0x7FFFFF) | 0x800000;
    return (uint16_t)(sign | round_shift(fraction, 126 - (bits >> 23)));
}

static float of_f16(uint16_t half)
{
    unsigned exponent = half >> 10 & 0x1F;
    int fraction = half & 0x3FF;
    float value;
    if (exponent == 0x1F) {
        uint32_t bits = 0x7F800000 | (uint32_t)fraction << 13;
        memcpy(&value, &bits, sizeof value);
    } else if (exponent == 0) {
        value = ldexpf((float)fraction, -24);
    } else {
        value = ldexpf((float)(fraction | 0x400), (int)exponent - 25);
    }
    return half & 0x8000 ? -value : value;
}

static float load(const struct sim_tensor *tensor, int64_t i)
{
    switch (tensor->dtype) {
    case DS_DTYPE_F16:
        return of_f16(((const uint16_t *)tensor->data)[i]);
    case DS_DTYPE_BF16:
        return of_bf16(((const uint16_t *)tensor->data)[i]);
    default:
        return ((const float *)tensor->data)[i];
    }
}

static void store(const struct sim_tensor *tensor, int64_t i, float value)
{
    switch (tensor->dtype) {
    case DS_DTYPE_F16:
        ((uint16_t *)tensor->data)[i] = f16_of(value);
        break;
    case DS_DTYPE_BF16:
        ((uint16_t *)tensor->data)[i] = bf16_of(value);
        break;
    default:
        ((float *)tensor->data)[i] = value;
    }
}

// Every dtype here fits into f32 exactly, so there is one rounding at most.
static void run_cast(const struct sim_tensor *tensors, const double *scalars, void *workspace)
{
    (void)scalars;
    (void)workspace;
    for (int64_t i = 0; i < tensors[0].elements; i++) {
        store(&tensors[1], i, load(&tensors[0], i));
    }
}

// ---- op axpby(x: f32[S...], y: f32[S...], a: f64, b: f64) -> z: f32[S...], our own: axpby.ops

static const char *check_axpby(const struct sim_tensor *tensors)
{
    for (int i = 1; i < 3; i++) {
        if (tensors[i].rank != tensors[0].rank
            || !same_shape(&tensors[i], &tensors[0], tensors[0].rank)) {
            return "x, y and z have not one shape";
        }
    }
    return NULL;
}

static void run_axpby(const struct sim_tensor *tensors, const double *scalars, void *workspace)
{
    (void)workspace;
    const float *x = tensors[0].data;
    const float *y = tensors[1].data;
    float *z = tensors[2].data;
    for (int64_t i = 0; i < tensors[0].elements; i++) {
        z[i] = (float)(scalars[0] * x[i] + scalars[1] * y[i]);
    }
}

// ---- Dtypes

static const struct {
    DLDataType dl;
    uint32_t dtype;
    uint32_t bytes;
    const char *name;
} dtypes[] = {
    {{2, 32, 1}, DS_DTYPE_F32, 4, "f32"},
    {{2, 16, 1}, DS_DTYPE_F16, 2, "f16"},
    {{4, 16, 1}, DS_DTYPE_BF16, 2, "bf16"},
};
#define DTYPES (sizeof dtypes / sizeof dtypes[0])

uint32_t sim_dtype(DLDataType dl)
{
    for (size_t i = 0; i < DTYPES; i++) {
        if (dtypes[i].dl.code == dl.code && dtypes[i].dl.bits == dl.bits
            && dtypes[i].dl.lanes == dl.lanes) {
            return dtypes[i].dtype;
        }
    }
    return UINT32_MAX;
}

uint64_t sim_dtype_bytes(uint32_t dtype)
{
    for (size_t i = 0; i < DTYPES; i++) {
        if (dtypes[i].dtype == dtype) {
            return dtypes[i].bytes;
        }
    }
    return 0;
}

const char *sim_dtype_name(uint32_t dtype)
{
    for (size_t i = 0; i < DTYPES; i++) {
        if (dtypes[i].dtype == dtype) {
            return dtypes[i].name;
        }
    }
    return "unknown";
}

// ---- The list

static const struct sim_kernel kernels[] = {
    {
        .name = "sim_rms_norm",
        .op = "rms_norm",
        .tensor_count = 4,
        .scalar_count = 1,
        .dtypes = {F32, F32, F32, F32},
        .rank_min = 1,
        .rank_max = 4,
        .row_min = 1,
        .workspace_bytes = LANES * sizeof(double),
        .check = check_rms_norm,
        .run = run_rms_norm,
    },
    {
        .name = "sim_cast",
        .op = "cast",
        .tensor_count = 2,
        .dtypes = {F32 | F16 | BF16, F32 | F16 | BF16},
        .rank_max = SIM_MAX_RANK,
        .check = check_same_shape,
        .run = run_cast,
    },
    {
        .name = "sim_axpby",
        .op = "axpby",
        .tensor_count = 3,
        .scalar_count = 2,
        .dtypes = {F32, F32, F32},
        .rank_max = SIM_MAX_RANK,
        .check = check_axpby,
        .run = run_axpby,
    },
};

const struct sim_kernel *sim_kernel_find(DsStr name)
{
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        if (sim_str_is(name, kernels[i].name)) {
            return &kernels[i];
        }
    }
    return NULL;
}
