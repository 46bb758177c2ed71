// Softmax attention without its square: forward, and gradients that compute probabilities again
// (FlashAttention-2, arXiv 2307.08691). bf16 operands, f32 sums; no atomics, so the same bits at every
// call.
//
// Defined before: IN (float, or u16 for bf16), D (width of a head, a multiple of 16), CAUSAL (0 or 1),
// STARTS (1 where `starts` has the first key that each query sees, along a sequence never less than before),
// BLOCK (64). Before this file stands one of two that hold and multiply tiles: TILE (values of one), OWN (the
// stage where a block keeps its own rows), HALF_BLOCK.
// A block has four warps of 16 rows each and goes over the other side 64 at a time: the next 64 are on
// their way while these are computed with.

#define LOG2E 1.4426950408889634f

// Two tiles for each of two stages, and for the block's own rows where those are a stage; behind them three
// words for each row of a stage.
extern __shared__ __align__(1024) u8 shared_bytes[];
__device__ inline u16* tiles() {
    u64 first = (reinterpret_cast<u64>(shared_bytes) + 1023) / 1024 * 1024;
    return reinterpret_cast<u16*>(first);
}
__device__ inline u16* shared_tile(int stage, int which) { return tiles() + (stage * 2 + which) * TILE; }
__device__ inline float* shared_row(int stage, int which) {
    return reinterpret_cast<float*>(tiles() + max(2, OWN + 1) * 2 * TILE) + (stage * 3 + which) * BLOCK;
}

struct Shape {
    // `window` is 0 where a row sees everything before it.
    u64 batch, seq, heads, kv_heads, window, scale;
};

// Up to 64 rows in bf16; the rest is zero. bf16 is there after [`arrived`].
__device__ inline void load_tile(u16* to, const float* from, u64 stride, int rows) {
    for (int i = threadIdx.x; i < BLOCK * (D / 8); i += 128) {
        int r = i / (D / 8), c = i % (D / 8) * 8;
        Eight v = {};
        if (r < rows) v = load8(from + r * stride + c);
        store8(to + in_tile(r, c), v);
    }
}
__device__ inline void load_tile(u16* to, const u16* from, u64 stride, int rows) {
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
        int i = threadIdx.x + step * 128, r = i / (D / 8), c = i % (D / 8) * 8;
        const u16* at = r < rows ? from + r * stride + c : from;
        copy16(to + in_tile(r, c), at, r < rows);
    }
}
// One float of each row, by the first 64 threads; rows behind the last have the value of the last.
__device__ inline void load_row(float* to, const float* from, int last) {
    copy4(to + threadIdx.x, from + min(static_cast<int>(threadIdx.x), last));
}
// Waits for what this thread loaded, and for all threads.
__device__ inline void arrived() {
    copies_done();
    publish();
    __syncthreads();
}

// `start` is the first key that the query sees.
__device__ inline bool sees(int query, int key, int start, const Shape& shape) {
    int window = static_cast<int>(shape.window);
    bool in_time = !CAUSAL || key <= query;
    return in_time && key < static_cast<int>(shape.seq) && query < static_cast<int>(shape.seq) &&
           key >= start && (window == 0 || key + window > query);
}

// The first key that a query sees, as far as `starts` of its sequence says.
__device__ inline int start_of(const int* starts, int query, const Shape& shape) {
    return STARTS ? starts[min(query, static_cast<int>(shape.seq) - 1)] : 0;
}

// Whether every query of a block sees every key of another.
__device__ inline bool sees_all(int q0, int k0, const int* starts, const Shape& shape) {
    int seq = static_cast<int>(shape.seq), window = static_cast<int>(shape.window);
    bool in_time = !CAUSAL || k0 + BLOCK - 1 <= q0;
    return in_time && k0 + BLOCK <= seq && q0 + BLOCK <= seq &&
           start_of(starts, q0 + BLOCK - 1, shape) <= k0 &&
           (window == 0 || k0 + window > q0 + BLOCK - 1);
}

