// Memory for packed matrices.
#pragma once

#include <cstddef>

namespace cutaway {

struct Chunk;

struct Piece {
    void* at = nullptr;  // null: none to be had
    Chunk* chunk = nullptr;
};

// Matrices lie close together in large chunks, in huge pages where the system gives them when asked: a token passes some
// hundred of them, each too small for a huge page of its own, and would wait for the tables of 4 KiB pages.
Piece take(size_t size);
void give_back(const Piece& piece);  // a chunk is freed with its last piece

}  // namespace cutaway
