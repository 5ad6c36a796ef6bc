// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Epilogues: what happens to an element of y between the accumulator and memory. A functor `float operator()(float
/// value, index_t m, index_t n) const noexcept`; `a | b` applies a, then b.

#include "../core/error.hpp"
#include "../core/view.hpp"

#include <concepts>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// A function of the accumulated value and its position.
template <class E>
concept epilogue = requires(E const& e, float value, index_t m, index_t n) {
    { e(value, m, n) } noexcept -> std::convertible_to<float>;
};

/// y = accumulator.
struct no_epilogue {
    TESSERA_HOST_DEVICE constexpr float operator()(float value, index_t, index_t) const noexcept { return value; }
};

/// y = accumulator + b[n].
struct bias {
    vector_view<float const> b; // (n)
    explicit bias(vector_view<float const> values) noexcept : b{values} {}
    TESSERA_HOST_DEVICE float operator()(float value, index_t, index_t n) const noexcept { return value + b[n]; }
};

/// y = accumulator + r(m, n). r may be y itself.
struct residual {
    matrix_view<float const> r; // (m, n)
    explicit residual(matrix_view<float const> values) noexcept : r{values} {}
    TESSERA_HOST_DEVICE float operator()(float value, index_t m, index_t n) const noexcept { return value + r(m, n); }
};

/// y = max(accumulator, 0).
struct relu {
    TESSERA_HOST_DEVICE constexpr float operator()(float value, index_t, index_t) const noexcept {
        return value < 0.0f ? 0.0f : value;
    }
};

/// First, then Second.
template <epilogue First, epilogue Second>
struct epilogue_pair {
    First first;
    Second second;
    TESSERA_HOST_DEVICE constexpr float operator()(float value, index_t m, index_t n) const noexcept {
        return second(first(value, m, n), m, n);
    }
};

/// `bias{b} | relu{}`: first, then second.
template <epilogue First, epilogue Second>
constexpr epilogue_pair<First, Second> operator|(First const& first, Second const& second) noexcept {
    return {first, second};
}

namespace detail {

/// What an epilogue reads must fit y (m, n).
template <epilogue E>
void check_epilogue(char const*, E const&, index_t, index_t) noexcept {}

inline void check_epilogue(char const* operation, bias const& e, index_t, index_t n) {
    check::equal(operation, "size of the bias", e.b.extent(0), n, "rows of the operator");
    check::not_null(operation, "the bias", e.b.data_handle(), n);
}
inline void check_epilogue(char const* operation, residual const& e, index_t m, index_t n) {
    check::equal(operation, "rows of the residual", e.r.extent(0), m, "rows of y");
    check::equal(operation, "columns of the residual", e.r.extent(1), n, "columns of y");
    check::not_null(operation, "the residual", e.r.data_handle(), m * n);
}
template <epilogue First, epilogue Second>
void check_epilogue(char const* operation, epilogue_pair<First, Second> const& e, index_t m, index_t n) {
    check_epilogue(operation, e.first, m, n);
    check_epilogue(operation, e.second, m, n);
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
