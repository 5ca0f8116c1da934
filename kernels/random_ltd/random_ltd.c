/* Tokens of a sequence that are kept, on a CPU: their numbers sorted, their activations gathered and put
 * back, the attention mask among them.
 *
 * Limit: memory; sorting passes over a row once for each digit of its range. A number that is none
 * of a token gives zeros, and is not put back: no byte outside of a tensor is touched.
 */
#include "ds_cpu_copy.h"

enum { CHUNK_BYTES = 64 * 1024 };

/* token_sort_(ids). An item is a row. Numbers that differ and lie close together, as those of kept tokens
 * do, are set as bits in a place of the row's size in the workspace, and read from there in order. Others
 * go between the row and that place, sorted by a digit of their distance from the least at a time. */
enum { MOST_CHUNKS = 256 };

static void plan_sort(const ds_call *call, ds_plan *out) {
    const ds_tensor *ids = ds_arg_tensor(call, 0, 0);
    int64_t rows = ds_rows(ids), length = ds_row_length(ids);
    out->phases = 1;
    out->phase[0].items = rows;
    out->phase[0].grain = ds_max(ds_max(1, 4096 / ds_max(1, length)), ds_div_up(rows, MOST_CHUNKS));
    out->workspace_bytes = ds_div_up(rows, out->phase[0].grain) * length * 4;
}

/* Whether numbers from `least` to `range` above it differ, and are sorted; they are as they were if not. */
static int sort_set(uint32_t *row, uint32_t *bits, int64_t n, uint32_t least, uint32_t range) {
    __builtin_memset(bits, 0, (range / 32 + 1) * sizeof *bits);
    uint32_t twice = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t at = row[i] - least, bit = 1u << at % 32;
        twice |= bits[at / 32] & bit;
        bits[at / 32] |= bit;
    }
    if (twice) return 0;
    for (uint32_t word = 0; word <= range / 32; word++)
        for (uint32_t rest = bits[word]; rest; rest &= rest - 1)
            *row++ = least + word * 32 + (uint32_t)__builtin_ctz(rest);
    return 1;
}

static void sort_digits(uint32_t *row, uint32_t *other, int64_t n, uint32_t least, uint32_t range) {
    int bits = range ? 32 - __builtin_clz(range) : 0, digits = (bits + 7) / 8;
    int width = digits ? (bits + digits - 1) / digits : 0;
    uint32_t *from = row, *to = other, mask = (1u << width) - 1;
    for (int shift = 0; shift < bits; shift += width) {
        int64_t before[257] = {0};
        for (int64_t i = 0; i < n; i++) before[((from[i] - least) >> shift & mask) + 1]++;
        for (uint32_t digit = 0; digit < mask; digit++) before[digit + 1] += before[digit];
        for (int64_t i = 0; i < n; i++) to[before[(from[i] - least) >> shift & mask]++] = from[i];
        uint32_t *swapped = from;
        from = to, to = swapped;
    }
    if (from != row) __builtin_memcpy(row, from, (size_t)n * 4);
}

static void sort_row(uint32_t *row, uint32_t *other, int64_t n) {
    const int32_t *numbers = (const int32_t *)row;
    int32_t least = n ? numbers[0] : 0, greatest = least;
    for (int64_t i = 0; i < n; i++) {
        least = numbers[i] < least ? numbers[i] : least;
        greatest = numbers[i] > greatest ? numbers[i] : greatest;
    }
    uint32_t range = (uint32_t)greatest - (uint32_t)least;
    if (range / 32 < n && sort_set(row, other, n, (uint32_t)least, range)) return;
    sort_digits(row, other, n, (uint32_t)least, range);
}

static void run_sort(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *ids = ds_arg_tensor(call, 0, 0);
    ds_plan made;
    plan_sort(call, &made);
    int64_t n = ds_row_length(ids);
    uint32_t *other = (uint32_t *)call->workspace + begin / made.phase[0].grain * n;
    for (int64_t row = begin; row < end; row++) sort_row((uint32_t *)ids->data + row * n, other, n);
}

DS_KERNEL(ds_token_sort_, plan_sort, run_sort);

/* token_gather(x, indices) -> y, token_scatter_(y, x, indices): of tensors [batch, tokens, channels]
 * whose rows of channels are contiguous. */
