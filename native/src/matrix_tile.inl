// Products with quantised matrices, written once for every instruction set. Included into the unnamed namespace of each
// one's file after `Lanes`, which says what a vector is there: `lanes` rows of a tile, 4 bytes (Int) or a float32 (Float)
// for each. A tile is `slices` vectors.
//
// For each block: numbers are unpacked into eight vectors, which stay in registers while each row of x is multiplied with
// them: eight dot products of four bytes, whole numbers, exact; then in float32
//     sum += (float(dot) * matrix's scale) * x's scale  [ + matrix's minimum * sum of x ]
// in the order of the columns, whatever else is computed beside it. `Lanes::most_rows` rows of x share what was unpacked, and
// the dot products of `Lanes::abreast` of them take turns, as each waits for the one before.

constexpr int ahead = 2048;  // bytes that are asked for before they are needed
constexpr int slices = tile_rows / Lanes::lanes;
using Int = Lanes::Int;
using Float = Lanes::Float;

template <int bits, int codebook, int shift>
inline void unpack(const uint8_t* planes, int slice, Int v[8]) {
    const auto plane = [=](int which) { return Lanes::load(planes + which * vector_bytes + slice * Lanes::lanes * 4); };
    if constexpr (bits == 8) {
        for (int i = 0; i < 8; ++i) v[i] = plane(i);
    } else if constexpr (bits >= 4) {
        for (int j = 0; j < 4; ++j) {
            const Int both = plane(j);
            v[j] = Lanes::keep(both, 15);
            v[j + 4] = Lanes::keep(Lanes::template right<4>(both), 15);
        }
        if constexpr (bits == 5) {
            const Int high = plane(4);
            v[0] = Lanes::merge(v[0], Lanes::template left<4>(high), 16);
            v[1] = Lanes::merge(v[1], Lanes::template left<3>(high), 16);
            v[2] = Lanes::merge(v[2], Lanes::template left<2>(high), 16);
            v[3] = Lanes::merge(v[3], Lanes::template left<1>(high), 16);
            v[4] = Lanes::merge(v[4], high, 16);
            v[5] = Lanes::merge(v[5], Lanes::template right<1>(high), 16);
            v[6] = Lanes::merge(v[6], Lanes::template right<2>(high), 16);
            v[7] = Lanes::merge(v[7], Lanes::template right<3>(high), 16);
        }
        if constexpr (bits == 6)
            for (int j = 0; j < 2; ++j) {
                const Int high = plane(4 + j);
                v[4 * j] = Lanes::merge(v[4 * j], Lanes::template left<4>(high), 48);
                v[4 * j + 1] = Lanes::merge(v[4 * j + 1], Lanes::template left<2>(high), 48);
                v[4 * j + 2] = Lanes::merge(v[4 * j + 2], high, 48);
                v[4 * j + 3] = Lanes::merge(v[4 * j + 3], Lanes::template right<2>(high), 48);
            }
        if constexpr (codebook != 0) {
            const auto book = Lanes::book(codebooks[codebook - 1]);
            for (int i = 0; i < 8; ++i) v[i] = Lanes::look_up(book, v[i]);
        }
    } else {
        for (int j = 0; j < 2; ++j) {
            const Int four = plane(j);
            v[4 * j] = Lanes::keep(four, 3);
            v[4 * j + 1] = Lanes::keep(Lanes::template right<2>(four), 3);
            v[4 * j + 2] = Lanes::keep(Lanes::template right<4>(four), 3);
            v[4 * j + 3] = Lanes::keep(Lanes::template right<6>(four), 3);
        }
        if constexpr (bits == 3) {
            const Int high = plane(2);
            v[0] = Lanes::merge(v[0], Lanes::template left<2>(high), 4);
            v[1] = Lanes::merge(v[1], Lanes::template left<1>(high), 4);
            v[2] = Lanes::merge(v[2], high, 4);
            v[3] = Lanes::merge(v[3], Lanes::template right<1>(high), 4);
            v[4] = Lanes::merge(v[4], Lanes::template right<2>(high), 4);
            v[5] = Lanes::merge(v[5], Lanes::template right<3>(high), 4);
            v[6] = Lanes::merge(v[6], Lanes::template right<4>(high), 4);
            v[7] = Lanes::merge(v[7], Lanes::template right<5>(high), 4);
        }
    }
    if constexpr (shift == 7 && Lanes::wide_is_signed)
        for (int i = 0; i < 8; ++i) v[i] = Lanes::flip(v[i]);
}

