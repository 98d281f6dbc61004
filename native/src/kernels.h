// What an instruction set's file gives: its products. The rest of the library asks for them through `kernels()`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "matrix.h"

namespace cutaway {

struct Kernels {
    const char* name;
    // rows of x to 8-bit blocks, as matrix_layout.h has them
    void (*prepare)(const float* x, int64_t stride, int64_t rows, int64_t c, Rounding rounding, uint8_t* prepared);
    // tiles [first, last) of a quantised matrix
    void (*quantised)(const Matrix& matrix, const uint8_t* prepared, int64_t rows, Rounding rounding, float* out,
                      int64_t stride_out, int64_t first, int64_t last);
    // rows [first, last) of a float matrix
    void (*floating)(const Matrix& matrix, const float* x, int64_t stride, int64_t rows, float* out,
                     int64_t stride_out, int64_t first, int64_t last);
};

// Best first; each is null where this build has no such file.
extern const Kernels avx512_kernels, avxvnni_kernels, avx2_kernels, neon_kernels, portable_kernels;

const Kernels& kernels();  // those in use

}  // namespace cutaway
