// Rows taken from a table, and their gradient.
//
// Defined before: IN (float, or u16 for bf16).

struct Shape {
    u64 count, rows, cols;
};

__device__ inline float value(float x) { return x; }
__device__ inline float value(u16 x) { return __uint_as_float(static_cast<u32>(x) << 16); }
__device__ inline void put(float* p, float x) { *p = x; }
__device__ inline void put(u16* p, float x) { *p = static_cast<u16>(to_bf16x2(x, 0.0f) & 0xffffu); }

// Adds the gradients of all places that took the same row, in their order. A block for each place; the
// first place of a row does the work. Rows that nobody took are left as they are.
extern "C" __global__ void __launch_bounds__(256)
take_rows_grad(const int* ids, const IN* grad, IN* out, const __grid_constant__ Shape shape) {
    __shared__ u32 hits[8];
    int count = static_cast<int>(shape.count), first = blockIdx.x, id = ids[first];
    if (id < 0 || id >= shape.rows) return;
    bool before = false;
    for (int j = threadIdx.x; j < first; j += 256) before |= ids[j] == id;
    if (__syncthreads_or(before)) return;
    for (u64 from = 0; from < shape.cols; from += 2048) {
        float sums[8] = {};
        for (int base = first; base < count; base += 256) {
            int j = base + threadIdx.x;
            u32 mine = __ballot_sync(0xffffffffu, j < count && ids[j] == id);
            if (threadIdx.x % 32 == 0) hits[threadIdx.x / 32] = mine;
            __syncthreads();
            for (int warp = 0; warp < 8; ++warp) {
                for (u32 left = hits[warp]; left != 0; left &= left - 1) {
                    u64 row = base + warp * 32 + __ffs(left) - 1;
#pragma unroll
                    for (int k = 0; k < 8; ++k) {
                        u64 c = from + k * 256 + threadIdx.x;
                        if (c < shape.cols) sums[k] += value(grad[row * shape.cols + c]);
                    }
                }
            }
            __syncthreads();
        }
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            u64 c = from + k * 256 + threadIdx.x;
            if (c < shape.cols) put(out + id * shape.cols + c, sums[k]);
        }
    }
}
