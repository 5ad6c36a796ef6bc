// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The score functors of the library (kernels/score.hpp says what one is and how to write another):
///
///     auto const score = ts::scaled{s} | ts::soft_cap{30.f} | ts::causal | ts::window{1024};
///
/// More masks are in mask.hpp and neighborhood.hpp, biases in bias.hpp, changes of the softmax in normaliser.hpp.
///
/// A pipeline without `scaled` is scaled by 1 / sqrt(head_dim) first. Attention throws shape_error where the limit of a soft
/// cap is not a positive finite number, a window is empty, or ALiBi has not one slope a query head.

#include "../core/error.hpp"
#include "../core/view.hpp"
#include "../kernels/score.hpp"

#include <cmath>
#include <limits>
#include <string>

namespace tessera::inline TESSERA_ABI {

/// s -> factor * s.
struct scaled {
    float factor;

    constexpr explicit scaled(float f) noexcept : factor{f} {}
    template <class V>
    TESSERA_HOST_DEVICE constexpr V operator()(V s, coord<V>) const noexcept {
        return select(s == V(minus_infinity), s, s * V(factor)); // what a mask hid stays hidden
    }
    template <class V>
    constexpr V derivative(V, coord<V>) const noexcept {
        return V(factor);
    }
};

/// s -> limit * tanh(s / limit), limit > 0.
struct soft_cap {
    float limit;

    constexpr explicit soft_cap(float l) noexcept : limit{l} {}
    template <class V>
    TESSERA_HOST_DEVICE V operator()(V s, coord<V>) const noexcept {
        using std::tanh;
        return select(s == V(minus_infinity), s, V(limit) * tanh(s / V(limit))); // what a mask hid stays hidden
    }
    template <class V>
    V derivative(V s, coord<V>) const noexcept {
        using std::tanh;
        V const t = tanh(s / V(limit));
        return V(1.0f) - t * t;
    }
    void check(char const* operation, index_t) const {
        if (!(limit > 0.0f && limit <= std::numeric_limits<float>::max()))
            detail::raise<shape_error>("tessera: " + std::string{operation} + ": limit of soft_cap is " +
                                       std::to_string(limit) + ", expected a finite number above 0");
    }
};

/// Attention with linear biases (Press et al. 2021): s -> s - slope[head] * |query - key|.
struct alibi {
    vector_view<float const> slopes; // (heads)

    constexpr explicit alibi(vector_view<float const> s) noexcept : slopes{s} {}
    template <class V>
    TESSERA_HOST_DEVICE V operator()(V s, coord<V> at) const noexcept {
        using std::abs;
        return s - V(slopes[at.head]) * abs(at.distance());
    }
    template <class V>
    constexpr V derivative(V, coord<V>) const noexcept {
        return V(1.0f);
    }
    template <class Visit>
    void for_each_array(Visit const& visit) const {
        visit("slopes of alibi", slopes.data_handle(), slopes.size());
    }
    void check(char const* operation, index_t heads) const {
        check::equal(operation, "number of slopes of alibi", slopes.extent(0), heads, "heads of q");
        check::not_null(operation, "slopes of alibi", slopes.data_handle(), heads);
    }
};

/// Every key is visible.
struct full_t {
    template <class V>
    TESSERA_HOST_DEVICE constexpr V operator()(V s, coord<V>) const noexcept {
        return s;
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile) const noexcept { return tessera::visibility::full; }
};
inline constexpr full_t full{};

/// A query sees keys at its own position and before. The last query is at the last key: with fewer queries than keys,
/// query i of m sees the keys up to n - m + i.
struct causal_t {
    template <class V>
    TESSERA_HOST_DEVICE constexpr V operator()(V s, coord<V> at) const noexcept {
        return select(at.distance() < V(0.0f), V(minus_infinity), s);
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile t) const noexcept {
        if (t.first_key > t.last_query - 1) return tessera::visibility::none;
        return t.last_key - 1 <= t.first_query ? tessera::visibility::full : tessera::visibility::partial;
    }
    TESSERA_HOST_DEVICE constexpr key_span keys_of(index_t, index_t last_query) const noexcept { return {0, last_query}; }
};
inline constexpr causal_t causal{};

/// A query sees keys less than `size` positions before it, itself included, and none after it: the last `size`.
struct window {
    index_t size;

    constexpr explicit window(index_t s) noexcept : size{s} {}
    template <class V>
    TESSERA_HOST_DEVICE constexpr V operator()(V s, coord<V> at) const noexcept {
        V const d = at.distance();
        V const seen = select(d < V(0.0f), V(minus_infinity), s);
        return select(d < detail::position_as<V>(size), seen, V(minus_infinity));
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile t) const noexcept {
        index_t const nearest = t.first_query - (t.last_key - 1);
        index_t const farthest = t.last_query - 1 - t.first_key;
        if (farthest < 0 || nearest >= size) return tessera::visibility::none;
        return nearest >= 0 && farthest < size ? tessera::visibility::full : tessera::visibility::partial;
    }
    TESSERA_HOST_DEVICE constexpr key_span keys_of(index_t first_query, index_t last_query) const noexcept {
        return {first_query - minimum(size, index_t{1} << 60) + 1, last_query}; // any number may stand for no limit
    }
    void check(char const* operation, index_t) const { check::at_least(operation, "size of window", size, 1); }
};

namespace detail {

template <class F>
inline constexpr bool contains_scaled = std::same_as<F, scaled>;
template <class A, class B>
inline constexpr bool contains_scaled<score_pipeline<A, B>> = contains_scaled<A> || contains_scaled<B>;

/// A pipeline as a first factor and the rest: kernels multiply the queries by the factor.
template <class Rest>
struct factored_score {
    float factor;
    Rest rest;
};

template <class F>
constexpr auto factored(F const& f) noexcept {
    if constexpr (std::same_as<F, scaled>) {
        return factored_score<full_t>{f.factor, full};
    } else if constexpr (is_pipeline<F>) {
        using first_type = std::remove_cvref_t<decltype(f.first)>;
        if constexpr (std::same_as<first_type, scaled>) {
            return factored_score<std::remove_cvref_t<decltype(f.second)>>{f.first.factor, f.second};
        } else {
            auto const inner = factored(f.first);
            auto const rest = inner.rest | f.second;
            return factored_score<std::remove_cvref_t<decltype(rest)>>{inner.factor, rest};
        }
    } else {
        return factored_score<F>{1.0f, f};
    }
}

/// The same with the default scale where the pipeline has none.
template <class F>
auto resolved_score(F const& f, index_t head_dim) noexcept {
    auto result = factored(f);
    if constexpr (!contains_scaled<F>) result.factor = 1.0f / std::sqrt(static_cast<float>(maximum(head_dim, 1)));
    return result;
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
