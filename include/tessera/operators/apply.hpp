// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `apply`: y = epilogue(x Wᵀ) for any linear operator W; x (m, k), W (n, k), y (m, n).
///
/// x and y are matrices of float, fp16 or bf16 with any strides. Sums are accumulated in float32 (`reference`: double).
/// Complexity O(m n k) for a stored matrix, O(m r (n + k)) for a product of rank r. `apply(exec, transposed(w), dy, dx)` is
/// the backward pass with respect to x, for every operator.
///
/// Errors: shape_error when a shape does not fit, data is null, or y overlaps x, W or what the epilogue reads (a residual
/// may be y itself); nothing is written then. The workspace of the policy grows when it must: `exec.reserve(workspace_bytes(exec, w, x))` beforehand makes the call allocation-free.

#include "../kernels/epilogue.hpp"
#include "apply_reference.hpp"
#include "prepare.hpp"

#include <cstddef>
#include <cstring>

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class Y, class Epilogue>
void finish_tile(product_task const& task, matrix_view<Y> const& y, Epilogue const& finish) noexcept {
    bool const contiguous = has_unit_stride(y);
    constexpr index_t ahead = 8; // rows; the lines of one come from far away, and none says where the next is
    for (index_t m = task.m0; m < task.m1; ++m) {
        float const* const row = task.accumulator + (m - task.m0) * task.stride - task.n0;
        if (contiguous && m + ahead < task.m1)
            for (index_t n = task.n0; n < task.n1; n += config::cache_line / static_cast<index_t>(sizeof(Y)))
                simd::prefetch(y.data_handle() + (m + ahead) * y.stride(0) + n);
        if (contiguous) {
            Y* const out = y.data_handle() + m * y.stride(0);
            if constexpr (std::is_same_v<Epilogue, no_epilogue> && std::is_same_v<Y, float>) {
                std::memcpy(out + task.n0, row + task.n0, static_cast<std::size_t>(task.n1 - task.n0) * sizeof(float));
                continue;
            }
            for (index_t n = task.n0; n < task.n1; ++n) out[n] = static_cast<Y>(finish(row[n], m, n));
        } else {
            for (index_t n = task.n0; n < task.n1; ++n) y(m, n) = static_cast<Y>(finish(row[n], m, n));
        }
    }
}

/// The part after the checks: everything the operator carves besides x's forms, then the loop.
template <class Exec, class Op, class Forms, class Y, class Epilogue>
void apply_prepared(Exec const& exec, workspace_scope& scope, Op const& w, prepared_rows<Forms> const& x,
                    matrix_view<Y> const& y, Epilogue const& finish) {
    using term = kernel<op::apply, Exec, Op>;
    auto const state = term::plan(exec, w, x.rows, scope);
    run_scratch const scratch = plan_run(exec, w, x.rows, scope);
    term::prepare(exec, w, x.inputs, state);
    run_product(exec, w, x.rows, x.inputs, state, scratch,
                [&](product_task const& task) noexcept { finish_tile(task, y, finish); });
}

} // namespace detail

/// y = finish(x Wᵀ); see the file comment.
template <execution_policy Exec, linear_operator Op, class X, class EX, class LX, class AX, class Y, class EY, class LY,
          class AY, epilogue Epilogue = no_epilogue>
void apply(Exec const& exec, Op const& w, view<X, EX, LX, AX> const& x, // (m, k)
           view<Y, EY, LY, AY> const& y,                                // (m, n)
           Epilogue const& finish = {}) {
    detail::require_backend<Exec>();
    auto const values = detail::activations("apply", x);
    check::equal("apply", "columns of x", x.extent(1), w.cols(), "columns of the operator");
    matrix_view<Y> const out = detail::results(y, x.extent(0), w.rows());
    check::no_overlap("apply", "x", footprint_of(values), "y", footprint_of(out));
    detail::check_reads("apply", w, finish, out);
    if (out.empty()) return; // x may have any number of rows then
    workspace_scope scope{exec.scratch()};
    auto const prepared = detail::plan_rows<typename kernel<op::apply, Exec, Op>::forms, Exec>(values, scope);
    prepared.inputs.run(exec, values);
    detail::apply_prepared(exec, scope, w, prepared, out, finish);
}

/// y = finish(x Wᵀ) for an x that `prepare` made ready.
template <execution_policy Exec, linear_operator Op, class Forms, class Y, class EY, class LY, class AY,
          epilogue Epilogue = no_epilogue>
void apply(Exec const& exec, Op const& w, prepared_rows<Forms> const& x, // (m, k)
           view<Y, EY, LY, AY> const& y,                                 // (m, n)
           Epilogue const& finish = {}) {
    detail::require_backend<Exec>();
    check::equal("apply", "columns of x", x.columns, w.cols(), "columns of the operator");
    matrix_view<Y> const out = detail::results(y, x.rows, w.rows());
    check::no_overlap("apply", "x", x.source, "y", footprint_of(out));
    detail::check_reads("apply", w, finish, out);
    if (out.empty()) return; // x may have any number of rows then
    workspace_scope scope{exec.scratch()};
    detail::apply_prepared(exec, scope, w, x, out, finish);
}

/// Bytes of scratch that `apply(exec, w, x, y)` carves from the policy's workspace.
template <execution_policy Exec, linear_operator Op, class X, class EX, class LX, class AX>
index_t workspace_bytes(Exec const& exec, Op const& w, view<X, EX, LX, AX> const& x) {
    detail::require_backend<Exec>();
    auto const values = detail::activations("workspace_bytes", x);
    check::equal("workspace_bytes", "columns of x", x.extent(1), w.cols(), "columns of the operator");
    workspace_sizer sizer;
    if constexpr (!std::is_same_v<Exec, reference>) {
        auto const prepared = detail::plan_rows<typename kernel<op::apply, Exec, Op>::forms, Exec>(values, sizer);
        static_cast<void>(kernel<op::apply, Exec, Op>::plan(exec, w, prepared.rows, sizer));
        static_cast<void>(detail::plan_run(exec, w, prepared.rows, sizer));
    } else {
        sizer.carve<double>(w.cols());
        sizer.carve<double>(w.rows());
        kernel<op::apply, reference, Op>::plan(w, sizer);
    }
    return sizer.bytes();
}
/// The same for owners.
template <execution_policy Exec, class Op, class X>
    requires(operator_owner<Op> || (linear_operator<Op> && detail::is_matrix_owner<X>))
index_t workspace_bytes(Exec const& exec, Op const& w, X const& x) {
    if constexpr (operator_owner<Op>)
        return workspace_bytes(exec, w.view(), detail::without_owner(x));
    else
        return workspace_bytes(exec, w, x.view());
}

} // namespace tessera::inline TESSERA_ABI
