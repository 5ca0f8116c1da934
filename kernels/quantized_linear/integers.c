/* Layers with weights of 8 or 4 bits in groups, on a CPU. Limit: layer.h.
 *
 * Few rows meet 4 bits in an order that saves the work of bringing codes into theirs: a lane of 32 bits has
 * 8 codes, the first of each lane are multiplied first, and x is turned to fit, once.
 */
#include "ds_cpu_grouped.h"
#include "layer.h"

/* quantized_linear(x, q, params, bias?, residual?; kind) -> y */
enum { X, Q, PARAMS, BIAS, RESIDUAL, Y };

enum { INT8 = 1, INT4 = 2 }; /* as many codes are in a byte */

#if DS_LANES == 16
/* The numbers of four bits; only the lowest four bits of an index count. */
DS_INLINE __m512 nibbles(void) {
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
}

/* What turns four bits into numbers: f32, or bf16, of which there are two sets because five bits of an index
 * count. */
DS_INLINE __m512i nibble_table(uint32_t form) {
    const __m512i upper = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1,
                                           31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    const __m512i all = (__m512i)nibbles();
    return form == DS_PAIRS ? _mm512_permutexvar_epi16(upper, all) : all;
}

/* The numbers of bits 0 to 3 and 16 to 19 of each lane, which then are gone: both in a word of pairs. */
DS_INLINE ds_vec2 next_nibbles(__m512i *bits, __m512i table, uint32_t form) {
    const __m512i now = *bits;
    *bits = _mm512_srli_epi32(now, 4);
    if (form == DS_PAIRS) return (ds_vec2){(ds_vec)_mm512_permutexvar_epi16(now, table), {0}};
    return (ds_vec2){(ds_vec)_mm512_permutexvar_epi32(now, table), (ds_vec)_mm512_permutexvar_epi32(_mm512_srli_epi32(now, 16), table)};
}
#endif

DS_INLINE ds_vec numbers(const uint8_t *codes, int kind) {
    if (kind == INT8) return ds_bytes_at(codes, 1);
#if DS_LANES == 16
    const __m512i halves = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i bits = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    __m512i all = _mm512_castsi128_si512(_mm_loadl_epi64((const __m128i *)codes));
    all = _mm512_srlv_epi32(_mm512_permutexvar_epi32(halves, all), bits);
    return (ds_vec)_mm512_permutexvar_ps(all, nibbles());
#elif DS_LANES == 8
    int32_t all;
    __builtin_memcpy(&all, codes, sizeof all);
    __m256i upper = _mm256_sllv_epi32(_mm256_set1_epi32(all), _mm256_setr_epi32(28, 24, 20, 16, 12, 8, 4, 0));
    return (ds_vec)_mm256_cvtepi32_ps(_mm256_srai_epi32(upper, 28));
#else
    ds_vec v;
    for (int i = 0; i < DS_LANES; i++) v[i] = (float)(((codes[i / 2] >> (4 * (i % 2)) & 0xf) ^ 8) - 8);
    return v;
#endif
}

static void pack(const ds_product *p, float *panel, int64_t column, int64_t columns, int64_t first, int64_t n) {
    const layer *l = (const layer *)p;
    if (l->kind == INT8) pack_codes(l, panel, column, columns, first, n, INT8, numbers);
    else pack_codes(l, panel, column, columns, first, n, INT4, numbers);
}

DS_INLINE void dots_of(const layer *l, const int64_t *columns, const float *const *x, ds_vec *totals, int kind) {
    if (l->p.m == 1) dots_of_columns(l, columns, x[0], totals, kind, numbers);
    else WITH_ROWS(rows, l->p.m, dots_of_rows(l, columns, x, totals, rows, kind, numbers));
}

static void dots(const layer *l, const int64_t *columns, const float *const *x, ds_vec *totals) {
    if (l->kind == INT8) dots_of(l, columns, x, totals, INT8);
    else dots_of(l, columns, x, totals, INT4);
}

