// Softmax attention without its square: forward, and gradients that compute probabilities again
// (FlashAttention-2, arXiv 2307.08691). bf16 operands, f32 sums; no atomics, so the same bits at every
// call.
//
// Defined before: IN (float, or u16 for bf16), D (width of a head, a multiple of 16), CAUSAL (0 or 1).
// A block has four warps of 16 rows each and goes over the other side 64 at a time.

#define BLOCK 64
#define LINE (D + 8)
// Columns of scores that a warp holds at once.
#define CHUNK (D > 64 ? 32 : 64)
#define LOG2E 1.4426950408889634f

struct Shape {
    // `window` is 0 where a row sees everything before it.
    u64 batch, seq, heads, kv_heads, window, scale;
};

__device__ inline void store2(float* to, float a, float b) {
    *reinterpret_cast<float2*>(to) = make_float2(a, b);
}
__device__ inline void store2(u16* to, float a, float b) {
    *reinterpret_cast<u32*>(to) = to_bf16x2(a, b);
}

// Up to 64 rows in bf16; the rest is zero.
__device__ inline void load_tile(u16* to, const IN* from, u64 stride, int rows) {
    for (int i = threadIdx.x; i < BLOCK * (D / 8); i += 128) {
        int r = i / (D / 8), c = i % (D / 8) * 8;
        Eight v = {};
        if (r < rows) v = load8(from + r * stride + c);
        store8(to + r * LINE + c, v);
    }
}

__device__ inline void load_matrices(u32 (&r)[4], const u16* at) {
    u32 address = static_cast<u32>(__cvta_generic_to_shared(at));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ inline void load_matrices_turned(u32 (&r)[4], const u16* at) {
    u32 address = static_cast<u32>(__cvta_generic_to_shared(at));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ inline void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16 rows of a tile as left operands.
__device__ inline void load_rows(u32 (&to)[D / 16][4], const u16* tile, int row, int lane) {
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        load_matrices(to[k], tile + (row + lane % 16) * LINE + k * 16 + lane / 16 * 8);
    }
}

// scores = rows · tileᵀ for `CHUNK` rows of the tile from `first`.
__device__ inline void score(float (&s)[CHUNK / 8][4], const u32 (&rows)[D / 16][4],
                             const u16* tile, int first, int lane) {
#pragma unroll
    for (int n = 0; n < CHUNK / 16; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[2 * n][i] = s[2 * n + 1][i] = 0.0f;
        const u16* at = tile + (first + n * 16 + lane % 8 + lane / 16 * 8) * LINE + lane / 8 % 2 * 8;
#pragma unroll
        for (int k = 0; k < D / 16; ++k) {
            u32 b[4];
            load_matrices(b, at + k * 16);
            multiply(s[2 * n], rows[k], b[0], b[1]);
            multiply(s[2 * n + 1], rows[k], b[2], b[3]);
        }
    }
}

// sums += p · tile, over `CHUNK` rows of the tile from `first`.
__device__ inline void add_product(float (&sums)[D / 8][4], const float (&p)[CHUNK / 8][4],
                                   const u16* tile, int first, int lane) {
#pragma unroll
    for (int k = 0; k < CHUNK / 16; ++k) {
        u32 a[4] = {to_bf16x2(p[2 * k][0], p[2 * k][1]), to_bf16x2(p[2 * k][2], p[2 * k][3]),
                    to_bf16x2(p[2 * k + 1][0], p[2 * k + 1][1]),
                    to_bf16x2(p[2 * k + 1][2], p[2 * k + 1][3])};
        const u16* at = tile + (first + k * 16 + lane % 16) * LINE + lane / 16 * 8;
#pragma unroll
        for (int n = 0; n < D / 16; ++n) {
            u32 b[4];
            load_matrices_turned(b, at + n * 16);
            multiply(sums[2 * n], a, b[0], b[1]);
            multiply(sums[2 * n + 1], a, b[2], b[3]);
        }
    }
}

__device__ inline bool sees(int query, int key, const Shape& shape) {
    int window = static_cast<int>(shape.window);
    bool in_time = !CAUSAL || key <= query;
    return in_time && key < static_cast<int>(shape.seq) && query < static_cast<int>(shape.seq) &&
           (window == 0 || key + window > query);
}

// Whether every query of a block sees every key of another.
__device__ inline bool sees_all(int q0, int k0, const Shape& shape) {
    int seq = static_cast<int>(shape.seq), window = static_cast<int>(shape.window);
    bool in_time = !CAUSAL || k0 + BLOCK - 1 <= q0;
    return in_time && k0 + BLOCK <= seq && q0 + BLOCK <= seq &&
           (window == 0 || k0 + window > q0 + BLOCK - 1);
}

// Takes out the scores of what is not seen: `row` and `column` are those of the first, `turned` says
// that rows are keys.
__device__ inline void hide(float (&s)[CHUNK / 8][4], int row, int column, bool turned, int lane,
                            const Shape& shape) {
#pragma unroll
    for (int n = 0; n < CHUNK / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int r = row + lane / 4 + i / 2 * 8, c = column + n * 8 + lane % 4 * 2 + i % 2;
            if (!(turned ? sees(c, r, shape) : sees(r, c, shape))) s[n][i] = LEAST;
        }
    }
}

