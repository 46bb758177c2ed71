// out[m, n] = Σ_k A · B over int8 (exact, s32) or bf16 (f32 sums) operands, on Hopper.
//
// One producer thread keeps a ring of tiles in shared memory filled by bulk tensor copies; two
// warpgroups multiply 64 x BN each. Blocks stay for all their tiles, so that the copies of the next
// tile run while the last one is written.
//
// Defined before: BN, INT8, A_T and B_T (1 where the reduction runs over the operand's rows), STAGES,
// OUT (float, u16 or f16), OUT_T (1 where a float result is stored [n, m]), SCALES (0 none, 1 one for all,
// 2 one a row of A and one for all, 3 one a row of A and one a row of B).

#define BM 128
// Tiles above each other that are computed before their neighbours: what blocks read at a time is near a
// square of the result, and an operand that the cache does not hold is read once a group.
#define GROUP 16
#define BK (INT8 ? 128 : 64)
#define A_BYTES (BM * 128)
// Columns are copied 64 at a time where the reduction runs over B's rows.
#define B_BYTES ((B_T ? (BN + 63) / 64 * 64 : BN) * 128)

struct alignas(64) TensorMap {
    char bytes[128];
};

struct Shape {
    u64 m, n, tiles_m, tiles_n, splits, k_blocks;
};

__device__ inline void barrier_init(u32 bar, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count));
}
__device__ inline void barrier_expect(u32 bar, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}
__device__ inline void barrier_arrive(u32 bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ inline void barrier_wait(u32 bar, u32 parity) {
    asm volatile(
        "{\n.reg .pred p;\nagain:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
        "@p bra done;\nbra again;\ndone:\n}\n" ::"r"(bar), "r"(parity)
        : "memory");
}
__device__ inline void copy_tile(u32 to, const TensorMap* map, u32 bar, int x, int y) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(map), "r"(x), "r"(y), "r"(bar)
        : "memory");
}

// The tile of an operand: `rows` of the result from `at`, reduced indices from `k`.
template <int turned, int rows>
__device__ inline void copy_operand(u32 to, const TensorMap* map, u32 bar, int at, int k) {
    if (turned) {
#pragma unroll
        for (int chunk = 0; chunk < (rows + 63) / 64; ++chunk) {
            copy_tile(to + chunk * 8192, map, bar, at + chunk * 64, k);
        }
    } else {
        copy_tile(to, map, bar, k, at);
    }
}

// Four pairs of a row, one from each lane of a quad, become eight neighbours in each lane.
__device__ inline void turn_quad(u32 (&p)[4], int lane) {
    u32 a = lane & 1 ? p[0] : p[1], b = lane & 1 ? p[2] : p[3];
    a = __shfl_xor_sync(0xffffffffu, a, 1);
    b = __shfl_xor_sync(0xffffffffu, b, 1);
    if (lane & 1) p[0] = a, p[2] = b;
    else p[1] = a, p[3] = b;
    a = lane & 2 ? p[0] : p[2], b = lane & 2 ? p[1] : p[3];
    a = __shfl_xor_sync(0xffffffffu, a, 2);
    b = __shfl_xor_sync(0xffffffffu, b, 2);
    if (lane & 2) p[0] = a, p[1] = b;
    else p[2] = a, p[3] = b;
}

// One row of a warpgroup's result, `value(j)` being this lane's pair of eight columns `j`.
template <class Value>
__device__ inline void store_row(float* out, u64 row, const Shape& shape, int n, int lane, Value value) {
#pragma unroll
    for (int j = 0; j < BN / 8; ++j) {
        u64 c = n + j * 8 + lane % 4 * 2;
        float2 v = value(j);
        if (row >= shape.m || c >= shape.n) continue;
#if OUT_T
        // Eight lanes write eight neighbours.
        out[c * shape.m + row] = v.x;
        out[(c + 1) * shape.m + row] = v.y;
#else
        *reinterpret_cast<float2*>(out + row * shape.n + c) = v;
#endif
    }
}
__device__ inline u32 pack(u16, float2 v) { return to_bf16x2(v.x, v.y); }
__device__ inline u32 pack(f16, float2 v) { return to_f16x2(v.x, v.y); }
template <class Half, class Value>
__device__ inline void store_row(Half* out, u64 row, const Shape& shape, int n, int lane, Value value) {
#pragma unroll
    for (int j = 0; j < BN / 8; j += 4) {
        u32 pairs[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            float2 v = j + i < BN / 8 ? value(j + i) : make_float2(0.0f, 0.0f);
            pairs[i] = pack(Half(), v);
        }
        turn_quad(pairs, lane);
        int eight = j + lane % 4;
        u64 c = n + eight * 8;
        if (row < shape.m && c < shape.n && eight < BN / 8) {
            *reinterpret_cast<uint4*>(out + row * shape.n + c) =
                make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
        }
    }
}

