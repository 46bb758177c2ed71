// Tiles of attention and their products by Hopper's instructions of a warpgroup, whose right operands come
// from shared memory: heads of 64 and 128.

#define PANEL (BLOCK * 64)
#define TILE (BLOCK * D)
#define OWN 2
#define HALF_BLOCK BLOCK

// Panels of 64 columns: rows of 128 bytes, swizzled in groups of eight. A product sums along the rows or over
// them.
__device__ inline int in_tile(int row, int column) {
    return column / 64 * PANEL + row * 64 + (column / 8 % 8 ^ row % 8) * 8;
}
__device__ inline void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

struct Left {
    u32 address;
};
__device__ inline void take(Left& to, const u16* tile, int, int) { to.address = shared_address(tile); }

// Keeps the compiler from moving what is computed from registers of a product across its start or end.
template <int N>
__device__ inline void pin(float (&x)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(x[n][i])::"memory");
    }
}
template <int N>
__device__ inline void done(float (&x)[N][4]) {
    wgmma_wait<0>();
    pin(x);
}

#define F4(d, i) "+f"((d)[i][0]), "+f"((d)[i][1]), "+f"((d)[i][2]), "+f"((d)[i][3])
#define F32(d, i) \
    F4(d, i), F4(d, i + 1), F4(d, i + 2), F4(d, i + 3), F4(d, i + 4), F4(d, i + 5), F4(d, i + 6), F4(d, i + 7)
#define NAMES_32 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_64 \
    NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// scores = rows · tileᵀ.
__device__ inline void score(float (&s)[8][4], const Left& rows, const u16* tile, int, int) {
    u32 right = shared_address(tile);
    pin(s);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        u32 at = k / 4 * PANEL * 2 + k % 4 * 32;
        asm volatile(
            "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_32 "}, "
            "%32, %33, p, 1, 1, 0, 0;\n}\n"
            : F32(s, 0)
            : "l"(describe(rows.address + at, 0)), "l"(describe(right + at, 0)), "r"(min(k, 1)));
    }
    wgmma_commit();
}

// sums += p · tile.
__device__ inline void add_product(float (&sums)[D / 8][4], const float (&p)[8][4], const u16* tile, int,
                                   int) {
    u32 a[4][4], right = shared_address(tile);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float(&pair)[4] = p[2 * k + i / 2];
            a[k][i] = to_bf16x2(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
            asm volatile("" : "+r"(a[k][i])::"memory");
        }
    }
    pin(sums);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        u64 b = describe(right + k * 2048, PANEL * 2);
#if D == 128
        asm volatile(
            "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" NAMES_64 "}, "
            "{%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}\n"
            : F32(sums, 0), F32(sums, 8)
            : "r"(a[k][0]), "r"(a[k][1]), "r"(a[k][2]), "r"(a[k][3]), "l"(b), "r"(1));
#else
        asm volatile(
            "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" NAMES_32 "}, "
            "{%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}\n"
            : F32(sums, 0)
            : "r"(a[k][0]), "r"(a[k][1]), "r"(a[k][2]), "r"(a[k][3]), "l"(b), "r"(1));
#endif
    }
    wgmma_commit();
}
