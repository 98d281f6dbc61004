// Products with ARM's NEON and its dot products of bytes.
#include <arm_neon.h>

#include <type_traits>
#include <utility>

#include "kernels.h"

namespace cutaway {
namespace {

struct Lanes {
    using Int = int32x4_t;
    using Float = float32x4_t;
    static constexpr int lanes = 4, most_rows = 4, abreast = 2;
    static constexpr bool wide_is_signed = true;  // both sides of a dot product are signed

    static uint8x16_t u8(Int v) { return vreinterpretq_u8_s32(v); }
    static Int s32(uint8x16_t v) { return vreinterpretq_s32_u8(v); }
    static Int load(const uint8_t* from) { return s32(vld1q_u8(from)); }
    static Int keep(Int v, int mask) { return s32(vandq_u8(u8(v), vdupq_n_u8(static_cast<uint8_t>(mask)))); }
    template <int by>
    static Int right(Int v) { return s32(vshrq_n_u8(u8(v), by)); }
    template <int by>
    static Int left(Int v) { return s32(vshlq_n_u8(u8(v), by)); }
    static Int merge(Int v, Int high, int mask) { return vorrq_s32(v, keep(high, mask)); }
    static Int flip(Int v) { return s32(veorq_u8(u8(v), vdupq_n_u8(0x80))); }
    static uint8x16_t book(const uint8_t* codes) { return vld1q_u8(codes); }
    static Int look_up(uint8x16_t book, Int v) { return s32(vqtbl1q_u8(book, u8(v))); }
    template <int shift>
    static Int start(const int32_t* minus) {
        if constexpr (shift == 0) return vdupq_n_s32(0);
        return vdupq_n_s32(static_cast<int32_t>(static_cast<uint32_t>(*minus) << shift));
    }
    template <int shift>
    static Int start_rest(const int32_t* minus, const int32_t* half) {
        if constexpr (shift == 0) return vdupq_n_s32(0);
        return vdupq_n_s32(static_cast<int32_t>(static_cast<uint32_t>(*minus - *half) << shift));
    }
    template <bool>
    static Int dot(Int sum, Int v, const int8_t* q) {
        int32_t four;
        std::memcpy(&four, q, 4);
        return vdotq_s32(sum, vreinterpretq_s8_s32(v), vreinterpretq_s8_s32(vdupq_n_s32(four)));
    }
    static Float zero() { return vdupq_n_f32(0.0f); }
    static Float to_float(Int v) { return vcvtq_f32_s32(v); }
    static Float mul(Float a, Float b) { return vmulq_f32(a, b); }
    static Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
    static Float negate(Float a) { return vnegq_f32(a); }
    static Float splat(const float* from) { return vld1q_dup_f32(from); }
    static Float whole(const int32_t* minus, const int32_t* without) {
        return vdupq_n_f32(static_cast<float>((without ? *without : 0) - *minus));
    }
    static Float halves(const uint8_t* from) {
        return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(from)));
    }
    static uint32x4_t four(const uint8_t* from) {  // four bytes
        uint32_t word;
        std::memcpy(&word, from, 4);
        return vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)))));
    }
    static Float bytes(const uint8_t* from) { return vcvtq_f32_u32(four(from)); }
    static Float signed_bytes(const uint8_t* from) {
        const int32x4_t wide = vreinterpretq_s32_u32(four(from));
        return vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(wide, 24), 24));
    }
    static Float low_nibbles(const uint8_t* from) { return vcvtq_f32_u32(vandq_u32(four(from), vdupq_n_u32(15))); }
    static Float high_nibbles(const uint8_t* from) { return vcvtq_f32_u32(vshrq_n_u32(four(from), 4)); }
    static Float exponents(const uint8_t* from) {
        float to[lanes];
        for (int i = 0; i < lanes; ++i) to[i] = exponent_to_float(from[i]);
        return vld1q_f32(to);
    }
    static void store(float* to, Float v, int count, bool add) {
        float all[lanes];
        vst1q_f32(all, v);
        for (int i = 0; i < (count < lanes ? count : lanes); ++i) to[i] = add ? to[i] + all[i] : all[i];
    }
    static void prefetch(const uint8_t* at) {
#if defined(__GNUC__)
        __builtin_prefetch(at);
#endif
        (void)at;
    }
};

struct Wide {
    using Float = float32x4_t;
    static constexpr int width = 4, most_rows = 4;

    static Float zero() { return vdupq_n_f32(0.0f); }
    static Float load(const uint8_t* from) { return vreinterpretq_f32_u8(vld1q_u8(from)); }
    static Float load_half(const uint8_t* from) { return Lanes::halves(from); }
    static Float load_brain(const uint8_t* from) {
        return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(from)), 16));
    }
    static Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
    static float total(Float v) { return vaddvq_f32(v); }
};

#include "matrix_float.inl"
#include "matrix_prepare.inl"
#include "matrix_tile.inl"

}  // namespace

const Kernels neon_kernels{"neon", prepare_rows, multiply_quantised, multiply_floats};

}  // namespace cutaway
