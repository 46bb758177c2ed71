// One launch over up to 64 tensors.
//
// Pointers are parameters of their own, from 00 to 77 in octal, of which a block picks those of its tensor by
// a switch that all its threads take alike. Defined before: CHUNK, the values of a tensor that a block
// takes.

#define EIGHT(X, n) X(n##0) X(n##1) X(n##2) X(n##3) X(n##4) X(n##5) X(n##6) X(n##7)
#define EACH(X)                                                                       \
    EIGHT(X, 0) EIGHT(X, 1) EIGHT(X, 2) EIGHT(X, 3) EIGHT(X, 4) EIGHT(X, 5) EIGHT(X, 6) \
    EIGHT(X, 7)

// What a launch says of a tensor: the block behind its last, its values, a place and a number that are up
// to the kernel.
struct Place {
    u32 end, count, at;
    float by;
};

// The blocks of launches before this one, and the tensors.
struct Many {
    u64 first;
    Place of[64];
};

// The tensor of a block and its part of it.
struct Share {
    u32 tensor, begin, end;
};

__device__ inline Share share_of(const Many& many) {
    u32 t = 0;
#pragma unroll
    for (u32 half = 32; half > 0; half /= 2) {
        if (many.of[t + half - 1].end <= blockIdx.x) t += half;
    }
    u32 before = t == 0 ? 0 : many.of[t - 1].end;
    u64 begin = static_cast<u64>(blockIdx.x - before) * CHUNK;
    u64 end = begin + CHUNK, count = many.of[t].count;
    return {t, static_cast<u32>(begin), static_cast<u32>(end < count ? end : count)};
}
