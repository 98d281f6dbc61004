// Adapters' share of a step: low-rank parts beside the products of all rows together (as S-LoRA and Punica batch them).
//
// The matrices are multiplied with the rows of every sequence at once; then each adapter's rows, and only they, get what
// its thin matrices make of them. All is shared among threads by columns in the same way whatever a step holds.
#include <stdexcept>

#include "runner.h"

namespace cutaway {

namespace {

constexpr int32_t kFloat32 = 0;  // the type's number in GGUF
constexpr int64_t kPiece = 64;   // columns that are not shared among threads

size_t places(int64_t count) { return static_cast<size_t>(count); }

void insist(bool right, const char* what) {
    if (!right) throw std::invalid_argument(what);
}

}  // namespace

void Runner::set_adapter(int32_t number, const ctw_part* part, int64_t parts) {
    insist(number > 0, "the number of an adapter must be above zero");
    Adapter made(parts ? matrices_.size() : 0);
    for (int64_t i = 0; i < parts; ++i) {
        insist(part[i].matrix >= 0 && places(part[i].matrix) < matrices_.size() && part[i].rank > 0,
               "an adapter has parts beside a matrix that the plan does not have");
        const Matrix& matrix = *matrices_[places(part[i].matrix)];
        Part& one = made[places(part[i].matrix)];
        insist(one.a == nullptr, "an adapter has two parts beside one matrix");
        one.a.reset(pack(kFloat32, part[i].a, part[i].rank, column_count(matrix), 1));
        if (!one.a) throw std::bad_alloc();
        one.b = part[i].b;
        one.factor = part[i].factor;
    }
    if (parts)
        adapters_[number] = std::move(made);
    else
        adapters_.erase(number);
    ranks_ = 0;
    for (const auto& [_, adapter] : adapters_) {
        for (const ctw_op& op : ops_) {
            if (op.kind != CTW_PRODUCT && op.kind != CTW_LOGITS) continue;
            int64_t ranks = 0;
            for (int32_t m = op.first_matrix; m < op.first_matrix + op.matrices; ++m)
                if (adapter[places(m)].a) ranks += row_count(*adapter[places(m)].a);
            ranks_ = ranks > ranks_ ? ranks : ranks_;
        }
    }
}

void Runner::lay_out_adapters(const int32_t* adapter) {
    segments_.clear();
    if (adapter == nullptr) return;
    for (size_t s = 0; s < sequences_.size(); ++s) {
        if (adapter[s] == 0) continue;
        const auto found = adapters_.find(adapter[s]);
        insist(found != adapters_.end(), "a sequence names an adapter that is not there");
        const Sequence& its = sequences_[s];
        if (!segments_.empty() && segments_.back().adapter == &found->second &&
            segments_.back().first + segments_.back().rows == its.first) {
            segments_.back().rows += its.rows;
            segments_.back().wanted += its.wanted;
        } else {
            segments_.push_back({&found->second, its.first, its.rows, its.first_wanted, its.wanted});
        }
    }
    if (segments_.empty()) return;
    thin_.need(places(ranks_ * batch_->rows));
}

void Runner::adapt(const ctw_op& op, const Walk& walk, float* out, int64_t stride) {
    const float* x = at(op.in, walk.part, 0);
    const int64_t width = column_count(*matrices_[places(op.first_matrix)]);
    for (const Segment& segment : segments_) {
        const int64_t first = walk.wanted ? segment.first_wanted : segment.first;
        const int64_t rows = walk.wanted ? segment.wanted : segment.rows;
        float* thin = thin_.data() + first * ranks_;
        for (int32_t m = op.first_matrix; m < op.first_matrix + op.matrices; ++m) {
            const Part& one = (*segment.adapter)[places(m)];
            if (!one.a || rows == 0) continue;
            multiply(*one.a, x + first * width, width, nullptr, rows, rounding_, thin, ranks_, walk.part,
                     threads_.parts());
            thin += row_count(*one.a);
        }
    }
    threads_.meet();  // the base's product is shared among threads in another way, too
    for (const Segment& segment : segments_) {
        const int64_t first = walk.wanted ? segment.first_wanted : segment.first;
        const int64_t rows = walk.wanted ? segment.wanted : segment.rows;
        const float* thin = thin_.data() + first * ranks_;
        float* to = out + first * stride;
        for (int32_t m = op.first_matrix; m < op.first_matrix + op.matrices; ++m) {
            const Part& one = (*segment.adapter)[places(m)];
            const int64_t count = row_count(*matrices_[places(m)]), pieces = (count + kPiece - 1) / kPiece;
            if (one.a) {
                const int64_t begin = pieces * walk.part / threads_.parts() * kPiece;
                const int64_t last = pieces * (walk.part + 1) / threads_.parts() * kPiece;
                const int64_t end = last < count ? last : count, rank = row_count(*one.a);
                const float* factor = one.factor != nullptr ? one.factor + begin : nullptr;
                for (int64_t row = 0; row < rows && begin < end; ++row)
                    kernels_.add_thin(thin + row * ranks_, rank, one.b + begin, count, factor, end - begin,
                                      to + row * stride + begin);
                thin += rank;
            }
            to += count;
        }
    }
}

}  // namespace cutaway
