// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Keys that are stored without their positions and turned when they are read (attention/rotary_cache.hpp): rows of another cache,
/// and for every slot a position, a row of the cosines and sines.

#include "kv_cache.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// An element of keys in T that are read with the rotation of their position; Style says which elements are a pair.
template <class T, class Style>
struct rotary_key {
    T element;
};

namespace detail {

template <class T, class Style>
inline constexpr bool is_kv_code<rotary_key<T, Style>> = true;
template <class T, class Style>
inline constexpr bool is_kv_code<rotary_key<T, Style> const> = true;

/// Cosines and sines, (positions, pairs), and the position of every slot.
struct slot_rotations {
    float const* cosines = nullptr;
    float const* sines = nullptr;
    index_t pairs = 0;
    std::int32_t const* positions = nullptr;

    float const* cosine(index_t slot) const noexcept { return cosines + positions[slot] * pairs; }
    float const* sine(index_t slot) const noexcept { return sines + positions[slot] * pairs; }
};

} // namespace detail

/// Keys that are turned as they are read.
template <class T, class Style>
struct kv_rows<rotary_key<T, Style> const> : detail::slot_rotations {
    using element = rotary_key<T, Style>;

    element const* data = nullptr;
    index_t head_stride = 0;
    index_t slot_stride = 0;
    index_t dim_stride = 1;
    float const* scales = nullptr; ///< null: those of `stored` are applied before the rotation
    index_t scale_stride = 0;
    index_t dim = 0;
    kv_rows<T const> stored;

    kv_rows() noexcept = default;
    kv_rows(kv_rows<T const> const& rows, index_t elements, detail::slot_rotations const& rotations) noexcept
        : slot_rotations{rotations}, data{reinterpret_cast<element const*>(rows.data)}, head_stride{rows.head_stride},
          slot_stride{rows.slot_stride}, dim_stride{rows.dim_stride}, dim{elements}, stored{rows} {}

    element const* row(index_t head, index_t slot) const noexcept { return data + head * head_stride + slot * slot_stride; }
    float const* scale_row(index_t, index_t) const noexcept { return nullptr; }
    /// The turned value, rounded once.
    float operator()(index_t head, index_t slot, index_t d) const noexcept {
        float const x = stored(head, slot, d);
        if (d >= 2 * pairs) return x;
        index_t i = d / 2;
        if (Style::first(i, pairs) != d && Style::second(i, pairs) != d) i = d % pairs;
        if (Style::first(i, pairs) != d && Style::second(i, pairs) != d)
            for (i = 0; Style::first(i, pairs) != d && Style::second(i, pairs) != d;) ++i;
        bool const is_first = Style::first(i, pairs) == d;
        double const other = stored(head, slot, is_first ? Style::second(i, pairs) : Style::first(i, pairs));
        double const turned = other * double{sine(slot)[i]};
        return static_cast<float>(double{x} * double{cosine(slot)[i]} + (is_first ? -turned : turned));
    }
};

} // namespace tessera::inline TESSERA_ABI
