// The read bandwidth of this machine: `read_memory THREADS` prints bytes per second, the best of many passes.
//
// Each thread sums the 64-bit words of its part of a buffer of 512 MiB, sixteen times what the largest cache here holds.
// Built by bench/_generate_peers.py with -O3 -march=native, which makes the loop one of vector loads and adds.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

static uint64_t sum(const uint64_t* words, size_t count) {
    uint64_t total[32] = {};  // as many sums as keep enough loads in flight
    for (size_t i = 0; i < count; i += 32)
        for (size_t j = 0; j < 32; ++j) total[j] += words[i + j];
    uint64_t all = 0;
    for (uint64_t one : total) all += one;
    return all;
}

int main(int, char** arguments) {
    const size_t threads = std::strtoul(arguments[1], nullptr, 10), bytes = size_t{1} << 29, count = bytes / 8;
    std::vector<uint64_t> words(count, 1);
    double best = 1e9;
    uint64_t seen = 0;
    for (int pass = 0; pass < 24; ++pass) {
        const auto start = std::chrono::steady_clock::now();
        std::vector<uint64_t> sums(threads);
        std::vector<std::thread> others;
        const size_t part = count / threads / 32 * 32;
        for (size_t i = 1; i < threads; ++i)
            others.emplace_back([&, i] { sums[i] = sum(words.data() + i * part, part); });
        sums[0] = sum(words.data(), part);
        for (auto& other : others) other.join();
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        for (uint64_t one : sums) seen += one;
        best = took.count() < best ? took.count() : best;
    }
    if (seen == 0) return 1;  // the sums are needed, or no compiler would make them
    std::printf("%.0f\n", static_cast<double>(bytes) / best);
}
