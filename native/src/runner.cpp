#include "runner.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace cutaway {

namespace {

constexpr int64_t kLook = 8192;  // logits that are looked at together
constexpr int kProductPieces = 4;  // of a matrix, for each thread

bool is_rowwise(int32_t kind) {
    return kind != CTW_ATTEND && kind != CTW_PRODUCT && kind != CTW_LOGITS && kind != CTW_EXPERTS;
}

void insist(bool right, const char* what) {
    if (!right) throw std::invalid_argument(what);
}

size_t places(int64_t count) { return static_cast<size_t>(count); }

int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

}  // namespace

Runner::Runner(const ctw_plan& plan)
    : ops_(plan.op, plan.op + plan.ops),
      buffers_(plan.buffer, plan.buffer + plan.buffers),
      tables_(places(plan.tables)),
      shape_(plan),
      rounding_(plan.rounding == 16 ? Rounding::sixteen : Rounding::eight),
      pages_(static_cast<Cache>(plan.cache), plan.layers, plan.kv_heads, plan.head_dim),
      threads_(plan.threads),
      kernels_(step_kernels(instruction_set())),
      first_tap_(places(plan.taps)),
      shared_(buffers_.size()),
      own_(places(threads_.parts())),
      scratch_(places(threads_.parts())),
      blocks_(places(threads_.parts())),
      prepared_own_(places(threads_.parts())),
      order_(places(threads_.parts())),
      chose_(places(threads_.parts())),
      times_(CTW_OPS) {
    for (int64_t i = 0; i < plan.matrices; ++i) matrices_.push_back(static_cast<const Matrix*>(plan.matrix[i]));
    for (const ctw_op& op : ops_)
        insist(op.kind >= 0 && op.kind < CTW_OPS, "the plan has an operation of no known kind");
    const size_t room = attend_scratch(pages_.layout(), shape_.heads / shape_.kv_heads);
    for (auto& scratch : scratch_) scratch.need(room);
    for (auto& own : own_) {
        own = std::vector<Memory<float>>(buffers_.size());
        for (size_t b = 0; b < buffers_.size(); ++b) own[b].need(places(buffers_[b].width));
    }
}

void Runner::set_table(int32_t table, const float* numbers, int64_t rows, int64_t width) {
    tables_.at(places(table)) = {numbers, rows, width};
}

void Runner::times(int64_t* nanoseconds, bool measure) {
    for (size_t kind = 0; kind < times_.size(); ++kind) nanoseconds[kind] = times_[kind];
    measure_ = measure;
    times_.assign(CTW_OPS, 0);
}

void Runner::check(const ctw_batch& batch) const {
    int64_t rows = 0;
    for (int64_t s = 0; s < batch.sequences; ++s) {
        const int32_t* span = batch.span + 4 * s;
        insist(span[0] > 0 && span[1] >= 0, "a sequence needs a new token, and cannot hold fewer than none");
        const int64_t end = static_cast<int64_t>(span[0]) + span[1];
        insist(span[3] * static_cast<int64_t>(kPage) >= end, "a sequence has fewer pages than its tokens need");
        for (int32_t p = 0; p < span[3]; ++p) {
            const int32_t page = batch.pages[span[2] + p];
            insist(page >= 0 && page < pages_.count(), "a sequence names a page that was not reserved");
        }
        for (const Table& table : tables_)
            insist(table.numbers == nullptr || end <= table.rows, "a position lies beyond its table");
        rows += span[0];
    }
    insist(rows == batch.rows, "the sequences' rows are not as many as the step's");
    for (int64_t i = 0; i < batch.rows; ++i)
        insist(batch.ids[i] >= 0 && batch.ids[i] < shape_.vocabulary, "a token is not in the vocabulary");
    for (int64_t w = 0; w < batch.wanted; ++w)
        insist(batch.row[w] < rows && batch.row[w] >= (w ? batch.row[w - 1] + 1 : 0), "wanted rows must ascend");
}

