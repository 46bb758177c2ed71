// Tiles of attention and their products by the instructions of one warp: any width of a head that is a
// multiple of 16.

// Values between rows of a tile: eight more than a head, so that eight rows lie in different banks.
#define LINE (D + 8)
#define TILE (BLOCK * LINE)
#define OWN 1
// Columns of scores that a warp holds at once, where gradients need two sets of them.
#define HALF_BLOCK (D > 64 ? 32 : 64)

// Where a value of a tile lies.
__device__ inline int in_tile(int row, int column) { return row * LINE + column; }
// Makes what was written to tiles ready for products.
__device__ inline void publish() {}

// The block's own rows as left operands, 16 a warp.
struct Left {
    u32 r[D / 16][4];
};
__device__ inline void take(Left& to, const u16* tile, int warp, int lane) {
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        load_matrices(to.r[k], tile + (warp * 16 + lane % 16) * LINE + k * 16 + lane / 16 * 8);
    }
}

// Products are there once `done` has returned.
template <int N>
__device__ inline void done(float (&)[N][4]) {}

// scores = rows · tileᵀ for the `8 · N` rows of the tile from `first`.
template <int N>
__device__ inline void score(float (&s)[N][4], const Left& rows, const u16* tile,
                             int first, int lane) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[n][i] = 0.0f;
    }
    const u16* at = tile + (first + lane % 8 + lane / 16 * 8) * LINE + lane / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < D / 16; ++k) {
        u32 b[N / 2][4];
#pragma unroll
        for (int n = 0; n < N / 2; ++n) load_matrices(b[n], at + n * 16 * LINE + k * 16);
#pragma unroll
        for (int n = 0; n < N / 2; ++n) {
            multiply(s[2 * n], rows.r[k], b[n][0], b[n][1]);
            multiply(s[2 * n + 1], rows.r[k], b[n][2], b[n][3]);
        }
    }
}

// sums += p · tile, over the `8 · N` rows of the tile from `first`.
template <int N>
__device__ inline void add_product(float (&sums)[D / 8][4], const float (&p)[N][4], const u16* tile,
                                   int first, int lane) {
#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
        u32 a[4] = {to_bf16x2(p[2 * k][0], p[2 * k][1]), to_bf16x2(p[2 * k][2], p[2 * k][3]),
                    to_bf16x2(p[2 * k + 1][0], p[2 * k + 1][1]),
                    to_bf16x2(p[2 * k + 1][2], p[2 * k + 1][3])};
        const u16* at = tile + (first + k * 16 + lane % 16) * LINE + lane / 16 * 8;
#pragma unroll
        for (int n = 0; n < D / 16; ++n) {
            u32 b[4];
            load_matrices_turned(b, at + n * 16);
            multiply(sums[2 * n], a, b[0], b[1]);
            multiply(sums[2 * n + 1], a, b[2], b[3]);
        }
    }
}
