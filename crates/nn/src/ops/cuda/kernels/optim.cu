// AdamW and the norm of gradients, over all values of a parameter, in f32.

struct Step {
    u64 count, lr, beta1, beta2, eps, weight_decay, grad_scale, bias1, bias2;
};

extern "C" __global__ void __launch_bounds__(256)
adamw(const float* param, const float* grad, const float* m, const float* v, float* new_param,
      float* new_m, float* new_v, const __grid_constant__ Step s) {
    float lr = as_float(s.lr), beta1 = as_float(s.beta1), beta2 = as_float(s.beta2);
    float keep = 1.0f - lr * as_float(s.weight_decay), rate = lr / as_float(s.bias1);
    float eps = as_float(s.eps), scale = as_float(s.grad_scale), bias2 = as_float(s.bias2);
    for (u64 i = blockIdx.x * 256ull + threadIdx.x; i < s.count; i += gridDim.x * 256ull) {
        float g = grad[i] * scale;
        float first = m[i] * beta1 + g * (1.0f - beta1);
        float second = v[i] * beta2 + g * g * (1.0f - beta2);
        new_m[i] = first;
        new_v[i] = second;
        new_param[i] = param[i] * keep - first / (sqrtf(second / bias2) + eps) * rate;
    }
}

struct Count {
    u64 count, at;
};

// Σx² of each block's share, from place `at` of `sums` on, and the sum of such parts; the same order
// at every call.
extern "C" __global__ void __launch_bounds__(256)
squares(const float* x, float* sums, const __grid_constant__ Count shape) {
    float sum = 0.0f;
    for (u64 i = blockIdx.x * 256ull + threadIdx.x; i < shape.count; i += gridDim.x * 256ull) {
        sum += x[i] * x[i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[shape.at + blockIdx.x] = sum;
}
extern "C" __global__ void __launch_bounds__(256)
total(const float* sums, float* out, const __grid_constant__ Count shape) {
    float sum = 0.0f;
    for (u64 i = threadIdx.x; i < shape.count; i += 256) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *out = sum;
}
