// Sixteen float32 numbers as one value, held in the registers that an instruction set has, and the functions of them
// that a network needs. Included only by files that are compiled for one instruction set each: all of it stands in an
// unnamed namespace, so that no file uses what was compiled for another's processor.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__GNUC__) && !defined(__clang__)  // its own intrinsics begin with registers left as they were, on purpose
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#if defined(_MSC_VER)
#define CTW_INLINE inline __forceinline
#else
#define CTW_INLINE inline __attribute__((always_inline))
#endif

namespace cutaway {
namespace {

CTW_INLINE void prefetch(const void* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#elif defined(__AVX2__)
    _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
#else
    (void)p;
#endif
}

// What differs: one register, and ten functions of it.
#if defined(__AVX512F__)
typedef __m512 Register;
constexpr int kRegister = 16;
CTW_INLINE Register get(const float* p) { return _mm512_loadu_ps(p); }
CTW_INLINE void put(float* p, Register v) { _mm512_storeu_ps(p, v); }
CTW_INLINE Register same(float x) { return _mm512_set1_ps(x); }
CTW_INLINE Register plus(Register a, Register b) { return _mm512_add_ps(a, b); }
CTW_INLINE Register minus(Register a, Register b) { return _mm512_sub_ps(a, b); }
CTW_INLINE Register times(Register a, Register b) { return _mm512_mul_ps(a, b); }
CTW_INLINE Register over(Register a, Register b) { return _mm512_div_ps(a, b); }
CTW_INLINE Register fused(Register a, Register b, Register c) { return _mm512_fmadd_ps(a, b, c); }
CTW_INLINE Register if_less(Register a, Register b, Register yes, Register no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
CTW_INLINE Register power(Register shifted, Register magic) {  // 2^(shifted - magic)
    const __m512i n = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(magic));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
}
#elif defined(__AVX2__)
typedef __m256 Register;
constexpr int kRegister = 8;
CTW_INLINE Register get(const float* p) { return _mm256_loadu_ps(p); }
CTW_INLINE void put(float* p, Register v) { _mm256_storeu_ps(p, v); }
CTW_INLINE Register same(float x) { return _mm256_set1_ps(x); }
CTW_INLINE Register plus(Register a, Register b) { return _mm256_add_ps(a, b); }
CTW_INLINE Register minus(Register a, Register b) { return _mm256_sub_ps(a, b); }
CTW_INLINE Register times(Register a, Register b) { return _mm256_mul_ps(a, b); }
CTW_INLINE Register over(Register a, Register b) { return _mm256_div_ps(a, b); }
CTW_INLINE Register fused(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
CTW_INLINE Register if_less(Register a, Register b, Register yes, Register no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
CTW_INLINE Register power(Register shifted, Register magic) {
    const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(magic));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
#elif defined(__aarch64__)
typedef float32x4_t Register;
constexpr int kRegister = 4;
CTW_INLINE Register get(const float* p) { return vld1q_f32(p); }
CTW_INLINE void put(float* p, Register v) { vst1q_f32(p, v); }
CTW_INLINE Register same(float x) { return vdupq_n_f32(x); }
CTW_INLINE Register plus(Register a, Register b) { return vaddq_f32(a, b); }
CTW_INLINE Register minus(Register a, Register b) { return vsubq_f32(a, b); }
CTW_INLINE Register times(Register a, Register b) { return vmulq_f32(a, b); }
CTW_INLINE Register over(Register a, Register b) { return vdivq_f32(a, b); }
CTW_INLINE Register fused(Register a, Register b, Register c) { return vfmaq_f32(c, a, b); }
CTW_INLINE Register if_less(Register a, Register b, Register yes, Register no) {
    return vbslq_f32(vcltq_f32(a, b), yes, no);
}
CTW_INLINE Register power(Register shifted, Register magic) {
    const int32x4_t n = vsubq_s32(vreinterpretq_s32_f32(shifted), vreinterpretq_s32_f32(magic));
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}
#else
typedef float Register;
constexpr int kRegister = 1;
CTW_INLINE Register get(const float* p) { return *p; }
CTW_INLINE void put(float* p, Register v) { *p = v; }
CTW_INLINE Register same(float x) { return x; }
CTW_INLINE Register plus(Register a, Register b) { return a + b; }
CTW_INLINE Register minus(Register a, Register b) { return a - b; }
CTW_INLINE Register times(Register a, Register b) { return a * b; }
CTW_INLINE Register over(Register a, Register b) { return a / b; }
CTW_INLINE Register fused(Register a, Register b, Register c) { return a * b + c; }
CTW_INLINE Register if_less(Register a, Register b, Register yes, Register no) { return a < b ? yes : no; }
CTW_INLINE Register power(Register shifted, Register magic) {
    uint32_t bits, base;
    std::memcpy(&bits, &shifted, 4);
    std::memcpy(&base, &magic, 4);
    bits = (bits - base + 127u) << 23;
    std::memcpy(&shifted, &bits, 4);
    return shifted;
}
#endif

constexpr int kLanes = 16;
constexpr int kParts = kLanes / kRegister;

struct Lanes {
    Register part[kParts];
};

#define CTW_EACH(expression)                                      \
    Lanes made;                                                   \
    for (int i = 0; i < kParts; ++i) made.part[i] = (expression); \
    return made

CTW_INLINE Lanes load(const float* p) { CTW_EACH(get(p + i * kRegister)); }
CTW_INLINE void store(float* p, Lanes v) {
    for (int i = 0; i < kParts; ++i) put(p + i * kRegister, v.part[i]);
}
CTW_INLINE Lanes all(float x) { CTW_EACH(same(x)); }
CTW_INLINE Lanes operator+(Lanes a, Lanes b) { CTW_EACH(plus(a.part[i], b.part[i])); }
CTW_INLINE Lanes operator-(Lanes a, Lanes b) { CTW_EACH(minus(a.part[i], b.part[i])); }
CTW_INLINE Lanes operator*(Lanes a, Lanes b) { CTW_EACH(times(a.part[i], b.part[i])); }
CTW_INLINE Lanes operator/(Lanes a, Lanes b) { CTW_EACH(over(a.part[i], b.part[i])); }
CTW_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) { CTW_EACH(fused(a.part[i], b.part[i], c.part[i])); }  // a b + c
CTW_INLINE Lanes if_less(Lanes a, Lanes b, Lanes yes, Lanes no) {
    CTW_EACH(if_less(a.part[i], b.part[i], yes.part[i], no.part[i]));
}
CTW_INLINE Lanes power(Lanes shifted, Lanes magic) { CTW_EACH(power(shifted.part[i], magic.part[i])); }
#undef CTW_EACH

CTW_INLINE Lanes larger(Lanes a, Lanes b) { return if_less(a, b, b, a); }
CTW_INLINE Lanes absolute(Lanes x) { return if_less(x, all(0.0f), all(0.0f) - x, x); }

// The first n < 16 numbers; the others are `rest`.
CTW_INLINE Lanes load_some(const float* p, int n, float rest = 0.0f) {
    float some[kLanes];
    for (int i = 0; i < kLanes; ++i) some[i] = i < n ? p[i] : rest;
    return load(some);
}
CTW_INLINE void store_some(float* p, Lanes v, int n) {
    float some[kLanes];
    store(some, v);
    for (int i = 0; i < n; ++i) p[i] = some[i];
}

// In one order, whatever the instruction set.
CTW_INLINE float sum(Lanes v) {
    float x[kLanes];
    store(x, v);
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) x[i] += x[i + half];
    return x[0];
}
CTW_INLINE float largest(Lanes v) {
    float x[kLanes];
    store(x, v);
    for (int half = kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) x[i] = x[i] < x[i + half] ? x[i + half] : x[i];
    return x[0];
}

// e^x with a relative error below 3e-7: x = n ln 2 + r with |r| <= ln 2 / 2, and Taylor's polynomial of degree 7 for
// e^r. Zero below -87; held at e^88 above; NaN stays NaN.
CTW_INLINE Lanes exponential(Lanes x) {
    const Lanes low = all(-87.0f), high = all(88.0f), magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds
    const Lanes held = if_less(x, low, low, if_less(high, x, high, x));
    const Lanes shifted = fma(held, all(1.44269504088896341f), magic);
    const Lanes n = shifted - magic;
    Lanes r = fma(n, all(-0.693359375f), held);  // ln 2 in two parts, the first of few bits
    r = fma(n, all(2.12194440e-4f), r);
    Lanes y = all(1.0f / 5040);
    y = fma(y, r, all(1.0f / 720));
    y = fma(y, r, all(1.0f / 120));
    y = fma(y, r, all(1.0f / 24));
    y = fma(y, r, all(1.0f / 6));
    y = fma(y, r, all(0.5f));
    y = fma(y, r, all(1.0f));
    y = fma(y, r, all(1.0f));
    return if_less(x, low, all(0.0f), y * power(shifted, magic));
}

CTW_INLINE Lanes hyperbolic_tangent(Lanes x) {
    const Lanes square = x * x;
    Lanes near = all(62.0f / 2835);
    near = fma(near, square, all(-17.0f / 315));
    near = fma(near, square, all(2.0f / 15));
    near = fma(near, square, all(-1.0f / 3));
    near = fma(near * square, x, x);
    const Lanes far = all(1.0f) - all(2.0f) / (exponential(x + x) + all(1.0f));
    return if_less(absolute(x), all(0.25f), near, far);
}

// erf by formula 7.1.26 of Abramowitz & Stegun; absolute error below 3e-7.
CTW_INLINE Lanes error_function(Lanes x) {
    const Lanes size = absolute(x), one = all(1.0f);
    const Lanes t = one / fma(all(0.3275911f), size, one);
    Lanes y = all(1.061405429f);
    y = fma(y, t, all(-1.453152027f));
    y = fma(y, t, all(1.421413741f));
    y = fma(y, t, all(-0.284496736f));
    y = fma(y, t, all(0.254829592f));
    y = one - y * t * exponential(all(0.0f) - size * size);
    return if_less(x, all(0.0f), all(0.0f) - y, y);
}

// float16, rounded to the nearest, halves to even.
inline uint16_t to_half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (bits >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to infinity
    if (bits < 0x38800000u) {                                               // below the smallest normal one
        float size;
        std::memcpy(&size, &bits, 4);
        size += 0.5f;  // leaves whole multiples of 2^-24 in the last bits
        std::memcpy(&bits, &size, 4);
        return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
    }
    bits += 0xc8000fffu + ((bits >> 13) & 1);
    return static_cast<uint16_t>(sign | (bits >> 13));
}
inline float from_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, rest = half & 0x7fffu;
    uint32_t bits;
    if (rest >= 0x7c00u) {
        bits = sign | 0x7f800000u | ((rest & 0x3ffu) << 13);
    } else if (rest >= 0x400u) {
        bits = sign | ((rest << 13) + 0x38000000u);
    } else {
        const float size = static_cast<float>(rest) * 5.9604644775390625e-8f;  // 2^-24
        std::memcpy(&bits, &size, 4);
        bits |= sign;
    }
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

CTW_INLINE Lanes load(const uint16_t* p) {
    Lanes made;
#if defined(__AVX512F__)
    made.part[0] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
    for (int i = 0; i < kParts; ++i)
        made.part[i] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * kRegister)));
