#include "memory.h"

#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace cutaway {

struct Chunk {
    char* base;
    size_t size, used;
    int pieces;
};

namespace {

constexpr size_t huge_page = size_t{1} << 21, chunk_size = size_t{1} << 25, line = 64;

std::mutex mutex;         // of what follows
Chunk* filling = nullptr;  // the chunk that the next small piece is taken from

Chunk* new_chunk(size_t size) {
    Chunk* chunk = new (std::nothrow) Chunk{nullptr, size, 0, 0};
    if (!chunk) return nullptr;
    chunk->base = static_cast<char*>(::operator new(size, std::align_val_t{huge_page}, std::nothrow));
    if (!chunk->base) {
        delete chunk;
        return nullptr;
    }
#if defined(__linux__)
    madvise(chunk->base, size, MADV_HUGEPAGE);  // a wish
#endif
    return chunk;
}

void free_chunk(Chunk* chunk) {
    ::operator delete(chunk->base, std::align_val_t{huge_page});
    delete chunk;
}

}  // namespace

Piece take(size_t size) {
    size = (size + line - 1) / line * line;
    const std::lock_guard<std::mutex> lock(mutex);
    const bool alone = size > chunk_size / 4;
    Chunk* chunk = alone ? nullptr : filling;
    if (!chunk || chunk->size - chunk->used < size) {
        chunk = new_chunk(alone ? size : chunk_size);
        if (!chunk) return {};
        if (!alone) filling = chunk;
    }
    void* at = chunk->base + chunk->used;
    chunk->used += size;
    ++chunk->pieces;
    return {at, chunk};
}

void give_back(const Piece& piece) {
    if (!piece.chunk) return;
    const std::lock_guard<std::mutex> lock(mutex);
    if (--piece.chunk->pieces > 0) return;
    if (piece.chunk == filling) filling = nullptr;
    free_chunk(piece.chunk);
}

}  // namespace cutaway
