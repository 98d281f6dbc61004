// Experts' share of a step. The matrices of the operation are the router's, then of each expert its gate (where there
// is one), up and down.
#include <cstring>

#include "runner.h"

namespace cutaway {

namespace {

size_t places(int64_t count) { return static_cast<size_t>(count); }

// The `used` largest of some chances stay, the others become zero.
void keep_largest(float* chances, int64_t count, int used, bool sum_to_one, std::vector<int32_t>& order) {
    order.clear();
    float total = 0.0f;
    for (int k = 0; k < used; ++k) {
        int32_t best = -1;
        for (int32_t e = 0; e < count; ++e) {
            bool taken = false;
            for (const int32_t known : order) taken = taken || known == e;
            if (!taken && (best < 0 || chances[e] > chances[best])) best = e;
        }
        order.push_back(best);
        total += chances[best];
    }
    for (int32_t e = 0; e < count; ++e) {
        bool taken = false;
        for (const int32_t known : order) taken = taken || known == e;
        if (!taken)
            chances[e] = 0.0f;
        else if (sum_to_one)
            chances[e] /= total;
    }
}

}  // namespace

void Runner::experts(const ctw_op& op, const Walk& walk) {
    const Matrix* const* matrices = matrices_.data() + op.first_matrix;
    const int64_t count = row_count(*matrices[0]);
    float* weights = at(op.second, walk.part, 0);
    if (alone_) threads_.meet();  // the first thread's row is everybody's here
    multiply_shared(matrices, 1, walk, walk.rows, at(op.in, 0, 0), weights, count);
    threads_.meet();
    std::vector<int32_t>& order = order_[places(walk.part)];
    for (int64_t row = first_row(walk, walk.part); row < first_row(walk, walk.part + 1); ++row) {
        kernels_.softmax(weights + row * count, count);
        keep_largest(weights + row * count, count, op.used, op.sum_to_one != 0.0f, order);
        std::memset(at(op.out, walk.part, row), 0, sizeof(float) * places(op.width));
    }
    threads_.meet();
    for (int64_t number = 0; number < count; ++number) expert(op, walk, number);
}

void Runner::expert(const ctw_op& op, const Walk& walk, int64_t number) {
    const int64_t each = (op.matrices - 1) / row_count(*matrices_[places(op.first_matrix)]);
    const Matrix* const* matrices = matrices_.data() + op.first_matrix + 1 + number * each;
    const int64_t count = row_count(*matrices_[places(op.first_matrix)]), width = op.width;
    const float* weights = at(op.second, walk.part, 0) + number;
    std::vector<int64_t>& chose = chose_[places(walk.part)];
    chose.clear();
    for (int64_t row = 0; row < walk.rows; ++row)
        if (weights[row * count] != 0.0f) chose.push_back(row);
    if (chose.empty()) return;
    const int64_t rows = static_cast<int64_t>(chose.size()), inner = row_count(*matrices[0]);
    const int64_t first = rows * walk.part / threads_.parts(), last = rows * (walk.part + 1) / threads_.parts();
    float *x = expert_[0].data(), *pre = expert_[1].data(), *post = expert_[2].data(), *written = expert_[3].data();
    for (int64_t i = first; i < last; ++i)
        std::memcpy(x + i * width, at(op.in, 0, chose[places(i)]), sizeof(float) * places(width));
    threads_.meet();
    multiply_shared(matrices, static_cast<int>(each - 1), walk, rows, x, pre, inner * (each - 1));
    threads_.meet();
    for (int64_t i = first; i < last; ++i)
        kernels_.activate(static_cast<Activation>(op.choice), pre + i * inner * (each - 1),
                          each == 3 ? pre + i * inner * 2 + inner : nullptr, inner, post + i * inner);
    threads_.meet();
    multiply_shared(matrices + each - 1, 1, walk, rows, post, written, width);
    threads_.meet();
    for (int64_t i = first; i < last; ++i)
        kernels_.add_scaled(written + i * width, weights[chose[places(i)] * count], width,
                            at(op.out, walk.part, chose[places(i)]));
    threads_.meet();
}

}  // namespace cutaway
