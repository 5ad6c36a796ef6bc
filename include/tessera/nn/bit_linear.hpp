// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// BitLinear (BitNet b1.58, arXiv:2402.17764; MatMul-free LM, arXiv:2406.02528): a root-mean-square norm, its result in int8 by
/// tokens, and a product with ternary weights, as one call:
///
///     auto const t = quantize_absmean(w);                                      // quant/ternary.hpp; w (n, k)
///     auto const layer = place(exec, linear{t, int8_per_token{}});
///     bit_linear(exec, layer, x, norm_weight, 1e-6f, y);                       // y = int8(rms_norm(x)) Wᵀ
///
/// A row of x is read from memory once: it is normalised into a row of scratch that stays in the cache, and converted from
/// there. The bits are those of `rms_norm` into float32 followed by `apply`. W may be any operator, with any preparation, so that
/// a sum with an adapter, or weights of other formats behind a norm, go the same way; `prepare_normalized` makes x ready for
/// several operators behind one norm (q, k and v).
///
/// `bit_linear_backward` is the straight-through estimator of the published code: rounding counts as the identity, with
/// h = rms_norm(x) and h' its int8 values,
///
///     dh = dy W        dw = dyᵀ h'        dx, dnorm_weight = rms_norm_backward(x, dh)
///
/// where dw is the gradient of the weights that W was quantised from.
///
/// One difference from the published code: there a token's largest |h| counts as 1e-5 if it is smaller; here it counts as it is,
/// so that such tokens keep their precision.
///
/// Errors: shape_error when a shape does not fit, data is null, or an output overlaps an input; nothing is written then.

#include "../operators/apply.hpp"
#include "../operators/backward.hpp"
#include "norm.hpp"

#include <utility>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Forms that read x in place, or several rows together: normalised rows must stay for them.
template <class Form>
inline constexpr bool keeps_x = requires { typename Form::lies_in_blocks; };
template <index_t SumGroup>
inline constexpr bool keeps_x<float_rows<SumGroup, as_is>> = true;
template <class List>
inline constexpr bool any_keeps_x = false;
template <class... Form>
inline constexpr bool any_keeps_x<type_list<Form...>> = (keeps_x<Form> || ...);

/// Where normalised rows go: a row for every worker, or every row.
template <class Forms, class Exec, class Arena>
matrix_view<float> plan_normalized(Exec const& exec, index_t rows, index_t columns, Arena& arena) {
    index_t const count = any_keeps_x<Forms> ? rows : maximum(1, exec.parallel().concurrency());
    index_t const strides[] = {round_up(columns, 16), 1};
    float* const data = arena.template carve<float>(count, strides[0]);
    return {data, matrix_view<float>::mapping_type{dynamic_extents<2>{rows, columns}, strides}};
}

/// Normalises each row and makes every form of it, while it is in the cache.
template <class Arch, class Parallel, class Forms, class X, class W>
void run_normalized(cpu<Arch, Parallel> const& exec, matrix_view<X const> const& x, vector_view<W const> const& weight,
                    float epsilon, matrix_view<float> const& rows, input_set<Forms> const& inputs) noexcept {
    cpu<Arch, serial> const alone{};
    index_t const columns = x.extent(1);
    parallel_for(exec.parallel(), x.extent(0), prepare_grain(columns), [&](index_t first, index_t last, index_t worker) noexcept {
        for (index_t m = first; m < last; ++m) {
            float* const row = rows.data_handle() + (any_keeps_x<Forms> ? m : worker) * rows.stride(0);
            kernel<op::rms_norm, cpu<Arch, serial>, X>::run(alone, matrix_view<X const>{row_of(x, m), 1, columns}, weight, epsilon,
                                                            matrix_view<float>{row, 1, columns});
            inputs.slice(m, 1).run(alone, matrix_view<float const>{row, 1, columns});
        }
    });
    inputs.run_blocks(exec, matrix_view<float const>{rows});
}

/// x normalised and in the forms of `Forms`, in the memory of the scope.
template <class Forms, class Exec, class X, class W>
prepared_rows<Forms> normalize_into(Exec const& exec, workspace_scope& scope, matrix_view<X const> const& x,
                                    vector_view<W const> const& weight, float epsilon) {
    auto const rows = plan_normalized<Forms>(exec, x.extent(0), x.extent(1), scope);
    auto const prepared = plan_rows<Forms, Exec>(matrix_view<float const>{rows}, scope);
    run_normalized(exec, x, weight, epsilon, rows, prepared.inputs);
    return {prepared.inputs, x.extent(0), x.extent(1), footprint_of(x)};
}

