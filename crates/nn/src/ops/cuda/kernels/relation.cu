// Relations of states to each other, softmax(A·Aᵀ · scale) over the tokens of a sequence, and the KL between a
// teacher's and a student's (BitDistill §3.3), without their squares. bf16 operands, f32 sums; no atomics.
//
// Defined before: SW and TW (widths of the student's and the teacher's heads, multiples of 16), IN (float, or u16
// for bf16: type of states and of their gradients), COSINE (1 where states are brought to length one).
// A block has four warps of 16 rows each and goes over all rows of its sequence, 64 at a time.

#define BLOCK 64
#define HALF 32
#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
#define LINE(W) ((W) + 8)

// Stage 2 holds the block's own rows. Behind the tiles are three words for each row of the first two.
extern __shared__ __align__(16) u8 shared_bytes[];
__device__ inline u16* student_tile(int stage) {
    return reinterpret_cast<u16*>(shared_bytes) + stage * BLOCK * (LINE(SW) + LINE(TW));
}
__device__ inline u16* teacher_tile(int stage) { return student_tile(stage) + BLOCK * LINE(SW); }
__device__ inline float* shared_row(int stage, int which) {
    return reinterpret_cast<float*>(student_tile(3)) + (stage * 3 + which) * BLOCK;
}

struct Shape {
    // Scales of scores; the teacher's has log₂ e in it.
    u64 batch, seq, heads, student_scale, teacher_scale;
};

// Where a block works: its sequence, head and first row.
struct Place {
    int batch, head, first, warp, lane;
    u64 row0;
};
__device__ inline Place place(const Shape& shape) {
    int blocks = (static_cast<int>(shape.seq) + BLOCK - 1) / BLOCK, heads = static_cast<int>(shape.heads);
    int block = blockIdx.x / blocks;
    Place at = {block / heads, block % heads, static_cast<int>(blockIdx.x) % blocks * BLOCK,
                static_cast<int>(threadIdx.x) / 32, static_cast<int>(threadIdx.x) % 32, 0};
    at.row0 = static_cast<u64>(block) * shape.seq;
    return at;
}

// 64 rows from `first` of a head; those behind the sequence are zero.
template <int W>
__device__ inline void load_tile(u16* to, const u16* states, const Place& at, int first, const Shape& shape) {
    const u16* from = states + (at.batch * shape.seq * shape.heads + at.head) * W;
#pragma unroll
    for (int step = 0; step < W / 16; ++step) {
        int i = threadIdx.x + step * 128, r = i / (W / 8), c = i % (W / 8) * 8, row = first + r;
        bool there = row < static_cast<int>(shape.seq);
        copy16(to + r * LINE(W) + c, there ? from + row * shape.heads * W + c : from, there);
    }
}
__device__ inline void load_stage(int stage, const u16* student, const u16* teacher, const Place& at,
                                  int first, const Shape& shape) {
    load_tile<SW>(student_tile(stage), student, at, first, shape);
    load_tile<TW>(teacher_tile(stage), teacher, at, first, shape);
}
__device__ inline void arrived() {
    copies_done();
    __syncthreads();
}

// 16 rows of `own` times 32 rows of `other` from `first`.
template <int W>
__device__ inline void score(float (&s)[HALF / 8][4], const u16* own, const u16* other, int first,
                             const Place& at) {
#pragma unroll
    for (int n = 0; n < HALF / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[n][i] = 0.0f;
    }
    own += (at.warp * 16 + at.lane % 16) * LINE(W) + at.lane / 16 * 8;
    other += (first + at.lane % 8 + at.lane / 16 * 8) * LINE(W) + at.lane / 8 % 2 * 8;
#pragma unroll 4
    for (int k = 0; k < W; k += 16) {
        u32 a[4], b[HALF / 16][4];
        load_matrices(a, own + k);
#pragma unroll
        for (int n = 0; n < HALF / 16; ++n) load_matrices(b[n], other + n * 16 * LINE(W) + k);
#pragma unroll
        for (int n = 0; n < HALF / 16; ++n) {
            multiply(s[2 * n], a, b[n][0], b[n][1]);
            multiply(s[2 * n + 1], a, b[n][2], b[n][3]);
        }
    }
}