// The scale of one group and its minimum for the rows of a slice.
template <Scales scales>
inline Float scale_of(const uint8_t* small, int slice, Float d) {
    if constexpr (scales == Scales::super) return Lanes::mul(d, Lanes::signed_bytes(small + slice * Lanes::lanes));
    if constexpr (scales == Scales::super_min) return Lanes::mul(d, Lanes::bytes(small + slice * Lanes::lanes));
    if constexpr (scales == Scales::super_min_nibbles)
        return Lanes::mul(d, Lanes::low_nibbles(small + slice * Lanes::lanes));
    return d;
}

template <Scales scales>
inline Float least_of(const uint8_t* small, int slice, Float negative, Float least) {
    if constexpr (scales == Scales::super_min)
        return Lanes::mul(negative, Lanes::bytes(small + 16 + slice * Lanes::lanes));
    if constexpr (scales == Scales::super_min_nibbles)
        return Lanes::mul(negative, Lanes::high_nibbles(small + slice * Lanes::lanes));
    return least;
}

// out[r][row] for one tile and `rows` rows of x that stand in a panel of `height`.
template <int which, int rows>
void tile(const uint8_t* at, const Rounded* x, int64_t height, int64_t units, float* out, int64_t stride, int count,
          bool add) {
    constexpr Form f = forms[which];
    constexpr int groups = block_columns / f.group;
    constexpr bool is_signed = f.shift == 7 && Lanes::wide_is_signed;
    constexpr int shift = is_signed ? 0 : f.shift;
    constexpr int abreast = rows < Lanes::abreast ? rows : Lanes::abreast;
    Float sums[slices][rows];
    for (int s = 0; s < slices; ++s)
        for (int r = 0; r < rows; ++r) sums[s][r] = Lanes::zero();
    for (int64_t unit = 0; unit < units; ++unit) {
        const uint8_t* small = at + head_bytes(f);
        const uint8_t* planes = small + f.columns / f.group * small_bytes(f);
        for (int line = 0; line < planes - at; line += 64) Lanes::prefetch(at + line + ahead);
        for (int block = 0; block < unit_blocks(f); ++block) {
            for (int line = 0; line < planes_bytes(f); line += 64) Lanes::prefetch(planes + line + ahead);
            for (int s = 0; s < slices; ++s) {
                const Float d = f.scales == Scales::exponent ? Lanes::exponents(at + s * Lanes::lanes)
                                                             : Lanes::halves(at + s * Lanes::lanes * 2);
                const Float low = has_min(f) ? Lanes::halves(at + 32 + s * Lanes::lanes * 2) : d;
                const Float negative = Lanes::negate(low);
                Float scale[groups], least[groups];
                for (int g = 0; g < groups; ++g) {
                    scale[g] = scale_of<f.scales>(small + g * small_bytes(f), s, d);
                    least[g] = least_of<f.scales>(small + g * small_bytes(f), s, negative, low);
                }
                Int v[8];
                unpack<f.bits, f.codebook, f.shift>(planes, s, v);
                CUTAWAY_UNROLL_LOOPS
                for (int r = 0; r < rows; r += abreast) {
                    Int dots[abreast][groups];
                    CUTAWAY_UNROLL_LOOPS
                    for (int k = 0; k < abreast; ++k) {
                        const Rounded& b = x[r + k];
                        if constexpr (groups == 1) {
                            dots[k][0] = Lanes::template start<shift>(&b.minus);
                        } else {
                            dots[k][0] = Lanes::template start<shift>(&b.minus_half);
                            dots[k][1] = Lanes::template start_rest<shift>(&b.minus, &b.minus_half);
                        }
                    }
                    CUTAWAY_UNROLL_LOOPS
                    for (int i = 0; i < 8; ++i)
                        CUTAWAY_UNROLL_LOOPS
                        for (int k = 0; k < abreast; ++k) {
                            Int& dot = dots[k][i * groups / 8];
                            dot = Lanes::template dot<is_signed>(dot, v[i], x[r + k].q + 4 * i);
                        }
                    CUTAWAY_UNROLL_LOOPS
                    for (int k = 0; k < abreast; ++k) {
                        const Rounded& b = x[r + k];
                        const Float by = Lanes::splat(&b.scale);
                        Float sum = sums[s][r + k];
                        if constexpr (groups == 1) {
                            sum = Lanes::fma(Lanes::mul(Lanes::to_float(dots[k][0]), scale[0]), by, sum);
                            if constexpr (has_min(f)) sum = Lanes::fma(least[0], Lanes::splat(&b.sum), sum);
                        } else {
                            const Float both = Lanes::mul(Lanes::to_float(dots[k][0]), scale[0]);
                            sum = Lanes::fma(Lanes::fma(Lanes::to_float(dots[k][1]), scale[1], both), by, sum);
                        }
                        if constexpr (groups == 2 && has_min(f)) {
                            const Float half = Lanes::whole(&b.minus_half, nullptr);
                            const Float rest = Lanes::whole(&b.minus, &b.minus_half);
                            const Float lower = Lanes::fma(rest, least[1], Lanes::mul(half, least[0]));
                            sum = Lanes::fma(lower, by, sum);
                        }
                        sums[s][r + k] = sum;
                    }
                }
            }
            small += groups * small_bytes(f);
            planes += planes_bytes(f);
            x += height;
        }
        at += unit_bytes(f);
    }
    for (int s = 0; s < slices; ++s)
        for (int r = 0; r < rows; ++r) {
            const int left = count - s * Lanes::lanes;
            if (left > 0) Lanes::store(out + r * stride + s * Lanes::lanes, sums[s][r], left, add);
        }
}

