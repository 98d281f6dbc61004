// Computes steps by a plan.
//
// All threads walk through the plan together. Rowwise operations that follow each other are computed row by row, each
// thread its own rows, and the threads meet before and after what they compute together. A step of a single row has
// nothing to share in rowwise operations: every thread computes them all, in buffers of its own, and no one waits.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cutaway.h"
#include "matrix.h"
#include "pages.h"
#include "step_kernels.h"
#include "threads.h"

namespace cutaway {

// Memory that only grows, aligned for vectors; what it held is lost.
template <typename T>
class Memory {
public:
    T* data() const { return data_; }
    void need(size_t count) {
        if (count <= size_) return;
        size_ = 0;
        memory_.reset(new uint8_t[count * sizeof(T) + 63]);
        data_ = reinterpret_cast<T*>(memory_.get() + (64 - reinterpret_cast<uintptr_t>(memory_.get()) % 64) % 64);
        size_ = count;
    }

private:
    std::unique_ptr<uint8_t[]> memory_;
    T* data_ = nullptr;
    size_t size_ = 0;
};

class Runner {
public:
    explicit Runner(const ctw_plan& plan);

    Pages& pages() { return pages_; }
    void set_table(int32_t table, const float* numbers, int64_t rows, int64_t width);
    void set_adapter(int32_t number, const ctw_part* part, int64_t parts);
    void step(const ctw_batch& batch, const int32_t* adapter = nullptr);
    void times(int64_t* nanoseconds, bool measure);

private:
    struct Table {
        const float* numbers = nullptr;
        int64_t rows = 0, width = 0;
    };
    struct Sequence {
        int64_t first, rows, start;  // its first row in the step; tokens held before
        const int32_t* pages;
        int64_t first_wanted, wanted;
    };
    struct Unit {  // of attention
        int32_t sequence, first, rows, kv_head;
        int64_t first_range, last_range;
    };
    struct Release {
        void operator()(Matrix* matrix) const { release(matrix); }
    };
    struct Part {  // low-rank parts beside a matrix
        std::unique_ptr<Matrix, Release> a;
        const float *b = nullptr, *factor = nullptr;
    };
    using Adapter = std::vector<Part>;  // by matrix of the plan
    struct Segment {                    // rows in a row with the same adapter
        const Adapter* adapter;
        int64_t first, rows, first_wanted, wanted;
    };
    struct Walk {  // where a thread is
        int part;
        int64_t rows;  // all new tokens, then the wanted ones
        bool wanted;
    };

    void check(const ctw_batch& batch) const;
    void lay_out(const ctw_batch& batch);
    void lay_out_taps(const ctw_batch& batch);
    void lay_out_attention();
    void lay_out_adapters(const int32_t* adapter);
    void walk(int part) noexcept;  // asks for no memory, as the other threads would wait for one that failed
    void together(const ctw_op& op, const Walk& walk);
    void rowwise(const ctw_op& op, const Walk& walk, int64_t row);
    void embed(const ctw_op& op, int64_t row, float* out) const;
    void heads(const ctw_op& op, const Walk& walk, int64_t row);
    void store(const ctw_op& op, const Walk& walk, int64_t row);
    void merge(const ctw_op& op, const Walk& walk);
    void tap(const ctw_op& op, const Walk& walk, int64_t row);
    void attend(const ctw_op& op, const Walk& walk);
    void attend(const ctw_op& op, const Walk& walk, const Unit& unit);
    void product(const ctw_op& op, const Walk& walk, float* out, int64_t stride);
    void base_product(const ctw_op& op, const Walk& walk, float* out, int64_t stride);
    void adapt(const ctw_op& op, const Walk& walk, float* out, int64_t stride);
    void logits(const ctw_op& op, const Walk& walk);
    void experts(const ctw_op& op, const Walk& walk);
    void expert(const ctw_op& op, const Walk& walk, int64_t number);
    void multiply_shared(const Matrix* const* matrices, int count, const Walk& walk, int64_t rows, const float* x,
                         float* out, int64_t stride);
    float* at(int32_t buffer, int part, int64_t row);
    int64_t first_row(const Walk& walk, int part) const { return walk.rows * part / threads_.parts(); }
    const Sequence& sequence_of(int64_t row) const {
        return sequences_[static_cast<size_t>(owner_[static_cast<size_t>(row)])];
    }

    std::vector<ctw_op> ops_;
    std::vector<ctw_buffer> buffers_;
    std::vector<const Matrix*> matrices_;
    std::vector<Table> tables_;
    ctw_plan shape_;  // its pointers are not used
    Rounding rounding_;
    Pages pages_;
    Threads threads_;
    const StepKernels& kernels_;

    std::map<int32_t, Adapter> adapters_;
    int64_t ranks_ = 0;  // most beside one operation

    // of the step
    const ctw_batch* batch_ = nullptr;
    bool alone_ = false;  // a single row
    bool split_ = false;  // attention's ranges are computed apart, and merged
    int64_t ranges_ = 0;  // most of a sequence
    std::vector<Sequence> sequences_;
    std::vector<int32_t> owner_;  // of each row
    std::vector<Segment> segments_;
    Memory<float> thin_;  // what A makes of rows
    std::vector<Unit> units_;
    std::vector<int64_t> first_unit_;  // of each part, where ranges are computed apart
    std::vector<int32_t> first_tap_, next_tap_;
    std::vector<Chosen> chosen_;  // the look at parts of rows of logits

    std::vector<Memory<float>> shared_;                // by buffer
    std::vector<std::vector<Memory<float>>> own_;      // by part and buffer: one row
    std::vector<Memory<float>> scratch_;               // by part
    std::vector<std::vector<const uint8_t*>> blocks_;  // by part
    Memory<uint8_t> prepared_;
    std::vector<Memory<uint8_t>> prepared_own_;
    Memory<float> partial_;
    std::vector<std::vector<int32_t>> order_;  // by part: experts that a row chose
    std::vector<std::vector<int64_t>> chose_;  // by part: rows that chose an expert
    Memory<float> expert_[4];  // rows that chose an expert, and what becomes of them
    std::vector<int64_t> times_;
    bool measure_ = false;
};

}  // namespace cutaway