/// x and the norm's weight.
template <class X, class W>
void check_normalized(char const* operation, matrix_view<X const> const& x, vector_view<W const> const& weight, float epsilon) {
    check_rows(operation, "x", x);
    check_per_column(operation, "norm_weight", weight, x);
    check_epsilon(operation, epsilon);
}

/// Row m of rms_norm(x), by definition.
template <class X, class W>
void reference_normalized(matrix_view<X const> const& x, vector_view<W const> const& weight, float epsilon, index_t m,
                          double* row) noexcept {
    index_t const columns = x.extent(1);
    kernel<op::rms_norm, reference, X>::run(reference{}, matrix_view<X const>{row_of(x, m), 1, columns}, weight, epsilon,
                                            matrix_view<double>{row, 1, columns});
}

/// What a product with preparation P sees of x, as float32.
template <index_t ScaleGroup, index_t Block>
void prepared_values(int8_rows<ScaleGroup, Block> const& form, index_t m, float* out) noexcept {
    using type = int8_rows<ScaleGroup, Block>;
    for (index_t k = 0; k < form.columns; ++k)
        out[k] = form.scale(m, ScaleGroup == 0 ? 0 : k / maximum(ScaleGroup, 1)) *
                 static_cast<float>(form.row(m)[k / Block * type::padded_block + k % Block]);
}
inline void prepared_values(float_rows<0> const& form, index_t m, float* out) noexcept {
    for (index_t k = 0; k < form.columns; ++k) out[k] = form.row(m)[k];
}

} // namespace detail

/// Prepares rms_norm(x) for `like`, and for every operator that wants the same forms; see operators/prepare.hpp.
template <execution_policy Exec, class Op>
    requires(linear_operator<Op> || operator_owner<Op>)
auto prepare_normalized(Exec const& exec, workspace_scope& scope,
                        matrix_argument auto const& x,           // (m, k)
                        vector_argument auto const& norm_weight, // (k)
                        float epsilon, Op const& like) {
    detail::require_backend<Exec>();
    static_assert(detail::is_cpu<Exec>, "tessera: prepare_normalized needs a cpu policy; reference has bit_linear");
    auto const from = detail::input(x);
    auto const weight = detail::input(norm_weight);
    auto const w = detail::operator_of(like);
    check::equal("prepare_normalized", "columns of x", from.extent(1), w.cols(), "columns of the operator");
    detail::check_normalized("prepare_normalized", from, weight, epsilon);
    return detail::normalize_into<typename kernel<op::apply, Exec, std::remove_const_t<decltype(w)>>::forms>(exec, scope, from, weight, epsilon);
}

/// y = finish(prepared(rms_norm(x)) Wᵀ); see the file comment.
template <execution_policy Exec, class Op, epilogue Epilogue = no_epilogue>
    requires(linear_operator<Op> || operator_owner<Op>)
void bit_linear(Exec const& exec, Op const& w,
                matrix_argument auto const& x,           // (m, k)
                vector_argument auto const& norm_weight, // (k)
                float epsilon,
                matrix_argument auto&& y,                // (m, n)
                Epilogue const& finish = {}) {
    detail::require_backend<Exec>();
    auto const from = detail::input(x);
    auto const weight = detail::input(norm_weight);
    auto const operand = detail::operator_of(w);
    using operator_type = std::remove_const_t<decltype(operand)>;
    check::equal("bit_linear", "columns of x", from.extent(1), operand.cols(), "columns of the operator");
    detail::check_normalized("bit_linear", from, weight, epsilon);
    auto const out = detail::results(detail::output(y), from.extent(0), operand.rows(), "bit_linear");
    check::no_overlap("bit_linear", "x", footprint_of(from), "y", footprint_of(out));
    detail::check_apart("bit_linear", "norm_weight", weight, "y", out);
    detail::check_reads("bit_linear", operand, finish, out);
    if (out.empty()) return;
    workspace_scope scope{exec.scratch()};
    if constexpr (std::is_same_v<Exec, reference>) {
        using value = typename decltype(out)::value_type;
        double* const row = scope.carve<double>(operand.cols());
        double* const sums = scope.carve<double>(operand.rows());
        for (index_t m = 0; m < from.extent(0); ++m) {
            detail::reference_normalized(from, weight, epsilon, m, row);
            for (index_t n = 0; n < operand.rows(); ++n) sums[n] = 0;
            kernel<op::apply, reference, operator_type>::row(operand, row, sums, 1.0, exec.scratch());
            for (index_t n = 0; n < operand.rows(); ++n) out(m, n) = static_cast<value>(finish(static_cast<float>(sums[n]), m, n));
        }
    } else {
        auto const prepared =
            detail::normalize_into<typename kernel<op::apply, Exec, operator_type>::forms>(exec, scope, from, weight, epsilon);
        detail::apply_prepared(exec, scope, operand, prepared, out, finish);
    }
}

