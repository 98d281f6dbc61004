// From a file's blocks to tiles, and one row back.
#pragma once

#include "matrix_layout.h"

namespace cutaway {

// Tiles [first, last) of a matrix of n rows and c columns, as a file holds them, to where they belong in data.
void pack_tiles(const Form& f, const uint8_t* rows, int64_t n, int64_t c, uint8_t* data, int64_t first, int64_t last);

// One row of a tile as float32, by the same operations as the file's own definition.
void unpack_row(const Form& f, const uint8_t* tile, int row, int64_t c, float* out);

}  // namespace cutaway
