// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `tensor<T, Rank>`: owns a contiguous row-major array. It converts to views of itself; a view of a temporary does not
/// compile (contract 8). A move leaves an empty one.

#include "../core/error.hpp"
#include "../core/slice.hpp"
#include "../core/view.hpp"
#include "buffer.hpp"

#include <array>
#include <limits>

namespace tessera::inline TESSERA_ABI {

/// Owner of `Rank` dimensions of T, zero-initialised.
template <class T, std::size_t Rank>
class tensor {
public:
    using value_type = T;
    using view_type = tensor_view<T, Rank>;
    using const_view_type = tensor_view<T const, Rank>;

    tensor() noexcept = default;

    /// Extents >= 0; throws shape_error for a negative one or a product beyond the index type.
    template <class... Index>
        requires(sizeof...(Index) == Rank && (std::is_convertible_v<Index, index_t> && ...))
    explicit tensor(Index... sizes)
        : extents_{dynamic_extents<Rank>{static_cast<index_t>(sizes)...}}, data_{checked_size({static_cast<index_t>(sizes)...})} {
        for (T& x : data_) x = T{};
    }

    index_t extent(std::size_t r) const noexcept { return extents_.get().extent(r); }
    index_t size() const noexcept { return data_.size(); }
    T* data() noexcept { return data_.data(); }
    T const* data() const noexcept { return data_.data(); }

    view_type view() & noexcept { return as_view<T>(data_.data()); }
    const_view_type view() const& noexcept { return as_view<T const>(data_.data()); }
    void view() const&& = delete;

    explicit(false) operator view_type() & noexcept { return view(); }
    explicit(false) operator const_view_type() const& noexcept { return view(); }
    operator view_type() && = delete;
    operator const_view_type() const&& = delete;

    template <class... Index>
        requires(sizeof...(Index) == Rank)
    T& operator()(Index... index) noexcept {
        return data_[layout_right::mapping<dynamic_extents<Rank>>{extents_.get()}(static_cast<index_t>(index)...)];
    }
    template <class... Index>
        requires(sizeof...(Index) == Rank)
    T const& operator()(Index... index) const noexcept {
        return data_[layout_right::mapping<dynamic_extents<Rank>>{extents_.get()}(static_cast<index_t>(index)...)];
    }

private:
    static index_t checked_size(std::array<index_t, Rank> const& sizes) {
        constexpr index_t most = std::numeric_limits<index_t>::max() / static_cast<index_t>(sizeof(T));
        bool is_empty = false;
        for (index_t const s : sizes) {
            check::within("tensor", "extent", s, 0, std::numeric_limits<index_t>::max());
            is_empty = is_empty || s == 0;
        }
        if (is_empty) return 0;
        index_t product = 1;
        for (index_t const s : sizes) {
            check::within("tensor", "extent", s, 0, most / product);
            product *= s;
        }
        return product;
    }
    template <class U>
    tensor_view<U, Rank> as_view(U* data) const noexcept {
        return {data, typename tensor_view<U, Rank>::mapping_type{layout_right::mapping<dynamic_extents<Rank>>{extents_.get()}}};
    }

    detail::emptied_by_move<dynamic_extents<Rank>> extents_;
    buffer<T> data_{};
};

namespace detail {

template <class T, std::size_t Rank>
inline constexpr bool is_owner<tensor<T, Rank>> = true;

} // namespace detail

template <class T>
using matrix = tensor<T, 2>;
template <class T>
using vector = tensor<T, 1>;

} // namespace tessera::inline TESSERA_ABI
