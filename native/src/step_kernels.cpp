#include "step_kernels.h"

#include <cstring>

namespace cutaway {

extern const StepKernels steps_portable;
#if defined(CUTAWAY_AVX512)
extern const StepKernels steps_avx512;
#endif
#if defined(CUTAWAY_AVX2)
extern const StepKernels steps_avx2;
#endif
#if defined(CUTAWAY_NEON)
extern const StepKernels steps_neon;
#endif

const StepKernels& step_kernels(const char* set) {
#if defined(CUTAWAY_AVX512)
    if (std::strncmp(set, "avx512", 6) == 0) return steps_avx512;
#endif
#if defined(CUTAWAY_AVX2)
    if (std::strncmp(set, "avx2", 4) == 0) return steps_avx2;
#endif
#if defined(CUTAWAY_NEON)
    if (std::strcmp(set, "neon") == 0) return steps_neon;
#endif
    (void)set;
    return steps_portable;
}

BlockLayout block_layout(Cache kind, int head_dim) {
    const auto aligned = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
    const size_t number = kind == Cache::float32 ? 4 : kind == Cache::float16 ? 2 : 1;
    BlockLayout layout{kind, head_dim, (head_dim + kTile - 1) / kTile * kTile, 0, 0, 0};
    layout.values_at = aligned(number * kPage * static_cast<size_t>(head_dim));
    layout.scales_at = aligned(layout.values_at + number * kPage * static_cast<size_t>(layout.padded));
    layout.bytes = layout.scales_at + (kind == Cache::int8 ? 2 * kPage * sizeof(float) : 0);
    return layout;
}

size_t attend_scratch(const BlockLayout& layout, int group) {
    const size_t each = static_cast<size_t>(layout.padded) + 2, most_block = 8;
    return most_block * (kRange + each) + static_cast<size_t>(kRows * group) * each +
           static_cast<size_t>(kRange) * static_cast<size_t>(layout.head_dim + layout.padded);
}

}  // namespace cutaway
