// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the sparse storages share: how a kept weight is stored, and the concept that kernels are written over.
///
///     w = scale(row) * value        float, fp16 and bf16 have no scale; int8 has one a row or one a matrix

#include "../core/types.hpp"
#include "../numerics/half.hpp"
#include "scheme.hpp"

#include <concepts>
#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// `stored`: the type of a kept weight in memory; `name`: for people.
template <class T>
struct sparse_value {
    static_assert(always_false<T>, "tessera: sparse storage holds float, fp16, bf16 or int8 weights");
};
template <>
struct sparse_value<float> {
    using stored = float;
    static constexpr bool has_scale = false;
    static constexpr char const* name = "fp32";
};
template <>
struct sparse_value<fp16> {
    using stored = fp16;
    static constexpr bool has_scale = false;
    static constexpr char const* name = "fp16";
};
template <>
struct sparse_value<bf16> {
    using stored = bf16;
    static constexpr bool has_scale = false;
    static constexpr char const* name = "bf16";
};
template <>
struct sparse_value<int8> {
    using stored = std::int8_t;
    static constexpr bool has_scale = true;
    static constexpr char const* name = "int8";
};

/// Scales of n rows.
template <class T, class Granularity>
constexpr index_t sparse_scales(index_t n) noexcept {
    static_assert(std::same_as<Granularity, per_channel> || std::same_as<Granularity, per_tensor>,
                  "tessera: sparse storage has one scale a row (per_channel) or one a matrix (per_tensor)");
    return !sparse_value<T>::has_scale ? 0 : Granularity::rows == 0 ? (n > 0) : n;
}

/// The scale of row n; 1 where there is none.
template <class T, class Granularity>
constexpr float sparse_scale(float const* scales, index_t n) noexcept {
    if constexpr (sparse_value<T>::has_scale)
        return scales[Granularity::rows == 0 ? 0 : n];
    else
        return static_cast<void>(scales), static_cast<void>(n), 1.0f;
}

} // namespace detail

/// Storage that knows the kept weights of a row only: `for_each_entry(n, f)` calls f(column, weight) for them, ascending.
/// A product is a sum over these; what is not stored meets no x, be that infinite.
template <class Storage>
concept sparse_storage = requires(Storage const& w, void (*f)(index_t, float)) {
    w.for_each_entry(index_t{0}, f);
    { w.nonzeros() } -> std::convertible_to<index_t>;
};

} // namespace tessera::inline TESSERA_ABI