void Runner::lay_out(const ctw_batch& batch) {
    batch_ = &batch;
    alone_ = batch.rows == 1;
    sequences_.clear();
    owner_.clear();
    int64_t row = 0, wanted = 0;
    for (int64_t s = 0; s < batch.sequences; ++s) {
        const int32_t* span = batch.span + 4 * s;
        Sequence made{row, span[0], span[1], batch.pages + span[2], wanted, 0};
        row += span[0];
        while (wanted < batch.wanted && batch.row[wanted] < row) ++wanted;
        made.wanted = wanted - made.first_wanted;
        sequences_.push_back(made);
        owner_.insert(owner_.end(), places(span[0]), static_cast<int32_t>(s));
    }
    for (size_t b = 0; b < buffers_.size(); ++b) shared_[b].need(places(buffers_[b].width * batch.rows));
    for (const ctw_op& op : ops_) {
        if (is_rowwise(op.kind) || op.kind == CTW_ATTEND) continue;
        for (int32_t m = 0; m < op.matrices; ++m) {
            const int64_t width = column_count(*matrices_[places(op.first_matrix + m)]);
            prepared_.need(prepared_bytes(batch.rows, width, rounding_));
            for (auto& own : prepared_own_) own.need(prepared_bytes(1, width, rounding_));
        }
        if (op.kind == CTW_EXPERTS) {
            const int64_t inner = row_count(*matrices_[places(op.first_matrix + 1)]);
            const int64_t widths[4] = {op.width, 2 * inner, inner, op.width};
            for (auto& order : order_) order.reserve(places(op.used));
            for (auto& chose : chose_) chose.reserve(places(batch.rows));
            for (int i = 0; i < 4; ++i) expert_[i].need(places(widths[i] * batch.rows));
        }
    }
    chosen_.resize(places(batch.wanted * ((shape_.vocabulary + kLook - 1) / kLook)));
    lay_out_taps(batch);
    lay_out_attention();
}

void Runner::lay_out_taps(const ctw_batch& batch) {
    first_tap_.assign(first_tap_.size(), -1);
    next_tap_.resize(places(batch.taps));
    for (int64_t i = 0; i < batch.taps; ++i) {
        int32_t& first = first_tap_.at(places(batch.tap[i].tap));
        next_tap_[places(i)] = first;
        first = static_cast<int32_t>(i);
    }
}

void Runner::step(const ctw_batch& batch, const int32_t* adapter) {
    if (batch.rows == 0) return;
    check(batch);
    lay_out(batch);
    lay_out_adapters(adapter);
    threads_.run([this](int part) { walk(part); });
}

float* Runner::at(int32_t buffer, int part, int64_t row) {
    const ctw_buffer& shape = buffers_[places(buffer)];
    if (alone_ && shape.product == 0) return own_[places(part)][places(buffer)].data();
    return shared_[places(buffer)].data() + row * shape.width;
}

void Runner::walk(int part) noexcept {
    Walk walk{part, batch_->rows, false};
    bool waits = false;  // rowwise results of this thread are not known to the others yet
    const bool measures = measure_ && part == 0;
    for (size_t i = 0; i < ops_.size();) {
        const int64_t began = measures ? now() : 0;
        const size_t from = i;
        if (is_rowwise(ops_[i].kind)) {
            if (ops_[i].kind == CTW_WANTED) {
                if (waits && !alone_) threads_.meet();
                walk.rows = batch_->wanted;
                if (walk.rows == 0) return;
            }
            size_t end = i + 1;
            while (end < ops_.size() && is_rowwise(ops_[end].kind) && ops_[end].kind != CTW_WANTED) ++end;
            const int64_t first = alone_ ? 0 : first_row(walk, part), last = alone_ ? 1 : first_row(walk, part + 1);
            walk.wanted = walk.wanted || ops_[i].kind == CTW_WANTED;
            for (int64_t row = first; row < last; ++row)
                for (size_t k = i; k < end; ++k) rowwise(ops_[k], walk, row);
            for (; i < end; ++i) waits = waits || ops_[i].kind != CTW_TAP;
        } else {
            if (waits && (!alone_ || ops_[i].kind == CTW_ATTEND)) threads_.meet();  // alone, one thread stores for all
            waits = false;
            together(ops_[i], walk);
            ++i;
        }
        if (measures) times_[places(ops_[from].kind)] += now() - began;
    }
}

