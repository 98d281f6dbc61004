// Matrices: what owns the bytes, and how work is shared among threads. The products are those of kernels().
#include "matrix.h"

#include <algorithm>
#include <new>
#include <thread>
#include <vector>

#include "kernels.h"
#include "matrix_pack.h"

namespace cutaway {
namespace {

const Form* form_of(int32_t kind) {
    for (const Form& form : forms)
        if (form.kind == kind) return &form;
    return nullptr;
}

int float_bytes(int32_t kind) { return kind == 0 ? 4 : kind == 1 || kind == 30 ? 2 : 0; }

int64_t tile_count(const Matrix& matrix) { return (matrix.n + tile_rows - 1) / tile_rows; }

int64_t share(int64_t all, int part, int parts) { return all * part / parts; }

}  // namespace

Matrix* pack(int32_t kind, const void* rows, int64_t n, int64_t c, int parts) {
    const Form* form = form_of(kind);
    const int bytes = float_bytes(kind);
    if (n < 1 || c < 1 || (!form && !bytes) || (form && c % form->columns != 0)) return nullptr;
    Matrix* matrix = new (std::nothrow) Matrix{kind, form, n, c, static_cast<const uint8_t*>(rows), c * bytes, 0, {}};
    if (!matrix || !form) return matrix;
    matrix->tile_bytes = c / form->columns * unit_bytes(*form);
    const int64_t tiles = tile_count(*matrix);
    matrix->size = static_cast<size_t>(tiles * matrix->tile_bytes);
    matrix->memory = take(matrix->size);
    if (!matrix->memory.at) {
        delete matrix;
        return nullptr;
    }
    uint8_t* data = static_cast<uint8_t*>(matrix->memory.at);
    const uint8_t* from = static_cast<const uint8_t*>(rows);
    matrix->data = data;
    const auto work = [=](int part, int of) {
        pack_tiles(*form, from, n, c, data, share(tiles, part, of), share(tiles, part + 1, of));
    };
    // a thread costs some 20 microseconds, in which half a megabyte is packed
    const int threads = static_cast<int>(std::min<int64_t>(parts, 1 + static_cast<int64_t>(matrix->size >> 20)));
    std::vector<std::thread> others;
    int started = 1;
    try {
        for (; started < threads; ++started) others.emplace_back(work, started, threads);
    } catch (...) {  // no more threads to be had: their parts are done here
    }
    work(0, std::max(threads, 1));
    for (int part = started; part < threads; ++part) work(part, threads);
    for (std::thread& other : others) other.join();
    return matrix;
}

void release(Matrix* matrix) {
    if (!matrix) return;
    give_back(matrix->memory);
    delete matrix;
}

int64_t packed_bytes(const Matrix& matrix) {
    return matrix.form ? static_cast<int64_t>(matrix.size) : matrix.n * matrix.tile_bytes;
}

int64_t row_count(const Matrix& matrix) { return matrix.n; }

int64_t column_count(const Matrix& matrix) { return matrix.c; }

bool rounds(const Matrix& matrix) { return matrix.form != nullptr; }

size_t prepared_bytes(int64_t rows, int64_t c, Rounding rounding) {
    const int64_t twice = rounding == Rounding::sixteen ? 2 : 1;
    return static_cast<size_t>(rows * twice * (c / block_columns)) * sizeof(Rounded);
}

void prepare(const float* x, int64_t stride, int64_t rows, int64_t c, Rounding rounding, void* prepared, int part,
             int parts) {
    const int64_t blocks = c / block_columns, all = rows * blocks;
    kernels().prepare(x, stride, rows, blocks, rounding, static_cast<Rounded*>(prepared), share(all, part, parts),
                      share(all, part + 1, parts));
}

void multiply(const Matrix& matrix, const float* x, int64_t stride, const void* prepared, int64_t rows,
              Rounding rounding, float* out, int64_t stride_out, int part, int parts) {
    if (!matrix.form) {
        kernels().floating(matrix, x, stride, rows, out, stride_out, share(matrix.n, part, parts),
                           share(matrix.n, part + 1, parts));
        return;
    }
    const int64_t tiles = tile_count(matrix);
    kernels().quantised(matrix, static_cast<const Rounded*>(prepared), rows, rounding, out, stride_out,
                        share(tiles, part, parts), share(tiles, part + 1, parts));
}

void decode_row(const Matrix& matrix, int64_t row, float* out) {
    if (matrix.form) {
        unpack_row(*matrix.form, matrix.data + row / tile_rows * matrix.tile_bytes, static_cast<int>(row % tile_rows),
                   matrix.c, out);
        return;
    }
    const uint8_t* from = matrix.data + row * matrix.tile_bytes;
    for (int64_t i = 0; i < matrix.c; ++i) {
        if (matrix.kind == 0) {
            std::memcpy(out + i, from + 4 * i, 4);
            continue;
        }
        uint16_t half;
        std::memcpy(&half, from + 2 * i, 2);
        const uint32_t word = static_cast<uint32_t>(half) << 16;
        if (matrix.kind == 30)
            std::memcpy(out + i, &word, 4);
        else
            out[i] = half_to_float(half);
    }
}

}  // namespace cutaway
