// Matrices as the kernels keep them, and products with them.
//
// A matrix of N rows and C columns is packed once, for the instruction set that was chosen, without changing a number:
// GGUF's block types keep their own scales and small integers, only their order in memory is another. A product takes R
// rows of float32 and gives R rows of N: out[r][n] = sum over c of matrix[n][c] * x[r][c].
//
// Every row of a product is computed in the same order whatever R is, so that a token gets the same numbers, bit for
// bit, alone and beside others.
//
// For quantised kinds the rows of x are first rounded ("prepared"), block by block of 32 numbers: to 8 bits with a
// float32 scale (Rounding::eight), or to 8 bits and what was left to 8 bits more (Rounding::sixteen), which is as good as
// float32. Float kinds take them as they are. All work is split by `part` of `parts` threads: the caller runs every part
// and waits for all of them between `prepare` and `multiply`.
#pragma once

#include <cstdint>
#include <cstddef>

namespace cutaway {

struct Matrix;  // owns its packed bytes, or for float kinds points to the caller's numbers

enum class Rounding : int32_t { eight = 0, sixteen = 1 };

// kind: the type's number in GGUF (0 F32, 1 F16, 2 Q4_0, 3 Q4_1, …, 30 BF16). rows: N * bytes per row, as a GGUF file
// holds them. Float kinds are not copied: `rows` must live as long as the matrix. Returns nullptr for a kind or a shape
// that no kernel takes (C must be a multiple of the block).
Matrix* pack(int32_t kind, const void* rows, int64_t n, int64_t c, int parts);
void release(Matrix* matrix);
int64_t packed_bytes(const Matrix& matrix);  // read for each product with one row
int64_t row_count(const Matrix& matrix);
int64_t column_count(const Matrix& matrix);
bool rounds(const Matrix& matrix);  // whether x is prepared

// Bytes that `rows` prepared rows of c numbers take. Matrices of any quantised kind read the same prepared rows.
size_t prepared_bytes(int64_t rows, int64_t c, Rounding rounding);
void prepare(const float* x, int64_t stride, int64_t rows, int64_t c, Rounding rounding, void* prepared, int part,
             int parts);

// out (rows, stride_out): the matrix's product with x (float kinds) or with what was prepared of it (quantised kinds, and
void multiply(const Matrix& matrix, const float* x, int64_t stride, const void* prepared, int64_t rows,
              Rounding rounding, float* out, int64_t stride_out, int part, int parts);

// One row of the matrix as float32 (an embedding).
void decode_row(const Matrix& matrix, int64_t row, float* out);

// What the processor can do, best first, and which of it is in use: "avx512-vnni", "avx2-vnni", "avx2", "neon",
// "portable".
const char* instruction_set();
bool choose_instruction_set(const char* name);  // false: this processor or build has no such kernels

}  // namespace cutaway
