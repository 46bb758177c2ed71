// Shared memory and products of a warpgroup on Hopper.

__device__ inline u32 shared_address(const void* p) {
    return static_cast<u32>(__cvta_generic_to_shared(p));
}

// Shared memory in rows of 128 bytes, swizzled in groups of eight; `lead` is the distance of the
// next 64 columns where the operand's rows are reduced.
__device__ inline u64 describe(u32 address, u32 lead) {
    return (static_cast<u64>((address & 0x3ffffu) >> 4)) | (static_cast<u64>(lead >> 4) << 16) |
           (static_cast<u64>(1024 >> 4) << 32) | (1ull << 62);
}

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int pending>
__device__ inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
