// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `buffer<T>`: owns uninitialised, aligned memory of a fixed size; what the owning types of the library are made of.

#include "../core/byte_count.hpp"
#include "../core/memory.hpp"

#include <type_traits>
#include <utility>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A value that a move leaves as T{}. An owner keeps its extents in these beside its buffers: then the moves that the
/// compiler writes leave it empty, and what is done with it later is checked like any other empty argument (contract 3).
template <class T>
class emptied_by_move {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    constexpr emptied_by_move() noexcept = default;
    constexpr explicit(false) emptied_by_move(T const& value) noexcept : value_{value} {}
    constexpr emptied_by_move(emptied_by_move&& other) noexcept : value_{std::exchange(other.value_, T{})} {}
    constexpr emptied_by_move& operator=(emptied_by_move&& other) noexcept {
        value_ = std::exchange(other.value_, T{}); // of itself too: the old value comes back
        return *this;
    }
    constexpr T const& get() const noexcept { return value_; }
    constexpr explicit(false) operator T const&() const noexcept { return value_; }

private:
    T value_{};
};

/// Owns the memory that a view of it refers to; specialised beside each owner.
template <class T>
inline constexpr bool is_owner = false;

} // namespace detail

/// `size` elements of a trivial type, uninitialised; moves, does not copy.
template <class T>
class buffer {
    static_assert(std::is_trivially_copyable_v<T>, "tessera: a buffer holds trivially copyable elements");

public:
    buffer() noexcept = default;
    /// Throws std::bad_alloc, also where the number of bytes overflows.
    explicit buffer(index_t size) : size_{size < 0 ? 0 : size} {
        if (detail::saturated_product(size_, sizeof(T)) > detail::too_many_bytes) detail::raise_too_many_bytes();
        data_ = reinterpret_cast<T*>(memory::allocate(bytes()));
    }
    buffer(buffer&& other) noexcept
        : data_{std::exchange(other.data_, nullptr)}, size_{std::exchange(other.size_, 0)} {}
    buffer& operator=(buffer&& other) noexcept {
        buffer taken{std::move(other)};
        std::swap(data_, taken.data_);
        std::swap(size_, taken.size_);
        return *this;
    }
    ~buffer() { memory::release(reinterpret_cast<std::byte*>(data_), bytes()); }

    T* data() noexcept { return data_; }
    T const* data() const noexcept { return data_; }
    index_t size() const noexcept { return size_; }
    index_t bytes() const noexcept { return size_ * static_cast<index_t>(sizeof(T)); }
    T& operator[](index_t i) noexcept { return data_[i]; }
    T const& operator[](index_t i) const noexcept { return data_[i]; }
    T* begin() noexcept { return data_; }
    T* end() noexcept { return data_ + size_; }
    T const* begin() const noexcept { return data_; }
    T const* end() const noexcept { return data_ + size_; }

private:
    T* data_ = nullptr;
    index_t size_ = 0;
};

} // namespace tessera::inline TESSERA_ABI
