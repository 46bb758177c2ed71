// Losses over rows of logits in f32, one block a row: cross-entropy and KL, with their gradients.

struct Rows {
    u64 rows, cols, temperature;
};

// A class that exists, whatever the number.
__device__ inline u64 inside(int target, const Rows& shape) {
    return min(static_cast<u64>(max(target, 0)), shape.cols - 1);
}

// Maximum, and Σ exp(x − maximum), of what was seen.
struct Soft {
    float max, sum;
};

__device__ inline Soft join(Soft a, Soft b) {
    float max = fmaxf(a.max, b.max);
    if (max == LEAST) return {max, 0.0f};
    return {max, a.sum * expf(a.max - max) + b.sum * expf(b.max - max)};
}

__device__ inline Soft block_join(Soft x) {
    __shared__ Soft parts[8];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        Soft other = {__shfl_xor_sync(0xffffffffu, x.max, step),
                      __shfl_xor_sync(0xffffffffu, x.sum, step)};
        x = join(x, other);
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = parts[0];
    for (int i = 1; i < 8; ++i) x = join(x, parts[i]);
    return x;
}

// log Σ exp(x · scale).
__device__ inline float log_sum_exp(const float* x, u64 cols, float scale) {
    Soft soft = {LEAST, 0.0f};
    for (u64 c = threadIdx.x; c < cols; c += 256) {
        float v = x[c] * scale;
        // One exponential a value: the smaller of the two is moved to the larger.
        if (v > soft.max) soft = {v, soft.sum * expf(soft.max - v) + 1.0f};
        else if (v != LEAST) soft.sum += expf(v - soft.max);
        if (v != v) soft = {v, v};
    }
    soft = block_join(soft);
    return soft.max + logf(soft.sum);
}

extern "C" __global__ void __launch_bounds__(256)
nll(const float* logits, const int* targets, float* out, const __grid_constant__ Rows shape) {
    const float* x = logits + blockIdx.x * shape.cols;
    float sum = log_sum_exp(x, shape.cols, 1.0f);
    if (threadIdx.x == 0) out[blockIdx.x] = sum - x[inside(targets[blockIdx.x], shape)];
}

extern "C" __global__ void __launch_bounds__(256)
nll_grad(const float* logits, const int* targets, const float* grad, float* out,
         const __grid_constant__ Rows shape) {
    u64 row = blockIdx.x, target = inside(targets[row], shape);
    const float* x = logits + row * shape.cols;
    float sum = log_sum_exp(x, shape.cols, 1.0f), by = grad[row];
    for (u64 c = threadIdx.x; c < shape.cols; c += 256) {
        out[row * shape.cols + c] = (expf(x[c] - sum) - (c == target ? 1.0f : 0.0f)) * by;
    }
}

extern "C" __global__ void __launch_bounds__(256)
kl(const float* student, const float* teacher, float* out, const __grid_constant__ Rows shape) {
    float scale = 1.0f / as_float(shape.temperature);
    const float* s = student + blockIdx.x * shape.cols;
    const float* t = teacher + blockIdx.x * shape.cols;
    float s_sum = log_sum_exp(s, shape.cols, scale), t_sum = log_sum_exp(t, shape.cols, scale);
    float sum = 0.0f;
    for (u64 c = threadIdx.x; c < shape.cols; c += 256) {
        float log_t = t[c] * scale - t_sum, log_s = s[c] * scale - s_sum;
        sum += expf(log_t) * (log_t - log_s);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
kl_grad(const float* student, const float* teacher, const float* grad, float* out,
        const __grid_constant__ Rows shape) {
    float scale = 1.0f / as_float(shape.temperature);
    u64 row = blockIdx.x;
    const float* s = student + row * shape.cols;
    const float* t = teacher + row * shape.cols;
    float s_sum = log_sum_exp(s, shape.cols, scale), t_sum = log_sum_exp(t, shape.cols, scale);
    float by = grad[row] * scale;
    for (u64 c = threadIdx.x; c < shape.cols; c += 256) {
        out[row * shape.cols + c] = (expf(s[c] * scale - s_sum) - expf(t[c] * scale - t_sum)) * by;
    }
}