#elif defined(__aarch64__)
    for (int i = 0; i < kParts; ++i) made.part[i] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + i * kRegister)));
#else
    for (int i = 0; i < kParts; ++i) made.part[i] = from_half(p[i]);
#endif
    return made;
}
CTW_INLINE void store(uint16_t* p, Lanes v) {
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v.part[0], _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
    for (int i = 0; i < kParts; ++i)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p + i * kRegister),
                         _mm256_cvtps_ph(v.part[i], _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
    for (int i = 0; i < kParts; ++i) vst1_u16(p + i * kRegister, vreinterpret_u16_f16(vcvt_f16_f32(v.part[i])));
#else
    for (int i = 0; i < kParts; ++i) p[i] = to_half(v.part[i]);
#endif
}
CTW_INLINE Lanes load(const int8_t* p) {
    Lanes made;
#if defined(__AVX512F__)
    made.part[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
    for (int i = 0; i < kParts; ++i)
        made.part[i] = _mm256_cvtepi32_ps(
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + i * kRegister))));
#else
    float x[kLanes];
    for (int i = 0; i < kLanes; ++i) x[i] = static_cast<float>(p[i]);
    made = load(static_cast<const float*>(x));
#endif
    return made;
}

}  // namespace
}  // namespace cutaway