/// Bytes of scratch that `bit_linear(exec, w, x, ...)` carves from the policy's workspace.
template <execution_policy Exec, class Op>
    requires(linear_operator<Op> || operator_owner<Op>)
index_t bit_linear_workspace_bytes(Exec const& exec, Op const& w, matrix_argument auto const& x) {
    auto const from = detail::input(x);
    auto const operand = detail::operator_of(w);
    using operator_type = std::remove_const_t<decltype(operand)>;
    workspace_sizer sizer;
    if constexpr (std::is_same_v<Exec, reference>) {
        sizer.carve<double>(operand.cols());
        sizer.carve<double>(operand.rows());
        kernel<op::apply, reference, operator_type>::plan(operand, sizer);
    } else {
        using forms = typename kernel<op::apply, Exec, operator_type>::forms;
        auto const rows = detail::plan_normalized<forms>(exec, from.extent(0), from.extent(1), sizer);
        auto const prepared = detail::plan_rows<forms, Exec>(matrix_view<float const>{rows}, sizer);
        static_cast<void>(kernel<op::apply, Exec, operator_type>::plan(exec, operand, prepared.rows, sizer));
        static_cast<void>(detail::plan_run(exec, operand, prepared.rows, sizer));
    }
    return sizer.bytes();
}

namespace detail {

/// The definition, in double.
template <class Storage, class P, class X, class W, class D, class DX, class DN, class DW>
void bit_linear_backward_reference(reference const& exec, linear<Storage, P> const& w, matrix_view<X const> const& x,
                                   vector_view<W const> const& weight, float epsilon, matrix_view<D const> const& dy,
                                   matrix_view<DX> const& dx, vector_view<DN> const& dnorm, matrix_view<DW> const& dw) {
    index_t const rows = x.extent(0);
    index_t const n = w.rows();
    index_t const k = w.cols();
    workspace_scope scope{exec.scratch()};
    matrix_view<double> const wide{scope.carve<double>(rows, k), rows, k};
    matrix_view<double> const seen{scope.carve<double>(rows, k), rows, k};
    matrix_view<double> const dh{scope.carve<double>(rows, k), rows, k};
    double* const gradient = scope.carve<double>(n);
    auto const back = transposed(w);
    for (index_t m = 0; m < rows; ++m) {
        for (index_t i = 0; i < k; ++i) {
            wide(m, i) = static_cast<double>(static_cast<float>(x(m, i)));
            dh(m, i) = 0;
        }
        for (index_t i = 0; i < n; ++i) gradient[i] = static_cast<double>(static_cast<float>(dy(m, i)));
        kernel<op::apply, reference, std::remove_const_t<decltype(back)>>::row(back, gradient, &dh(m, 0), 1.0, exec.scratch());
        reference_normalized(x, weight, epsilon, m, &seen(m, 0));
        reference_prepare<P>(&seen(m, 0), k, &seen(m, 0));
    }
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < k; ++j) {
            double sum = 0;
            for (index_t m = 0; m < rows; ++m) sum += static_cast<double>(static_cast<float>(dy(m, i))) * seen(m, j);
            dw(i, j) = static_cast<DW>(sum);
        }
    kernel<op::rms_norm_backward, reference, double>::run(exec, matrix_view<double const>{wide}, weight, epsilon,
                                                          matrix_view<double const>{dh}, dx, dnorm);
}

} // namespace detail

