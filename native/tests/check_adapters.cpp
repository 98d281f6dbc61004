// Tries low-rank parts beside a step's products with every instruction set that this machine has, built with
// sanitizers: against the plain formulas in double precision, and rows of several adapters against each sequence alone,
// bit for bit.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "cutaway.h"
#include "matrix_c.h"

namespace {

constexpr int64_t C = 64, FIRST = 70, SECOND = 26, INNER = FIRST + SECOND, V = 131;
constexpr int32_t F32 = 0, Q8_0 = 8;
const int64_t SIZES[][2] = {{V, C}, {FIRST, C}, {SECOND, C}, {C, INNER}, {V, C}};  // (N, C) of the plan's matrices

std::mt19937 random_bits(5);
int failures = 0;
const char* set = "";

float number(float size = 1.0f) {
    return size * static_cast<float>(static_cast<int32_t>(random_bits())) / 2147483648.0f;
}

std::vector<float> numbers(int64_t count, float size = 1.0f) {
    std::vector<float> made(static_cast<size_t>(count));  // its end is the end of its memory, which is watched
    for (float& x : made) x = number(size);
    return made;
}

void insist(bool right, const char* what, int a = 0, int b = 0) {
    if (right) return;
    std::printf("%s: %s (%d, %d)\n", set, what, a, b);
    ++failures;
}

struct Low {
    int64_t rank;
    std::vector<float> a, b, factor;  // (rank, C), (rank, N), (N) or none
};
using Adapter = std::map<int32_t, Low>;  // by matrix

Adapter adapter(const std::map<int32_t, int64_t>& ranks, bool scaled) {
    Adapter made;
    for (const auto& [matrix, rank] : ranks) {
        const int64_t n = SIZES[matrix][0], c = SIZES[matrix][1];
        made[matrix] = {rank, numbers(rank * c, 0.3f), numbers(rank * n, 0.3f), numbers(scaled ? n : 0)};
    }
    return made;
}

struct Asked {  // of a sequence
    std::vector<int32_t> ids;
    int32_t adapter, wanted;  // the last so many rows
};

// Embedding, two products beside each other, one behind them, the sum, and logits; of float or of quantised matrices.
class Net {
public:
    Net(int32_t kind, int32_t threads) {
        for (const auto& size : SIZES) {
            const int32_t its = handles_.empty() ? F32 : kind;
            floats_.push_back(numbers(its == F32 ? size[0] * size[1] : 0, 0.2f));
            std::vector<uint8_t> bytes(static_cast<size_t>(its == F32 ? 0 : size[0] * size[1] / 32 * 34));
            for (size_t i = 0; i < bytes.size(); ++i)  // blocks of a scale in float16, here 2^-9, and 32 small numbers
                bytes[i] = i % 34 == 0 ? 0x00 : i % 34 == 1 ? 0x18 : static_cast<uint8_t>(random_bits());
            blocks_.push_back(bytes);
            const void* rows = its == F32 ? static_cast<const void*>(floats_.back().data()) : blocks_.back().data();
            handles_.push_back(ctw_pack(its, rows, size[0], size[1], 1));
            insist(handles_.back() != nullptr, "a matrix is packed", its);
        }
        const ctw_buffer buffers[] = {{C, 0}, {INNER, 1}, {C, 1}, {C, 0}};
        const auto op = [](int32_t what, int32_t in, int32_t second, int32_t out, int32_t first, int32_t count) {
            ctw_op made{};
            made.kind = what, made.in = in, made.second = second, made.out = out, made.table = made.tap = -1;
            made.width = C, made.first_matrix = first, made.matrices = count, made.scale = 1.0f;
            return made;
        };
        const ctw_op ops[] = {op(CTW_EMBED, -1, -1, 0, 0, 1),  op(CTW_PRODUCT, 0, -1, 1, 1, 2),
                              op(CTW_PRODUCT, 1, -1, 2, 3, 1), op(CTW_ADD, 0, 2, 0, 0, 0),
                              op(CTW_WANTED, 0, -1, 3, 0, 0),  op(CTW_LOGITS, 3, -1, -1, 4, 1)};
        ctw_plan plan{};
        plan.threads = threads, plan.rounding = 8, plan.layers = plan.heads = plan.kv_heads = 1, plan.head_dim = 8;
        plan.vocabulary = V, plan.buffers = 4, plan.ops = 6, plan.matrices = 5;
        plan.buffer = buffers, plan.op = ops, plan.matrix = handles_.data();
        runner_ = ctw_runner(&plan, error_, sizeof error_);
        insist(runner_ != nullptr && ctw_reserve(runner_, 16, error_, sizeof error_) == 0, error_);
    }
    ~Net() {
        ctw_end(runner_);
        for (void* handle : handles_) ctw_release(handle);
    }
    Net(const Net&) = delete;
    Net& operator=(const Net&) = delete;

