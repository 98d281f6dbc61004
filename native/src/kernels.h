// What an instruction set's file gives: its products. The rest of the library asks for them through `kernels()`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "matrix_layout.h"

// Where a loop must be unrolled for its values to stay in registers.
#if defined(CUTAWAY_ROLLED)
#define CUTAWAY_UNROLL_LOOPS
#elif defined(__clang__)
#define CUTAWAY_UNROLL_LOOPS _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define CUTAWAY_UNROLL_LOOPS _Pragma("GCC unroll 16")
#else
#define CUTAWAY_UNROLL_LOOPS
#endif

namespace cutaway {

struct Kernels {
    const char* name;
    // blocks [first, last) of x, counted along row after row, rounded to where they belong (matrix_layout.h)
    void (*prepare)(const float* x, int64_t stride, int64_t rows, int64_t blocks, Rounding rounding, Rounded* prepared,
                    int64_t first, int64_t last);
    // tiles [first, last) of a quantised matrix
    void (*quantised)(const Matrix& matrix, const Rounded* prepared, int64_t rows, Rounding rounding, float* out,
                      int64_t stride_out, int64_t first, int64_t last);
    // rows [first, last) of a float matrix
    void (*floating)(const Matrix& matrix, const float* x, int64_t stride, int64_t rows, float* out,
                     int64_t stride_out, int64_t first, int64_t last);
};

// Each is there where this build has such a file.
extern const Kernels avx512_kernels, avxvnni_kernels, avx2_kernels, neon_kernels, portable_kernels;

const Kernels& kernels();  // those in use

}  // namespace cutaway