// States in bf16, of length one where COSINE, and what they were divided by, inverted. SW is their width; one
// warp a head of a token.
#ifdef ENTRY_relation_states
extern "C" __global__ void __launch_bounds__(128)
relation_states(const IN* x, u16* out, float* inverse, const __grid_constant__ Shape shape) {
    u64 row = blockIdx.x * 4ull + threadIdx.x / 32;
    if (row >= shape.batch * shape.seq * shape.heads) return;
    int lane = threadIdx.x % 32;
    Eight v = {};
    if (lane < SW / 8) v = load8(x + row * SW + lane * 8);
    float by = 1.0f;
#if COSINE
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += v.v[i] * v.v[i];
    by = 1.0f / fmaxf(sqrtf(warp_sum(sum)), 1e-12f);
#pragma unroll
    for (int i = 0; i < 8; ++i) v.v[i] *= by;
#endif
    if (lane < SW / 8) store8(out + row * SW + lane * 8, v);
    if (lane == 0) inverse[row] = by;
}
#endif

// Maximum of what was seen, Σ 2^(x − maximum), and Σ 2^(x − maximum) · w.
struct Soft {
    float max, sum, along;
};
__device__ inline Soft join(Soft a, Soft b) {
    float max = fmaxf(a.max, b.max);
    if (max == LEAST) return a;
    float by_a = power_of_two(a.max - max), by_b = power_of_two(b.max - max);
    return {max, a.sum * by_a + b.sum * by_b, a.along * by_a + b.along * by_b};
}
__device__ inline Soft join_quad(Soft x) {
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        Soft other = {__shfl_xor_sync(0xffffffffu, x.max, step),
                      __shfl_xor_sync(0xffffffffu, x.sum, step),
                      __shfl_xor_sync(0xffffffffu, x.along, step)};
        x = join(x, other);
    }
    return x;
}

// KL of each row `[batch · heads · seq]`, and log₂ of the sums that the student's and the teacher's
// probabilities are divided by, `[2, rows]`.
#ifdef ENTRY_relation_losses
extern "C" __global__ void __launch_bounds__(128)
relation_losses(const u16* student, const u16* teacher, float* out, float* sums,
                const __grid_constant__ Shape shape) {
    Place at = place(shape);
    int seq = static_cast<int>(shape.seq), blocks = (seq + BLOCK - 1) / BLOCK;
    float s_scale = as_float(shape.student_scale) * LOG2E, t_scale = as_float(shape.teacher_scale);
    load_stage(2, student, teacher, at, at.first, shape);
    load_stage(0, student, teacher, at, 0, shape);
    Soft ours[2] = {{LEAST, 0.0f, 0.0f}, {LEAST, 0.0f, 0.0f}}, theirs[2] = {ours[0], ours[0]};
    for (int block = 0; block < blocks; ++block) {
        int stage = block % 2;
        arrived();
        if (block + 1 < blocks) load_stage(1 - stage, student, teacher, at, (block + 1) * BLOCK, shape);
        for (int first = 0; first < BLOCK; first += HALF) {
            float s[HALF / 8][4], t[HALF / 8][4];
            score<SW>(s, student_tile(2), student_tile(stage), first, at);
            score<TW>(t, teacher_tile(2), teacher_tile(stage), first, at);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                Soft a = {LEAST, 0.0f, 0.0f}, b = a;
#pragma unroll
                for (int i = 0; i < HALF / 4; ++i) {
                    float &x = s[i / 2][half * 2 + i % 2], &y = t[i / 2][half * 2 + i % 2];
                    bool there = block * BLOCK + first + i / 2 * 8 + at.lane % 4 * 2 + i % 2 < seq;
                    x = there ? x * s_scale : LEAST;
                    y = there ? y * t_scale : LEAST;
                    a.max = fmaxf(a.max, x);
                    b.max = fmaxf(b.max, y);
                }
                if (a.max == LEAST) continue;
#pragma unroll
                for (int i = 0; i < HALF / 4; ++i) {
                    float x = s[i / 2][half * 2 + i % 2], y = t[i / 2][half * 2 + i % 2];
                    float p = power_of_two(y - b.max);
                    a.sum += power_of_two(x - a.max);
                    b.sum += p;
                    if (y != LEAST) b.along += p * (y - x);
                }
                ours[half] = join(ours[half], a);
                theirs[half] = join(theirs[half], b);
            }
        }
    }
    u64 rows = shape.batch * shape.heads * shape.seq;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        Soft a = join_quad(ours[half]), b = join_quad(theirs[half]);
        int row = at.first + at.warp * 16 + at.lane / 4 + half * 8;
        if (at.lane % 4 != 0 || row >= seq) continue;
        float level = a.max + log2f(a.sum), of_teacher = b.max + log2f(b.sum);
        out[at.row0 + row] = (b.along / b.sum - of_teacher + level) * LN2;
        sums[at.row0 + row] = level;
        sums[rows + at.row0 + row] = of_teacher;
    }
}
#endif