/* A turned block of a row of x: vector i has value i of each lane, the last one their sums, for offsets. In pairs,
 * values i and i + 4 are a word. */
enum { OF_LANE = 8, BLOCK = OF_LANE * DS_LANES, TURNED = BLOCK + DS_LANES };

/* Whether lanes of 8 codes lie in one group each, in a way that a block's steps are read for. */
static int is_turned(const layer *l) {
    int64_t n = l->length;
    return DS_LANES == 16 && l->few && l->kind == INT4 && n > 0 && l->p.k % BLOCK == 0 &&
           (n % BLOCK == 0 || n == BLOCK / 2 || n == BLOCK / 4 || n == BLOCK / 8);
}

static void turn_blocks(const ds_call *call, const layer *l, int64_t begin, int64_t end) {
    const void *x = l->x.data;
    float *to = (float *)call->workspace + begin * TURNED;
    for (; begin < end; begin++, to += TURNED) {
        _Alignas(64) float block[BLOCK];
        for (int64_t i = 0; i < BLOCK; i += DS_LANES)
            DS_WITH_FLOAT(t, l->p.t, ds_store(block, i, ds_load(x, begin * BLOCK + i, t), DS_F32));
        for (int lane = 0; lane < DS_LANES; lane++) {
            float sum = 0;
            for (int i = 0; i < OF_LANE; i++) sum += to[i * DS_LANES + lane] = block[lane * OF_LANE + i];
            to[BLOCK + lane] = sum;
        }
        for (int i = 0; ds_form_of(l->p.t) == DS_PAIRS && i < OF_LANE / 2 * DS_LANES; i += DS_LANES) {
            ds_vec2 both = {ds_load(to, i, DS_F32), ds_load(to, i + BLOCK / 2, DS_F32)};
            ds_store(to, i, (ds_vec)ds_bf16_pair(both), DS_F32);
        }
    }
}

#if DS_LANES == 16
/* Steps and offsets of the lanes of a block. */
typedef struct {
    __m512 step, offset;
} lane_params;

DS_INLINE lane_params params_of(const float *params, int groups, ds_vec_i32 of_lane) {
    if (groups == 1) return (lane_params){_mm512_set1_ps(params[0]), _mm512_set1_ps(params[1])};
    __m512 all = _mm512_maskz_loadu_ps((__mmask16)((1u << (2 * groups)) - 1), params);
    return (lane_params){_mm512_permutexvar_ps((__m512i)of_lane, all), _mm512_permutexvar_ps((__m512i)(of_lane + 1), all)};
}

/* Products of columns, one or two, and rows of turned blocks. */
DS_INLINE void turned_dots(const layer *l, const int64_t *columns, const float *const *x, ds_vec *totals, int rows, int n, int groups,
                           uint32_t form) {
    const uint8_t *codes[2];
    const float *params[2];
    const __m512i table = nibble_table(form);
    int64_t blocks = l->p.k / BLOCK, of_group = ds_max(1, l->length / BLOCK), left = of_group;
    ds_vec_i32 of_lane;
    for (int lane = 0; lane < DS_LANES; lane++) of_lane[lane] = 2 * (lane * groups / DS_LANES);
    __m512 sums[2 * FEW_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < n * rows; i++) sums[i] = _mm512_setzero_ps();
#pragma GCC unroll 2
    for (int j = 0; j < n; j++) {
        codes[j] = codes_at(l, columns[j], 0);
        params[j] = l->params + 2 * columns[j] * l->groups;
    }
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t ahead = codes_ahead(column_bytes(l), block * (BLOCK / 2), n);
        __m512i bits[2];
#pragma GCC unroll 2
        for (int j = 0; j < n; j++) {
            bits[j] = _mm512_loadu_si512(codes[j]);
            __builtin_prefetch(codes[j] + ahead, 0, 2);
            codes[j] += BLOCK / 2;
        }
        __m512 parts[2 * FEW_ROWS];
#pragma GCC unroll 16
        for (int i = 0; i < n * rows; i++) parts[i] = _mm512_setzero_ps();
#pragma GCC unroll 4
        for (int i = 0; i < OF_LANE / 2; i++) {
            ds_vec2 w[2];
#pragma GCC unroll 2
            for (int j = 0; j < n; j++) {
                w[j] = next_nibbles(&bits[j], table, form);
            }
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                const float *right = x[r] + block * TURNED + i * DS_LANES;
                ds_vec a = ds_load(right, 0, DS_F32), b = form == DS_F32 ? ds_load(right, BLOCK / 2, DS_F32) : a;
                __asm__("" : "+v"(a), "+v"(b)); /* compilers would load them again for each product */
#pragma GCC unroll 2
                for (int j = 0; j < n; j++) {
                    ds_vec *part = (ds_vec *)&parts[j * rows + r];
                    *part = ds_multiply_add(w[j].a, a, *part, form);
                    if (form == DS_F32) *part = ds_vfma(w[j].b, b, *part);
                }
            }
        }
