// AdamW, the norm of gradients and their move into one buffer, over many parameters at once, in f32.

// Values of a thread that are under way at once.
#define DEPTH 4

struct AdamW {
    Many many;
    u64 lr, beta1, beta2, eps, grad_scale, bias1, bias2;
};

#ifdef ENTRY_adamw
// `by` is a tensor's weight decay. Moments change in place.
#define POINTERS(i) const float *param##i, const float *grad##i, float *m##i, float *v##i, float *to##i,
#define PICK(i) case 0##i: param = param##i; grad = grad##i; m = m##i; v = v##i; to = to##i; break;
extern "C" __global__ void __launch_bounds__(256)
adamw(EACH(POINTERS) const __grid_constant__ AdamW s) {
    Share share = share_of(s.many);
    const float *param, *grad;
    float *m, *v, *to;
    switch (share.tensor) { EACH(PICK) }
    float lr = as_float(s.lr), beta1 = as_float(s.beta1), beta2 = as_float(s.beta2);
    float keep = 1.0f - lr * s.many.of[share.tensor].by, rate = lr / as_float(s.bias1);
    float eps = as_float(s.eps), scale = as_float(s.grad_scale), bias2 = as_float(s.bias2);
    for (u32 from = share.begin + threadIdx.x; from < share.end; from += DEPTH * 256) {
        float w[DEPTH], g[DEPTH], first[DEPTH], second[DEPTH];
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) {
            u32 i = from + d * 256;
            if (i >= share.end) break;
            w[d] = param[i], g[d] = grad[i], first[d] = m[i], second[d] = v[i];
        }
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) {
            u32 i = from + d * 256;
            if (i >= share.end) break;
            g[d] *= scale;
            first[d] = first[d] * beta1 + g[d] * (1.0f - beta1);
            second[d] = second[d] * beta2 + g[d] * g[d] * (1.0f - beta2);
            m[i] = first[d], v[i] = second[d];
            to[i] = w[d] * keep - first[d] / (sqrtf(second[d] / bias2) + eps) * rate;
        }
    }
}
#endif

#ifdef ENTRY_squares
// Σx² of each block's part, and the sum of such parts; the same order at every call.
#define POINTERS(i) const float *x##i,
#define PICK(i) case 0##i: x = x##i; break;
extern "C" __global__ void __launch_bounds__(256)
squares(EACH(POINTERS) float* sums, const __grid_constant__ Many many) {
    Share share = share_of(many);
    const float* x;
    switch (share.tensor) { EACH(PICK) }
    float sum = 0.0f;
#pragma unroll 8
    for (u32 i = share.begin + threadIdx.x; i < share.end; i += 256) sum += x[i] * x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[many.first + blockIdx.x] = sum;
}
#endif

#ifdef ENTRY_total
struct Count {
    u64 count;
};
extern "C" __global__ void __launch_bounds__(256)
total(const float* sums, float* out, const __grid_constant__ Count shape) {
    float sum = 0.0f;
    for (u64 i = threadIdx.x; i < shape.count; i += 256) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *out = sum;
}
#endif

#ifdef ENTRY_gather
// Lays the tensors down in `to`, each from its place `at` on.
#define POINTERS(i) const float *x##i,
#define PICK(i) case 0##i: x = x##i; break;
extern "C" __global__ void __launch_bounds__(256)
gather(EACH(POINTERS) float* to, const __grid_constant__ Many many) {
    Share share = share_of(many);
    const float* x;
    switch (share.tensor) { EACH(PICK) }
    float* out = to + many.of[share.tensor].at;
#pragma unroll 8
    for (u32 i = share.begin + threadIdx.x; i < share.end; i += 256) out[i] = x[i];
}
#endif
