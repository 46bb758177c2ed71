// Words that all kernels share. Compiled at run time, without headers.

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define LEAST __int_as_float(0xff800000)

// A scalar that came as a word of the last parameter.
__device__ inline float as_float(u64 word) { return __uint_as_float(static_cast<u32>(word)); }

// NaN becomes 0.
__device__ inline float clamped(float x, float low, float high) {
    return x == x ? fminf(fmaxf(x, low), high) : 0.0f;
}

// Two floats as bf16, rounded to nearest even; `lo` in the low half.
__device__ inline u32 to_bf16x2(float lo, float hi) {
    u32 out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(hi), "f"(lo));
    return out;
}
__device__ inline float bf16_lo(u32 pair) { return __uint_as_float(pair << 16); }
__device__ inline float bf16_hi(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// The same in half precision, eleven significant bits and a narrower range.
struct f16 {
    u16 bits;
};
__device__ inline u32 to_f16x2(float lo, float hi) {
    u32 out;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(hi), "f"(lo));
    return out;
}
__device__ inline float from_f16(u16 bits) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(bits));
    return out;
}
__device__ inline float f16_lo(u32 pair) { return from_f16(static_cast<u16>(pair)); }
__device__ inline float f16_hi(u32 pair) { return from_f16(static_cast<u16>(pair >> 16)); }

// One value as a float.
__device__ inline float widen(float x) { return x; }
__device__ inline float widen(u16 x) { return bf16_lo(x); }
__device__ inline float widen(f16 x) { return from_f16(x.bits); }

// Eight neighbours of a row, as floats, and as they lie in memory. bf16 is carried as u16.
struct Eight {
    float v[8];
};
template <class T>
struct Raw;
template <>
struct Raw<float> {
    float4 a, b;
};
template <>
struct Raw<u16> {
    uint4 a;
};
template <>
struct Raw<f16> {
    uint4 a;
};
template <>
struct Raw<signed char> {
    uint2 a;
};

template <class T>
__device__ inline Raw<T> load_raw(const T* p) {
    return *reinterpret_cast<const Raw<T>*>(p);
}
__device__ inline Eight unpack(const Raw<float>& r) {
    return {{r.a.x, r.a.y, r.a.z, r.a.w, r.b.x, r.b.y, r.b.z, r.b.w}};
}
__device__ inline Eight unpack(const Raw<u16>& r) {
    return {{bf16_lo(r.a.x), bf16_hi(r.a.x), bf16_lo(r.a.y), bf16_hi(r.a.y),
             bf16_lo(r.a.z), bf16_hi(r.a.z), bf16_lo(r.a.w), bf16_hi(r.a.w)}};
}
__device__ inline Eight unpack(const Raw<f16>& r) {
    return {{f16_lo(r.a.x), f16_hi(r.a.x), f16_lo(r.a.y), f16_hi(r.a.y),
             f16_lo(r.a.z), f16_hi(r.a.z), f16_lo(r.a.w), f16_hi(r.a.w)}};
}
__device__ inline Eight unpack(const Raw<signed char>& r) {
    Eight out;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out.v[i] = static_cast<float>(static_cast<signed char>(r.a.x >> (8 * i)));
        out.v[i + 4] = static_cast<float>(static_cast<signed char>(r.a.y >> (8 * i)));
    }
    return out;
}
template <class T>
__device__ inline Eight load8(const T* p) {
    return unpack(load_raw(p));
}

// Two neighbours.
__device__ inline void store2(float* to, float a, float b) {
    *reinterpret_cast<float2*>(to) = make_float2(a, b);
}
__device__ inline void store2(u16* to, float a, float b) {
    *reinterpret_cast<u32*>(to) = to_bf16x2(a, b);
}

__device__ inline void store8(float* p, const Eight& x) {
    reinterpret_cast<float4*>(p)[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
    reinterpret_cast<float4*>(p)[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
}
__device__ inline void store8(u16* p, const Eight& x) {
    *reinterpret_cast<uint4*>(p) =
        make_uint4(to_bf16x2(x.v[0], x.v[1]), to_bf16x2(x.v[2], x.v[3]),
                   to_bf16x2(x.v[4], x.v[5]), to_bf16x2(x.v[6], x.v[7]));
}
__device__ inline void store8(signed char* p, const Eight& x) {
    u32 out[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        out[i / 4] |= (static_cast<u32>(__float2int_rn(x.v[i])) & 0xffu) << (8 * (i % 4));
    }
    *reinterpret_cast<uint2*>(p) = make_uint2(out[0], out[1]);
}

__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
__device__ inline float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

// The sum over a block of 256 threads, in all of them; the same order at every call.
__device__ inline float block_sum(float x) {
    __shared__ float parts[8];
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < 8; ++i) sum += parts[i];
    return sum;
}
