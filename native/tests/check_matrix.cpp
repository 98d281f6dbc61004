// Tries every kind of matrix with every instruction set that this machine has, built with sanitizers: odd sizes, numbers
// that begin anywhere, buffers that end where readable memory ends. Products are held against sums in double precision.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "matrix_c.h"
#include "matrix_layout.h"

using namespace cutaway;

namespace {

// Memory whose last byte is the last of a page, with nothing to be read or written behind it.
template <class T>
class AtEnd {
public:
    explicit AtEnd(size_t count) : count_(count) {
#if defined(__unix__) || defined(__APPLE__)
        const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        size_ = (count * sizeof(T) + page - 1) / page * page + page;
        base_ = static_cast<uint8_t*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (base_ == MAP_FAILED || mprotect(base_ + size_ - page, page, PROT_NONE) != 0) std::abort();
        at_ = reinterpret_cast<T*>(base_ + size_ - page - count * sizeof(T));
#else
        at_ = static_cast<T*>(std::malloc(count * sizeof(T)));
#endif
    }
    ~AtEnd() {
#if defined(__unix__) || defined(__APPLE__)
        munmap(base_, size_);
#else
        std::free(at_);
#endif
    }
    AtEnd(const AtEnd&) = delete;
    AtEnd& operator=(const AtEnd&) = delete;
    T* data() { return at_; }
    T& operator[](size_t i) { return at_[i]; }
    size_t size() const { return count_; }

private:
    size_t count_, size_ = 0;
    uint8_t* base_ = nullptr;
    T* at_;
};

std::mt19937 random_bits(7);
int failures = 0;

float number() { return static_cast<float>(static_cast<int32_t>(random_bits())) / 2147483648.0f; }

// Random bytes whose float16 scales and exponents are of a sensible size.
void fill(AtEnd<uint8_t>& rows, int32_t kind, const Form* form) {
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<uint8_t>(random_bits());
    const auto half = [&](size_t at) { rows[at + 1] = static_cast<uint8_t>((rows[at + 1] & 0x83) | 0x28); };
    if (!form) {
        for (size_t i = 0; kind == 0 && i < rows.size(); i += 4) {
            const float value = number();
            std::memcpy(rows.data() + i, &value, 4);
        }
        for (size_t i = 0; kind != 0 && i < rows.size(); i += 2) rows[i + 1] = (rows[i + 1] & 0x83) | (kind == 1 ? 0x28 : 0x3c);
        return;
    }
    for (size_t i = 0; i < rows.size(); i += static_cast<size_t>(form->bytes)) {
        if (form->scales == Scales::exponent) {
            rows[i] = static_cast<uint8_t>(120 + rows[i] % 8);
            continue;
        }
        const size_t scale = kind == 10 ? 80 : kind == 11 ? 108 : kind == 14 ? 208 : 0;
        half(i + scale);
        if (has_min(*form)) half(i + scale + 2);
    }
}

void check(const char* set, int32_t kind, const Form* form, int64_t n, int64_t c, int64_t most) {
    const int64_t row_bytes = form ? c / form->columns * form->bytes : c * (kind == 0 ? 4 : 2);
    AtEnd<uint8_t> rows(static_cast<size_t>(n * row_bytes));
    fill(rows, kind, form);
    void* matrix = ctw_pack(kind, rows.data(), n, c, 2);
    if (!matrix) {
        std::printf("%s: kind %d of %d x %d is not packed\n", set, kind, int(n), int(c));
        ++failures;
        return;
    }
    std::vector<float> values(static_cast<size_t>(n * c));
    AtEnd<float> line(static_cast<size_t>(c));
    for (int64_t i = 0; i < n; ++i) {
        ctw_decode_row(matrix, i, line.data());
        std::copy(line.data(), line.data() + c, values.data() + i * c);
    }
    std::vector<float> alone;
    for (int64_t count : {int64_t{1}, int64_t{3}, most}) {
        AtEnd<float> x(static_cast<size_t>(count * c)), out(static_cast<size_t>(count * n));
        random_bits.seed(11);
        for (size_t i = 0; i < x.size(); ++i) x[i] = number();
        for (int rounding : {8, 16}) {
            if (ctw_matmul(matrix, x.data(), count, rounding, out.data(), static_cast<int32_t>(count)) != 0) std::abort();
            const double allowed = rounding == 8 && form ? 6e-3 : 1e-4;
            for (int64_t r = 0; r < count; ++r)
                for (int64_t i = 0; i < n; ++i) {
                    double sum = 0, size = 1e-12;
                    for (int64_t j = 0; j < c; ++j) {
                        const double term = double{values[static_cast<size_t>(i * c + j)]} * x[static_cast<size_t>(r * c + j)];
                        sum += term;
                        size += std::fabs(term);
                    }
                    const double got = out[static_cast<size_t>(r * n + i)];
                    if (!(std::fabs(got - sum) <= allowed * size) && ++failures < 20)
                        std::printf("%s: kind %d, %d x %d, %d rows, %d bits: [%d][%d] is %g, not %g\n", set, kind,
                                    int(n), int(c), int(count), rounding, int(r), int(i), got, sum);
                }
            if (count == 1 && rounding == 8) alone.assign(out.data(), out.data() + n);
            if (rounding == 8 && std::memcmp(alone.data(), out.data(), alone.size() * sizeof(float)) != 0 && ++failures < 20)
                std::printf("%s: kind %d: a row is another one beside others\n", set, kind);
        }
    }
    ctw_release(matrix);
}

}  // namespace

int main() {
    int tried = 0;
    const char* asked = std::getenv("CUTAWAY_KERNELS");
    for (const char* set : {"avx512-vnni", "avx2-vnni", "avx2", "neon", "portable"}) {
        if (asked && std::strcmp(asked, set) != 0) continue;
        if (!ctw_choose_instruction_set(set)) continue;
        ++tried;
        for (const Form& form : forms)
            for (int64_t n : {1, 3, 17, 45})
                for (int64_t blocks : {1, 3}) check(set, form.kind, &form, n, blocks * form.columns, 21);
        for (int32_t kind : {0, 1, 30})
            for (int64_t n : {1, 3, 17, 45})
                for (int64_t c : {1, 7, 33, 100}) check(set, kind, nullptr, n, c, 13);
        std::printf("%s: tried\n", set);
    }
    if (ctw_pack(3, "", 1, 31, 1) || ctw_pack(12, "", 1, 32, 1) || ctw_pack(99, "", 1, 32, 1) || ctw_pack(0, "", 0, 1, 1)) {
        std::printf("a shape that no kernel takes was packed\n");
        ++failures;
    }
    std::printf("%d instruction sets, %d failures\n", tried, failures);
    return failures || !tried;
}