void Runner::together(const ctw_op& op, const Walk& walk) {
    if (op.kind == CTW_PRODUCT) {
        product(op, walk, at(op.out, walk.part, 0), buffers_[places(op.out)].width);
        threads_.meet();
    } else if (op.kind == CTW_ATTEND) {
        attend(op, walk);
        threads_.meet();
    } else if (op.kind == CTW_LOGITS) {
        logits(op, walk);
    } else {
        experts(op, walk);
    }
}

void Runner::rowwise(const ctw_op& op, const Walk& walk, int64_t row) {
    float* out = op.out >= 0 ? at(op.out, walk.part, row) : nullptr;
    const float* in = op.in >= 0 && op.kind != CTW_WANTED ? at(op.in, walk.part, row) + op.in_at : nullptr;
    const float* second = op.second >= 0 ? at(op.second, walk.part, row) + op.second_at : nullptr;
    switch (op.kind) {
        case CTW_EMBED:
            return embed(op, row, out);
        case CTW_NORM:
            return kernels_.norm(static_cast<Norm>(op.choice), in, op.weight, op.bias, op.eps, op.width, out);
        case CTW_ADD:
            return kernels_.add(in, second, op.bias, op.width, out);
        case CTW_ACTIVATE:
            return kernels_.activate(static_cast<Activation>(op.choice), in, second, op.width, out);
        case CTW_HEADS:
            return heads(op, walk, row);
        case CTW_STORE:
            return store(op, walk, row);
        case CTW_TAP:
            return tap(op, walk, row);
        case CTW_WANTED:
            in = at(op.in, walk.part, batch_->row[row]);
            std::memcpy(out, in, sizeof(float) * places(op.width));
            return;
        default:
            return;
    }
}

void Runner::embed(const ctw_op& op, int64_t row, float* out) const {
    decode_row(*matrices_[places(op.first_matrix)], batch_->ids[row], out);
    if (op.scale != 1.0f) kernels_.scale(out, op.scale, op.width);
    if (op.table < 0) return;
    const Sequence& sequence = sequence_of(row);
    const Table& table = tables_[places(op.table)];
    kernels_.add(out, table.numbers + (sequence.start + row - sequence.first) * table.width, nullptr, op.width, out);
}

void Runner::heads(const ctw_op& op, const Walk& walk, int64_t row) {
    const float *cos = nullptr, *sin = nullptr;
    if (op.table >= 0) {
        const Table& table = tables_[places(op.table)];
        const Sequence& sequence = sequence_of(row);
        cos = table.numbers + (sequence.start + row - sequence.first) * table.width;
        sin = cos + table.rows * table.width;
    }
    const HeadsShape shape{
        shape_.heads, shape_.kv_heads, shape_.head_dim, shape_.turned, static_cast<HeadNorm>(op.choice), op.eps};
    kernels_.heads(shape, at(op.in, walk.part, row), op.bias, op.weight, cos, sin, at(op.out, walk.part, row));
}

void Runner::store(const ctw_op& op, const Walk& walk, int64_t row) {
    if (alone_ && walk.part != 0) return;
    const Sequence& sequence = sequence_of(row);
    const int64_t position = sequence.start + row - sequence.first, D = shape_.head_dim;
    const int32_t page = sequence.pages[position / kPage];
    const float* keys = at(op.in, walk.part, row) + shape_.heads * D;
    for (int h = 0; h < shape_.kv_heads; ++h)
        kernels_.store(pages_.layout(), pages_.block(page, op.layer, h), static_cast<int>(position % kPage),
                       keys + h * D, keys + (shape_.kv_heads + h) * D);
}

