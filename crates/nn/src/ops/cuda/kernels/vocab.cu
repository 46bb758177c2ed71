// Losses over rows of logits, one block a row: cross-entropy, KL to a teacher, or both, and their gradient.
//
// Defined before: IN (float, u16 or f16), OUT (type of gradients), TOKENS and TEACHER (1 where there are
// such), STEP (8 where rows are whole eights, else 1).

struct Rows {
    u64 rows, cols, temperature;
};

struct Part {
    float v[STEP];
};
template <class T>
__device__ inline Part load_part(const T* p) {
    Part out;
#if STEP == 8
    Eight eight = load8(p);
#pragma unroll
    for (int i = 0; i < 8; ++i) out.v[i] = eight.v[i];
#else
    out.v[0] = widen(*p);
#endif
    return out;
}
__device__ inline void store_part(float* p, const Part& x) {
#pragma unroll
    for (int i = 0; i < STEP; ++i) p[i] = x.v[i];
}
__device__ inline void store_part(u16* p, const Part& x) {
#if STEP == 8
    Eight eight;
#pragma unroll
    for (int i = 0; i < 8; ++i) eight.v[i] = x.v[i];
    store8(p, eight);
#else
    *p = static_cast<u16>(to_bf16x2(x.v[0], 0.0f));
#endif
}

// A class that exists, whatever the number.
__device__ inline u64 inside(int target, const Rows& shape) {
    return min(static_cast<u64>(max(target, 0)), shape.cols - 1);
}

// Of values x with weights w: their maximum, Σ exp(x − maximum), and Σ exp(x − maximum) · w.
struct Soft {
    float max, sum, along;
};

// Moves sums to a higher maximum. A NaN stays one.
__device__ inline float shrink(float from, float to) { return from == to ? 1.0f : expf(from - to); }

__device__ inline Soft join(Soft a, Soft b) {
    float max = a.max > b.max ? a.max : b.max;
    if (a.max != a.max || b.max != b.max) max = a.max + b.max;
    if (max == LEAST) return {max, 0.0f, 0.0f};
    float by_a = shrink(a.max, max), by_b = shrink(b.max, max);
    return {max, a.sum * by_a + b.sum * by_b, a.along * by_a + b.along * by_b};
}

__device__ inline void add(Soft& soft, const Part& x, float scale, const Part& weight) {
    float most = soft.max;
#pragma unroll
    for (int i = 0; i < STEP; ++i) {
        float v = x.v[i] * scale;
        most = v > most || v != v ? v : most;
    }
    if (most == LEAST) return;
    float by = shrink(soft.max, most);
    soft = {most, soft.sum * by, soft.along * by};
#pragma unroll
    for (int i = 0; i < STEP; ++i) {
        float p = expf(x.v[i] * scale - most);
        soft.sum += p;
        soft.along += p * weight.v[i];
    }
}

__device__ inline Soft block_join(Soft x) {
    __shared__ Soft parts[8];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        Soft other = {__shfl_xor_sync(0xffffffffu, x.max, step),
                      __shfl_xor_sync(0xffffffffu, x.sum, step),
                      __shfl_xor_sync(0xffffffffu, x.along, step)};
        x = join(x, other);
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = parts[0];
    for (int i = 1; i < 8; ++i) x = join(x, parts[i]);
    return x;
}

__device__ inline float level(Soft soft) { return soft.max + logf(soft.sum); }

// Losses `[TOKENS + TEACHER, rows]`, and of each row log Σ exp of the logits, of the logits by temperature,
// and of the teacher's by temperature.
#ifdef ENTRY_losses
extern "C" __global__ void __launch_bounds__(256)
losses(const IN* student, const IN* teacher, const int* targets, float* out, float* sums,
       const __grid_constant__ Rows shape) {
    u64 row = blockIdx.x;
    const IN *s = student + row * shape.cols, *t = teacher + row * shape.cols;
    float scale = 1.0f / as_float(shape.temperature);
    Soft plain = {LEAST, 0.0f, 0.0f}, soft = plain, of_teacher = plain;
    Part none = {};
    for (u64 c = threadIdx.x * STEP; c < shape.cols; c += 256 * STEP) {
        Part x = load_part(s + c);
        if (TOKENS) add(plain, x, 1.0f, none);
        if (TEACHER) {
            Part y = load_part(t + c), apart;
#pragma unroll
            for (int i = 0; i < STEP; ++i) apart.v[i] = (y.v[i] - x.v[i]) * scale;
            add(soft, x, scale, none);
            add(of_teacher, y, scale, apart);
        }
    }
    if (TOKENS) {
        plain = block_join(plain);
        if (threadIdx.x == 0) {
            out[row] = level(plain) - widen(s[inside(targets[row], shape)]);
            sums[row * 3] = level(plain);
        }
    }
    if (TEACHER) {
        soft = block_join(soft);
        of_teacher = block_join(of_teacher);
        if (threadIdx.x == 0) {
            // Σ p (log t − log s), the sums of exponentials taken out of it.
            out[TOKENS * shape.rows + row] =
                of_teacher.along / of_teacher.sum - level(of_teacher) + level(soft);
            sums[row * 3 + 1] = level(soft);
            sums[row * 3 + 2] = level(of_teacher);
        }
    }
}
#endif

// Gradient for the student's logits; `of_tokens` and `of_teacher` are the gradients of the losses.
#ifdef ENTRY_losses_grad
extern "C" __global__ void __launch_bounds__(256)
losses_grad(const IN* student, const IN* teacher, const int* targets, const float* sums,
            const float* of_tokens, const float* of_teacher, OUT* out,
            const __grid_constant__ Rows shape) {
    u64 row = blockIdx.x;
    const IN *s = student + row * shape.cols, *t = teacher + row * shape.cols;
    float scale = 1.0f / as_float(shape.temperature);
    float by_tokens = TOKENS ? of_tokens[row] : 0.0f, by_teacher = TEACHER ? of_teacher[row] * scale : 0.0f;
    float plain = sums[row * 3], soft = sums[row * 3 + 1], level = sums[row * 3 + 2];
    u64 target = TOKENS ? inside(targets[row], shape) : shape.cols;
    for (u64 c = threadIdx.x * STEP; c < shape.cols; c += 256 * STEP) {
        Part x = load_part(s + c), y = {}, grad = {};
        if (TEACHER) y = load_part(t + c);
#pragma unroll
        for (int i = 0; i < STEP; ++i) {
            if (TOKENS) grad.v[i] += (expf(x.v[i] - plain) - (c + i == target ? 1.0f : 0.0f)) * by_tokens;
            if (TEACHER) {
                grad.v[i] += (expf(x.v[i] * scale - soft) - expf(y.v[i] * scale - level)) * by_teacher;
            }
        }
        store_part(out + row * shape.cols + c, grad);
    }
}
#endif
