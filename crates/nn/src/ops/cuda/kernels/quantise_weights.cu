// The quantiser of BitLinear's weights, per-tensor absmean (BitNet b1.58 §2), over many weights at once. A weight
// is as many eights.
//
// Defined before: IN (float, or u16 for bf16), EPS.

// Σ|w| of each block's part; the same order at every call.
#ifdef ENTRY_abs_sums
#define POINTERS(i) const IN *w##i,
#define PICK(i) case 0##i: w = w##i; break;
extern "C" __global__ void __launch_bounds__(256)
abs_sums(EACH(POINTERS) float* sums, const __grid_constant__ Many many) {
    Share share = share_of(many);
    const IN* w;
    switch (share.tensor) { EACH(PICK) }
    float sum = 0.0f;
#pragma unroll 2
    for (u32 i = share.begin + threadIdx.x * 8; i < share.end; i += 2048) {
        Eight v = load8(w + i);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum += fabsf(v.v[j]);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[many.first + blockIdx.x] = sum;
}
#endif

// codes = clamp(round(w / absmean), −1, 1), in int8 for the forward product and in bf16 for the
// gradient's.
#ifdef ENTRY_quantise
#define POINTERS(i) const IN *w##i, i8 *codes##i, u16 *wide##i, float *scale##i,
#define PICK(i) case 0##i: w = w##i; codes = codes##i; wide = wide##i; scale = scale##i; break;
extern "C" __global__ void __launch_bounds__(256)
quantise(EACH(POINTERS) const float* sums, const __grid_constant__ Many many) {
    Share share = share_of(many);
    const IN* w;
    i8* codes;
    u16* wide;
    float* scale;
    switch (share.tensor) { EACH(PICK) }
    u32 before = share.begin / CHUNK, count = many.of[share.tensor].count;
    u64 part = many.first + blockIdx.x - before, parts = (count + CHUNK - 1ull) / CHUNK;
    float sum = 0.0f;
    for (u64 i = threadIdx.x; i < parts; i += 256) sum += sums[part + i];
    float absmean = fmaxf(block_sum(sum) / static_cast<float>(count), EPS);
    float by = 1.0f / absmean;
#pragma unroll 2
    for (u32 i = share.begin + threadIdx.x * 8; i < share.end; i += 2048) {
        Eight v = load8(w + i);
#pragma unroll
        for (int j = 0; j < 8; ++j) v.v[j] = clamped(rintf(v.v[j] * by), -1.0f, 1.0f);
        store8(codes + i, v);
        store8(wide + i, v);
    }
    if (before == 0 && threadIdx.x == 0) *scale = absmean;
}
#endif
