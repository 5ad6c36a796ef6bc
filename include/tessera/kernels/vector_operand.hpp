// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Storage that is read by tiles as a leaf of the operator algebra: `linear{w}` of its view or its owner. A storage whose owner
/// is another type names its view by `using view_type`.

#include "../storage/vector_storage.hpp"
#include "operand.hpp"

#include <concepts>

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class T>
    requires(tile_storage<T> && !requires { typename T::layout; })
struct as_storage<T> {
    using type = T;
};

template <class Storage, class Preparation>
constexpr void require_vector_preparation() noexcept {
    static_assert(std::same_as<Preparation, as_is> || std::same_as<Preparation, as_bf16> ||
                      ((byte_grid_storage<Storage> || run_time_coded_storage<Storage>) && activation_group<Preparation> >= 0),
                  "tessera: vector codes and tables multiply x as it is or in bf16, grids of 256 points in int8 too; other preparations are "
                  "for codes with scales");
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