    int32_t give(int32_t number, const std::vector<ctw_part>& parts) {
        return ctw_adapter(runner_, number, parts.data(), static_cast<int64_t>(parts.size()), error_, sizeof error_);
    }
    int32_t give(int32_t number, const Adapter& adapter) {
        std::vector<ctw_part> parts;
        for (const auto& [matrix, low] : adapter)
            parts.push_back({matrix, static_cast<int32_t>(low.rank), low.a.data(), low.b.data(),
                             low.factor.empty() ? nullptr : low.factor.data()});
        return give(number, parts);
    }

    // (wanted, V) logits of all sequences; empty where the step is refused.
    std::vector<float> step(const std::vector<Asked>& asked, bool plain = false) {
        std::vector<int32_t> ids, span, pages, row, adapters;
        for (const Asked& one : asked) {
            const int32_t count = static_cast<int32_t>(one.ids.size());
            span.insert(span.end(), {count, 0, static_cast<int32_t>(pages.size()), 1});
            pages.push_back(static_cast<int32_t>(pages.size()));
            ids.insert(ids.end(), one.ids.begin(), one.ids.end());
            for (int32_t w = one.wanted; w > 0; --w) row.push_back(static_cast<int32_t>(ids.size()) - w);
            adapters.push_back(one.adapter);
        }
        std::vector<float> logits(row.size() * V), sums(row.size());
        std::vector<int64_t> best(row.size());
        ctw_batch batch{};
        batch.rows = static_cast<int64_t>(ids.size()), batch.sequences = static_cast<int64_t>(asked.size());
        batch.wanted = static_cast<int64_t>(row.size());
        batch.ids = ids.data(), batch.span = span.data(), batch.pages = pages.data(), batch.row = row.data();
        batch.logits = logits.data(), batch.best = best.data(), batch.log_sum = sums.data();
        const int32_t failed = plain ? ctw_step(runner_, &batch, error_, sizeof error_)
                                     : ctw_step_adapted(runner_, &batch, adapters.data(), error_, sizeof error_);
        return failed ? std::vector<float>() : logits;
    }

    std::vector<double> product(int32_t matrix, const std::vector<double>& x, const Adapter& adapter) const {
        const size_t n = static_cast<size_t>(SIZES[matrix][0]), c = static_cast<size_t>(SIZES[matrix][1]);
        const auto found = adapter.find(matrix);
        const Low* low = found == adapter.end() ? nullptr : &found->second;
        std::vector<double> out(n);
        for (size_t i = 0; i < n; ++i) {
            for (size_t k = 0; k < c; ++k) out[i] += floats_[static_cast<size_t>(matrix)][i * c + k] * x[k];
            if (low != nullptr && !low->factor.empty()) out[i] *= low->factor[i];
        }
        for (size_t r = 0; low != nullptr && r < static_cast<size_t>(low->rank); ++r) {
            double thin = 0.0;
            for (size_t k = 0; k < c; ++k) thin += low->a[r * c + k] * x[k];
            for (size_t i = 0; i < n; ++i) out[i] += thin * low->b[r * n + i];
        }
        return out;
    }

