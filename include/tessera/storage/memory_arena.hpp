// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `memory_arena`: memory for many placed operands. `placed_cache` (placed_cache.hpp) is an arena that knows the bytes from
/// an earlier run of the program.

#include "buffer.hpp"
#include "content_hash.hpp"

#include <string>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// What is placed: equal ids mean equal bytes.
struct placed_key {
    content_id id{}; ///< of the layout, the shape and the source's bytes
    index_t rows = 0;
    index_t cols = 0;
    index_t bytes = 0;  ///< of the panels
    std::string layout; ///< for people: format, groups, panels
};

/// Where the bytes of an operand are.
struct placement {
    std::byte const* data = nullptr;
    std::byte* target = nullptr; ///< where they are to be written; null: `data` has them
};

/// Memory for many operands, side by side in huge pages in the order in which they were placed: a model's weights, which are
/// then streamed as one. Memory is given back all at once, with the arena, which must outlive what was placed in it.
class memory_arena {
public:
    /// @param chunk bytes asked of the system at a time; the sum of what will be placed wastes least.
    explicit memory_arena(index_t chunk = index_t{64} << 20) : chunk_{maximum(chunk, memory::huge_page)} {}
    memory_arena(memory_arena&&) = default;
    memory_arena& operator=(memory_arena&&) = default;
    virtual ~memory_arena() = default;

    /// Bytes aligned to a cache line.
    std::byte* allocate(index_t bytes) {
        index_t const size = round_up(bytes, config::cache_line);
        if (size == 0) return nullptr;
        if (chunks_.empty() || used_ + size > chunks_.back().size()) {
            chunks_.emplace_back(maximum(chunk_, size));
            used_ = 0;
        }
        std::byte* const p = chunks_.back().data() + used_;
        used_ += size;
        return p;
    }

    /// How much of a source's bytes goes into its key; none: this arena has no use for keys.
    virtual content_check source_check() const noexcept { return content_check::none; }
    /// Bytes that are known already, or memory to fill.
    virtual placement find_or_allocate(placed_key&& key) {
        std::byte* const p = allocate(key.bytes);
        return {p, p};
    }

private:
    std::vector<buffer<std::byte>> chunks_;
    index_t chunk_;
    index_t used_ = 0;
};

} // namespace tessera::inline TESSERA_ABI