// Rows of sums, times `by[0]` and `by[1]`, to a tensor of `stride` values a token.
__device__ inline void store_rows(IN* to, u64 stride, int row, int end, const float (&sums)[D / 8][4],
                                  float by0, float by1, int lane) {
    int r = row + lane / 4;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
        int c = n * 8 + lane % 4 * 2;
        if (r < end) store2(to + r * stride + c, sums[n][0] * by0, sums[n][1] * by0);
        if (r + 8 < end) store2(to + (r + 8) * stride + c, sums[n][2] * by1, sums[n][3] * by1);
    }
}

// Keys that the queries from `q` of a block see.
__device__ inline int first_key_block(int q, const Shape& shape) {
    int window = static_cast<int>(shape.window);
    return window == 0 ? 0 : max(0, q - window + 1) / BLOCK;
}
__device__ inline int last_key_block(int q, const Shape& shape) {
    int last = static_cast<int>(shape.seq) - 1;
    return (CAUSAL ? min(q + BLOCK - 1, last) : last) / BLOCK;
}

// out, and log₂ Σ 2^score of each row, `[batch, heads, seq]`.
extern "C" __global__ void __launch_bounds__(128)
attention(const IN* q, const IN* k, const IN* v, IN* out, float* sums_of_rows,
          const __grid_constant__ Shape shape) {
    __shared__ __align__(16) u16 keys[BLOCK * LINE], values[BLOCK * LINE];
    int seq = static_cast<int>(shape.seq), heads = static_cast<int>(shape.heads);
    int blocks = (seq + BLOCK - 1) / BLOCK, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // The longest rows first.
    int q0 = (blocks - 1 - static_cast<int>(blockIdx.x) % blocks) * BLOCK;
    int head = blockIdx.x / blocks % heads, batch = blockIdx.x / blocks / heads;
    int kv_head = head / (heads / static_cast<int>(shape.kv_heads));
    u64 stride = shape.heads * D, kv_stride = shape.kv_heads * D, token = batch * shape.seq;
    const IN* k_head = k + token * kv_stride + kv_head * D;
    const IN* v_head = v + token * kv_stride + kv_head * D;
    load_tile(keys, q + (token + q0) * stride + head * D, stride, seq - q0);
    __syncthreads();
    u32 rows[D / 16][4];
    load_rows(rows, keys, warp * 16, lane);
    float sums[D / 8][4] = {};
    float highest[2] = {LEAST, LEAST}, total[2] = {0.0f, 0.0f};
    float scale = as_float(shape.scale) * LOG2E;
    int end = last_key_block(q0, shape);
    for (int block = first_key_block(q0, shape); block <= end; ++block) {
        int k0 = block * BLOCK;
        bool all = sees_all(q0, k0, shape);
        __syncthreads();
        load_tile(keys, k_head + k0 * kv_stride, kv_stride, seq - k0);
        load_tile(values, v_head + k0 * kv_stride, kv_stride, seq - k0);
        __syncthreads();
#pragma unroll
        for (int first = 0; first < BLOCK; first += CHUNK) {
            float s[CHUNK / 8][4];
            score(s, rows, keys, first, lane);
            if (!all) hide(s, q0 + warp * 16, k0 + first, false, lane, shape);
            float most[2] = {highest[0], highest[1]};
#pragma unroll
            for (int n = 0; n < CHUNK / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    s[n][i] *= scale;
                    most[i / 2] = fmaxf(most[i / 2], s[n][i]);
                }
            }
            float shrink[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                most[i] = fmaxf(most[i], __shfl_xor_sync(0xffffffffu, most[i], 1));
                most[i] = fmaxf(most[i], __shfl_xor_sync(0xffffffffu, most[i], 2));
                // A row that has seen nothing yet keeps its zeros.
                float base = most[i] == LEAST ? 0.0f : most[i];
                shrink[i] = exp2f(highest[i] - base);
                highest[i] = most[i];
                most[i] = base;
                total[i] *= shrink[i];
            }
#pragma unroll
            for (int n = 0; n < CHUNK / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    s[n][i] = exp2f(s[n][i] - most[i / 2]);
                    total[i / 2] += s[n][i];
                }
            }
#pragma unroll
            for (int n = 0; n < D / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[n][i] *= shrink[i / 2];
            }
            add_product(sums, s, values, first, lane);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        total[i] += __shfl_xor_sync(0xffffffffu, total[i], 1);
        total[i] += __shfl_xor_sync(0xffffffffu, total[i], 2);
        int row = q0 + warp * 16 + lane / 4 + i * 8;
        if (lane % 4 == 0 && row < seq) {
            u64 at = (static_cast<u64>(batch) * heads + head) * seq + row;
            sums_of_rows[at] = highest[i] + log2f(total[i]);
        }
    }
    store_rows(out + token * stride + head * D, stride, q0 + warp * 16, seq, sums, 1.0f / total[0],
               1.0f / total[1], lane);
}

