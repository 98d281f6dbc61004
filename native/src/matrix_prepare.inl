// Rounding of rows of x to 8 bits, or to 8 and 8 more, block by block. Included into the unnamed namespace of each
// instruction set's file, whose flags the loops are compiled with; the numbers are the same for all.

// q = x / scale to the nearest (halves to even), scale = the largest |x| / 127. A block with a NaN or an infinity gets the
// scale NaN, so that whatever is computed from it is NaN; what lies below the smallest normal numbers counts as zero.
inline void round_block(const float* x, Rounded& to, float* rest) {
    int32_t largest_bits = 0;
    for (int i = 0; i < block_columns; ++i) {
        int32_t bits;
        std::memcpy(&bits, x + i, 4);
        bits &= 0x7fffffff;  // ordered as the numbers are, infinity and NaN above all
        largest_bits = bits > largest_bits ? bits : largest_bits;
    }
    float largest, scale = 0.0f, inverse = 0.0f;
    std::memcpy(&largest, &largest_bits, 4);
    const bool finite = largest_bits < 0x7f800000;
    if (finite && largest > 1e-35f) {
        scale = largest / 127.0f;
        inverse = 127.0f / largest;
    }
    constexpr float shifter = 12582912.0f;  // 1.5 * 2 ** 23: adding it rounds to a whole number
    int32_t q[block_columns], half = 0, all = 0;
    for (int i = 0; i < block_columns; ++i) {
        float shifted = (finite ? x[i] : 0.0f) * inverse + shifter;
        std::memcpy(q + i, &shifted, 4);
        q[i] -= 0x4b400000;
        if (rest) rest[i] = x[i] - static_cast<float>(q[i]) * scale;
    }
    for (int i = 0; i < block_columns / 2; ++i) half += q[i];
    for (int i = block_columns / 2; i < block_columns; ++i) all += q[i];
    all += half;
    for (int i = 0; i < block_columns; ++i) to.q[i] = static_cast<int8_t>(q[i]);
    if (!finite) scale = largest - largest;  // NaN, of an infinity too
    to.scale = scale;
    to.sum = scale * static_cast<float>(all);
    to.minus = -all;
    to.minus_half = -half;
}

void prepare_rows(const float* x, int64_t stride, int64_t rows, int64_t blocks, Rounding rounding, Rounded* prepared,
                  int64_t first, int64_t last) {
    const int64_t copies = rounding == Rounding::sixteen ? 2 : 1;
    for (int64_t at = first; at < last; ++at) {
        const int64_t row = at / blocks, block = at % blocks, start = row / panel_rows * panel_rows;
        const int64_t height = rows - start < panel_rows ? rows - start : panel_rows;
        Rounded* to = prepared + start * blocks * copies + block * height + (row - start);
        float rest[block_columns];
        const float* from = x + row * stride + block * block_columns;
        round_block(from, *to, copies == 2 ? rest : nullptr);
        if (copies == 2) round_block(rest, to[height * blocks], nullptr);
    }
}
