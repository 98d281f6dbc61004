// Products with AVX2 and its dot products of bytes (AVX-VNNI).
#include <immintrin.h>

#include <type_traits>
#include <utility>

#include "kernels.h"

#define CUTAWAY_VNNI
namespace cutaway {
namespace {

#include "lanes_avx2.inl"

#include "matrix_float.inl"
#include "matrix_prepare.inl"
#include "matrix_tile.inl"

}  // namespace

const Kernels avxvnni_kernels{"avx2-vnni", prepare_rows, multiply_quantised, multiply_floats};

}  // namespace cutaway
