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
/// anything is written, throws where they do not fit (heads: of the queries); or `check(operation, heads, end_position)`, which
/// is also told the position behind the last key and query, the largest of a batch.
///
/// A mask may also say where the keys are that some queries see, `key_span keys_of(index_t first_query, index_t last_query)
/// const noexcept`: keys outside are not looked at, tile by tile.
///
/// Lanes may lie beyond the last query or key: what a functor makes of these is not used, but a functor that reads memory
/// by position must not read it there.
///
/// Where gradients are asked for, a functor that is no mask also has
///
///     template <class V> V derivative(V s, coord<V> at) const noexcept            // of its result by s
///
/// and one with parameters of its own may have `template <class V> void accumulate(V ds, coord<V> at) const noexcept`,
/// which adds to their gradients, ds being the gradient of its result: 0 for lanes beyond the last query or key and for
/// hidden keys. It is called by one thread at a time for each head, for every score once, in the same order always.
///
/// Two more members change the softmax instead of the score, and belong to functors that are masks which hide nothing:
/// `float sink(index_t head) const noexcept`, a score that joins the sum of exponentials and has no value, and
/// `unified_range unified() const noexcept` (attention/normaliser.hpp).

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
TESSERA_HOST_DEVICE constexpr V position_as(index_t i) noexcept {
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
    index_t batch = 0;   ///< request of a batch

    /// Query position less key position; exact within 2^24, and its sign always right.
    TESSERA_HOST_DEVICE constexpr V distance() const noexcept {
        return detail::position_as<V>(first_query - first_key) + (query_lane - key_lane);
    }
    /// Exact below 2^24; `distance` is exact beyond.
    TESSERA_HOST_DEVICE constexpr V query() const noexcept { return detail::position_as<V>(first_query) + query_lane; }
    TESSERA_HOST_DEVICE constexpr V key() const noexcept { return detail::position_as<V>(first_key) + key_lane; }
};

/// A rectangle of scores of one head: queries [first_query, last_query) by keys [first_key, last_key).
struct score_tile {
    index_t first_query;
    index_t last_query;
    index_t first_key;
    index_t last_key;
    index_t head;
    index_t batch = 0;
};

/// How much of a tile a mask lets through. `partial` is always a correct answer.
enum class visibility { none, partial, full };

/// Positions [first, last) of keys.
struct key_span {
    static constexpr index_t far = std::numeric_limits<index_t>::max();

    index_t first = -far - 1;
    index_t last = far;
};

/// Visible where both are.
TESSERA_HOST_DEVICE constexpr visibility operator&(visibility a, visibility b) noexcept {
    if (a == visibility::none || b == visibility::none) return visibility::none;
    return a == visibility::full && b == visibility::full ? visibility::full : visibility::partial;
}

namespace detail {

/// Calls f(lane, query, key) for every lane.
template <class V, class F>
TESSERA_HOST_DEVICE void for_each_lane(coord<V> const& at, F const& f) noexcept {
    if constexpr (std::is_floating_point_v<V>) {
        f(0, at.first_query + static_cast<index_t>(at.query_lane), at.first_key + static_cast<index_t>(at.key_lane));
    } else {
        alignas(64) float query[V::size];
        alignas(64) float key[V::size];
        at.query_lane.store_aligned(query);
        at.key_lane.store_aligned(key);
        for (int lane = 0; lane < static_cast<int>(V::size); ++lane)
            f(lane, at.first_query + static_cast<index_t>(query[lane]), at.first_key + static_cast<index_t>(key[lane]));
    }
}

/// Calls f(element of v, query, key) for every lane.
template <class V, class F>
TESSERA_HOST_DEVICE void for_each_lane_of(V const& v, coord<V> const& at, F const& f) noexcept {
    if constexpr (std::is_floating_point_v<V>) {
        for_each_lane(at, [&](int, index_t query, index_t key) noexcept { f(v, query, key); });
    } else {
        alignas(64) float element[V::size];
        v.store_aligned(element);
        for_each_lane(at, [&](int lane, index_t query, index_t key) noexcept { f(element[lane], query, key); });
    }
}

/// f(query, key) of every lane.
template <class V, class F>
TESSERA_HOST_DEVICE V per_lane(coord<V> const& at, F const& f) noexcept {
    if constexpr (std::is_floating_point_v<V>) {
        return static_cast<V>(f(at.first_query + static_cast<index_t>(at.query_lane),
                                at.first_key + static_cast<index_t>(at.key_lane)));
    } else {
        alignas(64) float result[V::size];
        for_each_lane(at, [&](int lane, index_t query, index_t key) noexcept { result[lane] = f(query, key); });
        return V::load_aligned(result);
    }
}

/// s where seen(query, key), else minus infinity.
template <class V, class F>
TESSERA_HOST_DEVICE V keep_where(V s, coord<V> const& at, F const& seen) noexcept {
    V const hidden = per_lane(at, [&](index_t query, index_t key) noexcept { return seen(query, key) ? 0.0f : 1.0f; });
    return select(hidden > V(0.0f), V(minus_infinity), s);
}

} // namespace detail

