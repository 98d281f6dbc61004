// What is computed on rows of float32 between the products with matrices, once for each instruction set.
//
// Every function gives a row the same numbers, bit for bit, whatever other rows are computed with it.
// Shapes: H query heads, K key/value heads, D head dim, P its next multiple of 16.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cutaway {

constexpr int kPage = 64;    // tokens in a page
constexpr int kTile = 16;    // tokens side by side in a page's keys
constexpr int kRange = 128;  // tokens whose scores are exponentiated together; the parts of a context
constexpr int kRows = 32;    // most rows of one sequence that one call of `attend` takes

enum class Cache : int32_t { float32 = 0, float16 = 1, int8 = 2 };
enum class Norm : int32_t { rms = 0, layer = 1 };
enum class Activation : int32_t { silu = 0, gelu = 1, gelu_tanh = 2, relu = 3, relu2 = 4 };
enum class HeadNorm : int32_t { none = 0, each = 1, joint = 2 };

// Where a page keeps the keys and values of one layer and one key/value head: keys as [token / 16][D][16], so that
// sixteen tokens' scores are computed side by side, then values as [token][P], then for int8 the scales of 64 keys and
// of 64 values.
struct BlockLayout {
    Cache kind;
    int head_dim, padded;  // D, P
    size_t values_at, scales_at, bytes;
};

struct HeadsShape {
    int heads, kv_heads, head_dim, turned;
    HeadNorm norm;
    float eps;
};

// One piece of attention: some rows of one sequence, the query heads of one key/value head, some of the ranges.
struct AttendPiece {
    const BlockLayout* layout;
    const uint8_t* const* blocks;  // of this layer and head, of each page of the sequence; only those in range are read
    const float* queries;          // of the first row's first head
    int64_t query_stride;          // from row to row; a row's heads lie D apart
    int rows, group;               // query heads in the group
    int64_t position;              // of the first row
    int64_t first_range, last_range;
    int window;  // 0: none
    float scale, cap;
    float* out;  // [row][group][D]; nullptr: partial results instead
    int64_t out_stride;
    float* partial;  // [row][head][range][P + 2]: of the first row's first head
    int64_t partial_row, partial_head;
    float* scores;  // nullptr: not wanted; [group][rows][scores_stride] of the first row's first head
    int64_t scores_head, scores_row;
    float* scratch;  // scratch_size floats of this thread's own
};

struct Chosen {
    float most;
    int64_t best;
    double sum;   // of exp(value - most)
    float check;  // zero, or NaN where a value is not finite
};

struct StepKernels {
    void (*norm)(Norm kind, const float* x, const float* weight, const float* bias, float eps, int64_t width,
                 float* out);
    void (*add)(const float* a, const float* b, const float* bias, int64_t width,
                float* out);  // b, bias: may be nullptr
    void (*scale)(float* x, float by, int64_t width);
    // out = activation(x), times `by` where there is one
    void (*activate)(Activation kind, const float* x, const float* by, int64_t width, float* out);
    // (H + 2K heads of D): a bias is added, queries and keys are normed and turned; cos, sin: of this position,
    // nullptr: none. scales: (H + K, D).
    void (*heads)(const HeadsShape& shape, const float* x, const float* bias, const float* scales, const float* cos,
                  const float* sin, float* out);
    void (*store)(const BlockLayout& layout, uint8_t* block, int slot, const float* key, const float* value);
    void (*attend)(const AttendPiece& piece);
    // One row and head: partial results of the ranges, in their order, into z; total: P + 2 floats to work in.
    void (*merge)(const float* partial, int64_t ranges, int head_dim, int padded, float* total, float* z);
    // Caps logits in place and looks at them.
    Chosen (*choose)(float* logits, int64_t count, float cap);
    void (*softmax)(float* x, int64_t width);                                 // in place
    void (*add_scaled)(const float* x, float by, int64_t width, float* out);  // out += by * x
    // out = factor * out (nullptr: as it is) + the sum of thin[k] * (row k of b), whose rows lie `stride` apart
    void (*add_thin)(const float* thin, int64_t rank, const float* b, int64_t stride, const float* factor,
                     int64_t width, float* out);
};

size_t attend_scratch(const BlockLayout& layout, int group);  // floats
BlockLayout block_layout(Cache kind, int head_dim);

// Those of the instruction set in use.
const StepKernels& step_kernels(const char* instruction_set);

}  // namespace cutaway
