// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `extents<E...>`: the shape of a view; names and meaning of std::extents (C++23), index type fixed to index_t.

#include "types.hpp"

#include <array>
#include <cstddef>
#include <utility>

namespace tessera::inline TESSERA_ABI {

/// An extent known only at run time.
inline constexpr index_t dynamic_extent = -1;

/// The shape of a view, each extent static (>= 0) or `dynamic_extent`.
template <index_t... Extents>
class extents {
public:
    TESSERA_HOST_DEVICE static constexpr std::size_t rank() noexcept { return sizeof...(Extents); }
    TESSERA_HOST_DEVICE static constexpr std::size_t rank_dynamic() noexcept {
        return (std::size_t{0} + ... + (Extents == dynamic_extent ? 1u : 0u));
    }
    TESSERA_HOST_DEVICE static constexpr index_t static_extent(std::size_t r) noexcept {
        index_t const all[] = {Extents..., 0};
        return all[r];
    }

    constexpr extents() noexcept = default;

    /// One value per dimension; static extents ignore theirs (a view's constructor has no error to throw on a device).
    template <class... Index>
        requires(sizeof...(Index) == sizeof...(Extents) && sizeof...(Extents) > 0)
    TESSERA_HOST_DEVICE constexpr explicit(false) extents(Index... values) noexcept
        : values_{static_cast<index_t>(values)...} {}

    TESSERA_HOST_DEVICE constexpr index_t extent(std::size_t r) const noexcept {
        return static_extent(r) == dynamic_extent ? values_[r] : static_extent(r);
    }

    /// The number of elements.
    TESSERA_HOST_DEVICE constexpr index_t size() const noexcept { return size_between(0, rank()); }

    /// The product of the extents of dimensions [first, last). It wraps where no array of that size can be, so that an empty
    /// one may have any other extents.
    TESSERA_HOST_DEVICE constexpr index_t size_between(std::size_t first, std::size_t last) const noexcept {
        std::uint64_t product = 1;
        for (std::size_t r = first; r < last; ++r) product *= static_cast<std::uint64_t>(extent(r));
        return static_cast<index_t>(product);
    }

    template <index_t... Other>
    friend TESSERA_HOST_DEVICE constexpr bool operator==(extents const& a, extents<Other...> const& b) noexcept {
        if (sizeof...(Other) != sizeof...(Extents)) return false;
        for (std::size_t r = 0; r < rank(); ++r)
            if (a.extent(r) != b.extent(r)) return false;
        return true;
    }

private:
    // All extents are stored, static ones too: 8 bytes each, and the code stays one line per function.
    index_t values_[sizeof...(Extents) + (sizeof...(Extents) == 0)]{(Extents == dynamic_extent ? 0 : Extents)...};
};

namespace detail {

template <class Sequence>
struct make_dynamic_extents;
template <std::size_t... R>
struct make_dynamic_extents<std::index_sequence<R...>> {
    using type = extents<(static_cast<void>(R), dynamic_extent)...>;
};

} // namespace detail

/// `Rank` run-time extents.
template <std::size_t Rank>
using dynamic_extents = typename detail::make_dynamic_extents<std::make_index_sequence<Rank>>::type;

} // namespace tessera::inline TESSERA_ABI