enum { G_X, G_INDICES, G_Y };
enum { S_Y, S_X, S_INDICES };

static int64_t row_bytes(const ds_tensor *t) { return t->shape[2] * ds_size(t->dtype); }

static char *token_at(const ds_tensor *t, int64_t batch, int64_t token) {
    return ds_at(t->data, batch * t->strides[0] + token * t->strides[1], t->dtype);
}

/* An item is a token that is kept. */
static void plan_gather(const ds_call *call, ds_plan *out) {
    out->phases = 1;
    out->phase[0].items = ds_elements(ds_arg_tensor(call, G_INDICES, 0));
    out->phase[0].grain = ds_max(1, CHUNK_BYTES / ds_max(1, row_bytes(ds_arg_tensor(call, G_X, 0))));
}

/* What item `item` keeps, NULL where that is none of a token. */
static const char *kept_token(const ds_tensor *x, const int32_t *indices, int64_t kept, int64_t item) {
    int64_t token = indices[item];
    return token < 0 || token >= x->shape[1] ? 0 : token_at(x, item / kept, token);
}

static void run_gather(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, G_X, 0), *y = ds_arg_tensor(call, G_Y, 0);
    const int32_t *indices = ds_arg_tensor(call, G_INDICES, 0)->data;
    int64_t kept = y->shape[1], bytes = row_bytes(x);
    int large = ds_streams(ds_elements(y), y->dtype);
    const char *from = kept_token(x, indices, kept, begin);
    for (int64_t item = begin; item < end; item++) {
        const char *next = item + 1 < end ? kept_token(x, indices, kept, item + 1) : 0;
        char *to = token_at(y, item / kept, item % kept);
        if (from) ds_copy_bytes(to, from, next, bytes, large);
        else __builtin_memset(to, 0, (size_t)bytes);
        from = next;
    }
    if (large) ds_fence();
}

DS_KERNEL(ds_token_gather, plan_gather, run_gather);

/* An item is a block of channels of a batch, so that of a token that is there twice the last one stays. */
enum { CHANNEL_BYTES = 1024, SCATTER_AHEAD = 2 /* tokens */ };

static void plan_scatter(const ds_call *call, ds_plan *out) {
    const ds_tensor *x = ds_arg_tensor(call, S_X, 0);
    out->phases = 1;
    out->phase[0].items = x->shape[0] * ds_div_up(row_bytes(x), CHANNEL_BYTES);
    out->phase[0].grain = ds_max(1, CHUNK_BYTES / CHANNEL_BYTES / ds_max(1, x->shape[1]));
}

static void run_scatter(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *x = ds_arg_tensor(call, S_X, 0), *y = ds_arg_tensor(call, S_Y, 0);
    int64_t kept = x->shape[1], bytes = row_bytes(x), blocks = ds_div_up(bytes, CHANNEL_BYTES);
    int large = ds_streams(ds_elements(x), x->dtype);
    for (int64_t item = begin; item < end; item++) {
        int64_t batch = item / blocks, i = item % blocks * CHANNEL_BYTES;
        int64_t n = ds_min(CHANNEL_BYTES, bytes - i);
        const int32_t *indices = (const int32_t *)ds_arg_tensor(call, S_INDICES, 0)->data + batch * kept;
        for (int64_t k = 0; k < kept; k++) {
            if (indices[k] < 0 || indices[k] >= y->shape[1]) continue;
            const char *next = token_at(x, batch, ds_min(k + SCATTER_AHEAD, kept - 1)) + i;
            ds_copy_bytes(token_at(y, batch, indices[k]) + i, token_at(x, batch, k) + i, next, n, large);
        }
    }
    if (large) ds_fence();
}

DS_KERNEL(ds_token_scatter_, plan_scatter, run_scatter);

/* mask_gather_bert(mask, indices) -> y: y[l, b, 0, i, j] = mask[b, 0, indices[l, b, i], indices[l, b, j]].
 * An item is a row of y. */
enum { M_MASK, M_INDICES, M_Y };

static void plan_mask(const ds_call *call, ds_plan *out) {
    const ds_tensor *y = ds_arg_tensor(call, M_Y, 0);
    out->phases = 1;
    out->phase[0].items = ds_rows(y);
    out->phase[0].grain = ds_max(1, 8 * 1024 / ds_max(1, ds_row_length(y)));
}

