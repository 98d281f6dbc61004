// Measures the products of this machine's kernels; built by `make native`, run by hand.
//
//     bench_matrix [threads] [kind …]
//
// For each kind: one row, as the share of what plainly reading the same bytes with the same threads reaches, and
// 16 and 512 rows in multiply–adds a second. The matrices of one row are larger than the cache.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "matrix_layout.h"

using namespace cutaway;
using Clock = std::chrono::steady_clock;

namespace {

// Threads that wait for work by spinning, so that what is measured is the work.
class Crew {
public:
    explicit Crew(int parts) : parts_(parts) {
        for (int part = 1; part < parts; ++part) threads_.emplace_back([this, part] { serve(part); });
    }
    ~Crew() {
        stop_ = true;
        turn_.fetch_add(1);
        for (std::thread& t : threads_) t.join();
    }
    void run(const std::function<void(int)>& work) {
        work_ = &work;
        left_ = parts_ - 1;
        turn_.fetch_add(1);
        work(0);
        while (left_.load() > 0) std::this_thread::yield();
    }

private:
    void serve(int part) {
        for (int seen = 0;;) {
            while (turn_.load() == seen) std::this_thread::yield();
            ++seen;
            if (stop_) return;
            (*work_)(part);
            left_.fetch_sub(1);
        }
    }
    int parts_;
    const std::function<void(int)>* work_ = nullptr;
    std::atomic<int> turn_{0}, left_{0};
    std::atomic<bool> stop_{false};
    std::vector<std::thread> threads_;
};

template <class Work>
double best(int times, Work work) {
    double least = 1e9;
    for (int i = 0; i < times; ++i) {
        const auto start = Clock::now();
        work();
        least = std::min(least, std::chrono::duration<double>(Clock::now() - start).count());
    }
    return least;
}

std::vector<uint8_t> random_rows(const Form& f, int64_t n, int64_t c) {
    std::mt19937_64 random(1);
    std::vector<uint8_t> rows(static_cast<size_t>(n * c / f.columns * f.bytes));
    for (size_t i = 0; i + 8 <= rows.size(); i += 8) {
        const uint64_t word = random();
        std::memcpy(rows.data() + i, &word, 8);
    }
    for (uint8_t& byte : rows) byte = (byte & 0x3b) | 0x20;  // no scale is infinite or subnormal then
    return rows;
}

volatile uint64_t sink;

double read_rate(Crew& crew, int parts, const uint8_t* data, int64_t size) {
    const double seconds = best(15, [&] {
        crew.run([&](int part) {
            const int64_t from = size / 64 * part / parts, to = size / 64 * (part + 1) / parts;
            uint64_t a = 0, b = 0, c = 0, d = 0;
            for (int64_t i = from; i < to; ++i) {
                uint64_t w[8];
                std::memcpy(w, data + 64 * i, 64);
                a ^= w[0] ^ w[4], b ^= w[1] ^ w[5], c ^= w[2] ^ w[6], d ^= w[3] ^ w[7];
            }
            sink = a ^ b ^ c ^ d;
        });
    });
    return static_cast<double>(size) / seconds;
}

double product_time(Crew& crew, int parts, const Matrix& m, int64_t rows, int times) {
    const int64_t c = column_count(m), n = row_count(m);
    std::vector<float> x(static_cast<size_t>(rows * c)), out(static_cast<size_t>(rows * n));
    std::mt19937 random(2);
    for (float& value : x) value = static_cast<float>(random()) / 4e9f - 0.5f;
    std::vector<uint8_t> prepared(prepared_bytes(rows, c, Rounding::eight) + 64);
    return best(times, [&] {
        crew.run([&](int part) {
            prepare(x.data(), c, rows, c, Rounding::eight, prepared.data(), part, parts);
        });
        crew.run([&](int part) {
            multiply(m, x.data(), c, prepared.data(), rows, Rounding::eight, out.data(), n, part, parts);
        });
    });
}

// One row through matrices of the sizes that a token of SmolLM2-135M passes, each packed by itself, as a model is.
void like_a_model(Crew& crew, int parts) {
    const Form &four = forms[1], &eight = forms[4];
    std::vector<Matrix*> all;
    double bytes = 0;
    for (int layer = 0; layer < 30; ++layer)
        for (const auto& [n, c] : {std::pair{960, 576}, {576, 576}, {3072, 576}, {576, 1536}}) {
            const std::vector<uint8_t> rows = random_rows(four, n, c);
            all.push_back(pack(four.kind, rows.data(), n, c, parts));
        }
    const std::vector<uint8_t> rows = random_rows(eight, 49152, 576);
    all.push_back(pack(eight.kind, rows.data(), 49152, 576, parts));
    std::vector<float> x(2048, 0.5f), out(49152);
    std::vector<uint8_t> prepared(prepared_bytes(1, 2048, Rounding::eight));
    for (const Matrix* m : all) bytes += static_cast<double>(packed_bytes(*m));
    double read = 0, took = 1e9;
    for (int i = 0; i < 3; ++i) {
        read = std::max(read, read_rate(crew, parts, all.back()->data, packed_bytes(*all.back())));
        took = std::min(took, best(15, [&] {
                            for (const Matrix* m : all) {
                                prepare(x.data(), m->c, 1, m->c, Rounding::eight, prepared.data(), 0, 1);
                                crew.run([&](int part) {
                                    multiply(*m, x.data(), m->c, prepared.data(), 1, Rounding::eight, out.data(), m->n,
                                             part, parts);
                                });
                            }
                        }));
    }
    std::printf("a token of SmolLM2-135M: %.1f MB in %.2f ms, %.1f GB/s\n", bytes / 1e6, took * 1e3, bytes / took / 1e9);
    for (Matrix* m : all) release(m);
}

}  // namespace

