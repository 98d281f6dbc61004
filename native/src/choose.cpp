// Which instruction set computes: the best that the processor and this build have, or the one that was asked for.
#include <atomic>
#include <cstring>

#include "kernels.h"

#if defined(_M_X64)
#include <immintrin.h>
#include <intrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace cutaway {
namespace {

struct Candidate {
    const Kernels* kernels;
    bool (*runs)();
};

#if defined(__x86_64__)
bool has_avx2() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");  // every processor with AVX2 has F16C
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

[[maybe_unused]] bool has_avxvnni() {  // GCC 11 has no name for it yet
    if (!has_avx2()) return false;
    unsigned a = 7, b = 0, c = 1, d = 0;
    __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (a >> 4 & 1) != 0;
}
#elif defined(_M_X64)
bool has(int leaf, int sub, int which, int bit) {
    int found[4];
    __cpuid(found, 0);
    if (found[0] < leaf) return false;
    __cpuidex(found, leaf, sub);
    return (found[which] >> bit & 1) != 0;
}

bool saves(unsigned long long state) {  // whether the system keeps these registers for a program
    return has(1, 0, 2, 27) && (_xgetbv(0) & state) == state;
}

bool has_avx2() { return saves(6) && has(7, 0, 1, 5) && has(1, 0, 2, 12) && has(1, 0, 2, 29); }

bool has_avx512() {
    return has_avx2() && saves(0xe6) && has(7, 0, 1, 16) && has(7, 0, 1, 17) && has(7, 0, 1, 30) &&
           has(7, 0, 1, 31) && has(7, 0, 2, 11);
}
#elif defined(__aarch64__) && defined(__linux__)
[[maybe_unused]] bool has_neon() { return (getauxval(AT_HWCAP) >> 20 & 1) != 0; }  // ASIMDDP
#else
[[maybe_unused]] bool has_neon() { return true; }  // every ARM that Apple compiles for has the dot products
#endif

bool always() { return true; }

const Candidate candidates[] = {
#if defined(CUTAWAY_AVX512)
    {&avx512_kernels, has_avx512},
#endif
#if defined(CUTAWAY_AVXVNNI)
    {&avxvnni_kernels, has_avxvnni},
#endif
#if defined(CUTAWAY_AVX2)
    {&avx2_kernels, has_avx2},
#endif
#if defined(CUTAWAY_NEON)
    {&neon_kernels, has_neon},
#endif
    {&portable_kernels, always},
};

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

const Kernels& kernels() {
    if (const Kernels* now = chosen.load(std::memory_order_acquire)) return *now;
    for (const Candidate& candidate : candidates)
        if (candidate.runs()) {
            chosen.store(candidate.kernels, std::memory_order_release);
            return *candidate.kernels;
        }
    return portable_kernels;
}

const char* instruction_set() { return kernels().name; }

bool choose_instruction_set(const char* name) {
    for (const Candidate& candidate : candidates)
        if (std::strcmp(candidate.kernels->name, name) == 0 && candidate.runs()) {
            chosen.store(candidate.kernels, std::memory_order_release);
            return true;
        }
    return false;
}

}  // namespace cutaway
