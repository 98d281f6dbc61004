#include "matrix.h"
#include "kernels.h"
namespace cutaway {
const Kernels portable_kernels{"portable", nullptr, nullptr, nullptr};
Matrix* pack(int32_t, const void*, int64_t, int64_t, int) { return nullptr; }
void release(Matrix*) {}
int64_t packed_bytes(const Matrix&) { return 0; }
int64_t row_count(const Matrix&) { return 0; }
int64_t column_count(const Matrix&) { return 0; }
bool rounds(const Matrix&) { return false; }
size_t prepared_bytes(int64_t, int64_t, Rounding) { return 0; }
void prepare(const float*, int64_t, int64_t, int64_t, Rounding, void*, int, int) {}
void multiply(const Matrix&, const float*, int64_t, const void*, int64_t, Rounding, float*, int64_t, int, int) {}
void decode_row(const Matrix&, int64_t, float*) {}
}  // namespace cutaway
