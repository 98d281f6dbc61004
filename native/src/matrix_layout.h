// How a quantised matrix and the rows it is multiplied with lie in memory. The same for every instruction set.
//
// Sixteen rows of a matrix make a tile, 32 columns of it a block, stored as up to eight vectors of 64 bytes: vector i holds
// columns 4i … 4i+3 of row 0, then of row 1, and so on, so that one 32-bit lane belongs to one row and a dot product of
// four bytes with four bytes moves every lane four columns on. Numbers of fewer bits share bytes ("planes", see Bits).
//
// A tile of a plain kind is a sequence of
//     scales of 16 rows [, minima of 16 rows], planes of a block
// and of a kind with super-blocks (K) a sequence of
//     scales of 16 rows [, minima of 16 rows], for each group: 16 small scales [, 16 small minima], planes of 8 blocks
// The bytes are those of the file but for the small scales, which take a byte each instead of 6 bits.
//
// Functions here are static: each file must keep those that it compiled for its own instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "matrix.h"
#include "memory.h"

namespace cutaway {

constexpr int tile_rows = 16, block_columns = 32, super_blocks = 8, vector_bytes = 64;

// How scales are stored. half: float16, exponent: a power of two, in K kinds times a small scale for each group.
enum class Scales { half, half_min, exponent, super, super_min, super_min_nibbles };

struct Form {
    int kind;        // the type's number in GGUF
    int columns;     // of its block in a file
    int bytes;       // of its block in a file
    int bits;        // of a stored number
    int group;       // columns that share a scale
    Scales scales;
    int shift;       // a stored number is 1 << shift above what it means; 0: it is not
    int codebook;    // 0 none, 1 IQ4_NL's, 2 MXFP4's
};

inline constexpr Form forms[] = {
    {2, 32, 18, 4, 32, Scales::half, 3, 0},            // Q4_0
    {3, 32, 20, 4, 32, Scales::half_min, 0, 0},        // Q4_1
    {6, 32, 22, 5, 32, Scales::half, 4, 0},            // Q5_0
    {7, 32, 24, 5, 32, Scales::half_min, 0, 0},        // Q5_1
    {8, 32, 34, 8, 32, Scales::half, 7, 0},            // Q8_0
    {10, 256, 84, 2, 16, Scales::super_min_nibbles, 0, 0},  // Q2_K
    {11, 256, 110, 3, 16, Scales::super, 2, 0},        // Q3_K
    {12, 256, 144, 4, 32, Scales::super_min, 0, 0},    // Q4_K
    {13, 256, 176, 5, 32, Scales::super_min, 0, 0},    // Q5_K
    {14, 256, 210, 6, 16, Scales::super, 5, 0},        // Q6_K
    {20, 32, 18, 4, 32, Scales::half, 7, 1},           // IQ4_NL
    {39, 32, 17, 4, 32, Scales::exponent, 4, 2},       // MXFP4
};
constexpr int form_count = sizeof forms / sizeof *forms;

// What the four bits of a code stand for, raised by 1 << shift.
inline constexpr uint8_t codebooks[2][16] = {
    {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241},
    {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4},
};

static constexpr int planes_bytes(const Form& f) { return tile_rows * block_columns * f.bits / 8; }
static constexpr bool is_super(const Form& f) { return f.columns == 256; }
static constexpr bool has_min(const Form& f) { return f.scales == Scales::half_min || f.scales >= Scales::super_min; }
static constexpr int unit_blocks(const Form& f) { return is_super(f) ? super_blocks : 1; }
// of the float16 scales (and minima), or exponents, at the head of a unit
static constexpr int head_bytes(const Form& f) { return f.scales == Scales::exponent ? 16 : has_min(f) ? 64 : 32; }
static constexpr int small_bytes(const Form& f) {  // of one group's small scales
    return !is_super(f) ? 0 : f.scales == Scales::super_min ? 32 : 16;
}
static constexpr int unit_bytes(const Form& f) {
    return head_bytes(f) + f.columns / f.group * small_bytes(f) + unit_blocks(f) * planes_bytes(f);
}

struct Matrix {
    int32_t kind;
    const Form* form;     // null: floats, in the caller's memory
    int64_t n, c;
    const uint8_t* data;  // the tiles, or the caller's rows
    int64_t tile_bytes;   // of a tile, or of a row of floats
    size_t size;          // of all tiles
    Piece memory;         // they lie in
};

// 32 numbers of x, rounded: x ~ scale * q.
struct Rounded {
    float scale;
    float sum;           // of the numbers, scale times the sum of q
    int32_t minus;       // minus the sum of q
    int32_t minus_half;  // of the first sixteen
    int8_t q[block_columns];
};

// Rows of x lie in panels of up to sixteen: a block of every row, then the next block of every row. With 16 bits each
// panel is followed by another, what was left to round.
constexpr int panel_rows = 16;

static inline uint32_t load32(const uint8_t* from) {
    uint32_t word;
    std::memcpy(&word, from, 4);
    return word;
}

static inline void store32(uint8_t* to, uint32_t word) { std::memcpy(to, &word, 4); }

// Where a row's numbers of vector i stand in the planes of a block, as four bytes.
static inline uint32_t read_planes(int bits, const uint8_t* planes, int row, int i) {
    const auto plane = [=](int which) { return load32(planes + which * vector_bytes + 4 * row); };
    switch (bits) {
        case 8: return plane(i);
        case 2: return plane(i / 4) >> 2 * (i % 4) & 0x03030303u;
        case 3: return (plane(i / 4) >> 2 * (i % 4) & 0x03030303u) | (plane(2) >> i & 0x01010101u) << 2;
        default: break;
    }
    const uint32_t low = plane(i % 4) >> (i < 4 ? 0 : 4) & 0x0f0f0f0fu;
    if (bits == 5) return low | (plane(4) >> i & 0x01010101u) << 4;
    if (bits == 6) return low | (plane(4 + i / 4) >> 2 * (i % 4) & 0x03030303u) << 4;
    return low;
}

static inline float half_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, rest = half & 0x7fff;
    float value;
    if (rest >= 0x7c00) {  // infinite or not a number
        const uint32_t word = sign | 0x7f800000u | (rest & 0x3ffu) << 13;
        std::memcpy(&value, &word, 4);
        return value;
    }
    if (rest < 0x400) {  // subnormal
        value = static_cast<float>(rest) * 5.9604644775390625e-8f;
        return sign ? -value : value;
    }
    const uint32_t word = sign | ((rest << 13) + 0x38000000u);
    std::memcpy(&value, &word, 4);
    return value;
}

static inline float exponent_to_float(uint8_t exponent) {  // 2 ** (exponent - 128): the codebook holds doubles
    const uint32_t word = exponent < 2 ? 0x00200000u << exponent : static_cast<uint32_t>(exponent - 1) << 23;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
}

}  // namespace cutaway
