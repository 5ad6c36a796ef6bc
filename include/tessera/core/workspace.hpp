// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Scratch memory of operations. A `workspace` is an arena: `carve` moves a pointer, a `workspace_scope` gives back
/// everything carved in it. It grows when it must, which is the only allocation of the library's calls; after
/// `reserve(workspace_bytes(...))` there is none. `workspace_sizer` has the same `carve` and only counts, so the code
/// that sizes is the code that carves. `carve<T>(a, b, ...)` is a b ... elements; where their bytes are no index, both throw
/// std::bad_array_new_length. Large blocks ask for huge pages, as buffers do.

#include "byte_count.hpp"
#include "config.hpp"
#include "memory.hpp"
#include "types.hpp"

#include <cstddef>
#include <new>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Whole cache lines for an array of the given extents.
template <class T, class... Index>
index_t carved_bytes(Index... extents) {
    index_t const bytes = saturated_product(extents..., sizeof(T));
    if (bytes > too_many_bytes) raise_too_many_bytes();
    return round_up(bytes, config::cache_line);
}

} // namespace detail

/// Counts what the same calls of `carve` would take from a workspace.
class workspace_sizer {
public:
    template <class T, class... Index>
    T* carve(Index... extents) {
        bytes_ += detail::carved_bytes<T>(extents...);
        if (bytes_ > detail::too_many_bytes) detail::raise_too_many_bytes();
        return nullptr;
    }
    index_t bytes() const noexcept { return bytes_; }

private:
    index_t bytes_ = 0;
};

/// A growing arena; one per calling thread, not shared.
class workspace {
public:
    workspace() noexcept = default;
    explicit workspace(index_t bytes) { reserve(bytes); }
    workspace(workspace const&) = delete;
    workspace& operator=(workspace const&) = delete;
    ~workspace() { release(first_); }

    /// Makes the next `bytes` of carving allocation-free. Must be called outside any scope; keeps nothing carved.
    void reserve(index_t bytes) {
        if (bytes > detail::too_many_bytes) detail::raise_too_many_bytes();
        if (used_ == 0 && first_ != nullptr && (first_->size < bytes || first_->next != nullptr)) {
            release(first_);
            first_ = current_ = nullptr;
        }
        if (first_ == nullptr && bytes > 0) first_ = current_ = allocate(round_up(bytes, config::cache_line));
    }

    /// Bytes held, used or not.
    index_t capacity() const noexcept {
        index_t sum = 0;
        for (block const* b = first_; b != nullptr; b = b->next) sum += b->size;
        return sum;
    }

private:
    friend class workspace_scope;

    struct block {
        block* next;
        index_t size;
        index_t used;
        std::byte* data() noexcept { return reinterpret_cast<std::byte*>(this) + config::cache_line; }
    };
    static_assert(sizeof(block) <= config::cache_line);

    static block* allocate(index_t bytes) {
        return ::new (static_cast<void*>(memory::allocate(bytes + config::cache_line))) block{nullptr, bytes, 0};
    }
    static void release(block* b) noexcept {
        while (b != nullptr) {
            block* const next = b->next;
            memory::release(reinterpret_cast<std::byte*>(b), b->size + config::cache_line);
            b = next;
        }
    }

    /// `size` is whole cache lines.
    std::byte* carve_bytes(index_t size) {
        // Nothing in use and several blocks: one block of the whole size serves the next calls without chaining.
        if (used_ == 0 && first_ != nullptr && first_->next != nullptr) reserve(maximum(capacity(), size));
        if (current_ == nullptr || current_->used + size > current_->size) advance(size);
        std::byte* const p = current_->data() + current_->used;
        current_->used += size;
        used_ += size;
        return p;
    }

    /// Makes `current_` a block with `size` free bytes; earlier blocks, and pointers into them, stay as they are.
    void advance(index_t size) {
        block* const following = current_ != nullptr ? current_->next : first_;
        if (following != nullptr && following->size >= size) {
            current_ = following;
            return;
        }
        block* const fresh = allocate(maximum(size, current_ != nullptr ? 2 * current_->size : 64 * 1024));
        fresh->next = following;
        (current_ != nullptr ? current_->next : first_) = fresh;
        current_ = fresh;
    }

    void rewind(block* b, index_t block_used, index_t used) noexcept {
        if (b == nullptr) b = first_;
        if (b != nullptr) {
            b->used = block_used;
            for (block* later = b->next; later != nullptr; later = later->next) later->used = 0;
        }
        current_ = b;
        used_ = used;
    }

    block* first_ = nullptr;
    block* current_ = nullptr;
    index_t used_ = 0;
};

/// Carves from a workspace and gives everything back at the end of its life.
class workspace_scope {
public:
    explicit workspace_scope(workspace& w) noexcept
        // An unused workspace may replace its blocks under this scope: then nothing is remembered but "unused".
        : workspace_{w}, block_{w.used_ != 0 ? w.current_ : nullptr}, block_used_{block_ != nullptr ? block_->used : 0},
          used_{w.used_} {}
    workspace_scope(workspace_scope const&) = delete;
    workspace_scope& operator=(workspace_scope const&) = delete;
    ~workspace_scope() { workspace_.rewind(block_, block_used_, used_); }

    /// Uninitialised elements, as many as the product of the extents, aligned to a cache line.
    template <class T, class... Index>
    T* carve(Index... extents) {
        static_assert(std::is_trivially_destructible_v<T>, "tessera: workspace memory holds trivial types only");
        return reinterpret_cast<T*>(workspace_.carve_bytes(detail::carved_bytes<T>(extents...)));
    }

private:
    workspace& workspace_;
    workspace::block* block_;
    index_t block_used_;
    index_t used_;
};

namespace detail {

/// The workspace of policies that were given none; grows on first use.
inline workspace& default_workspace() noexcept {
    thread_local workspace w;
    return w;
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
