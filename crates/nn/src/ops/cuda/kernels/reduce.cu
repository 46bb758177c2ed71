// The sum of the parts that a product was split into, always in the same order.

struct Parts {
    u64 count, parts;
};

extern "C" __global__ void __launch_bounds__(256)
sum_parts(const float* parts, float* out, const __grid_constant__ Parts shape) {
    u64 i = (blockIdx.x * 256ull + threadIdx.x) * 8;
    if (i >= shape.count) return;
    Eight sum = load8(parts + i);
    for (u64 p = 1; p < shape.parts; ++p) {
        Eight next = load8(parts + p * shape.count + i);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum.v[j] += next.v[j];
    }
    store8(out + i, sum);
}
