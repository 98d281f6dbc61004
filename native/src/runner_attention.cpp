// Attention's share of a step: which pieces it is cut into, and the parts' merging.
#include <cstring>

#include "runner.h"

namespace cutaway {

namespace {

constexpr int64_t kSplitRows =
    16;  // with more rows there are pieces enough, and partial results would take much memory
constexpr int64_t kPiecesEach = 4;  // with as many for each thread, none waits long for the last one

size_t places(int64_t count) { return static_cast<size_t>(count); }

}  // namespace

void Runner::lay_out_attention() {
    units_.clear();
    first_unit_.clear();
    ranges_ = 0;
    int64_t all = 0;  // ranges of all pieces
    for (size_t s = 0; s < sequences_.size(); ++s) {
        const Sequence& sequence = sequences_[s];
        for (int64_t block = (sequence.rows - 1) / kRows; block >= 0;
             --block) {  // those with the longest contexts first
            const int64_t first = block * kRows, rows = sequence.rows - first < kRows ? sequence.rows - first : kRows;
            const int64_t ranges = (sequence.start + first + rows + kRange - 1) / kRange;
            ranges_ = ranges > ranges_ ? ranges : ranges_;
            all += ranges * shape_.kv_heads;
            for (int32_t h = 0; h < shape_.kv_heads; ++h)
                units_.push_back(
                    {static_cast<int32_t>(s), static_cast<int32_t>(first), static_cast<int32_t>(rows), h, 0, ranges});
        }
    }
    for (auto& blocks : blocks_) blocks.resize(places(ranges_ * (kRange / kPage)));
    const int64_t parts = threads_.parts();
    split_ = batch_->rows <= kSplitRows && ranges_ > 1 && parts > 1 &&
             static_cast<int64_t>(units_.size()) < kPiecesEach * parts;
    if (!split_) return;
    // every thread takes as many ranges as the others, one behind the other
    const std::vector<Unit> whole = units_;
    units_.clear();
    int64_t done = 0;
    size_t next = 0;
    Unit left = whole[0];
    for (int64_t part = 0; part < parts; ++part) {
        first_unit_.push_back(static_cast<int64_t>(units_.size()));
        const int64_t until = all * (part + 1) / parts;
        while (done < until) {
            const int64_t ranges = left.last_range - left.first_range,
                          some = ranges < until - done ? ranges : until - done;
            units_.push_back(left);
            units_.back().last_range = left.first_range + some;
            left.first_range += some;
            done += some;
            if (left.first_range == left.last_range && ++next < whole.size()) left = whole[next];
        }
    }
    first_unit_.push_back(static_cast<int64_t>(units_.size()));
    partial_.need(places(batch_->rows * shape_.heads * ranges_ * (pages_.layout().padded + 2)));
}

void Runner::attend(const ctw_op& op, const Walk& walk) {
    if (split_) {
        for (int64_t i = first_unit_[places(walk.part)]; i < first_unit_[places(walk.part + 1)]; ++i)
            attend(op, walk, units_[places(i)]);
        threads_.meet();
        merge(op, walk);
        return;
    }
    const int64_t count = static_cast<int64_t>(units_.size());
    for (int64_t i = threads_.take(); i < count; i = threads_.take()) attend(op, walk, units_[places(i)]);
}

void Runner::attend(const ctw_op& op, const Walk& walk, const Unit& unit) {
    const Sequence& sequence = sequences_[places(unit.sequence)];
    const BlockLayout& layout = pages_.layout();
    const int64_t D = layout.head_dim, row = sequence.first + unit.first, group = shape_.heads / shape_.kv_heads;
    const int64_t head = unit.kv_head * group, end = sequence.start + unit.first + unit.rows;
    auto& blocks = blocks_[places(walk.part)];
    const int64_t last = unit.last_range * (kRange / kPage);
    for (int64_t p = unit.first_range * (kRange / kPage); p < last && p * kPage < end; ++p)
        blocks[places(p)] = pages_.block(sequence.pages[p], op.layer, unit.kv_head);

    AttendPiece piece{};
    piece.layout = &layout;
    piece.blocks = blocks.data();
    piece.queries = at(op.in, walk.part, row) + head * D;
    piece.query_stride = buffers_[places(op.in)].width;
    piece.rows = unit.rows;
    piece.group = static_cast<int>(group);
    piece.position = sequence.start + unit.first;
    piece.first_range = unit.first_range;
    piece.last_range = unit.last_range;
    piece.window = op.window;
    piece.scale = op.scale;
    piece.cap = op.cap;
    piece.scratch = scratch_[places(walk.part)].data();
    if (split_) {
        piece.partial_head = ranges_ * (layout.padded + 2);
        piece.partial_row = shape_.heads * piece.partial_head;
        piece.partial = partial_.data() + row * piece.partial_row + head * piece.partial_head;
    } else {
        piece.out = at(op.out, walk.part, row) + head * D;
        piece.out_stride = buffers_[places(op.out)].width;
    }
    if (op.tap >= 0)
        for (int32_t i = first_tap_[places(op.tap)]; i >= 0; i = next_tap_[places(i)])
            if (batch_->tap[i].sequence == unit.sequence) {
                piece.scores_row = sequence.start + sequence.rows;
                piece.scores_head = sequence.rows * piece.scores_row;
                piece.scores = batch_->tap[i].out + head * piece.scores_head + unit.first * piece.scores_row;
            }
    kernels_.attend(piece);
}

void Runner::merge(const ctw_op& op, const Walk& walk) {
    const int D = shape_.head_dim, H = shape_.heads, padded = pages_.layout().padded;
    const int64_t of_head = ranges_ * (padded + 2), count = walk.rows * H;
    for (int64_t i = count * walk.part / threads_.parts(); i < count * (walk.part + 1) / threads_.parts(); ++i) {
        const int64_t row = i / H;
        const Sequence& sequence = sequence_of(row);
        const int64_t ranges = (sequence.start + row - sequence.first + kRange) / kRange;  // that the row sees
        kernels_.merge(partial_.data() + i * of_head, ranges, D, padded, scratch_[places(walk.part)].data(),
                       at(op.out, walk.part, row) + i % H * D);
    }
}

}  // namespace cutaway