// Takes out the scores of what is not seen: `row` and `column` are those of the first, `start` says of a
// row and column of this thread where its query starts to see, `turned` that rows are keys.
template <int N, typename Start>
__device__ inline void hide(float (&s)[N][4], int row, int column, bool turned, int lane, Start start,
                            const Shape& shape) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            int r = row + lane / 4 + i / 2 * 8, c = column + n * 8 + lane % 4 * 2 + i % 2;
            int first = start(i / 2, n * 8 + lane % 4 * 2 + i % 2);
            if (!(turned ? sees(c, r, first, shape) : sees(r, c, first, shape))) s[n][i] = LEAST;
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
__device__ inline int first_key_block(int q, const int* starts, const Shape& shape) {
    int window = static_cast<int>(shape.window), start = start_of(starts, q, shape);
    return (window == 0 ? start : max(start, q - window + 1)) / BLOCK;
}
__device__ inline int last_key_block(int q, const Shape& shape) {
    int last = static_cast<int>(shape.seq) - 1;
    return (CAUSAL ? min(q + BLOCK - 1, last) : last) / BLOCK;
}

// out, and log₂ Σ 2^score of each row, `[batch, heads, seq]`.
#ifdef ENTRY_attention
extern "C" __global__ void __launch_bounds__(128)
attention(const IN* q, const IN* k, const IN* v, const int* starts, IN* out, float* sums_of_rows,
          const __grid_constant__ Shape shape) {
    int seq = static_cast<int>(shape.seq), heads = static_cast<int>(shape.heads);
    int blocks = (seq + BLOCK - 1) / BLOCK, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // The longest rows first.
    int q0 = (blocks - 1 - static_cast<int>(blockIdx.x) % blocks) * BLOCK;
    int head = blockIdx.x / blocks % heads, batch = blockIdx.x / blocks / heads;
    int kv_head = head / (heads / static_cast<int>(shape.kv_heads));
    u64 stride = shape.heads * D, kv_stride = shape.kv_heads * D, token = batch * shape.seq;
    const IN* k_head = k + token * kv_stride + kv_head * D;
    const IN* v_head = v + token * kv_stride + kv_head * D;
    starts += static_cast<u64>(batch) * seq;
    int begin = first_key_block(q0, starts, shape), end = last_key_block(q0, shape);
    int start[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) start[i] = start_of(starts, q0 + warp * 16 + lane / 4 + i * 8, shape);
    auto starts_at = [&](int half, int) { return start[half]; };
    auto load = [&](int block) {
        int k0 = block * BLOCK, stage = (block - begin) % 2;
        load_tile(shared_tile(stage, 0), k_head + k0 * kv_stride, kv_stride, seq - k0);
        load_tile(shared_tile(stage, 1), v_head + k0 * kv_stride, kv_stride, seq - k0);
    };
    load_tile(shared_tile(OWN, 0), q + (token + q0) * stride + head * D, stride, seq - q0);
    load(begin);
    arrived();
    Left rows;
    take(rows, shared_tile(OWN, 0), warp, lane);
    float sums[D / 8][4] = {};
    float highest[2] = {LEAST, LEAST}, total[2] = {0.0f, 0.0f};
    float scale = as_float(shape.scale) * LOG2E;
    for (int block = begin; block <= end; ++block) {
        int k0 = block * BLOCK, stage = (block - begin) % 2;
        arrived();
        if (block < end) load(block + 1);
        float s[BLOCK / 8][4];
        score(s, rows, shared_tile(stage, 0), 0, lane);
        done(s);
        if (!sees_all(q0, k0, starts, shape)) {
            hide(s, q0 + warp * 16, k0, false, lane, starts_at, shape);
        }
        float shrink[2], base[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float most = LEAST;
#pragma unroll
            for (int n = 0; n < BLOCK / 8; ++n) most = fmaxf(most, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            most = fmaxf(highest[i], most * scale);
            // A row that has seen nothing yet keeps its zeros.
            base[i] = most == LEAST ? 0.0f : most;
            shrink[i] = power_of_two(highest[i] - base[i]);
            highest[i] = most;
            total[i] *= shrink[i];
        }
#pragma unroll
        for (int n = 0; n < BLOCK / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                s[n][i] = power_of_two(fmaf(s[n][i], scale, -base[i / 2]));
                total[i / 2] += s[n][i];
            }
        }
#pragma unroll
        for (int n = 0; n < D / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[n][i] *= shrink[i / 2];
        }
        add_product(sums, s, shared_tile(stage, 1), 0, lane);
        done(sums);
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
#endif

// Σ out · grad of each head of each token, `[batch, heads, seq]`; one warp a head.
#ifdef ENTRY_attention_along
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
#endif

// Gradient of the queries of a block.
#ifdef ENTRY_attention_grad_q
extern "C" __global__ void __launch_bounds__(128)
attention_grad_q(const IN* q, const IN* k, const IN* v, const IN* grad, const float* sums_of_rows,
                 const float* along, const int* starts, IN* grad_q,
                 const __grid_constant__ Shape shape) {
    int seq = static_cast<int>(shape.seq), heads = static_cast<int>(shape.heads);
    int blocks = (seq + BLOCK - 1) / BLOCK, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int q0 = (blocks - 1 - static_cast<int>(blockIdx.x) % blocks) * BLOCK;
    int head = blockIdx.x / blocks % heads, batch = blockIdx.x / blocks / heads;
    int kv_head = head / (heads / static_cast<int>(shape.kv_heads));
    u64 stride = shape.heads * D, kv_stride = shape.kv_heads * D, token = batch * shape.seq;
    const IN* k_head = k + token * kv_stride + kv_head * D;
    const IN* v_head = v + token * kv_stride + kv_head * D;
    starts += static_cast<u64>(batch) * seq;
    int begin = first_key_block(q0, starts, shape), end = last_key_block(q0, shape);
    int start[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) start[i] = start_of(starts, q0 + warp * 16 + lane / 4 + i * 8, shape);
    auto starts_at = [&](int half, int) { return start[half]; };
    auto load = [&](int block) {
        int k0 = block * BLOCK, stage = (block - begin) % 2;
        load_tile(shared_tile(stage, 0), k_head + k0 * kv_stride, kv_stride, seq - k0);
        load_tile(shared_tile(stage, 1), v_head + k0 * kv_stride, kv_stride, seq - k0);
    };
    u64 place = (token + q0) * stride + head * D;
    load_tile(shared_tile(OWN, 0), q + place, stride, seq - q0);
    load_tile(shared_tile(OWN, 1), grad + place, stride, seq - q0);
    load(begin);
    arrived();
    Left rows, grads;
    take(rows, shared_tile(OWN, 0), warp, lane);
    take(grads, shared_tile(OWN, 1), warp, lane);
    float scale = as_float(shape.scale), level[2], mean[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        int row = min(q0 + warp * 16 + lane / 4 + i * 8, seq - 1);
        u64 at = (static_cast<u64>(batch) * heads + head) * seq + row;
        level[i] = sums_of_rows[at];
        mean[i] = along[at];
    }
    float sums[D / 8][4] = {};
    for (int block = begin; block <= end; ++block) {
        int k0 = block * BLOCK, stage = (block - begin) % 2;
        bool all = sees_all(q0, k0, starts, shape);
        arrived();
        if (block < end) load(block + 1);
        const u16 *keys = shared_tile(stage, 0), *values = shared_tile(stage, 1);
#pragma unroll
        for (int first = 0; first < BLOCK; first += HALF_BLOCK) {
            float s[HALF_BLOCK / 8][4], d[HALF_BLOCK / 8][4];
            score(s, rows, keys, first, lane);
            score(d, grads, values, first, lane);
            done(s);
            done(d);
            if (!all) hide(s, q0 + warp * 16, k0 + first, false, lane, starts_at, shape);
#pragma unroll
            for (int n = 0; n < HALF_BLOCK / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float p = power_of_two(fmaf(s[n][i], scale * LOG2E, -level[i / 2]));
                    s[n][i] = p * (d[n][i] - mean[i / 2]) * scale;
                }
            }
            add_product(sums, s, keys, first, lane);
            done(sums);
        }
    }
    store_rows(grad_q + token * stride + head * D, stride, q0 + warp * 16, seq, sums, 1.0f, 1.0f, lane);
}
#endif

// Gradients of the keys and values of a block, over all query heads that share them.
#ifdef ENTRY_attention_grad_kv
extern "C" __global__ void __launch_bounds__(128)
attention_grad_kv(const IN* q, const IN* k, const IN* v, const IN* grad, const float* sums_of_rows,
                  const float* along, const int* starts, IN* grad_k, IN* grad_v,
                  const __grid_constant__ Shape shape) {
    int seq = static_cast<int>(shape.seq), heads = static_cast<int>(shape.heads);
    int kv_heads = static_cast<int>(shape.kv_heads), shared_by = heads / kv_heads;
    int blocks = (seq + BLOCK - 1) / BLOCK, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int k0 = static_cast<int>(blockIdx.x) % blocks * BLOCK;
    int kv_head = blockIdx.x / blocks % kv_heads, batch = blockIdx.x / blocks / kv_heads;
    u64 stride = shape.heads * D, kv_stride = shape.kv_heads * D, token = batch * shape.seq;
    int window = static_cast<int>(shape.window);
    int begin = CAUSAL ? k0 / BLOCK : 0, end = blocks - 1;
    if (window > 0) end = min(end, (k0 + BLOCK - 1 + window - 1) / BLOCK);
    starts += static_cast<u64>(batch) * seq;
    // Queries of later documents.
    while (STARTS && end > begin && starts[end * BLOCK] > k0 + BLOCK - 1) --end;
    // All blocks of the first head that shares the keys, then of the next.
    int of_head = end - begin + 1, turns = of_head * shared_by;
    auto load = [&](int turn) {
        int stage = turn % 2, q0 = (begin + turn % of_head) * BLOCK;
        int head = kv_head * shared_by + turn / of_head;
        u64 at = (token + q0) * stride + head * D;
        load_tile(shared_tile(stage, 0), q + at, stride, seq - q0);
        load_tile(shared_tile(stage, 1), grad + at, stride, seq - q0);
        if (threadIdx.x < BLOCK) {
            u64 row = (static_cast<u64>(batch) * heads + head) * seq + q0;
            load_row(shared_row(stage, 0), sums_of_rows + row, seq - 1 - q0);
            load_row(shared_row(stage, 1), along + row, seq - 1 - q0);
            // Words are words.
            const float* words = reinterpret_cast<const float*>(starts + q0);
            if (STARTS) load_row(shared_row(stage, 2), words, seq - 1 - q0);
        }
    };
    u64 place = (token + k0) * kv_stride + kv_head * D;
    load_tile(shared_tile(OWN, 0), k + place, kv_stride, seq - k0);
    load_tile(shared_tile(OWN, 1), v + place, kv_stride, seq - k0);
    load(0);
    arrived();
    Left key_rows, value_rows;
    take(key_rows, shared_tile(OWN, 0), warp, lane);
    take(value_rows, shared_tile(OWN, 1), warp, lane);
    float scale = as_float(shape.scale), k_sums[D / 8][4] = {}, v_sums[D / 8][4] = {};
    for (int turn = 0; turn < turns; ++turn) {
        int stage = turn % 2, q0 = (begin + turn % of_head) * BLOCK;
        bool all = sees_all(q0, k0, starts, shape);
        arrived();
        if (turn + 1 < turns) load(turn + 1);
        const u16 *queries = shared_tile(stage, 0), *grads = shared_tile(stage, 1);
        const float *levels = shared_row(stage, 0), *means = shared_row(stage, 1);
        const int* firsts = reinterpret_cast<const int*>(shared_row(stage, 2));
#pragma unroll
        for (int first = 0; first < BLOCK; first += HALF_BLOCK) {
            float p[HALF_BLOCK / 8][4], d[HALF_BLOCK / 8][4];
            score(p, key_rows, queries, first, lane);
            score(d, value_rows, grads, first, lane);
            done(p);
            done(d);
            auto starts_at = [&](int, int column) { return STARTS ? firsts[first + column] : 0; };
            if (!all) hide(p, k0 + warp * 16, q0 + first, true, lane, starts_at, shape);
#pragma unroll
            for (int n = 0; n < HALF_BLOCK / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    int column = first + n * 8 + lane % 4 * 2 + i % 2;
                    float value = power_of_two(fmaf(p[n][i], scale * LOG2E, -levels[column]));
                    p[n][i] = value;
                    d[n][i] = value * (d[n][i] - means[column]) * scale;
                }
            }
            add_product(v_sums, p, grads, first, lane);
            add_product(k_sums, d, queries, first, lane);
            done(v_sums);
            done(k_sums);
        }
    }
    u64 out = token * kv_stride + kv_head * D;
    store_rows(grad_k + out, kv_stride, k0 + warp * 16, seq, k_sums, 1.0f, 1.0f, lane);
    store_rows(grad_v + out, kv_stride, k0 + warp * 16, seq, v_sums, 1.0f, 1.0f, lane);
}
#endif
