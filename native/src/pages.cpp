#include "pages.h"

#include <cstring>
#include <stdexcept>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace cutaway {

namespace {

constexpr size_t kLarge = size_t{1} << 21;  // the system's large pages

}  // namespace

void Pages::reserve(int64_t pages) {
    if (pages <= count()) return;
    const size_t more = static_cast<size_t>(pages - count()), bytes = page_bytes();
    const size_t border = more * bytes < kLarge ? 64 : kLarge;
    memory_.emplace_back(new uint8_t[more * bytes + border - 1]);  // not cleared
    uint8_t* start = memory_.back().get();
    start += (border - reinterpret_cast<uintptr_t>(start) % border) % border;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (border == kLarge) madvise(start, more * bytes / kLarge * kLarge, MADV_HUGEPAGE);  // fewer addresses to look up
#endif
    pages_.reserve(static_cast<size_t>(pages));
    for (size_t page = 0; page < more; ++page) pages_.push_back(start + page * bytes);
}

void Pages::copy(int64_t source, int64_t target) {
    if (source < 0 || target < 0 || source >= count() || target >= count())
        throw std::invalid_argument("a page was not reserved");
    if (source != target)
        std::memcpy(pages_[static_cast<size_t>(target)], pages_[static_cast<size_t>(source)], page_bytes());
}

}  // namespace cutaway
