#include "matrix_c.h"

#include <cstdlib>
#include <new>
#include <thread>
#include <vector>

#include "matrix.h"

using cutaway::Matrix;
using cutaway::Rounding;

namespace {

// work(part) in as many threads; false: they could not be had
template <class Work>
bool in_parallel(int parts, Work work) {
    std::vector<std::thread> others;
    bool all = true;
    try {
        others.reserve(static_cast<size_t>(parts));
        for (int part = 1; part < parts; ++part) others.emplace_back(work, part);
    } catch (...) {
        all = false;
    }
    if (all) work(0);
    for (std::thread& other : others) other.join();
    return all;
}

}  // namespace

const char* ctw_instruction_set() { return cutaway::instruction_set(); }

int32_t ctw_choose_instruction_set(const char* name) { return cutaway::choose_instruction_set(name); }

void* ctw_pack(int32_t kind, const void* rows, int64_t n, int64_t c, int32_t threads) {
    return cutaway::pack(kind, rows, n, c, threads);
}

void ctw_release(void* matrix) { cutaway::release(static_cast<Matrix*>(matrix)); }

int64_t ctw_packed_bytes(const void* matrix) { return cutaway::packed_bytes(*static_cast<const Matrix*>(matrix)); }

void ctw_decode_row(const void* matrix, int64_t row, float* out) {
    cutaway::decode_row(*static_cast<const Matrix*>(matrix), row, out);
}

int32_t ctw_matmul(const void* matrix, const float* x, int64_t rows, int32_t rounding, float* out, int32_t threads) {
    const Matrix& m = *static_cast<const Matrix*>(matrix);
    const int64_t c = cutaway::column_count(m), n = cutaway::row_count(m);
    const Rounding how = rounding == 16 ? Rounding::sixteen : Rounding::eight;
    const int parts = threads < 1 ? 1 : threads;
    void* prepared = nullptr;
    if (cutaway::rounds(m)) {
        prepared = ::operator new(cutaway::prepared_bytes(rows, c, how), std::align_val_t{64}, std::nothrow);
        if (!prepared) return 1;
    }
    bool done = true;
    if (prepared)
        done = in_parallel(parts, [=](int part) { cutaway::prepare(x, c, rows, c, how, prepared, part, parts); });
    done = done && in_parallel(parts, [=, &m](int part) {
               cutaway::multiply(m, x, c, prepared, rows, how, out, n, part, parts);
           });
    if (prepared) ::operator delete(prepared, std::align_val_t{64});
    return done ? 0 : 1;
}