/// The gradients of `bit_linear` with a stored matrix, by the straight-through estimator of the file comment, for the gradient dy
/// of its output. All results are overwritten; dx may be x itself.
template <execution_policy Exec, class Storage, preparation P>
void bit_linear_backward(Exec const& exec, linear<Storage, P> const& w,
                         matrix_argument auto const& x,           // (m, k)
                         vector_argument auto const& norm_weight, // (k)
                         float epsilon,
                         matrix_argument auto const& dy,          // (m, n)
                         matrix_argument auto&& dx,               // (m, k)
                         vector_argument auto&& dnorm_weight,     // (k)
                         matrix_argument auto&& dw) {             // (n, k)
    detail::require_backend<Exec>();
    static_assert(std::is_same_v<P, as_is> || detail::activation_group<P> >= 0,
                  "tessera: bit_linear_backward knows x as it is and in int8");
    char const* const name = "bit_linear_backward";
    auto const from = detail::input(x);
    auto const weight = detail::input(norm_weight);
    auto const d = detail::input(dy);
    auto const to_x = detail::output(dx);
    auto const to_norm = detail::output(dnorm_weight);
    auto const to_w = detail::output(dw);
    using element = typename decltype(from)::value_type;
    check::equal(name, "columns of x", from.extent(1), w.cols(), "columns of the operator");
    check::equal(name, "rows of dy", d.extent(0), from.extent(0), "rows of x");
    check::equal(name, "columns of dy", d.extent(1), w.rows(), "rows of the operator");
    check::equal(name, "rows of dw", to_w.extent(0), w.rows(), "rows of the operator");
    check::equal(name, "columns of dw", to_w.extent(1), w.cols(), "columns of the operator");
    detail::check_rows(name, "dy", d);
    detail::check_output_rows(name, "dw", to_w);
    detail::check_norm(name, from, weight, epsilon, to_x);
    detail::check_per_column(name, "dnorm_weight", to_norm, from);
    detail::check_gradient(name, "dw", from, d, to_w);
    check::no_overlap(name, "dy", footprint_of(d), "dx", footprint_of(to_x));
    detail::check_apart(name, "norm_weight", weight, "dw", to_w);
    check::no_overlap(name, "dx", footprint_of(to_x), "dw", footprint_of(to_w));
    detail::check_apart(name, "dnorm_weight", to_norm, "x", from);
    detail::check_apart(name, "dnorm_weight", to_norm, "dy", d);
    detail::check_apart(name, "dnorm_weight", to_norm, "dx", to_x);
    detail::check_apart(name, "dnorm_weight", to_norm, "dw", to_w);
    check::no_overlap(name, "norm_weight", footprint_of(weight), "dnorm_weight", footprint_of(to_norm));
    detail::check_operator_apart(name, w, "dx", footprint_of(to_x));
    detail::check_operator_apart(name, w, "dw", footprint_of(to_w));
    detail::check_operator_apart(name, w, "dnorm_weight", footprint_of(to_norm));
    if constexpr (std::is_same_v<Exec, reference>) {
        detail::bit_linear_backward_reference(exec, w, from, weight, epsilon, d, to_x, to_norm, to_w);
    } else {
        index_t const m = from.extent(0);
        index_t const k = from.extent(1);
        workspace_scope scope{exec.scratch()};
        matrix_view<element> const dh{scope.carve<element>(m, k), m, k};
        apply(exec, transposed(w), d, dh);
        using forms = typename detail::forms_of_preparation<P, Exec>::type;
        matrix_view<float> const seen{scope.carve<float>(m, k), m, k};
        auto const prepared = detail::normalize_into<forms>(exec, scope, from, weight, epsilon);
        auto const& form = [&]<class Form, class... Blocks>(type_list<Form, Blocks...>) -> Form const& { return prepared.inputs.template get<Form>(); }(forms{});
        parallel_for(exec.parallel(), k == 0 ? 0 : m, detail::prepare_grain(k), [&](index_t first, index_t last, index_t) noexcept {
            for (index_t i = first; i < last; ++i) detail::prepared_values(form, i, &seen(i, 0));
        });
        weight_backward(exec, seen, d, to_w);
        rms_norm_backward(exec, from, weight, epsilon, dh, to_x, to_norm);
    }
}
template <execution_policy Exec, operator_owner Owner>
void bit_linear_backward(Exec const& exec, Owner const& w, auto const& x, auto const& norm_weight, float epsilon,
                         auto const& dy, auto&& dx, auto&& dnorm_weight, auto&& dw) {
    bit_linear_backward(exec, w.view(), x, norm_weight, epsilon, dy, dx, dnorm_weight, dw);
}

} // namespace tessera::inline TESSERA_ABI