    std::vector<double> expected(int32_t id, const Adapter& adapter) const {
        const float* row = floats_[0].data() + id * C;
        std::vector<double> x(row, row + C), inner = product(1, x, adapter);
        const auto second = product(2, x, adapter);
        inner.insert(inner.end(), second.begin(), second.end());
        const auto more = product(3, inner, adapter);
        for (size_t i = 0; i < x.size(); ++i) x[i] += more[i];
        return product(4, x, adapter);
    }

private:
    std::vector<std::vector<float>> floats_;
    std::vector<std::vector<uint8_t>> blocks_;
    std::vector<void*> handles_;
    void* runner_ = nullptr;
    char error_[256] = "";
};

void check(int32_t kind, int32_t threads) {
    Net net(kind, threads);
    // ranks beyond the width, parts beside some matrices alone, none beside the first of two
    std::vector<Adapter> adapters = {{},
                                     adapter({{1, 3}, {2, 5}, {3, 1}}, false),
                                     adapter({{2, 100}, {4, 7}}, true),
                                     adapter({{1, 16}, {2, 16}, {3, 33}, {4, 2}}, true)};
    for (int32_t i = 1; i < 4; ++i) insist(net.give(i, adapters[static_cast<size_t>(i)]) == 0, "an adapter", i);
    std::vector<Asked> asked = {{{1, 2, 3, 4, 5}, 1, 2}, {{6}, 1, 1},        {{7, 8, 9}, 0, 1},  {{10, 11}, 2, 2},
                                {{12, 13}, 2, 0},        {{130, 0, 0}, 1, 1}, {{14, 1, 2}, 3, 3}, {{15}, 0, 1}};
    const auto together = net.step(asked);
    size_t row = 0;
    for (const Asked& one : asked) {
        const auto alone = net.step({one});
        insist(alone.size() == static_cast<size_t>(one.wanted * V), "a step of one sequence", threads);
        insist(std::equal(alone.begin(), alone.end(), together.begin() + static_cast<int64_t>(row) * V),
               "a sequence is as alone", one.adapter, threads);
        for (int32_t w = 0; w < one.wanted; ++w, ++row) {
            const int32_t id = one.ids[one.ids.size() - static_cast<size_t>(one.wanted - w)];
            const auto single = net.step({{{id}, one.adapter, 1}});
            insist(std::equal(single.begin(), single.end(), together.begin() + static_cast<int64_t>(row) * V),
                   "a row is as alone", one.adapter, threads);
            if (!one.adapter)
                insist(single == net.step({{{id}, 0, 1}}, true), "a row without one is as in a plain step", threads);
            if (kind != F32) continue;
            const auto wanted = net.expected(id, adapters[static_cast<size_t>(one.adapter)]);
            double worst = 0.0, most = 0.0;
            for (size_t i = 0; i < wanted.size(); ++i) {
                const double off = std::fabs(together[row * V + i] - wanted[i]);
                worst = off <= worst ? worst : off;  // a NaN is the worst
                most = std::fmax(most, std::fabs(wanted[i]));
            }
            insist(worst < 2e-6 * most, "parts are added", one.adapter, threads);
        }
    }
    // another in its place, and none
    insist(net.give(1, adapters[3]) == 0, "another of the same number");
    const auto third = net.step({{{1, 2}, 3, 1}});
    insist(net.step({{{1, 2}, 1, 1}}) == third, "another of the same number is used", threads);
    insist(net.give(3, Adapter()) == 0 && net.give(3, Adapter()) == 0, "one may be forgotten twice");
    insist(net.step({{{1}, 0, 1}, {{1, 2}, 3, 1}}).empty(), "one that is not there is refused", threads);
    insist(net.step({{{1, 2}, 1, 1}}) == third, "the others stay", threads);
    // what is no adapter changes nothing
    const float some[INNER * 2] = {};
    const ctw_part fine{3, 1, some, some, nullptr}, none{3, 0, some, some, nullptr}, beyond{5, 1, some, some, nullptr},
        below{-1, 1, some, some, nullptr};
    insist(net.give(0, std::vector<ctw_part>{fine}) == 1, "numbers begin with one");
    insist(net.give(1, std::vector<ctw_part>{none}) == 1, "a rank of zero");
    insist(net.give(1, std::vector<ctw_part>{beyond}) == 1 && net.give(1, std::vector<ctw_part>{below}) == 1,
           "a matrix that is not there");
    insist(net.give(1, std::vector<ctw_part>{fine, fine}) == 1, "two beside one matrix");
    insist(net.step({{{1, 2}, 1, 1}}) == third, "what is refused changes nothing", threads);
}

}  // namespace

int main() {
    int tried = 0;
    const char* asked = std::getenv("CUTAWAY_KERNELS");
    for (const char* name : {"avx512-vnni", "avx2-vnni", "avx2", "neon", "portable"}) {
        if ((asked && std::strcmp(asked, name) != 0) || !ctw_choose_instruction_set(name)) continue;
        ++tried;
        set = name;
        for (const int32_t threads : {1, 2, 3})
            for (const int32_t kind : {F32, Q8_0}) check(kind, threads);
        std::printf("%s: tried\n", name);
    }
    return failures || !tried;
}
