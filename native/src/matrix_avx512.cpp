// Products with AVX-512 and its dot products of bytes (VNNI).
#include <immintrin.h>

#include <type_traits>
#include <utility>

#include "kernels.h"

namespace cutaway {
namespace {

struct Lanes {
    using Int = __m512i;
    using Float = __m512;
    static constexpr int lanes = 16, most_rows = 16, abreast = 2;
    static constexpr bool wide_is_signed = false;

    static Int load(const uint8_t* from) { return _mm512_loadu_si512(from); }
    static Int keep(Int v, int mask) { return _mm512_and_si512(v, _mm512_set1_epi8(static_cast<char>(mask))); }
    template <int by>
    static Int right(Int v) { return _mm512_srli_epi16(v, by); }
    template <int by>
    static Int left(Int v) { return _mm512_slli_epi16(v, by); }
    static Int merge(Int v, Int high, int mask) {  // v | (high & mask)
        return _mm512_ternarylogic_epi32(v, high, _mm512_set1_epi8(static_cast<char>(mask)), 0xf8);
    }
    static Int flip(Int v) { return v; }
    static Int book(const uint8_t* codes) {
        return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
    }
    static Int look_up(Int book, Int v) { return _mm512_shuffle_epi8(book, v); }
    template <int shift>
    static Int start(const int32_t* minus) {
        if constexpr (shift == 0) return _mm512_setzero_si512();
        return _mm512_slli_epi32(_mm512_set1_epi32(*minus), shift);
    }
    template <int shift>
    static Int start_rest(const int32_t* minus, const int32_t* half) {
        if constexpr (shift == 0) return _mm512_setzero_si512();
        return _mm512_slli_epi32(_mm512_set1_epi32(*minus - *half), shift);
    }
    template <bool is_signed>
    static Int dot(Int sum, Int v, const int8_t* q) {
        int32_t four;
        std::memcpy(&four, q, 4);
        return _mm512_dpbusd_epi32(sum, v, _mm512_set1_epi32(four));
    }
    static Float zero() { return _mm512_setzero_ps(); }
    static Float to_float(Int v) { return _mm512_cvtepi32_ps(v); }
    static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
    static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    static Float negate(Float a) { return _mm512_sub_ps(_mm512_setzero_ps(), a); }
    static Float splat(const float* from) { return _mm512_set1_ps(*from); }
    static Float whole(const int32_t* minus, const int32_t* without) {
        return _mm512_set1_ps(static_cast<float>((without ? *without : 0) - *minus));
    }
    static Float halves(const uint8_t* from) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    static __m128i sixteen(const uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
    static Float bytes(const uint8_t* from) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixteen(from))); }
    static Float signed_bytes(const uint8_t* from) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen(from))); }
    static Float low_nibbles(const uint8_t* from) {
        return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_cvtepu8_epi32(sixteen(from)), _mm512_set1_epi32(15)));
    }
    static Float high_nibbles(const uint8_t* from) {
        return _mm512_cvtepi32_ps(_mm512_srli_epi32(_mm512_cvtepu8_epi32(sixteen(from)), 4));
    }
    static Float exponents(const uint8_t* from) {  // 2 ** (byte - 128), see exponent_to_float
        const __m512i e = _mm512_cvtepu8_epi32(sixteen(from)), one = _mm512_set1_epi32(1);
        const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, one), 23);
        const __m512i small = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
        return _mm512_castsi512_ps(_mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(e, one), small, normal));
    }
    static void store(float* to, Float v, int count, bool add) {
        const __mmask16 mask = static_cast<__mmask16>(count >= lanes ? 0xffff : (1 << count) - 1);
        if (add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), v);
        _mm512_mask_storeu_ps(to, mask, v);
    }
    static void prefetch(const uint8_t* at) {
        _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0);
    }
};

struct Wide {
    using Float = __m512;
    static constexpr int width = 16, most_rows = 6;

    static Float zero() { return _mm512_setzero_ps(); }
    static Float load(const uint8_t* from) { return _mm512_loadu_ps(from); }
    static Float load_half(const uint8_t* from) { return Lanes::halves(from); }
    static Float load_brain(const uint8_t* from) {
        const __m256i sixteen = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen), 16));
    }
    static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    static float total(Float v) { return _mm512_reduce_add_ps(v); }
};

#include "matrix_float.inl"
#include "matrix_prepare.inl"
#include "matrix_tile.inl"

}  // namespace

const Kernels avx512_kernels{"avx512-vnni", prepare_rows, multiply_quantised, multiply_floats};

}  // namespace cutaway
