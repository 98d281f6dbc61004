// Where keys and values of all sequences lie: pages of 64 tokens, each with a block for every layer and key/value head.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "step_kernels.h"

namespace cutaway {

class Pages {
public:
    Pages(Cache kind, int layers, int kv_heads, int head_dim)
        : layout_(block_layout(kind, head_dim)), layers_(layers), kv_heads_(kv_heads) {}

    const BlockLayout& layout() const { return layout_; }
    int64_t count() const { return static_cast<int64_t>(pages_.size()); }
    size_t page_bytes() const { return layout_.bytes * static_cast<size_t>(layers_) * static_cast<size_t>(kv_heads_); }

    void reserve(int64_t pages);  // keeps what is held, where it is; memory is asked for as it is written
    void copy(int64_t source, int64_t target);
    uint8_t* block(int64_t page, int layer, int kv_head) const {
        return pages_[static_cast<size_t>(page)] +
               layout_.bytes *
                   (static_cast<size_t>(layer) * static_cast<size_t>(kv_heads_) + static_cast<size_t>(kv_head));
    }

private:
    BlockLayout layout_;
    int layers_, kv_heads_;
    std::vector<std::unique_ptr<uint8_t[]>> memory_;
    std::vector<uint8_t*> pages_;
};

}  // namespace cutaway
