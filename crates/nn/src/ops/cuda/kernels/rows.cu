// What is computed row by row or value by value: RMSNorm, gated activations, rotary embedding.
//
// Defined before: IN (float, or u16 for bf16), LANES (lanes of a warp that share a row, a power of
// two), RUNS (the eights of a row that one of them takes), ACT (0 SiLU, 1 ReLU², 2 GELU by tanh).

#define GROUPS (128 / LANES)

struct Norm {
    u64 rows, cols, eps;
};

// The sum over the lanes that share a row, in all of them.
__device__ inline float row_sum(float x) {
    u32 group = threadIdx.x % 32 / LANES * LANES;
    u32 mask = LANES == 32 ? 0xffffffffu : ((1u << (LANES % 32)) - 1) << group;
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) x += __shfl_xor_sync(mask, x, step);
    return x;
}

// x · rsqrt(mean(x²) + eps) · weight.
extern "C" __global__ void __launch_bounds__(128)
rms_norm(const IN* x, const float* weight, IN* out, const __grid_constant__ Norm shape) {
    u64 row = static_cast<u64>(blockIdx.x) * GROUPS + threadIdx.x / LANES;
    if (row >= shape.rows) return;
    int lane = threadIdx.x % LANES, cols = static_cast<int>(shape.cols);
    Raw<IN> raw[RUNS];
    float squares = 0.0f;
#pragma unroll
    for (int r = 0; r < RUNS; ++r) {
        int c = (r * LANES + lane) * 8;
        if (c >= cols) break;
        raw[r] = load_raw(x + row * cols + c);
        Eight v = unpack(raw[r]);
#pragma unroll
        for (int i = 0; i < 8; ++i) squares += v.v[i] * v.v[i];
    }
    float inverse = 1.0f / sqrtf(row_sum(squares) / cols + as_float(shape.eps));
#pragma unroll
    for (int r = 0; r < RUNS; ++r) {
        int c = (r * LANES + lane) * 8;
        if (c >= cols) break;
        Eight v = unpack(raw[r]), w = load8(weight + c);
#pragma unroll
        for (int i = 0; i < 8; ++i) v.v[i] = v.v[i] * inverse * w.v[i];
        store8(out + row * cols + c, v);
    }
}

// Gradients of the same. Each block adds the weight's gradient over its rows; `parts` has a row a block.
extern "C" __global__ void __launch_bounds__(128)
rms_norm_grad(const IN* x, const float* weight, const IN* grad, IN* out, float* parts,
              const __grid_constant__ Norm shape) {
    __shared__ __align__(16) float joint[RUNS * LANES * 8];
    int lane = threadIdx.x % LANES, group = threadIdx.x / LANES, cols = static_cast<int>(shape.cols);
    u64 first = static_cast<u64>(blockIdx.x) * GROUPS + group, step = gridDim.x * GROUPS;
    Eight sums[RUNS];
#pragma unroll
    for (int r = 0; r < RUNS; ++r) {
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[r].v[i] = 0.0f;
    }
    for (u64 row = first; row < shape.rows; row += step) {
        Raw<IN> xs[RUNS], gs[RUNS];
        float squares = 0.0f, along = 0.0f;
#pragma unroll
        for (int r = 0; r < RUNS; ++r) {
            int c = (r * LANES + lane) * 8;
            if (c >= cols) break;
            xs[r] = load_raw(x + row * cols + c);
            gs[r] = load_raw(grad + row * cols + c);
            Eight v = unpack(xs[r]), g = unpack(gs[r]), w = load8(weight + c);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                squares += v.v[i] * v.v[i];
                along += g.v[i] * w.v[i] * v.v[i];
            }
        }
        float inverse = 1.0f / sqrtf(row_sum(squares) / cols + as_float(shape.eps));
        along = row_sum(along) * inverse / cols;
#pragma unroll
        for (int r = 0; r < RUNS; ++r) {
            int c = (r * LANES + lane) * 8;
            if (c >= cols) break;
            Eight v = unpack(xs[r]), g = unpack(gs[r]), w = load8(weight + c);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                float normed = v.v[i] * inverse;
                sums[r].v[i] += g.v[i] * normed;
                v.v[i] = (g.v[i] * w.v[i] - normed * along) * inverse;
            }
            store8(out + row * cols + c, v);
        }
    }
    // One group after another, so that the order is the same at every call.
    for (int turn = 0; turn < GROUPS; ++turn) {
        if (turn == group) {
#pragma unroll
            for (int r = 0; r < RUNS; ++r) {
                float* at = joint + (r * LANES + lane) * 8;
                if (turn > 0) {
                    Eight before = load8(at);
#pragma unroll
                    for (int i = 0; i < 8; ++i) sums[r].v[i] += before.v[i];
                }
                store8(at, sums[r]);
            }
        }
        __syncthreads();
    }
    for (int c = threadIdx.x; c < cols; c += 128) {
        parts[static_cast<u64>(blockIdx.x) * cols + c] = joint[c];
    }
}