// A panel's rows in groups of 16, 8, 4, 2 and 1.
template <int which>
void panel(const uint8_t* data, const Rounded* x, int64_t height, int64_t units, float* out, int64_t stride, int count,
           bool add) {
    int64_t done = 0;
    const auto take = [&](auto step) {
        constexpr int rows = decltype(step)::value;
        if constexpr (rows <= Lanes::most_rows)
            for (; height - done >= rows; done += rows)
                tile<which, rows>(data, x + done, height, units, out + done * stride, stride, count, add);
    };
    take(std::integral_constant<int, 16>{});
    take(std::integral_constant<int, 8>{});
    take(std::integral_constant<int, 4>{});
    take(std::integral_constant<int, 2>{});
    take(std::integral_constant<int, 1>{});
}

// Rows of x are taken so many at once that they stay in the second cache while the tiles pass by.
template <int which>
void tiles(const Matrix& m, const Rounded* prepared, int64_t rows, Rounding rounding, float* out, int64_t stride,
           int64_t first, int64_t last) {
    constexpr int64_t cache = 384 << 10;
    const int64_t copies = rounding == Rounding::sixteen ? 2 : 1, blocks = m.c / block_columns;
    const int64_t units = blocks / unit_blocks(forms[which]);
    const int64_t panels = cache / (blocks * panel_rows * copies * static_cast<int64_t>(sizeof(Rounded)));
    const int64_t step = (panels < 1 ? 1 : panels) * panel_rows;
    for (int64_t start = 0; start < rows; start += step) {
        const int64_t end = rows - start < step ? rows : start + step;
        for (int64_t t = first; t < last; ++t) {
            const uint8_t* data = m.data + t * m.tile_bytes;
            const int count = m.n - t * tile_rows < tile_rows ? static_cast<int>(m.n - t * tile_rows) : tile_rows;
            for (int64_t row = start; row < end; row += panel_rows) {
                const int64_t height = end - row < panel_rows ? end - row : panel_rows;
                const Rounded* x = prepared + row * blocks * copies;
                float* to = out + row * stride + t * tile_rows;
                panel<which>(data, x, height, units, to, stride, count, false);
                if (copies == 2) panel<which>(data, x + height * blocks, height, units, to, stride, count, true);
            }
        }
    }
}

using Tiles = void (*)(const Matrix&, const Rounded*, int64_t, Rounding, float*, int64_t, int64_t, int64_t);

template <int... which>
Tiles tiles_of(int index, std::integer_sequence<int, which...>) {
    static constexpr Tiles all[] = {tiles<which>...};
    return all[index];
}

void multiply_quantised(const Matrix& m, const Rounded* prepared, int64_t rows, Rounding rounding, float* out,
                        int64_t stride, int64_t first, int64_t last) {
    const int index = static_cast<int>(m.form - forms);
    tiles_of(index, std::make_integer_sequence<int, form_count>{})(m, prepared, rows, rounding, out, stride, first, last);
}