int main(int count, char** arguments) {
    const int parts = count > 1 ? std::atoi(arguments[1]) : 2;
    Crew crew(parts);
    if (const char* name = std::getenv("CUTAWAY_KERNELS"); name && !choose_instruction_set(name)) return 2;
    std::printf("%s, %d threads\nkind  1 row: GB/s  of read   | in cache: GB/s |  16 rows: GMAC/s  512: GMAC/s\n",
                instruction_set(), parts);
    if (count < 3) like_a_model(crew, parts);
    for (const Form& f : forms) {
        bool wanted = count < 3;
        for (int i = 2; i < count; ++i) wanted |= std::atoi(arguments[i]) == f.kind;
        if (!wanted) continue;
        const int64_t n = 98304, c = f.columns == 32 ? 2016 : 2048;
        std::vector<uint8_t> rows = random_rows(f, n, c);
        Matrix* large = pack(f.kind, rows.data(), n, c, parts);
        rows = random_rows(f, 1536, 768);
        Matrix* small = pack(f.kind, rows.data(), 1536, 768, parts);
        const double bytes = static_cast<double>(packed_bytes(*large));
        double read = 0, took = 1e9;
        for (int i = 0; i < 3; ++i) {
            read = std::max(read, read_rate(crew, parts, large->data, packed_bytes(*large)));
            took = std::min(took, product_time(crew, parts, *large, 1, 15));
        }
        const double cached = static_cast<double>(packed_bytes(*small)) / product_time(crew, parts, *small, 1, 300);
        const double macs = 1536.0 * 768;
        const double few = 16 * macs / product_time(crew, parts, *small, 16, 200);
        const double many = 512 * macs / product_time(crew, parts, *small, 512, 40);
        std::printf("%4d %12.1f %8.0f %% %17.1f %17.0f %13.0f\n", f.kind, bytes / took / 1e9, 100 * bytes / took / read,
                    cached / 1e9, few / 1e9, many / 1e9);
        std::fflush(stdout);
        release(large);
        release(small);
    }
}