// Gradient for the student's states, as they came: `grad` is that of each row's KL.
#ifdef ENTRY_relation_grad
extern "C" __global__ void __launch_bounds__(128)
relation_grad(const u16* student, const u16* teacher, const float* sums, const float* grad,
              const float* inverse, IN* out, const __grid_constant__ Shape shape) {
    Place at = place(shape);
    int seq = static_cast<int>(shape.seq), blocks = (seq + BLOCK - 1) / BLOCK;
    float scale = as_float(shape.student_scale), t_scale = as_float(shape.teacher_scale);
    u64 rows = shape.batch * shape.heads * shape.seq;
    auto load = [&](int stage, int first) {
        load_stage(stage, student, teacher, at, first, shape);
        if (threadIdx.x < BLOCK) {
            u64 row = at.row0 + min(first + static_cast<int>(threadIdx.x), seq - 1);
            copy4(shared_row(stage, 0) + threadIdx.x, sums + row);
            copy4(shared_row(stage, 1) + threadIdx.x, sums + rows + row);
            copy4(shared_row(stage, 2) + threadIdx.x, grad + row);
        }
    };
    load_stage(2, student, teacher, at, at.first, shape);
    load(0, 0);
    float level[2], of_teacher[2], by[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        u64 row = at.row0 + min(at.first + at.warp * 16 + at.lane / 4 + half * 8, seq - 1);
        level[half] = sums[row];
        of_teacher[half] = sums[rows + row];
        by[half] = grad[row];
    }
    float da[SW / 8][4] = {};
    for (int block = 0; block < blocks; ++block) {
        int stage = block % 2;
        arrived();
        if (block + 1 < blocks) load(1 - stage, (block + 1) * BLOCK);
        const float *levels = shared_row(stage, 0), *of_teachers = shared_row(stage, 1);
        const float* grads = shared_row(stage, 2);
        for (int first = 0; first < BLOCK; first += HALF) {
            float s[HALF / 8][4], t[HALF / 8][4];
            score<SW>(s, student_tile(2), student_tile(stage), first, at);
            score<TW>(t, teacher_tile(2), teacher_tile(stage), first, at);
#pragma unroll
            for (int n = 0; n < HALF / 8; ++n) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    int c = first + n * 8 + at.lane % 4 * 2 + i % 2, half = i / 2;
                    float x = s[n][i] * scale * LOG2E, y = t[n][i] * t_scale;
                    // Scores are A · Aᵀ: both factors receive a gradient.
                    float row = power_of_two(x - level[half]) - power_of_two(y - of_teacher[half]);
                    float column = power_of_two(x - levels[c]) - power_of_two(y - of_teachers[c]);
                    bool there = block * BLOCK + c < seq;
                    s[n][i] = there ? (by[half] * row + grads[c] * column) * scale : 0.0f;
                }
            }
            const u16* other = student_tile(stage) + (first + at.lane % 16) * LINE(SW) + at.lane / 16 * 8;
#pragma unroll
            for (int k = 0; k < HALF / 16; ++k) {
                u32 a[4] = {to_bf16x2(s[2 * k][0], s[2 * k][1]), to_bf16x2(s[2 * k][2], s[2 * k][3]),
                            to_bf16x2(s[2 * k + 1][0], s[2 * k + 1][1]),
                            to_bf16x2(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
                for (int n = 0; n < SW / 16; ++n) {
                    u32 b[4];
                    load_matrices_turned(b, other + k * 16 * LINE(SW) + n * 16);
                    multiply(da[2 * n], a, b[0], b[1]);
                    multiply(da[2 * n + 1], a, b[2], b[3]);
                }
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int r = at.warp * 16 + at.lane / 4 + half * 8, row = at.first + r;
        const u16* own = student_tile(2) + r * LINE(SW) + at.lane % 4 * 2;
        u64 head = (static_cast<u64>(at.batch) * shape.seq + min(row, seq - 1)) * shape.heads + at.head;
        float along = 0.0f, divided = inverse[head];
#if COSINE
#pragma unroll
        for (int n = 0; n < SW / 8; ++n) {
            along += widen(own[n * 8]) * da[n][half * 2] + widen(own[n * 8 + 1]) * da[n][half * 2 + 1];
        }
        along += __shfl_xor_sync(0xffffffffu, along, 1);
        along += __shfl_xor_sync(0xffffffffu, along, 2);
#endif
        if (row >= seq) continue;
#pragma unroll
        for (int n = 0; n < SW / 8; ++n) {
            float a = (da[n][half * 2] - widen(own[n * 8]) * along) * divided;
            float b = (da[n][half * 2 + 1] - widen(own[n * 8 + 1]) * along) * divided;
            store2(out + head * SW + n * 8 + at.lane % 4 * 2, a, b);
        }
    }
}
#endif