// Σ out · grad of each head of each token, `[batch, heads, seq]`; one warp a head.
extern "C" __global__ void __launch_bounds__(128)
attention_along(const IN* out, const IN* grad, float* along, const __grid_constant__ Shape shape) {
    u64 row = blockIdx.x * 4ull + threadIdx.x / 32;
    if (row >= shape.batch * shape.seq * shape.heads) return;
    int lane = threadIdx.x % 32;
    float sum = 0.0f;
    if (lane < D / 8) {
        Eight o = load8(out + row * D + lane * 8), g = load8(grad + row * D + lane * 8);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum += o.v[i] * g.v[i];
    }
    sum = warp_sum(sum);
    u64 head = row % shape.heads, token = row / shape.heads;
    u64 at = (token / shape.seq * shape.heads + head) * shape.seq + token % shape.seq;
    if (lane == 0) along[at] = sum;
}

// Gradient of the queries of a block.
extern "C" __global__ void __launch_bounds__(128)
attention_grad_q(const IN* q, const IN* k, const IN* v, const IN* grad, const float* sums_of_rows,
                 const float* along, IN* grad_q, const __grid_constant__ Shape shape) {
    __shared__ __align__(16) u16 keys[BLOCK * LINE], values[BLOCK * LINE];
    int seq = static_cast<int>(shape.seq), heads = static_cast<int>(shape.heads);
    int blocks = (seq + BLOCK - 1) / BLOCK, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int q0 = (blocks - 1 - static_cast<int>(blockIdx.x) % blocks) * BLOCK;
    int head = blockIdx.x / blocks % heads, batch = blockIdx.x / blocks / heads;
    int kv_head = head / (heads / static_cast<int>(shape.kv_heads));
    u64 stride = shape.heads * D, kv_stride = shape.kv_heads * D, token = batch * shape.seq;
    const IN* k_head = k + token * kv_stride + kv_head * D;
    const IN* v_head = v + token * kv_stride + kv_head * D;
    u64 place = (token + q0) * stride + head * D;
    load_tile(keys, q + place, stride, seq - q0);
    load_tile(values, grad + place, stride, seq - q0);
    __syncthreads();
    u32 rows[D / 16][4], grads[D / 16][4];
    load_rows(rows, keys, warp * 16, lane);
    load_rows(grads, values, warp * 16, lane);
    float scale = as_float(shape.scale), level[2], mean[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        int row = min(q0 + warp * 16 + lane / 4 + i * 8, seq - 1);
        u64 at = (static_cast<u64>(batch) * heads + head) * seq + row;
        level[i] = sums_of_rows[at];
        mean[i] = along[at];
    }
    float sums[D / 8][4] = {};
    int end = last_key_block(q0, shape);
    for (int block = first_key_block(q0, shape); block <= end; ++block) {
        int k0 = block * BLOCK;
        bool all = sees_all(q0, k0, shape);
        __syncthreads();
        load_tile(keys, k_head + k0 * kv_stride, kv_stride, seq - k0);
        load_tile(values, v_head + k0 * kv_stride, kv_stride, seq - k0);
        __syncthreads();
#pragma unroll
        for (int first = 0; first < BLOCK; first += CHUNK) {
            float s[CHUNK / 8][4], d[CHUNK / 8][4];
            score(s, rows, keys, first, lane);
            score(d, grads, values, first, lane);
            if (!all) hide(s, q0 + warp * 16, k0 + first, false, lane, shape);
#pragma unroll
            for (int n = 0; n < CHUNK / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float p = exp2f(s[n][i] * (scale * LOG2E) - level[i / 2]);
                    s[n][i] = p * (d[n][i] - mean[i / 2]) * scale;
                }
            }
            add_product(sums, s, keys, first, lane);
        }
    }
    store_rows(grad_q + token * stride + head * D, stride, q0 + warp * 16, seq, sums, 1.0f, 1.0f, lane);
}