#pragma GCC unroll 2
        for (int j = 0; j < n; j++) {
            lane_params of = params_of(params[j], groups, of_lane);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                __m512 lanes = _mm512_loadu_ps(x[r] + block * TURNED + BLOCK), *sum = &sums[j * rows + r];
                *sum = _mm512_fmadd_ps(parts[j * rows + r], of.step, _mm512_fmadd_ps(lanes, of.offset, *sum));
            }
        }
        if (--left > 0) continue;
        left = of_group;
#pragma GCC unroll 2
        for (int j = 0; j < n; j++) params[j] += 2 * groups;
    }
#pragma GCC unroll 2
    for (int j = 0; j < n; j++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) totals[j * FEW_ROWS + r] = (ds_vec)sums[j * rows + r];
}

/* A single row meets its columns one after the other: they are one stream of memory then. */
static void dots_of_turned(const layer *l, const int64_t *columns, const float *const *x, ds_vec *totals) {
    const int groups = (int)ds_max(1, BLOCK / l->length);
    DS_WITH_FORM(f, ds_form_of(l->p.t), {
        if (l->p.m > 1) WITH_ROWS(rows, l->p.m, turned_dots(l, columns, x, totals, rows, AT_ONCE_OF_ROWS, groups, f));
        for (int j = 0; l->p.m == 1 && j < AT_ONCE; j++) {
            if (groups == 1) turned_dots(l, columns + j, x, totals + j * FEW_ROWS, 1, 1, 1, f);
            else turned_dots(l, columns + j, x, totals + j * FEW_ROWS, 1, 1, groups, f);
        }
    });
}
#else
static void dots_of_turned(const layer *l, const int64_t *columns, const float *const *x, ds_vec *totals) {
    dots(l, columns, x, totals);
}
#endif

static void layer_of(const ds_call *call, layer *l) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *q = ds_arg_tensor(call, Q, 0);
    *l = (layer){.codes = q->data, .params = ds_arg_tensor(call, PARAMS, 0)->data, .has_offset = 1, .bytes = 1};
    l->per = x->shape[3];
    l->kind = (int)l->per;
    l->p.bias = call->args[BIAS].count ? ds_arg_tensor(call, BIAS, 0) : 0;
    l->p.residual = call->args[RESIDUAL].count ? ds_arg_tensor(call, RESIDUAL, 0) : 0;
    l->p.c = ds_arg_tensor(call, Y, 0);
    l->p.kind = call->attributes[0].i;
    l->p.pack = pack;
    layer_extents(l, x, q);
}

static void plan(const ds_call *call, ds_plan *out) {
    layer l;
    layer_of(call, &l);
    ds_plan_product(&l.p, out);
    if (!is_turned(&l)) return;
    out->phase[0].items = l.p.m * (l.p.k / BLOCK);
    out->phase[0].grain = DS_COPIED / BLOCK;
    out->workspace_bytes = out->phase[0].items * TURNED * 4;
}

