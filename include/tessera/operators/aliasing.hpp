// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What a product reads besides x, and that y does not overlap it (contract 3): the arrays of every stored matrix of the
/// operator, a bias, a residual. Only a residual may be y itself, element by element: y += x Wᵀ in place.

#include "../core/overlap.hpp"
#include "../kernels/epilogue.hpp"
#include "../kernels/operand.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// The arrays of a stored matrix and an output share no memory. A storage of another kind has a member
/// `for_each_array(f)` that calls f(pointer, bytes) for each of its arrays.
template <class Storage>
void check_storage_apart(char const* operation, char const* argument, Storage const& w, char const* output,
                         footprint const& y) {
    auto const apart = [&](void const* data, index_t bytes) {
        check::no_overlap(operation, argument, footprint_of(data, bytes), output, y);
    };
    if constexpr (requires { w.for_each_array(apart); }) {
        w.for_each_array(apart);
    } else if constexpr (is_view<Storage>) {
        check::no_overlap(operation, argument, footprint_of(w), output, y);
    } else if constexpr (requires { w.zero_points(); }) {
        apart(w.codes(), w.rows() * w.row_bytes());
        index_t const scales = w.scale_rows() * w.scale_columns();
        apart(w.scales(), scales * static_cast<index_t>(sizeof(*w.scales())));
        if constexpr (Storage::scheme_type::is_affine) apart(w.zero_points(), scales);
    } else if constexpr (requires { w.row_stride(); }) {
        using block = typename Storage::block;
        index_t const strides[] = {w.row_stride(), 1};
        using blocks = matrix_view<block const>;
        check::no_overlap(operation, argument,
                          footprint_of(blocks{w.data(), typename blocks::mapping_type{
                                                            dynamic_extents<2>{w.rows(), w.blocks_per_row()}, strides}}),
                          output, y);
    } else {
        apart(w.data(), w.bytes());
    }
}

/// The same for every leaf of an operator. A node shows its operands as `inner()`, or as `first()` and `second()`; one that
/// has none reads nothing.
template <linear_operator Op>
void check_operator_apart(char const* operation, Op const& w, char const* output, footprint const& y) {
    if constexpr (requires { w.factors(); })
        check::no_overlap(operation, "the factors", footprint_of(w.factors()), output, y);
    if constexpr (requires { w.storage(); }) {
        check_storage_apart(operation, "the operator", w.storage(), output, y);
    } else if constexpr (requires { w.inner(); }) {
        check_operator_apart(operation, w.inner(), output, y);
    } else if constexpr (requires { w.second(); }) {
        check_operator_apart(operation, w.first(), output, y);
        check_operator_apart(operation, w.second(), output, y);
    }
}

/// The same for what an epilogue reads; a function of the user reads nothing that is known here.
template <epilogue E, class Y>
void check_epilogue_apart(char const*, E const&, char const*, matrix_view<Y> const&) noexcept {}

template <class Y>
void check_epilogue_apart(char const* operation, bias const& e, char const* output, matrix_view<Y> const& y) {
    check::no_overlap(operation, "the bias", footprint_of(e.b), output, footprint_of(y));
}
template <class Y>
void check_epilogue_apart(char const* operation, residual const& e, char const* output, matrix_view<Y> const& y) {
    if (!is_same_array(e.r, y)) check::no_overlap(operation, "the residual", footprint_of(e.r), output, footprint_of(y));
}
template <epilogue First, epilogue Second, class Y>
void check_epilogue_apart(char const* operation, epilogue_pair<First, Second> const& e, char const* output,
                          matrix_view<Y> const& y) {
    check_epilogue_apart(operation, e.first, output, y);
    check_epilogue_apart(operation, e.second, output, y);
}

/// The door of a product: what the operator and the epilogue read fits y (m, n) and is apart from it.
template <linear_operator Op, epilogue E, class Y>
void check_reads(char const* operation, Op const& w, E const& finish, matrix_view<Y> const& y) {
    check_epilogue(operation, finish, y.extent(0), y.extent(1));
    check_operator_apart(operation, w, "y", footprint_of(y));
    check_epilogue_apart(operation, finish, "y", y);
}

} // namespace tessera::inline TESSERA_ABI::detail