// Gradients of the keys and values of a block, over all query heads that share them.
extern "C" __global__ void __launch_bounds__(128)
attention_grad_kv(const IN* q, const IN* k, const IN* v, const IN* grad, const float* sums_of_rows,
                  const float* along, IN* grad_k, IN* grad_v, const __grid_constant__ Shape shape) {
    __shared__ __align__(16) u16 queries[BLOCK * LINE], grads[BLOCK * LINE];
    __shared__ float levels[BLOCK], means[BLOCK];
    int seq = static_cast<int>(shape.seq), heads = static_cast<int>(shape.heads);
    int kv_heads = static_cast<int>(shape.kv_heads), shared_by = heads / kv_heads;
    int blocks = (seq + BLOCK - 1) / BLOCK, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int k0 = static_cast<int>(blockIdx.x) % blocks * BLOCK;
    int kv_head = blockIdx.x / blocks % kv_heads, batch = blockIdx.x / blocks / kv_heads;
    u64 stride = shape.heads * D, kv_stride = shape.kv_heads * D, token = batch * shape.seq;
    u64 place = (token + k0) * kv_stride + kv_head * D;
    load_tile(queries, k + place, kv_stride, seq - k0);
    load_tile(grads, v + place, kv_stride, seq - k0);
    __syncthreads();
    u32 key_rows[D / 16][4], value_rows[D / 16][4];
    load_rows(key_rows, queries, warp * 16, lane);
    load_rows(value_rows, grads, warp * 16, lane);
    float scale = as_float(shape.scale), k_sums[D / 8][4] = {}, v_sums[D / 8][4] = {};
    int window = static_cast<int>(shape.window);
    int begin = CAUSAL ? k0 / BLOCK : 0, end = blocks - 1;
    if (window > 0) end = min(end, (k0 + BLOCK - 1 + window - 1) / BLOCK);
    for (int head = kv_head * shared_by; head < (kv_head + 1) * shared_by; ++head) {
        u64 rows = (static_cast<u64>(batch) * heads + head) * seq;
        for (int block = begin; block <= end; ++block) {
            int q0 = block * BLOCK;
            bool all = sees_all(q0, k0, shape);
            u64 at = (token + q0) * stride + head * D;
            __syncthreads();
            load_tile(queries, q + at, stride, seq - q0);
            load_tile(grads, grad + at, stride, seq - q0);
            if (threadIdx.x < BLOCK) {
                int row = min(q0 + static_cast<int>(threadIdx.x), seq - 1);
                levels[threadIdx.x] = sums_of_rows[rows + row];
                means[threadIdx.x] = along[rows + row];
            }
            __syncthreads();
#pragma unroll
            for (int first = 0; first < BLOCK; first += CHUNK) {
                float p[CHUNK / 8][4], d[CHUNK / 8][4];
                score(p, key_rows, queries, first, lane);
                score(d, value_rows, grads, first, lane);
                if (!all) hide(p, k0 + warp * 16, q0 + first, true, lane, shape);
#pragma unroll
                for (int n = 0; n < CHUNK / 8; ++n) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        int column = first + n * 8 + lane % 4 * 2 + i % 2;
                        float value = exp2f(p[n][i] * (scale * LOG2E) - levels[column]);
                        p[n][i] = value;
                        d[n][i] = value * (d[n][i] - means[column]) * scale;
                    }
                }
                add_product(v_sums, p, grads, first, lane);
                add_product(k_sums, d, queries, first, lane);
            }
        }
    }
    u64 out = token * kv_stride + kv_head * D;
    store_rows(grad_k + out, kv_stride, k0 + warp * 16, seq, k_sums, 1.0f, 1.0f, lane);
    store_rows(grad_v + out, kv_stride, k0 + warp * 16, seq, v_sums, 1.0f, 1.0f, lane);
}