void Runner::tap(const ctw_op& op, const Walk& walk, int64_t row) {
    if (first_tap_[places(op.tap)] < 0 || (alone_ && walk.part != 0)) return;
    const int64_t token = walk.wanted ? batch_->row[row] : row;
    const int32_t owner = owner_[places(token)];
    const Sequence& sequence = sequences_[places(owner)];
    const int64_t place = row - (walk.wanted ? sequence.first_wanted : sequence.first);
    for (int32_t i = first_tap_[places(op.tap)]; i >= 0; i = next_tap_[places(i)])
        if (batch_->tap[i].sequence == owner)
            std::memcpy(batch_->tap[i].out + place * op.width, at(op.in, walk.part, row) + op.in_at,
                        sizeof(float) * places(op.width));
}

// Whoever is done takes the next piece: a thread whose processor serves another program meanwhile holds nobody up for
// long. The callers meet before they take anything else.
void Runner::multiply_shared(const Matrix* const* matrices, int count, const Walk& walk, int64_t rows, const float* x,
                             float* out, int64_t stride) {
    const int64_t width = column_count(*matrices[0]);
    bool rounded = false;
    for (int m = 0; m < count; ++m) rounded = rounded || rounds(*matrices[m]);
    if (rounded) {
        prepare(x, width, rows, width, rounding_, prepared_.data(), walk.part, threads_.parts());
        threads_.meet();
    }
    const int each = kProductPieces * threads_.parts();
    int piece = static_cast<int>(threads_.take());
    for (int m = 0; m < count; ++m) {
        for (; piece < (m + 1) * each; piece = static_cast<int>(threads_.take()))
            multiply(*matrices[m], x, width, prepared_.data(), rows, rounding_, out, stride, piece - m * each, each);
        out += row_count(*matrices[m]);
    }
}

void Runner::product(const ctw_op& op, const Walk& walk, float* out, int64_t stride) {
    base_product(op, walk, out, stride);
    if (!segments_.empty()) adapt(op, walk, out, stride);
}

void Runner::base_product(const ctw_op& op, const Walk& walk, float* out, int64_t stride) {
    const float* x = at(op.in, walk.part, 0);
    const Matrix* const* matrices = matrices_.data() + op.first_matrix;
    if (!alone_) return multiply_shared(matrices, op.matrices, walk, walk.rows, x, out, stride);
    const int64_t width = column_count(*matrices[0]);
    uint8_t* prepared = prepared_own_[places(walk.part)].data();
    bool ready = false;
    for (int m = 0; m < op.matrices; ++m) {
        if (!ready && rounds(*matrices[m])) {
            prepare(x, width, 1, width, rounding_, prepared, 0, 1);
            ready = true;
        }
        multiply(*matrices[m], x, width, prepared, 1, rounding_, out, stride, walk.part, threads_.parts());
        out += row_count(*matrices[m]);
    }
}

void Runner::logits(const ctw_op& op, const Walk& walk) {
    const int64_t V = shape_.vocabulary, looks = (V + kLook - 1) / kLook;
    product(op, walk, batch_->logits, V);
    threads_.meet();
    for (int64_t i = walk.part; i < walk.rows * looks; i += threads_.parts()) {
        const int64_t first = i % looks * kLook, count = V - first < kLook ? V - first : kLook;
        chosen_[places(i)] = kernels_.choose(batch_->logits + i / looks * V + first, count, op.cap);
        chosen_[places(i)].best += first;
    }
    threads_.meet();
    for (int64_t row = walk.part; row < walk.rows; row += threads_.parts()) {
        const Chosen* of_row = chosen_.data() + row * looks;
        Chosen best = of_row[0];
        for (int64_t i = 1; i < looks; ++i) {
            if (of_row[i].most > best.most) {
                best.most = of_row[i].most;
                best.best = of_row[i].best;
            }
            best.check += of_row[i].check;
        }
        double sum = 0.0;
        for (int64_t i = 0; i < looks; ++i)
            sum += of_row[i].sum * std::exp(static_cast<double>(of_row[i].most) - static_cast<double>(best.most));
        batch_->best[row] = best.best;
        batch_->log_sum[row] = static_cast<float>(static_cast<double>(best.most) + std::log(sum)) + best.check;
    }
}

}  // namespace cutaway
