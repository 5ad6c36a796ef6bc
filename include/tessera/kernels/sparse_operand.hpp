// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Sparse storage as a leaf of the operator algebra: `linear{csr}`, `linear{n_of_m}`, of views or owners.

#include "../storage/sparse_panels.hpp"
#include "operand.hpp"

#include <concepts>

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class T, class G>
struct as_storage<csr<T, G>> {
    using type = csr<T, G>;
};
template <index_t N, index_t M, class T, class G>
struct as_storage<n_of_m<N, M, T, G>> {
    using type = n_of_m<N, M, T, G>;
};

template <class Preparation>
constexpr void require_as_is() noexcept {
    static_assert(std::same_as<Preparation, as_is>,
                  "tessera: sparse storage multiplies x as it is; int8 preparations are for codes with scales");
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
