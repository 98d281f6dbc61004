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
#include <ctime>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "matrix_layout.h"

using namespace cutaway;

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

// Seconds; with one thread those of its processor time, which others' work does not add to.
double now(bool alone) {
#if defined(__linux__)
    if (alone) {
        timespec time;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
    }
#endif
    (void)alone;
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class Work>
double best(int parts, int times, Work work) {
    double least = 1e9;
    for (int i = 0; i < times; ++i) {
        const double start = now(parts == 1);
        work();
        least = std::min(least, now(parts == 1) - start);
    }
    return least;
}

struct Kind {
    int number, columns, bytes;  // of a block
};

Kind kind_of(int number) {
    for (const Form& f : forms)
        if (f.kind == number) return {number, f.columns, f.bytes};
    return {number, 1, number == 0 ? 4 : 2};
}

std::vector<uint8_t> random_rows(const Kind& k, int64_t n, int64_t c) {
    std::mt19937_64 random(1);
    std::vector<uint8_t> rows(static_cast<size_t>(n * c / k.columns * k.bytes));
    for (size_t i = 0; i + 8 <= rows.size(); i += 8) {
        const uint64_t word = (random() & 0x3b3b3b3b3b3b3b3b) | 0x2020202020202020;  // neither infinite nor subnormal
        std::memcpy(rows.data() + i, &word, 8);
    }
    return rows;
}

volatile uint64_t sink;

double read_rate(Crew& crew, int parts, const uint8_t* data, int64_t size) {
    const double seconds = best(parts, 15, [&] {
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
    return best(parts, times, [&] {
        if (rounds(m)) crew.run([&](int part) {
            prepare(x.data(), c, rows, c, Rounding::eight, prepared.data(), part, parts);
        });
        crew.run([&](int part) {
            multiply(m, x.data(), c, prepared.data(), rows, Rounding::eight, out.data(), n, part, parts);
        });
    });
}

// One row through matrices of the sizes that a token of SmolLM2-135M passes, each packed by itself, as a model is.
void like_a_model(Crew& crew, int parts) {
    const Kind four = kind_of(3), eight = kind_of(8);
    std::vector<Matrix*> all;
    double bytes = 0;
    for (int layer = 0; layer < 30; ++layer)
        for (const auto& [n, c] : {std::pair{960, 576}, {576, 576}, {3072, 576}, {576, 1536}}) {
            const std::vector<uint8_t> rows = random_rows(four, n, c);
            all.push_back(pack(four.number, rows.data(), n, c, parts));
        }
    const std::vector<uint8_t> rows = random_rows(eight, 49152, 576);
    all.push_back(pack(eight.number, rows.data(), 49152, 576, parts));
    std::vector<float> x(2048, 0.5f), out(49152);
    std::vector<uint8_t> prepared(prepared_bytes(1, 2048, Rounding::eight));
    for (const Matrix* m : all) bytes += static_cast<double>(packed_bytes(*m));
    double read = 0, took = 1e9;
    for (int i = 0; i < 3; ++i) {
        read = std::max(read, read_rate(crew, parts, all.back()->data, packed_bytes(*all.back())));
        took = std::min(took, best(parts, 15, [&] {
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
    std::vector<int> kinds;
    for (int i = 2; i < count; ++i) kinds.push_back(std::atoi(arguments[i]));
    if (kinds.empty()) {
        for (const Form& f : forms) kinds.push_back(f.kind);
        for (int number : {0, 1, 30}) kinds.push_back(number);
    }
    for (int number : kinds) {
        const Kind k = kind_of(number);
        const int64_t c = k.columns == 32 ? 2016 : 2048, n = (int64_t{120} << 20) * k.columns / k.bytes / c;
        std::vector<uint8_t> rows = random_rows(k, n, c), small_rows = random_rows(k, 1536, 768);
        Matrix* large = pack(number, rows.data(), n, c, parts);
        Matrix* small = pack(number, small_rows.data(), 1536, 768, parts);
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
        std::printf("%4d %12.1f %8.0f %% %17.1f %17.0f %13.0f\n", number, bytes / took / 1e9, 100 * bytes / took / read,
                    cached / 1e9, few / 1e9, many / 1e9);
        std::fflush(stdout);
        release(large);
        release(small);
    }
}
