// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What attention does to the product q · k before the softmax: a pipeline of score functors, composed by `|` and applied
/// from left to right. A functor is
///
///     template <class V> V operator()(V s, coord<V> at) const noexcept
///
/// where V is a SIMD register in the fast kernels and double in the reference; a lambda of two `auto` arguments is one.
/// A mask is a functor that returns s or minus infinity and that also answers `visibility(score_tile)`: whole tiles are
/// then skipped, and where it answers `full` it is not called. What follows a mask must keep minus infinity.
///
/// A functor with parameters may judge them: `void check(char const* operation, index_t heads) const`, called once before
/// anything is written, throws where they do not fit (heads: of the queries).

#include "../core/types.hpp"

#include <concepts>
#include <limits>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// The score of a key that is not seen.
inline constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// The scalar case of the SIMD library's select, so that a functor is written once.
template <std::floating_point V>
TESSERA_HOST_DEVICE constexpr V select(bool condition, V a, V b) noexcept {
    return condition ? a : b;
}

namespace detail {

/// i as V: exact up to 2^24 in float.
template <class V>
constexpr V position_as(index_t i) noexcept {
    if constexpr (std::is_floating_point_v<V>)
        return static_cast<V>(i);
    else
        return V(static_cast<float>(i));
}

} // namespace detail

/// Where the scores in V are: positions in the whole sequence, counted from 0. Kernels put several queries or several
/// keys into the lanes of V, as suits them.
template <class V>
struct coord {
    index_t first_query; ///< of lane 0
    index_t first_key;   ///< of lane 0
    V query_lane;        ///< query of each lane, less that of lane 0
    V key_lane;          ///< key of each lane, less that of lane 0
    index_t head;        ///< query head

    /// Query position less key position; exact within 2^24, and its sign always right.
    constexpr V distance() const noexcept {
        return detail::position_as<V>(first_query - first_key) + (query_lane - key_lane);
    }
    /// Exact below 2^24; `distance` is exact beyond.
    constexpr V query() const noexcept { return detail::position_as<V>(first_query) + query_lane; }
    constexpr V key() const noexcept { return detail::position_as<V>(first_key) + key_lane; }
};

/// A rectangle of scores of one head: queries [first_query, last_query) by keys [first_key, last_key).
struct score_tile {
    index_t first_query;
    index_t last_query;
    index_t first_key;
    index_t last_key;
    index_t head;
};

/// How much of a tile a mask lets through. `partial` is always a correct answer.
enum class visibility { none, partial, full };

/// Visible where both are.
constexpr visibility operator&(visibility a, visibility b) noexcept {
    if (a == visibility::none || b == visibility::none) return visibility::none;
    return a == visibility::full && b == visibility::full ? visibility::full : visibility::partial;
}

template <class F>
concept score_functor = requires(F const& f, double s, coord<double> at) {
    { f(s, at) } -> std::convertible_to<double>;
};

template <class F>
concept score_mask = score_functor<F> && requires(F const& f, score_tile t) {
    { f.visibility(t) } -> std::same_as<visibility>;
};

/// `second` after `first`.
template <class First, class Second>
struct score_pipeline {
    First first;
    Second second;

    template <class V>
    constexpr V operator()(V s, coord<V> at) const noexcept {
        return second(first(s, at), at);
    }
};

/// `first | second`: first, then second.
template <score_functor First, score_functor Second>
constexpr score_pipeline<First, Second> operator|(First first, Second second) noexcept {
    return {first, second};
}

namespace detail {

template <class F>
inline constexpr bool is_pipeline = false;
template <class A, class B>
inline constexpr bool is_pipeline<score_pipeline<A, B>> = true;

/// True when the pipeline has a functor that is not a mask.
template <class F>
inline constexpr bool has_transform = !score_mask<F>;
template <class A, class B>
inline constexpr bool has_transform<score_pipeline<A, B>> = has_transform<A> || has_transform<B>;

template <class F>
inline constexpr bool has_mask = score_mask<F>;
template <class A, class B>
inline constexpr bool has_mask<score_pipeline<A, B>> = has_mask<A> || has_mask<B>;

/// The pipeline without its masks, for tiles that are fully visible.
template <class F, class V>
constexpr V transformed(F const& f, V s, coord<V> at) noexcept {
    if constexpr (is_pipeline<F>)
        return transformed(f.second, transformed(f.first, s, at), at);
    else if constexpr (score_mask<F>)
        return s;
    else
        return f(s, at);
}

/// Calls the parts of a pipeline that judge their parameters.
template <class F>
void check_score(char const* operation, F const& f, index_t heads) {
    if constexpr (is_pipeline<F>) {
        check_score(operation, f.first, heads);
        check_score(operation, f.second, heads);
    } else if constexpr (requires { f.check(operation, heads); }) {
        f.check(operation, heads);
    }
}

} // namespace detail

/// How much of the tile the masks of a pipeline let through, together.
template <score_functor F>
constexpr visibility visibility_of(F const& f, score_tile tile) noexcept {
    if constexpr (detail::is_pipeline<F>)
        return visibility_of(f.first, tile) & visibility_of(f.second, tile);
    else if constexpr (score_mask<F>)
        return f.visibility(tile);
    else
        return visibility::full;
}

} // namespace tessera::inline TESSERA_ABI
