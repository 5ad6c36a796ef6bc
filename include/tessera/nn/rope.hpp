// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864). At position p, pair i of the first `dims` elements of a
/// head is turned by the angle p base^(-2i / dims); elements beyond `dims` stay. The two styles say which elements make a
/// pair (kernels/rope_style.hpp).
///
/// Cosines and sines come from a table, computed in double and rounded once, so they are exact to half an ulp at any
/// position. Error of the CPU kernel: 2 u (|a cos| + |b sin|), u = 2^-24. NaN and infinity in a pair make that pair NaN.
///
/// y may be x itself; it may not overlap x in any other way.
///
/// The gradient: rotations turn back by their transpose, so dx is rope of dy with `table.inverse()`.

#include "../kernels/cpu/rope.hpp"
#include "../kernels/ref/rope.hpp"
#include "arguments.hpp"
#include "rope_table.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Everything but the positions; returns the table as the kernels see it.
template <class X, class Y>
rotations check_rope(rope_table const& table, tensor_view<X, 3> const& x, tensor_view<Y, 3> const& y) {
    check::equal("rope", "tokens of y", y.extent(0), x.extent(0), "tokens of x");
    check::equal("rope", "heads of y", y.extent(1), x.extent(1), "heads of x");
    check::equal("rope", "head dimension of y", y.extent(2), x.extent(2), "head dimension of x");
    check::within("rope", "dims of the table", 2 * table.pairs(), 0, x.extent(2));
    check_rows("rope", "x", x);
    check_rows("rope", "y", y);
    if (!is_same_array(x, y)) check::no_overlap("rope", "x", footprint_of(x), "y", footprint_of(y));
    return {table.cosines().data_handle(), table.sines().data_handle(), table.pairs(), nullptr, 0};
}

} // namespace detail

/// Turns the heads of consecutive tokens, the first at `first_position`.
template <execution_policy Exec, rope_style Style>
void rope(Exec const& exec, Style style,
          array3_argument auto const& x, // (tokens, heads, head dimension)
          rope_table const& table, index_t first_position,
          array3_argument auto&& y) {    // (tokens, heads, head dimension)
    detail::require_backend<Exec>();
    auto const from = detail::input(x);
    auto const to = detail::output(y);
    detail::rotations of = detail::check_rope(table, from, to);
    check::within("rope", "first position", first_position, 0, table.positions());
    check::within("rope", "last position plus one", first_position + from.extent(0), 0, table.positions());
    of.first_position = first_position;
    kernel<op::rope, Exec, typename decltype(from)::value_type>::run(exec, style, from, of, to);
}

/// Turns the heads of token t by positions[t].
template <execution_policy Exec, rope_style Style>
void rope(Exec const& exec, Style style,
          array3_argument auto const& x, // (tokens, heads, head dimension)
          rope_table const& table,
          vector_view<index_t const> positions, // (tokens), contiguous
          array3_argument auto&& y) {           // (tokens, heads, head dimension)
    detail::require_backend<Exec>();
    auto const from = detail::input(x);
    auto const to = detail::output(y);
    detail::rotations of = detail::check_rope(table, from, to);
    check::equal("rope", "number of positions", positions.extent(0), from.extent(0), "tokens of x");
    detail::check_rows("rope", "positions", positions);
    for (index_t t = 0; t < positions.extent(0); ++t)
        check::within("rope", "position", positions[t], 0, table.positions() - 1);
    of.positions = positions.data_handle();
    kernel<op::rope, Exec, typename decltype(from)::value_type>::run(exec, style, from, of, to);
}

} // namespace tessera::inline TESSERA_ABI