/// What a score less the preset maximum must lie between, strictly: see attention/normaliser.hpp.
struct unified_range {
    float maximum;
    float low;
    float high;
};

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
    TESSERA_HOST_DEVICE constexpr V operator()(V s, coord<V> at) const noexcept {
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
TESSERA_HOST_DEVICE constexpr V transformed(F const& f, V s, coord<V> at) noexcept {
    if constexpr (is_pipeline<F>)
        return transformed(f.second, transformed(f.first, s, at), at);
    else if constexpr (score_mask<F>)
        return s;
    else
        return f(s, at);
}

template <class F>
inline constexpr bool has_sink = requires(F const& f, index_t head) { f.sink(head); };
template <class A, class B>
inline constexpr bool has_sink<score_pipeline<A, B>> = has_sink<A> || has_sink<B>;

/// The sink of a pipeline that has one.
template <class F>
TESSERA_HOST_DEVICE float sink_of(F const& f, index_t head) noexcept {
    if constexpr (!is_pipeline<F>)
        return f.sink(head);
    else if constexpr (has_sink<decltype(f.first)>)
        return sink_of(f.first, head);
    else
        return sink_of(f.second, head);
}

template <class F>
inline constexpr bool has_unified_range = requires(F const& f) { f.unified(); };
template <class A, class B>
inline constexpr bool has_unified_range<score_pipeline<A, B>> = has_unified_range<A> || has_unified_range<B>;

/// The range of a pipeline that has one.
template <class F>
TESSERA_HOST_DEVICE unified_range unified_range_of(F const& f) noexcept {
    if constexpr (!is_pipeline<F>)
        return f.unified();
    else if constexpr (has_unified_range<decltype(f.first)>)
        return unified_range_of(f.first);
    else
        return unified_range_of(f.second);
}

/// True when a part has parameters with gradients.
template <class F>
inline constexpr bool has_accumulate =
    requires(F const& f, double ds, coord<double> at) { f.accumulate(ds, at); } ||
    requires(F const& f, index_t head, double ds) { f.accumulate_sink(head, ds); };
template <class A, class B>
inline constexpr bool has_accumulate<score_pipeline<A, B>> = has_accumulate<A> || has_accumulate<B>;

/// The gradient of s, given that of f(s): the chain rule through a pipeline. s is seen by all its masks.
template <class F, class V>
TESSERA_HOST_DEVICE V score_gradient(F const& f, V s, coord<V> const& at, V ds) noexcept {
    if constexpr (is_pipeline<F>) {
        V const inner = transformed(f.first, s, at);
        return score_gradient(f.first, s, at, score_gradient(f.second, inner, at, ds));
    } else {
        if constexpr (requires { f.accumulate(ds, at); }) f.accumulate(ds, at);
        if constexpr (score_mask<F>) {
            return ds;
        } else {
            static_assert(requires { f.derivative(s, at); },
                          "tessera: the gradient of attention needs V derivative(V s, coord<V> at) const noexcept of every "
                          "score functor that is no mask");
            return ds * f.derivative(s, at);
        }
    }
}

/// Adds the gradient of a sink.
template <class F>
void accumulate_sink(F const& f, index_t head, double gradient) noexcept {
    if constexpr (is_pipeline<F>) {
        accumulate_sink(f.first, head, gradient);
        accumulate_sink(f.second, head, gradient);
    } else if constexpr (requires { f.accumulate_sink(head, gradient); }) {
        f.accumulate_sink(head, gradient);
    }
}

/// Calls the parts of a pipeline that judge their parameters; of memory that they read only its extents.
template <class F>
void check_score_extents(char const* operation, F const& f, index_t heads, index_t end_position = 0) {
    if constexpr (is_pipeline<F>) {
        check_score_extents(operation, f.first, heads, end_position);
        check_score_extents(operation, f.second, heads, end_position);
    } else if constexpr (requires { f.check(operation, heads, end_position); }) {
        f.check(operation, heads, end_position);
    } else if constexpr (requires { f.check(operation, heads); }) {
        f.check(operation, heads);
    }
}

/// Calls the parts of a pipeline that judge numbers in memory, which the host must be able to read.
template <class F>
void check_score_contents(char const* operation, F const& f) {
    if constexpr (is_pipeline<F>) {
        check_score_contents(operation, f.first);
        check_score_contents(operation, f.second);
    } else if constexpr (requires { f.check_contents(operation); }) {
        f.check_contents(operation);
    }
}

template <class F>
void check_score(char const* operation, F const& f, index_t heads, index_t end_position = 0) {
    check_score_extents(operation, f, heads, end_position);
    check_score_contents(operation, f);
}

/// visit(name, pointer, elements) for the memory that a pipeline's parts read.
template <class F, class Visit>
void for_each_score_array(F const& f, Visit const& visit) {
    if constexpr (is_pipeline<F>) {
        for_each_score_array(f.first, visit);
        for_each_score_array(f.second, visit);
    } else if constexpr (requires { f.for_each_array(visit); }) {
        f.for_each_array(visit);
    }
}

} // namespace detail

/// How much of the tile the masks of a pipeline let through, together.
template <score_functor F>
TESSERA_HOST_DEVICE constexpr visibility visibility_of(F const& f, score_tile tile) noexcept {
    if constexpr (detail::is_pipeline<F>)
        return visibility_of(f.first, tile) & visibility_of(f.second, tile);
    else if constexpr (score_mask<F>)
        return f.visibility(tile);
    else
        return visibility::full;
}

/// Where the keys are that queries [first_query, last_query) may see: no key outside is seen by one of them.
template <score_functor F>
TESSERA_HOST_DEVICE constexpr key_span keys_of(F const& f, index_t first_query, index_t last_query) noexcept {
    if constexpr (detail::is_pipeline<F>) {
        key_span const a = keys_of(f.first, first_query, last_query);
        key_span const b = keys_of(f.second, first_query, last_query);
        return {maximum(a.first, b.first), minimum(a.last, b.last)};
    } else if constexpr (requires { f.keys_of(first_query, last_query); }) {
        return f.keys_of(first_query, last_query);
    } else {
        return {};
    }
}

} // namespace tessera::inline TESSERA_ABI
