// One warpgroup multiply-accumulate of Hopper's tensor cores: 64 x BN, operands in shared memory.
//
// Defined before: BN (128, 144, 192 or 256), INT8 (0 or 1).

#if INT8
typedef int Acc;
#define ACC_KIND "+r"
#else
typedef float Acc;
#define ACC_KIND "+f"
#endif

#define R4(d, i) ACC_KIND(d[i]), ACC_KIND(d[i + 1]), ACC_KIND(d[i + 2]), ACC_KIND(d[i + 3])
#define R8(d, i) R4(d, i), R4(d, i + 4)
#define R16(d, i) R8(d, i), R8(d, i + 8)

#if BN == 128
#define ACCS 64
#define ACC_LIST \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define ACC_ARGS(d) \
    R16(d, 0), R16(d, 16), R16(d, 32), R16(d, 48)
#define OPERANDS "%64, %65"
#define ADD "%66"
#define TURNS "%67, %68"
#elif BN == 144
#define ACCS 72
#define ACC_LIST \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
    "%64, %65, %66, %67, %68, %69, %70, %71"
#define ACC_ARGS(d) \
    R16(d, 0), R16(d, 16), R16(d, 32), R16(d, 48), R8(d, 64)
#define OPERANDS "%72, %73"
#define ADD "%74"
#define TURNS "%75, %76"
#elif BN == 192
#define ACCS 96
#define ACC_LIST \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define ACC_ARGS(d) \
    R16(d, 0), R16(d, 16), R16(d, 32), R16(d, 48), R16(d, 64), R16(d, 80)
#define OPERANDS "%96, %97"
#define ADD "%98"
#define TURNS "%99, %100"
#elif BN == 256
#define ACCS 128
#define ACC_LIST \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
    "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
    "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
    "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
    "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
    "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
    "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define ACC_ARGS(d) \
    R16(d, 0), R16(d, 16), R16(d, 32), R16(d, 48), R16(d, 64), R16(d, 80), R16(d, 96), R16(d, 112)
#define OPERANDS "%128, %129"
#define ADD "%130"
#define TURNS "%131, %132"
#endif

#define STR_(x) #x
#define STR(x) STR_(x)

// `a_t` and `b_t`: 1 where the operand's reduction dimension is its rows (bf16 only).
template <int a_t, int b_t>
__device__ inline void wgmma(Acc (&d)[ACCS], u64 a, u64 b, int add) {
#if INT8
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, " ADD ", 0;\n"
        "wgmma.mma_async.sync.aligned.m64n" STR(BN) "k32.s32.s8.s8 {"
        ACC_LIST
        "}, " OPERANDS ", p;\n}\n"
        : ACC_ARGS(d)
        : "l"(a), "l"(b), "r"(add));
#else
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, " ADD ", 0;\n"
        "wgmma.mma_async.sync.aligned.m64n" STR(BN) "k16.f32.bf16.bf16 {"
        ACC_LIST
        "}, " OPERANDS ", p, 1, 1, " TURNS ";\n}\n"
        : ACC_ARGS(d)
        : "l"(a), "l"(b), "r"(add), "n"(a_t), "n"(b_t));
#endif
}