static void run(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    layer l;
    layer_of(call, &l);
    int turned = is_turned(&l);
    if (phase == 0 && turned) return turn_blocks(call, &l, begin, end);
    if (phase < 2 || !l.few) return ds_run_packed_product(call, &l.p, phase, begin, end);
    for (int64_t item = begin; item < end; item++) {
        ds_part at = ds_product_part_of(call, &l.p, item);
        if (turned) {
            at.a = call->workspace;
            at.a_across = l.p.k / BLOCK * TURNED;
        }
        run_few(&l, &at, turned ? dots_of_turned : dots);
    }
}

DS_KERNEL(ds_quantized_linear, plan, run);

/* quantized_grouped_matmul(x, q, params, starts, bias?; kind) -> y, as ds_cpu_grouped.h has it. */
enum { STARTS = PARAMS + 1, BIAS_OF_EXPERTS, Y_OF_ROWS };

/* What is alike for all experts. */
typedef struct experts {
    ds_grouped g; /* first, as `run_expert` gets this one */
    layer all;
} experts;

static void experts_of(const ds_call *call, experts *e) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *q = ds_arg_tensor(call, Q, 0);
    layer *l = &e->all;
    ds_tensor w = *q; /* of one */
    w.shape++, w.strides++, w.ndim--;
    *l = (layer){.codes = q->data, .params = ds_arg_tensor(call, PARAMS, 0)->data, .has_offset = 1, .bytes = 1};
    l->per = x->shape[3];
    l->kind = (int)l->per;
    l->p.c = ds_arg_tensor(call, Y_OF_ROWS, 0);
    l->p.kind = call->attributes[0].i;
    l->p.pack = pack;
    layer_extents(l, x, &w);
    e->g = (ds_grouped){.all = l->p, .starts = ds_arg_tensor(call, STARTS, 0), .experts = q->shape[0]};
}

static void plan_experts(const ds_call *call, ds_plan *out) {
    experts e;
    experts_of(call, &e);
    ds_plan_grouped(&e.g, out);
}

static void run_expert(const ds_call *call, const ds_grouped *g, int64_t expert, int64_t begin, int64_t end, int64_t column) {
    const ds_tensor *x = ds_arg_tensor(call, X, 0), *y = g->all.c;
    layer l = ((const experts *)g)->all;
    const int64_t n = l.p.n, k = l.p.k;
    ds_tensor rows = *x, w = *ds_arg_tensor(call, Q, 0), c = *y, bias;
    int64_t x_shape[] = {end - begin, x->shape[1], x->shape[2], x->shape[3]}, c_shape[] = {end - begin, n};
    rows.shape = x_shape, rows.data = ds_at(x->data, begin * k, x->dtype);
    c.shape = c_shape, c.data = ds_at(y->data, begin * y->strides[0], y->dtype);
    w.shape++, w.strides++, w.ndim--;
    l.codes += expert * n * k / l.per * l.bytes;
    l.params += expert * n * l.groups * 2;
    l.p.c = &c;
    if (call->args[BIAS_OF_EXPERTS].count) {
        bias = *ds_arg_tensor(call, BIAS_OF_EXPERTS, 0);
        bias.data = ds_at(bias.data, expert * n, bias.dtype);
        l.p.bias = &bias;
    }
    layer_extents(&l, &rows, &w);
    ds_grouped_part part = ds_grouped_part_of(call, &l.p, begin, column);
    if (!l.few) return ds_run_packed_product(&part.of_rows, &l.p, 2, part.first, part.last);
    for (int64_t item = part.first; item < part.last; item++) {
        ds_part at = ds_product_part_of(&part.of_rows, &l.p, item);
        run_few(&l, &at, dots);
    }
}

static void run_experts(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    experts e;
    experts_of(call, &e);
    if (phase == 0) return ds_run_packed_product(call, &e.all.p, 0, begin, end);
    ds_run_grouped(call, &e.g, begin, end, run_expert);
}

DS_KERNEL(ds_quantized_grouped_matmul, plan_experts, run_experts);
