// Products with AVX2.
#include <immintrin.h>

#include <type_traits>
#include <utility>

#include "kernels.h"

namespace cutaway {
namespace {

#include "lanes_avx2.inl"

#include "matrix_float.inl"
#include "matrix_prepare.inl"
#include "matrix_tile.inl"

}  // namespace

const Kernels avx2_kernels{"avx2", prepare_rows, multiply_quantised, multiply_floats};

}  // namespace cutaway
