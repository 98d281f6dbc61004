// Products with float matrices, written once for every instruction set, included like matrix_tile.inl. `Wide` says what a
// vector is there: `width` float32 numbers that stand beside each other in a row.
//
// Every number of the result has one vector that sums its products, column c in lane c % width, in the order of the
// columns, and is added up at the end; how many rows of the matrix and of x are taken at once changes no bit of it.

constexpr int matrix_rows = 4;  // taken at once

template <int kind>
inline Wide::Float load_weights(const uint8_t* from) {
    if constexpr (kind == 0) return Wide::load(from);
    if constexpr (kind == 1) return Wide::load_half(from);
    if constexpr (kind == 30) return Wide::load_brain(from);
}

template <int kind, int rows>
void block(const uint8_t* const* w, const float* x, int64_t stride, int64_t c, float* out, int64_t stride_out,
           int count) {
    constexpr int size = kind == 0 ? 4 : 2, width = Wide::width;
    Wide::Float sums[matrix_rows][rows];
    for (int n = 0; n < matrix_rows; ++n)
        for (int r = 0; r < rows; ++r) sums[n][r] = Wide::zero();
    const int64_t whole = c / width * width, ahead = matrix_rows * c * size;
    for (int64_t i = 0; i < whole; i += width) {
        Wide::Float weights[matrix_rows];
        CUTAWAY_UNROLL_LOOPS
        for (int n = 0; n < matrix_rows; ++n) {
            weights[n] = load_weights<kind>(w[n] + i * size);
            // one row of x waits for memory: the rows that come next are asked for while these are multiplied
            if constexpr (rows == 1) Lanes::prefetch(w[n] + i * size + ahead);
        }
        CUTAWAY_UNROLL_LOOPS
        for (int r = 0; r < rows; ++r) {
            const Wide::Float numbers = Wide::load(reinterpret_cast<const uint8_t*>(x + r * stride + i));
            CUTAWAY_UNROLL_LOOPS
            for (int n = 0; n < matrix_rows; ++n) sums[n][r] = Wide::fma(weights[n], numbers, sums[n][r]);
        }
    }
    if (const size_t left = static_cast<size_t>(c - whole)) {  // the last columns, with zeros behind them
        uint8_t tail[matrix_rows][4 * width] = {};
        for (int n = 0; n < matrix_rows; ++n) std::memcpy(tail[n], w[n] + whole * size, left * size);
        for (int r = 0; r < rows; ++r) {
            float last[width] = {};
            std::memcpy(last, x + r * stride + whole, left * sizeof(float));
            const Wide::Float numbers = Wide::load(reinterpret_cast<const uint8_t*>(last));
            for (int n = 0; n < matrix_rows; ++n)
                sums[n][r] = Wide::fma(load_weights<kind>(tail[n]), numbers, sums[n][r]);
        }
    }
    for (int r = 0; r < rows; ++r)
        for (int n = 0; n < count; ++n) out[r * stride_out + n] = Wide::total(sums[n][r]);
}

template <int kind>
void floats(const Matrix& m, const float* x, int64_t stride, int64_t rows, float* out, int64_t stride_out,
            int64_t first, int64_t last) {
    constexpr int64_t cache = 256 << 10;  // rows of the matrix that stay in the second cache while x passes by
    const int64_t fit = cache / m.tile_bytes / matrix_rows;
    const int64_t step = (fit < 1 ? 1 : fit) * matrix_rows;
    for (int64_t start = first; start < last; start += step) {
        const int64_t end = last - start < step ? last : start + step;
        int64_t done = 0;
        const auto take = [&](auto group) {
            constexpr int together = decltype(group)::value;
            if constexpr (together <= Wide::most_rows)
                for (; rows - done >= together; done += together)
                    for (int64_t n = start; n < end; n += matrix_rows) {
                        const int count = end - n < matrix_rows ? static_cast<int>(end - n) : matrix_rows;
                        const uint8_t* w[matrix_rows];
                        for (int i = 0; i < matrix_rows; ++i) w[i] = m.data + (n + (i < count ? i : 0)) * m.tile_bytes;
                        block<kind, together>(w, x + done * stride, stride, m.c, out + done * stride_out + n,
                                              stride_out, count);
                    }
        };
        take(std::integral_constant<int, 6>{});
        take(std::integral_constant<int, 4>{});
        take(std::integral_constant<int, 2>{});
        take(std::integral_constant<int, 1>{});
    }
}

void multiply_floats(const Matrix& m, const float* x, int64_t stride, int64_t rows, float* out, int64_t stride_out,
                     int64_t first, int64_t last) {
    const auto work = m.kind == 0 ? floats<0> : m.kind == 1 ? floats<1> : floats<30>;
    work(m, x, stride, rows, out, stride_out, first, last);
}
