/* Layers with weights of narrow floats in groups, of which every code is a number, on a CPU. Limit: layer.h.
 * core/src/op/minifloat.rs is the definition of the formats.
 */
#include "layer.h"

/* fp_linear(x, codes, step, bias?, residual?; kind, mantissa) -> y */
enum { X, CODES, STEP, BIAS, RESIDUAL, Y };

enum { E2M1, E3M2, E4M3, E5M2, E4M7, E7M4 };

typedef struct {
    int bits, mantissa;
} format;

DS_INLINE format format_of(int kind) {
    switch (kind) {
    case E2M1: return (format){4, 1};
    case E3M2: return (format){6, 2};
    case E4M3: return (format){8, 3};
    case E5M2: return (format){8, 2};
    case E4M7: return (format){12, 7};
    default: return (format){12, 4};
    }
}

/* DS_LANES codes, which begin with a byte, in the lowest bits of lanes; what is above is anything. */
DS_INLINE ds_vec_u32 lanes_of(const uint8_t *codes, int bits) {
#if DS_LANES == 16
    if (bits == 8) return (ds_vec_u32)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)codes));
    /* A code is within two words, of which it begins in the first one. */
    int16_t words __attribute__((vector_size(64)));
    ds_vec_u32 from;
    for (int lane = 0; lane < DS_LANES; lane++) {
        words[2 * lane] = (int16_t)(lane * bits / 16);
        words[2 * lane + 1] = (int16_t)(lane * bits / 16 + 1);
        from[lane] = (uint32_t)(lane * bits % 16);
    }
    __m512i all = _mm512_maskz_loadu_epi8((1ull << (2 * bits)) - 1, codes);
    return (ds_vec_u32)_mm512_srlv_epi32(_mm512_permutexvar_epi16((__m512i)words, all), (__m512i)from);
#else
    uint8_t few[2 * DS_LANES + 2] = {0};
    __builtin_memcpy(few, codes, (size_t)(DS_LANES * bits / 8));
    ds_vec_u32 v = {0};
    for (int lane = 0; lane < DS_LANES; lane++) {
        int bit = lane * bits;
        v[lane] = (uint32_t)(few[bit / 8] | few[bit / 8 + 1] << 8) >> (bit % 8);
    }
    return v;
#endif
}

/* The numbers of codes of any format. */
DS_INLINE ds_vec decoded(ds_vec_u32 code, format f) {
    const uint32_t shift = (uint32_t)(23 - f.mantissa), one = 1u << 23;
    const uint32_t bias = (1u << (f.bits - 2 - f.mantissa)) - 1;
    ds_vec_u32 size = (code & ((1u << (f.bits - 1)) - 1)) << shift, bits = size + ((127 - bias) << 23);
    /* Denormals lack the leading bit: put it there and take it away. */
    ds_vec small = (ds_vec)(bits + one) - DS_FLOAT_OF((128 - bias) << 23);
    ds_vec value = ds_vselect((ds_vec_i32)(size < one), small, (ds_vec)bits);
    return (ds_vec)((ds_vec_u32)value | (code >> (uint32_t)(f.bits - 1)) << 31);
}

DS_INLINE ds_vec numbers(const uint8_t *codes, int kind) {
    format f = format_of(kind);
#if DS_LANES == 16
    if (kind == E2M1) { /* only the lowest four bits of an index count, */
        __m512 all = _mm512_setr_ps(0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6);
        return (ds_vec)_mm512_permutexvar_ps((__m512i)lanes_of(codes, f.bits), all);
    }
    if (kind == E3M2) { /* or five, of two tables; a sixth is the sign */
        __m512 low = _mm512_setr_ps(0, .0625f, .125f, .1875f, .25f, .3125f, .375f, .4375f, .5f, .625f, .75f, .875f, 1,
                                    1.25f, 1.5f, 1.75f);
        __m512 high = _mm512_setr_ps(2, 2.5f, 3, 3.5f, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28);
        ds_vec_u32 code = lanes_of(codes, f.bits);
        ds_vec size = (ds_vec)_mm512_permutex2var_ps(low, (__m512i)code, high);
        return (ds_vec)((ds_vec_u32)size | (code << 26 & 0x80000000));
    }
    if (kind == E4M3) { /* f16 has these exponents, 8 below; denormals, too */
        __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)codes));
        wide = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16((short)0xbf80));
        return (ds_vec)_mm512_cvtph_ps(wide) * 256;
    }
