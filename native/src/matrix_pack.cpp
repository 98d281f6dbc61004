// From a file's blocks to tiles, and one row back.
#include <algorithm>
#include <utility>

#include "matrix_pack.h"

namespace cutaway {
namespace {

// A row's super-block or block as it is read: numbers as four bytes each, scales as the tile holds them.
struct Read {
    uint32_t v[super_blocks][8];
    uint8_t scale[16], least[16];  // small ones of K kinds
};

constexpr uint32_t ones = 0x01010101u;

uint32_t spread(uint32_t four) { return four * 0x00204081u & ones; }  // bits 0 … 3, a byte each

void nibbles(const uint8_t* from, uint32_t v[8]) {  // 16 bytes: the low halves, then the high ones
    for (int j = 0; j < 4; ++j) {
        const uint32_t word = load32(from + 4 * j);
        v[j] = word & 15 * ones;
        v[j + 4] = word >> 4 & 15 * ones;
    }
}

void fifth_bits(const uint8_t* from, uint32_t v[8]) {
    const uint32_t bits = load32(from);
    for (int i = 0; i < 8; ++i) v[i] |= spread(bits >> 4 * i & 15) << 4;
}

void six_bit_scales(const uint8_t* from, Read& read) {  // 12 bytes: 8 scales and 8 minima
    for (int j = 0; j < 4; ++j) {
        const uint8_t first = from[j], second = from[4 + j], both = from[8 + j];
        read.scale[j] = first & 63;
        read.least[j] = second & 63;
        read.scale[4 + j] = static_cast<uint8_t>((both & 15) | (first >> 2 & 48));
        read.least[4 + j] = static_cast<uint8_t>(both >> 4 | (second >> 2 & 48));
    }
}

// Layouts as in cutaway/models/formats/ggml.py, four numbers at a time.
template <int kind>
inline void read_block(const uint8_t* b, Read& read) {
    uint32_t(*v)[8] = read.v;
    switch (kind) {
        case 2: case 20: nibbles(b + 2, v[0]); break;
        case 3: nibbles(b + 4, v[0]); break;
        case 39: nibbles(b + 1, v[0]); break;
        case 6: nibbles(b + 6, v[0]); fifth_bits(b + 2, v[0]); break;
        case 7: nibbles(b + 8, v[0]); fifth_bits(b + 4, v[0]); break;
        case 8:
            for (int i = 0; i < 8; ++i) v[0][i] = load32(b + 2 + 4 * i) ^ 128 * ones;
            break;
        case 10:
            std::memcpy(read.scale, b, 16);
            for (int block = 0; block < 8; ++block)
                for (int i = 0; i < 8; ++i)
                    v[block][i] = load32(b + 16 + block / 4 * 32 + 4 * i) >> 2 * (block % 4) & 3 * ones;
            break;
        case 11:
            for (int group = 0; group < 16; ++group) {
                const int low = b[96 + group % 8] >> (group < 8 ? 0 : 4) & 15;
                const int high = b[104 + group % 4] >> 2 * (group / 4) & 3;
                read.scale[group] = static_cast<uint8_t>((low | high << 4) - 32);
            }
            for (int block = 0; block < 8; ++block)
                for (int i = 0; i < 8; ++i) {
                    const uint32_t low = load32(b + 32 + block / 4 * 32 + 4 * i) >> 2 * (block % 4) & 3 * ones;
                    v[block][i] = low | (load32(b + 4 * i) >> block & ones) << 2;
                }
            break;
        case 12: case 13:
            six_bit_scales(b + 4, read);
            for (int block = 0; block < 8; ++block)
                for (int i = 0; i < 8; ++i) {
                    const uint8_t* low = b + (kind == 12 ? 16 : 48) + block / 2 * 32 + 4 * i;
                    v[block][i] = load32(low) >> 4 * (block % 2) & 15 * ones;
                    if (kind == 13) v[block][i] |= (load32(b + 16 + 4 * i) >> block & ones) << 4;
                }
            break;
        case 14:
            std::memcpy(read.scale, b + 192, 16);
            for (int block = 0; block < 8; ++block)
                for (int i = 0; i < 8; ++i) {
                    const uint8_t* low = b + block / 4 * 64 + block % 2 * 32 + 4 * i;
                    const uint8_t* high = b + 128 + block / 4 * 32 + 4 * i;
                    v[block][i] = (load32(low) >> 4 * (block / 2 % 2) & 15 * ones) |
                                  (load32(high) >> 2 * (block % 4) & 3 * ones) << 4;
                }
            break;
        default: break;
    }
}

void copy_half(uint8_t* to, const uint8_t* from) { std::memcpy(to, from, 2); }

// Where the float16 scale and minimum of a block in a file are.
constexpr int scale_at(int kind) { return kind == 10 ? 80 : kind == 11 ? 108 : kind == 14 ? 208 : 0; }
constexpr int least_at(int kind) { return kind == 10 ? 82 : 2; }

// The other way round than read_planes: v[i] are the numbers of vector i; the planes' bytes of that row are written.
template <int bits>
inline void write_planes(const uint32_t v[8], uint8_t* planes, int row) {
    const auto put = [=](int which, uint32_t word) { store32(planes + which * vector_bytes + 4 * row, word); };
    const auto pairs = [v](int j, int down) {  // two bits of each of four vectors
        uint32_t word = 0;
        for (int k = 0; k < 4; ++k) word |= (v[4 * j + k] >> down & 0x03030303u) << 2 * k;
        return word;
    };
    const auto single = [v](int down) {
        uint32_t word = 0;
        for (int i = 0; i < 8; ++i) word |= (v[i] >> down & 0x01010101u) << i;
        return word;
    };
    if (bits == 8)
        for (int i = 0; i < 8; ++i) put(i, v[i]);
    if (bits >= 4 && bits <= 6)
        for (int j = 0; j < 4; ++j) put(j, (v[j] & 0x0f0f0f0fu) | (v[j + 4] & 0x0f0f0f0fu) << 4);
    if (bits == 5) put(4, single(4));
    if (bits == 6)
        for (int j = 0; j < 2; ++j) put(4 + j, pairs(j, 4));
    if (bits == 2 || bits == 3)
        for (int j = 0; j < 2; ++j) put(j, pairs(j, 0));
    if (bits == 3) put(2, single(2));
}

// One row's block of a file into its unit of a tile.
template <int which>
inline void write_unit(const uint8_t* block, uint8_t* unit, int row) {
    constexpr Form f = forms[which];
    if constexpr (f.scales == Scales::exponent)
        unit[row] = block[0];
    else
        copy_half(unit + 2 * row, block + scale_at(f.kind));
    if constexpr (has_min(f)) copy_half(unit + 32 + 2 * row, block + least_at(f.kind));
    uint8_t* at = unit + head_bytes(f);
    if constexpr (f.bits == 4 && !is_super(f)) {  // the halves of bytes are paired in the file as they are here
        for (int j = 0; j < 4; ++j)
            std::memcpy(at + j * vector_bytes + 4 * row, block + f.bytes - 16 + 4 * j, 4);
        return;
    }
    Read read;
    read_block<f.kind>(block, read);
    if constexpr (is_super(f))
        for (int group = 0; group < f.columns / f.group; ++group, at += small_bytes(f)) {
            at[row] = read.scale[group];
            if (f.scales == Scales::super_min) at[16 + row] = read.least[group];
        }
    for (int block_of = 0; block_of < unit_blocks(f); ++block_of, at += planes_bytes(f))
        write_planes<f.bits>(read.v[block_of], at, row);
}

template <int which>
void pack_form(const uint8_t* rows, int64_t n, int64_t c, uint8_t* data, int64_t first, int64_t last) {
    constexpr Form f = forms[which];
    constexpr int unit = unit_bytes(f);
    const int64_t units = c / f.columns, row_bytes = units * f.bytes;
    for (int64_t tile = first; tile < last; ++tile) {
        const int64_t count = std::min<int64_t>(tile_rows, n - tile * tile_rows);
        uint8_t* to = data + tile * units * unit;
        if (count < tile_rows) std::memset(to, 0, static_cast<size_t>(units * unit));
        const uint8_t* from = rows + tile * tile_rows * row_bytes;
        for (int64_t u = 0; u < units; ++u)
            for (int row = 0; row < count; ++row)
                write_unit<which>(from + row * row_bytes + u * f.bytes, to + u * unit, row);
    }
}

using Pack = void (*)(const uint8_t*, int64_t, int64_t, uint8_t*, int64_t, int64_t);

template <int... which>
Pack pack_of(int64_t index, std::integer_sequence<int, which...>) {
    static constexpr Pack all[] = {pack_form<which>...};
    return all[index];
}

}  // namespace

void pack_tiles(const Form& f, const uint8_t* rows, int64_t n, int64_t c, uint8_t* data, int64_t first, int64_t last) {
    pack_of(&f - forms, std::make_integer_sequence<int, form_count>{})(rows, n, c, data, first, last);
}

void unpack_row(const Form& f, const uint8_t* tile, int row, int64_t c, float* out) {
    for (int64_t u = 0; u < c / f.columns; ++u, tile += unit_bytes(f)) {
        const auto half = [&](int at) {
            uint16_t bits;
            std::memcpy(&bits, tile + at + 2 * row, 2);
            return half_to_float(bits);
        };
        const float d = f.scales == Scales::exponent ? exponent_to_float(tile[row]) : half(0);
        const float least = has_min(f) ? half(32) : 0.0f;
        const uint8_t* small = tile + head_bytes(f);
        const uint8_t* planes = small + f.columns / f.group * small_bytes(f);
        for (int block = 0; block < unit_blocks(f); ++block, planes += planes_bytes(f))
            for (int i = 0; i < 8; ++i) {
                const uint32_t four = read_planes(f.bits, planes, row, i);
                float scale = d, minimum = least;
                if (is_super(f)) {
                    const uint8_t* own = small + (block * 32 + i * 4) / f.group * small_bytes(f);
                    if (f.scales == Scales::super) scale = d * static_cast<float>(static_cast<int8_t>(own[row]));
                    if (f.scales == Scales::super_min) {
                        scale = d * own[row];
                        minimum = -(least * own[16 + row]);
                    }
                    if (f.scales == Scales::super_min_nibbles) {
                        scale = d * static_cast<float>(own[row] & 15);
                        minimum = -(least * static_cast<float>(own[row] >> 4));
                    }
                }
                for (int b = 0; b < 4; ++b) {
                    int q = static_cast<int>(four >> 8 * b & 255);
                    if (f.codebook) q = codebooks[f.codebook - 1][q];
                    if (f.shift) q -= 1 << f.shift;
                    const float value = scale * static_cast<float>(q);
                    *out++ = has_min(f) ? value + minimum : value;
                }
            }
    }
}

}  // namespace cutaway