// Place of a tile: the first row and column of the result in it.
__device__ inline int2 place(int tile, int tiles_m, int tiles_n) {
    int group = tile / (GROUP * tiles_n), in_group = tile % (GROUP * tiles_n);
    int rows = min(GROUP, tiles_m - group * GROUP);
    return make_int2((group * GROUP + in_group % rows) * BM, in_group / rows * BN);
}

// The four pointers are the operands again, which the runtime hands over beside their maps.
extern "C" __global__ void __launch_bounds__(384, 1)
gemm(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b,
     const void*, const void*, const void*, const void*, OUT* out,
#if SCALES >= 2
     const float* row_scale,
#endif
#if SCALES >= 1
     const float* scale,
#endif
     const __grid_constant__ Shape shape) {
    extern __shared__ u8 dynamic_shared[];
    u32 ring = (shared_address(dynamic_shared) + 1023) & ~1023u;
    u32 full = ring + STAGES * (A_BYTES + B_BYTES), empty = full + STAGES * 8;
    int group = threadIdx.x / 128;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; ++s) {
            barrier_init(full + 8 * s, 1);
            barrier_init(empty + 8 * s, 2);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    int tiles = static_cast<int>(shape.tiles_m * shape.tiles_n * shape.splits);
    int tiles_m = static_cast<int>(shape.tiles_m), tiles_n = static_cast<int>(shape.tiles_n);
    int splits = static_cast<int>(shape.splits);
    int k_blocks = static_cast<int>(shape.k_blocks);
    int share = (k_blocks + splits - 1) / splits;
    int stage = 0;
    u32 phase = 0;
    if (group == 0) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        for (int tile = threadIdx.x == 0 ? blockIdx.x : tiles; tile < tiles; tile += gridDim.x) {
            int split = tile % splits;
            int2 at = place(tile / splits, tiles_m, tiles_n);
            int m = at.x, n = at.y;
            int end = min((split + 1) * share, k_blocks);
            for (int k = split * share; k < end; ++k) {
                barrier_wait(empty + 8 * stage, phase ^ 1);
                u32 a = ring + stage * (A_BYTES + B_BYTES), b = a + A_BYTES;
                u32 bar = full + 8 * stage;
                barrier_expect(bar, A_BYTES + B_BYTES);
                copy_operand<A_T, BM>(a, &map_a, bar, m, k * BK);
                copy_operand<B_T, BN>(b, &map_b, bar, n, k * BK);
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        int half = group - 1, thread = threadIdx.x % 128, lane = threadIdx.x % 32;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            int split = tile % splits;
            int2 at = place(tile / splits, tiles_m, tiles_n);
            int m = at.x, n = at.y;
            int first = split * share, end = min(first + share, k_blocks);
            Acc acc[ACCS];
            if (first >= end) {
#pragma unroll
                for (int i = 0; i < ACCS; ++i) acc[i] = 0;
            }
            int before = 0;
            for (int k = first; k < end; ++k) {
                barrier_wait(full + 8 * stage, phase);
                u32 a = ring + stage * (A_BYTES + B_BYTES) + half * 8192;
                u32 b = ring + stage * (A_BYTES + B_BYTES) + A_BYTES;
                wgmma_fence();
#pragma unroll
                for (int step = 0; step < 4; ++step) {
                    u64 da = describe(a + step * (A_T ? 2048 : 32), 8192);
                    u64 db = describe(b + step * (B_T ? 2048 : 32), 8192);
                    wgmma<A_T, B_T>(acc, da, db, k > first || step > 0);
                }
                wgmma_commit();
                // The tile before has been read once its product is done.
                wgmma_wait<1>();
                if (k > first && thread == 0) barrier_arrive(empty + 8 * before);
                before = stage;
                if (++stage == STAGES) stage = 0, phase ^= 1;
            }
            wgmma_wait<0>();
            if (first < end && thread == 0) barrier_arrive(empty + 8 * before);

            OUT* to = out + static_cast<u64>(split) * shape.m * shape.n;
#pragma unroll
            for (int lower = 0; lower < 2; ++lower) {
                u64 row = m + half * 64 + thread / 32 * 16 + lane / 4 + lower * 8;
#if SCALES >= 2
                float by = row < shape.m ? row_scale[row] : 0.0f;
#if SCALES == 2
                by *= *scale;
#endif
#elif SCALES == 1
                float by = *scale;
#endif
                auto value = [&](int j) {
                    float2 v = make_float2(static_cast<float>(acc[j * 4 + lower * 2]),
                                           static_cast<float>(acc[j * 4 + lower * 2 + 1]));
#if SCALES == 3
                    u64 c = n + j * 8 + lane % 4 * 2;
                    if (c < shape.n) v.x *= by * scale[c], v.y *= by * scale[c + 1];
#elif SCALES >= 1
                    v.x *= by, v.y *= by;
#endif
                    return v;
                };
                store_row(to, row, shape, n, lane, value);
            }
        }
    }
}
