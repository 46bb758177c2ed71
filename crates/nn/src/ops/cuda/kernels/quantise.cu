// The quantiser of BitLinear's tokens, per-token INT8 absmax (BitNet b1.58 §2), and what is done with codes.
//
// Defined before: IN (float, u16 for bf16, or i8), EPS, RUNS: the eights of a row that one lane
// takes.

// Rows up to this many eights stay in registers; longer ones are read twice.
#define HELD (RUNS <= 16)

struct Rows {
    u64 rows, cols;
};

// One warp a token: codes = round(x · (127 / absmax)), step = absmax / 127. A token with a NaN has the
// step NaN, so that what goes wrong is seen in the result.
extern "C" __global__ void __launch_bounds__(128)
quantise_acts(const IN* x, i8* codes, float* step, const __grid_constant__ Rows shape) {
    u64 row = blockIdx.x * 4ull + threadIdx.x / 32;
    if (row >= shape.rows) return;
    int lane = threadIdx.x % 32, cols = static_cast<int>(shape.cols);
    const IN* from = x + row * cols;
#if HELD
    Raw<IN> raw[RUNS];
#pragma unroll
    for (int r = 0; r < RUNS; ++r) {
        int c = (r * 32 + lane) * 8;
        if (c < cols) raw[r] = load_raw(from + c);
    }
#define RAW(r, c) raw[r]
#else
#define RAW(r, c) load_raw(from + c)
#endif
    float absmax = EPS;
    bool wrong = false;
#pragma unroll
    for (int r = 0; r < RUNS; ++r) {
        int c = (r * 32 + lane) * 8;
        if (c >= cols) break;
        Eight v = unpack(RAW(r, c));
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            absmax = fmaxf(absmax, fabsf(v.v[i]));
            wrong |= v.v[i] != v.v[i];
        }
    }
    absmax = warp_max(absmax);
    wrong = __any_sync(0xffffffffu, wrong);
    float scale = (1.0f / absmax) * 127.0f;
#pragma unroll
    for (int r = 0; r < RUNS; ++r) {
        int c = (r * 32 + lane) * 8;
        if (c >= cols) break;
        Eight v = unpack(RAW(r, c));
#pragma unroll
        for (int i = 0; i < 8; ++i) v.v[i] = clamped(rintf(v.v[i] * scale), -128.0f, 127.0f);
        store8(codes + row * cols + c, v);
    }
    if (lane == 0) step[row] = wrong ? __int_as_float(0x7fffffff) : absmax / 127.0f;
#undef RAW
}

// codes · step as bf16.
extern "C" __global__ void __launch_bounds__(128)
dequantise_acts(const i8* codes, const float* step, u16* out, const __grid_constant__ Rows shape) {
    u64 row = blockIdx.x * 4ull + threadIdx.x / 32;
    if (row >= shape.rows) return;
    int lane = threadIdx.x % 32, cols = static_cast<int>(shape.cols);
    float by = step[row];
#pragma unroll
    for (int r = 0; r < RUNS; ++r) {
        int c = (r * 32 + lane) * 8;
        if (c >= cols) break;
        Eight v = load8(codes + row * cols + c);
#pragma unroll
        for (int i = 0; i < 8; ++i) v.v[i] *= by;
        store8(out + row * cols + c, v);
    }
}

// out [cols, rows] = codes [rows, cols] turned, in tiles of 64 × 64; a warp reads and writes whole rows of
// a tile, four bytes a lane, two rows at a time.
extern "C" __global__ void __launch_bounds__(256)
turn_codes(const i8* codes, i8* out, const __grid_constant__ Rows shape) {
    __shared__ __align__(4) i8 tile[64][68];
    u64 across = (shape.cols + 63) / 64;
    u64 r0 = blockIdx.x / across * 64, c0 = blockIdx.x % across * 64;
    int place = threadIdx.x % 16 * 4;
    for (int i = threadIdx.x / 16; i < 64; i += 16) {
        u64 r = r0 + i, c = c0 + place;
        char4 four = make_char4(0, 0, 0, 0);
        // Both sides are in fours.
        if (r < shape.rows && c < shape.cols)
            four = *reinterpret_cast<const char4*>(codes + r * shape.cols + c);
        *reinterpret_cast<char4*>(&tile[i][place]) = four;
    }
    __syncthreads();
    for (int i = threadIdx.x / 16; i < 64; i += 16) {
        u64 c = c0 + i, r = r0 + place;
        if (c < shape.cols && r < shape.rows)
            *reinterpret_cast<char4*>(out + c * shape.rows + r) =
                make_char4(tile[place][i], tile[place + 1][i], tile[place + 2][i], tile[place + 3][i]);
    }
}

// x as bf16.
extern "C" __global__ void __launch_bounds__(256)
to_bf16(const IN* x, u16* out, const __grid_constant__ Rows shape) {
    u64 count = shape.rows * shape.cols;
    for (u64 i = (blockIdx.x * 256ull + threadIdx.x) * 8; i < count; i += gridDim.x * 2048ull) {
        store8(out + i, load8(x + i));
    }
}
