// The plain C interface to packed matrices, for Python's own use of products and for the tests. See matrix.h.
#pragma once

#include <stdint.h>

#include "export.h"

extern "C" {

CTW_API const char* ctw_instruction_set(void);
CTW_API int32_t ctw_choose_instruction_set(const char* name);  // 1: done, 0: not on this processor or in this build

// nullptr: a kind or a shape that no kernel takes, or no memory.
CTW_API void* ctw_pack(int32_t kind, const void* rows, int64_t n, int64_t c, int32_t threads);
CTW_API void ctw_release(void* matrix);
CTW_API int64_t ctw_packed_bytes(const void* matrix);
CTW_API void ctw_decode_row(const void* matrix, int64_t row, float* out);

// out (rows, n) of x (rows, c), with this many threads of its own; rounding: 8 or 16. 0: done, 1: no memory.
CTW_API int32_t ctw_matmul(const void* matrix, const float* x, int64_t rows, int32_t rounding, float* out,
                           int32_t threads);
}