// Sums over rows, one warp for eight columns; the same order at every call.
extern "C" __global__ void __launch_bounds__(32)
sum_rows(const float* x, float* out, const __grid_constant__ Norm shape) {
    int lane = threadIdx.x;
    u64 c = blockIdx.x * 8ull;
    Eight sum = {};
    for (u64 row = lane; row < shape.rows; row += 32) {
        Eight v = load8(x + row * shape.cols + c);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum.v[i] += v.v[i];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) sum.v[i] = warp_sum(sum.v[i]);
    if (lane == 0) store8(out + c, sum);
}

struct Count {
    u64 count;
};

// The activation and its slope.
__device__ inline float2 activation(float x) {
#if ACT == 0
    float s = 1.0f / (1.0f + expf(-x));
    return make_float2(x * s, s * (1.0f + x * (1.0f - s)));
#elif ACT == 1
    float r = fmaxf(x, 0.0f);
    return make_float2(r * r, 2.0f * r);
#else
    const float slope = 0.7978845608f, cubic = 0.044715f;
    float t = tanhf(slope * (x + cubic * x * x * x));
    float inner = slope * (1.0f + 3.0f * cubic * x * x);
    return make_float2(0.5f * x * (1.0f + t), 0.5f * (1.0f + t + x * (1.0f - t * t) * inner));
#endif
}

extern "C" __global__ void __launch_bounds__(256)
gated_act(const IN* gate, const IN* up, IN* out, const __grid_constant__ Count shape) {
    for (u64 i = (blockIdx.x * 256ull + threadIdx.x) * 8; i < shape.count; i += gridDim.x * 2048ull) {
        Eight g = load8(gate + i), u = load8(up + i);
#pragma unroll
        for (int j = 0; j < 8; ++j) u.v[j] *= activation(g.v[j]).x;
        store8(out + i, u);
    }
}

extern "C" __global__ void __launch_bounds__(256)
gated_act_grad(const IN* gate, const IN* up, const IN* grad, IN* grad_gate, IN* grad_up,
               const __grid_constant__ Count shape) {
    for (u64 i = (blockIdx.x * 256ull + threadIdx.x) * 8; i < shape.count; i += gridDim.x * 2048ull) {
        Eight g = load8(gate + i), u = load8(up + i), d = load8(grad + i);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            float2 act = activation(g.v[j]);
            g.v[j] = d.v[j] * u.v[j] * act.y;
            u.v[j] = d.v[j] * act.x;
        }
        store8(grad_gate + i, g);
        store8(grad_up + i, u);
    }
}

struct Rope {
    u64 eights, heads, head_dim, seq;
};

// Rotates pairs (i, i + head_dim / 2) of every head; `eights` counts eights of the lower halves.
extern "C" __global__ void __launch_bounds__(256)
rope(const IN* x, const float* cos, const float* sin, IN* out, const __grid_constant__ Rope shape) {
    u64 i = blockIdx.x * 256ull + threadIdx.x;
    if (i >= shape.eights) return;
    u64 half = shape.head_dim / 2, per_head = half / 8;
    u64 at = i % per_head * 8, head = i / per_head, position = head / shape.heads % shape.seq;
    const IN* from = x + head * shape.head_dim + at;
    const float* c = cos + position * shape.head_dim + at;
    const float* s = sin + position * shape.head_dim + at;
    Eight low = load8(from), high = load8(from + half);
    Eight c0 = load8(c), c1 = load8(c + half), s0 = load8(s), s1 = load8(s + half);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        float a = low.v[j], b = high.v[j];
        low.v[j] = a * c0.v[j] - b * s0.v[j];
        high.v[j] = b * c1.v[j] + a * s1.v[j];
    }
    IN* to = out + head * shape.head_dim + at;
    store8(to, low);
    store8(to + half, high);
}