/* Elements `first` to `last` of a row of y, one by one; `from` is NULL where the row is none of the mask's. */
#define MASK_ROW(type)                                                                 \
    for (int64_t j = first; j < last; j++) {                                           \
        int is_token = from && indices[j] >= 0 && indices[j] < tokens;                 \
        ((type *)to)[j] = is_token ? ((const type *)from)[indices[j]] : 0;             \
    }
static void mask_row(void *to, const void *from, const int32_t *indices, int64_t tokens, int64_t first, int64_t last,
                     int64_t size) {
    if (size == 4) {
        MASK_ROW(uint32_t)
    } else {
        MASK_ROW(uint16_t)
    }
}

#if DS_LANES == 16
/* A vector of elements of `size` bytes, 0 where an index is none of a token. What has two bytes is
 * gathered with the token before it, or of the first one with that behind it, so that nothing outside of
 * the row is read: there are two at least. */
DS_INLINE __m512i mask_vector(const void *from, const int32_t *indices, int64_t tokens, int64_t size) {
    __m512i index = _mm512_loadu_si512(indices), one = _mm512_set1_epi32(1);
    __mmask16 is_token = _mm512_cmplt_epu32_mask(index, _mm512_set1_epi32((int32_t)tokens));
    if (size == 4) return _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), is_token, index, from, 4);
    __m512i pair = _mm512_sub_epi32(_mm512_max_epu32(index, one), one);
    pair = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), is_token, pair, from, 2);
    return _mm512_srlv_epi32(pair, _mm512_slli_epi32(_mm512_min_epu32(index, one), 4));
}

/* A row as far as whole cache lines of it go; the elements done. */
static int64_t mask_vectors(char *to, const void *from, const int32_t *indices, int64_t tokens, int64_t kept,
                            int64_t size, int streams) {
    int64_t j = 0;
    if (!from || tokens < 2) return 0;
    streams = streams && ds_aligned(to);
    if (size == 4) {
        for (; j + 16 <= kept; j += 16) ds_put(to + j * 4, (ds_vec_u32)mask_vector(from, indices + j, tokens, 4), streams);
        return j;
    }
    for (; j + 32 <= kept; j += 32) {
        __m256i low = _mm512_cvtepi32_epi16(mask_vector(from, indices + j, tokens, 2));
        __m256i high = _mm512_cvtepi32_epi16(mask_vector(from, indices + j + 16, tokens, 2));
        ds_put(to + j * 2, (ds_vec_u32)_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1), streams);
    }
    return j;
}
#else
static int64_t mask_vectors(char *to, const void *from, const int32_t *indices, int64_t tokens, int64_t kept,
                            int64_t size, int streams) {
    return (void)to, (void)from, (void)indices, (void)tokens, (void)kept, (void)size, (void)streams, 0;
}
#endif

static void run_mask(const ds_call *call, uint32_t phase, int64_t begin, int64_t end) {
    (void)phase;
    const ds_tensor *mask = ds_arg_tensor(call, M_MASK, 0), *y = ds_arg_tensor(call, M_Y, 0);
    int64_t kept = ds_row_length(y), tokens = ds_row_length(mask), batches = mask->shape[0];
    int64_t size = ds_size(y->dtype);
    int large = ds_streams(ds_elements(y), y->dtype);
    for (int64_t row = begin; row < end; row++) {
        int64_t layer_and_batch = row / kept, batch = layer_and_batch % batches;
        const int32_t *indices = (const int32_t *)ds_arg_tensor(call, M_INDICES, 0)->data + layer_and_batch * kept;
        int64_t token = indices[row % kept];
        int is_row = token >= 0 && token < tokens;
        const char *from = is_row ? ds_at(mask->data, (batch * tokens + token) * tokens, mask->dtype) : 0;
        char *to = ds_at(y->data, row * kept, y->dtype);
        int64_t done = mask_vectors(to, from, indices, tokens, kept, size, large);
        mask_row(to, from, indices, tokens, done, kept, size);
    }
    if (large) ds_fence();
}

DS_KERNEL(ds_mask_gather_bert, plan_mask, run_mask);