#endif
    return decoded(lanes_of(codes, f.bits), f);
}

/* The statement with `k` a constant. */
#define WITH_FORMAT(k, kind, statement)       \
    do {                                      \
        switch (kind) {                       \
        case E2M1: DS_WITH(k, E2M1, statement) \
        case E3M2: DS_WITH(k, E3M2, statement) \
        case E4M3: DS_WITH(k, E4M3, statement) \
        case E5M2: DS_WITH(k, E5M2, statement) \
        case E4M7: DS_WITH(k, E4M7, statement) \
        case E7M4: DS_WITH(k, E7M4, statement) \
        }                                     \
    } while (0)

/* Not inline: who packs a panel asks for the kind of each of its vectors. */
static __attribute__((noinline)) ds_vec numbers_of_any(const uint8_t *codes, int kind) {
    ds_vec v = {0};
    WITH_FORMAT(k, kind, v = numbers(codes, k));
    return v;
}

static void pack(const ds_product *p, float *panel, int64_t column, int64_t columns, int64_t first, int64_t n) {
    const layer *l = (const layer *)p;
    pack_codes(l, panel, column, columns, first, n, l->kind, numbers_of_any);
}

static void dots(const layer *l, const int64_t *columns, const float *const *x, ds_vec *totals) {
#if DS_LANES == 16
    if (l->p.m == 1) WITH_FORMAT(k, l->kind, dots_of_columns(l, columns, x[0], totals, k, numbers));
    else WITH_FORMAT(k, l->kind, dots_of_rows(l, columns, x, totals, FEW_ROWS, k, numbers));
#else /* where a code is taken apart on its own, whom it is for is nothing beside that */
    if (l->p.m == 1) dots_of_columns(l, columns, x[0], totals, l->kind, numbers_of_any);
    else dots_of_rows(l, columns, x, totals, FEW_ROWS, l->kind, numbers_of_any);
#endif
}

static void layer_of(const ds_call *call, layer *l) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *codes = ds_arg_tensor(call, CODES, 0);
    *l = (layer){.codes = codes->data, .params = ds_arg_tensor(call, STEP, 0)->data};
    l->per = x->shape[3];
    l->bytes = codes->shape[3];
    for (l->kind = E2M1; l->kind < E7M4; l->kind++) {
        format f = format_of(l->kind);
        if (f.bits == 8 * l->bytes / l->per && f.mantissa == call->attributes[1].i) break;
    }
    l->p.bias = call->args[BIAS].count ? ds_arg_tensor(call, BIAS, 0) : 0;
    l->p.residual = call->args[RESIDUAL].count ? ds_arg_tensor(call, RESIDUAL, 0) : 0;
    l->p.c = ds_arg_tensor(call, Y, 0);
    l->p.kind = call->attributes[0].i;
    l->p.pack = pack;
    layer_extents(l, x, codes);
}

static void plan(const ds_call *call, ds_plan *out) {
    layer l;
    layer_of(call, &l);
    ds_plan_product(&l.p, out);
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    layer l;
    layer_of(call, &l);
    if (phase < 2 || !l.few) return ds_run_packed_product(call, &l.p, phase, begin, end);
    for (; begin < end; begin++) {
        ds_part at = ds_product_part_of(call, &l.p, begin);
        run_few(&l, &at, dots);
    }
}

DS_KERNEL(ds_fp_linear, plan, run);
