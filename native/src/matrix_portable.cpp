// Products in plain C++, for every processor: what the others are held against.
#include <type_traits>
#include <utility>

#include "kernels.h"

namespace cutaway {
namespace {

struct Lanes {
    static constexpr int lanes = 16, most_rows = 2, abreast = 1;
    static constexpr bool wide_is_signed = true;
    struct Int {
        uint32_t v[lanes];
    };
    struct Float {
        float v[lanes];
    };

    template <class To, class Each>
    static To every(Each each) {
        To to;
        for (int i = 0; i < lanes; ++i) to.v[i] = each(i);
        return to;
    }
    static Int load(const uint8_t* from) {
        return every<Int>([=](int i) { return load32(from + 4 * i); });
    }
    static Int keep(Int v, int mask) {
        return every<Int>([=](int i) { return v.v[i] & 0x01010101u * static_cast<uint32_t>(mask); });
    }
    template <int by>
    static Int right(Int v) {
        return every<Int>([=](int i) { return v.v[i] >> by; });
    }
    template <int by>
    static Int left(Int v) {
        return every<Int>([=](int i) { return v.v[i] << by; });
    }
    static Int merge(Int v, Int high, int mask) {
        return every<Int>([=](int i) { return v.v[i] | (high.v[i] & 0x01010101u * static_cast<uint32_t>(mask)); });
    }
    static Int flip(Int v) {
        return every<Int>([=](int i) { return v.v[i] ^ 0x80808080u; });
    }
    static const uint8_t* book(const uint8_t* codes) { return codes; }
    static Int look_up(const uint8_t* book, Int v) {
        return every<Int>([=](int i) {
            const uint32_t four = v.v[i];
            return book[four & 255] | uint32_t{book[four >> 8 & 255]} << 8 | uint32_t{book[four >> 16 & 255]} << 16 |
                   uint32_t{book[four >> 24]} << 24;
        });
    }
    template <int shift>
    static Int start(const int32_t* minus) {
        return every<Int>([=](int) { return shift ? static_cast<uint32_t>(*minus) << shift : 0; });
    }
    template <int shift>
    static Int start_rest(const int32_t* minus, const int32_t* half) {
        return every<Int>([=](int) { return shift ? static_cast<uint32_t>(*minus - *half) << shift : 0; });
    }
    template <bool is_signed>
    static Int dot(Int sum, Int v, const int8_t* q) {
        for (int i = 0; i < lanes; ++i) {
            int32_t more = 0;
            for (int b = 0; b < 4; ++b) {
                const uint8_t byte = static_cast<uint8_t>(v.v[i] >> 8 * b);
                more += (is_signed ? static_cast<int8_t>(byte) : int32_t{byte}) * q[b];
            }
            sum.v[i] += static_cast<uint32_t>(more);
        }
        return sum;
    }
    static Float zero() { return Float{}; }
    static Float to_float(Int v) {
        return every<Float>([=](int i) { return static_cast<float>(static_cast<int32_t>(v.v[i])); });
    }
    static Float mul(Float a, Float b) {
        return every<Float>([=](int i) { return a.v[i] * b.v[i]; });
    }
    static Float fma(Float a, Float b, Float c) {
        return every<Float>([=](int i) { return a.v[i] * b.v[i] + c.v[i]; });
    }
    static Float negate(Float a) {
        return every<Float>([=](int i) { return -a.v[i]; });
    }
    static Float splat(const float* from) {
        return every<Float>([=](int) { return *from; });
    }
    static Float whole(const int32_t* minus, const int32_t* without) {
        return every<Float>([=](int) { return static_cast<float>((without ? *without : 0) - *minus); });
    }
    static Float halves(const uint8_t* from) {
        return every<Float>([=](int i) {
            uint16_t half;
            std::memcpy(&half, from + 2 * i, 2);
            return half_to_float(half);
        });
    }
    static Float bytes(const uint8_t* from) {
        return every<Float>([=](int i) { return static_cast<float>(from[i]); });
    }
    static Float signed_bytes(const uint8_t* from) {
        return every<Float>([=](int i) { return static_cast<float>(static_cast<int8_t>(from[i])); });
    }
    static Float low_nibbles(const uint8_t* from) {
        return every<Float>([=](int i) { return static_cast<float>(from[i] & 15); });
    }
    static Float high_nibbles(const uint8_t* from) {
        return every<Float>([=](int i) { return static_cast<float>(from[i] >> 4); });
    }
    static Float exponents(const uint8_t* from) {
        return every<Float>([=](int i) { return exponent_to_float(from[i]); });
    }
    static void store(float* to, const Float& v, int count, bool add) {
        for (int i = 0; i < (count < lanes ? count : lanes); ++i) to[i] = add ? to[i] + v.v[i] : v.v[i];
    }
    static void prefetch(const uint8_t*) {}
};

struct Wide {
    static constexpr int width = 8, most_rows = 4;
    struct Float {
        float v[width];
    };

    static Float zero() { return Float{}; }
    static Float load(const uint8_t* from) {
        Float to;
        std::memcpy(to.v, from, sizeof to.v);
        return to;
    }
    static Float load_half(const uint8_t* from) {
        Float to;
        uint16_t halves[width];
        std::memcpy(halves, from, sizeof halves);
        for (int i = 0; i < width; ++i) to.v[i] = half_to_float(halves[i]);
        return to;
    }
    static Float load_brain(const uint8_t* from) {
        Float to;
        uint16_t upper[width];
        std::memcpy(upper, from, sizeof upper);
        for (int i = 0; i < width; ++i) {
            const uint32_t word = uint32_t{upper[i]} << 16;
            std::memcpy(to.v + i, &word, 4);
        }
        return to;
    }
    static Float fma(const Float& a, const Float& b, const Float& c) {
        Float to;
        for (int i = 0; i < width; ++i) to.v[i] = a.v[i] * b.v[i] + c.v[i];
        return to;
    }
    static float total(const Float& v) {
        return ((v.v[0] + v.v[1]) + (v.v[2] + v.v[3])) + ((v.v[4] + v.v[5]) + (v.v[6] + v.v[7]));
    }
};

#include "matrix_float.inl"
#include "matrix_prepare.inl"
#include "matrix_tile.inl"

}  // namespace

const Kernels portable_kernels{"portable", prepare_rows, multiply_quantised, multiply_floats};

}  // namespace cutaway
