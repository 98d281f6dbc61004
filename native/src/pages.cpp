#include "pages.h"

#include <cstring>

namespace cutaway {

void Pages::reserve(int64_t pages) {
  if (pages <= count()) return;
  const size_t more = static_cast<size_t>(pages - count()), bytes = page_bytes();
  memory_.emplace_back(new uint8_t[more * bytes + 63]);  // not cleared
  uint8_t* start = memory_.back().get();
  start += (64 - reinterpret_cast<uintptr_t>(start) % 64) % 64;
  pages_.reserve(static_cast<size_t>(pages));
  for (size_t page = 0; page < more; ++page) pages_.push_back(start + page * bytes);
}

void Pages::copy(int64_t source, int64_t target) {
  if (source != target)
    std::memcpy(pages_[static_cast<size_t>(target)], pages_[static_cast<size_t>(source)], page_bytes());
}

}  // namespace cutaway
