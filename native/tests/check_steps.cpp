// Tries what is computed between the products with every instruction set that this machine has, built with sanitizers:
// against the plain formulas in double precision, and every way of cutting attention into pieces against the whole, bit
// for bit.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "matrix_c.h"
#include "pages.h"
#include "step_kernels.h"

using namespace cutaway;

namespace {

std::mt19937 random_bits(11);
int failures = 0;
const char* set = "";

float number(float size = 1.0f) {
    return size * static_cast<float>(static_cast<int32_t>(random_bits())) / 2147483648.0f;
}

std::vector<float> numbers(size_t count, float size = 1.0f) {
    std::vector<float> made(count);  // its end is the end of its memory, which the sanitizer watches
    for (float& x : made) x = number(size);
    return made;
}

void insist(bool right, const char* what, int a = 0, int b = 0) {
    if (right) return;
    std::printf("%s: %s (%d, %d)\n", set, what, a, b);
    ++failures;
}

// The largest error, of the largest number that is wanted or of `least`.
double furthest(const std::vector<float>& found, const std::vector<double>& wanted, double least = 1e-30) {
    double worst = 0.0, most = least;
    for (size_t i = 0; i < found.size(); ++i) {
        const double off = std::fabs(static_cast<double>(found[i]) - wanted[i]);
        worst = off <= worst ? worst : off;  // a NaN is the worst
        most = std::fmax(most, std::fabs(wanted[i]));
    }
    return worst / most;
}

double activated(Activation kind, double x) {
    switch (kind) {
        case Activation::silu:
            return x / (1 + std::exp(-x));
        case Activation::gelu:
            return x * 0.5 * (1 + std::erf(x / std::sqrt(2.0)));
        case Activation::gelu_tanh:
            return x * 0.5 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
        case Activation::relu:
            return x > 0 ? x : 0;
        default:
            return x > 0 ? x * x : 0;
    }
}

void check_rowwise(const StepKernels& kernels) {
    for (const int width : {1, 3, 15, 16, 17, 40, 64, 100, 576}) {
        const size_t n = static_cast<size_t>(width);
        const auto x = numbers(n, 3.0f), weight = numbers(n), bias = numbers(n), by = numbers(n);
        std::vector<float> out(n);
        std::vector<double> wanted(n);
        for (const Norm kind : {Norm::rms, Norm::layer}) {
            double mean = 0.0, square = 0.0;
            if (kind == Norm::layer)
                for (const float v : x) mean += v / static_cast<double>(width);
            for (const float v : x) square += (v - mean) * (v - mean) / width;
            for (size_t i = 0; i < n; ++i) wanted[i] = (x[i] - mean) / std::sqrt(square + 1e-5) * weight[i] + bias[i];
            kernels.norm(kind, x.data(), weight.data(), bias.data(), 1e-5f, width, out.data());
            insist(furthest(out, wanted) < 1e-6, "norm", static_cast<int>(kind), width);
        }
        for (int kind = 0; kind < 5; ++kind) {
            const auto wide = numbers(n, 12.0f);
            for (size_t i = 0; i < n; ++i) wanted[i] = activated(static_cast<Activation>(kind), wide[i]) * by[i];
            kernels.activate(static_cast<Activation>(kind), wide.data(), by.data(), width, out.data());
            insist(furthest(out, wanted, 1.0) < 2e-6, "activation", kind, width);
        }
        kernels.add(x.data(), by.data(), bias.data(), width, out.data());
        for (size_t i = 0; i < n; ++i) wanted[i] = static_cast<double>(x[i]) + by[i] + bias[i];
        insist(furthest(out, wanted) < 1e-6, "add", width);
        for (const float cap : {0.0f, 2.0f}) {
            auto logits = numbers(n, 20.0f);
            const auto given = logits;
            const Chosen chosen = kernels.choose(logits.data(), width, cap);
            double most = -1e30, sum = 0.0;
            for (size_t i = 0; i < n; ++i) wanted[i] = cap > 0 ? cap * std::tanh(given[i] / cap) : given[i];
            for (const float v : logits) most = std::fmax(most, v);
            for (const float v : logits) sum += std::exp(v - most);
            insist(furthest(logits, wanted) < 1e-6, "cap", width);
            insist(chosen.most == static_cast<float>(most) && std::fabs(chosen.sum / sum - 1) < 1e-6, "choose", width);
            insist(logits[static_cast<size_t>(chosen.best)] == chosen.most && chosen.check == 0.0f, "best", width);
            logits[n / 2] = width % 2 ? NAN : INFINITY;
            insist(std::isnan(kernels.choose(logits.data(), width, 0.0f).check), "what is not finite is seen", width);
        }
    }
}

void check_heads(const StepKernels& kernels) {
    for (const int D : {6, 8, 40, 64})
        for (const int turned : {2, 6}) {
            const HeadsShape shape{3, 1, D, turned, HeadNorm::each, 1e-6f};
            const size_t d = static_cast<size_t>(D), n = 5 * d;
            const auto x = numbers(n), bias = numbers(n), scales = numbers(4 * d), cos = numbers(d), sin = numbers(d);
            std::vector<float> out(n);
            std::vector<double> wanted(n);
            for (size_t h = 0; h < 5; ++h) {
                std::vector<double> head(d);
                double square = 0.0;
                for (size_t i = 0; i < d; ++i) head[i] = static_cast<double>(x[h * d + i]) + bias[h * d + i];
                for (const double v : head) square += v * v / D;
                for (size_t i = 0; i < d && h < 4; ++i) head[i] *= scales[h * d + i] / std::sqrt(square + 1e-6);
                const size_t half = static_cast<size_t>(turned) / 2;
                for (size_t i = 0; i < d; ++i) {
                    const size_t other = i < half ? i + half : i - half;
                    wanted[h * d + i] = h < 4 && i < 2 * half ? head[i] * cos[i] + head[other] * sin[i] : head[i];
                }
            }
            kernels.heads(shape, x.data(), bias.data(), scales.data(), cos.data(), sin.data(), out.data());
            insist(furthest(out, wanted) < 2e-6, "heads", D, turned);
        }
}

struct Context {
    Cache kind;
    int D, group, tokens, window;
    float cap;
    std::vector<float> keys, values, queries;  // (tokens, D), (tokens, D), (tokens, group, D)
    std::vector<double> wanted;                // (tokens, group, D)
};

// What is left of (tokens, D) numbers in a cache.
std::vector<double> kept(Cache kind, const std::vector<float>& given, size_t D) {
    std::vector<double> left(given.begin(), given.end());
    for (size_t at = 0; at < left.size() && kind != Cache::float32; at += D) {
        double size = 0.0;
        for (size_t d = 0; d < D; ++d) size = std::fmax(size, std::fabs(left[at + d]));
        for (size_t d = 0; d < D; ++d) {
            int exponent;
            std::frexp(left[at + d], &exponent);
            const double half = std::ldexp(1.0, (exponent < -13 ? -13 : exponent) - 11);  // a step of float16
            const float by = 127.0f / static_cast<float>(size);  // in float32, as halves may fall either way
            if (kind == Cache::int8)
                left[at + d] = std::nearbyint(given[at + d] * by) * size / 127;
            else
                left[at + d] = std::nearbyint(left[at + d] / half) * half;
        }
    }
    return left;
}

void compute(Context& c) {
    const size_t D = static_cast<size_t>(c.D), group = static_cast<size_t>(c.group),
                 window = static_cast<size_t>(c.window);
    const auto keys = kept(c.kind, c.keys, D), values = kept(c.kind, c.values, D);
    c.wanted.assign(c.queries.size(), 0.0);
    for (size_t t = 0; t < static_cast<size_t>(c.tokens); ++t)
        for (size_t g = 0; g < group; ++g) {
            const size_t low = window && t + 1 > window ? t + 1 - window : 0, at = (t * group + g) * D;
            std::vector<double> weights;
            double sum = 0.0;
            for (size_t s = low; s <= t; ++s) {
                double score = 0.0;
                for (size_t d = 0; d < D; ++d) score += c.queries[at + d] * keys[s * D + d];
                score *= 0.4;
                if (c.cap > 0) score = c.cap * std::tanh(score / c.cap);
                weights.push_back(std::exp(score));
                sum += weights.back();
            }
            for (size_t s = low; s <= t; ++s)
                for (size_t d = 0; d < D; ++d) c.wanted[at + d] += weights[s - low] / sum * values[s * D + d];
        }
}

// All rows in pieces of `rows`, each over pieces of `ranges` (0: the whole context at once).
std::vector<float> attended(const StepKernels& kernels, const Context& c, const BlockLayout& layout,
                            const std::vector<const uint8_t*>& blocks, int rows, int64_t ranges) {
    const size_t D = static_cast<size_t>(c.D), each = static_cast<size_t>(layout.padded) + 2;
    std::vector<float> out(c.queries.size()), scratch(attend_scratch(layout, c.group));
    for (int row = 0; row < c.tokens; row += rows) {
        AttendPiece piece{};
        piece.layout = &layout;
        piece.blocks = blocks.data();
        piece.queries = c.queries.data() + static_cast<size_t>(row * c.group) * D;
        piece.query_stride = c.group * c.D;
        piece.rows = c.tokens - row < rows ? c.tokens - row : rows;
        piece.group = c.group;
        piece.position = row;
        piece.window = c.window;
        piece.scale = 0.4f;
        piece.cap = c.cap;
        piece.scratch = scratch.data();
        const int64_t all = (row + piece.rows + kRange - 1) / kRange;
        float* z = out.data() + static_cast<size_t>(row * c.group) * D;
        if (ranges == 0) {
            piece.last_range = all;
            piece.out = z;
            piece.out_stride = c.group * c.D;
            kernels.attend(piece);
            continue;
        }
        std::vector<float> partial(static_cast<size_t>(piece.rows * c.group * all) * each), total(each);
        piece.partial = partial.data();
        piece.partial_head = all * static_cast<int64_t>(each);
        piece.partial_row = c.group * piece.partial_head;
        for (int64_t first = 0; first < all; first += ranges) {
            piece.first_range = first;
            piece.last_range = first + ranges < all ? first + ranges : all;
            kernels.attend(piece);
        }
        for (int i = 0; i < piece.rows * c.group; ++i)
            kernels.merge(partial.data() + i * piece.partial_head, (row + i / c.group) / kRange + 1, c.D, layout.padded,
                          total.data(), z + static_cast<size_t>(i) * D);
    }
    return out;
}

void check_attention(const StepKernels& kernels) {
    const int tokens = 270;
    for (const Cache kind : {Cache::float32, Cache::float16, Cache::int8})
        for (const int D : {6, 8, 40, 64, 80})
            for (const int group : {D / 8 % 2 ? 1 : 3, D == 6 ? 7 : 2}) {
                const size_t count = tokens * static_cast<size_t>(D);
                Context c{kind,
                          D,
                          group,
                          tokens,
                          D % 3 ? 0 : 70,
                          group == 3 ? 2.0f : 0.0f,
                          numbers(count, 2.0f),
                          numbers(count, 2.0f),
                          numbers(count * static_cast<size_t>(group), 2.0f),
                          {}};
                compute(c);
                Pages pages(kind, 1, 1, D);
                pages.reserve(2);
                pages.reserve(5);
                std::vector<const uint8_t*> blocks;
                for (int p = 0; p < 5; ++p) blocks.push_back(pages.block((3 * p + 1) % 5, 0, 0));
                for (int t = 0; t < tokens; ++t)
                    kernels.store(pages.layout(), pages.block((3 * (t / kPage) + 1) % 5, 0, 0), t % kPage,
                                  &c.keys[static_cast<size_t>(t * D)], &c.values[static_cast<size_t>(t * D)]);
                const auto whole = attended(kernels, c, pages.layout(), blocks, kRows, 0);
                insist(furthest(whole, c.wanted) < 5e-6, "attention", static_cast<int>(kind), D);
                for (const int rows : {1, 5})
                    for (const int64_t ranges : {0, 1, 2})
                        insist(attended(kernels, c, pages.layout(), blocks, rows, ranges) == whole,
                               "attention in other pieces", rows, static_cast<int>(ranges));
            }
}

}  // namespace

int main() {
    int tried = 0;
    const char* asked = std::getenv("CUTAWAY_KERNELS");
    for (const char* name : {"avx512-vnni", "avx2-vnni", "avx2", "neon", "portable"}) {
        if ((asked && std::strcmp(asked, name) != 0) || !ctw_choose_instruction_set(name)) continue;
        ++tried;
        set = name;
        const StepKernels& kernels = step_kernels(name);
        check_rowwise(kernels);
        check_heads(kernels);
        check_attention(kernels);
        std::printf("%s: tried\n", name);
    }
    return failures || !tried;
}
