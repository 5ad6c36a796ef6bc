// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `prepare`: x into the form that products want, once for several of them. What q, k and v of an attention layer, or
/// gate and up of a feed-forward layer, share:
///
///     workspace_scope scope{exec.scratch()};
///     auto const shared = prepare(exec, scope, x, wq);         // for wq and every operator that wants the same
///     apply(exec, wq, shared, yq);
///     apply(exec, wk, shared, yk);
///
/// The forms live in the scope's memory; x itself is read in place where no conversion is needed, and must stay.

#include "../core/overlap.hpp"
#include "../kernels/cpu/decode.hpp"
#include "door.hpp"
#include "terms.hpp"

namespace tessera::inline TESSERA_ABI {

/// x (m, k) in the forms of `Forms`, a type_list.
template <class Forms>
struct prepared_rows {
    input_set<Forms> inputs;
    index_t rows = 0;    ///< m
    index_t columns = 0; ///< k
    footprint source{};  ///< where x is: y must not overlap it
};

namespace detail {

template <class Preparation, class Exec>
struct forms_of_preparation {
    using type = type_list<int8_rows<activation_group<Preparation>, 32>>;
};
template <class Exec>
struct forms_of_preparation<as_is, Exec> {
    using type = type_list<float_rows<0>, panels_of<typename Exec::arch_type, as_is>>;
};
template <class Exec>
struct forms_of_preparation<as_bf16, Exec> {
    using arch = typename Exec::arch_type;
    using form = typename form_of<arch, prepacked<panel<arch::lanes, 1>, matrix_view<float const>>, as_bf16>::type;
    using type = std::conditional_t<std::is_same_v<form, bf16_rows>, type_list<form>, type_list<form, panels_of<arch, as_bf16>>>;
};

template <class Forms, class Exec, class X, class Arena>
prepared_rows<Forms> plan_rows(X const& x, Arena& arena) {
    return {input_set<Forms>::template plan<Exec>(x, arena), x.extent(0), x.extent(1), footprint_of(x)};
}

} // namespace detail

/// Whether `as_bf16` runs on matrix tiles here: then it is the fastest preparation for 16 rows of x and more.
template <class Arch, class Parallel>
bool has_bf16_tiles(cpu<Arch, Parallel> const&) noexcept {
    return simd::multiplies_bf16<Arch> && simd::amx_is_allowed();
}
inline bool has_bf16_tiles(reference const&) noexcept { return false; }

/// Prepares x for operators that take `Preparation` with groups of a multiple of 32 columns, or whole rows.
template <class Exec, preparation Preparation, class T, class E, class L, class A>
auto prepare(Exec const& exec, workspace_scope& scope, view<T, E, L, A> const& x, Preparation) {
    detail::require_backend<Exec>();
    auto const values = detail::activations("prepare", x);
    auto const result = detail::plan_rows<typename detail::forms_of_preparation<Preparation, Exec>::type, Exec>(values, scope);
    result.inputs.run(exec, values);
    return result;
}

/// Prepares x for `like`, and for every operator that wants the same forms.
template <class Exec, linear_operator Op, class T, class E, class L, class A>
auto prepare(Exec const& exec, workspace_scope& scope, view<T, E, L, A> const& x, Op const& like) {
    detail::require_backend<Exec>();
    auto const values = detail::activations("prepare", x);
    check::equal("prepare", "columns of x", x.extent(1), like.cols(), "columns of the operator");
    auto const result = detail::plan_rows<typename kernel<op::apply, Exec, Op>::forms, Exec>(values, scope);
    result.inputs.run(exec, values);
    return result;
}

/// Owners stand for what they own.
template <class Exec, class T, class Like>
auto prepare(Exec const& exec, workspace_scope& scope, tensor<T, 2> const& x, Like const& like) {
    return prepare(exec, scope, x.view(), like);
}
template <class Exec, operator_owner Owner, class T, class E, class L, class A>
auto prepare(Exec const& exec, workspace_scope& scope, view<T, E, L, A> const& x, Owner const& like) {
    return prepare(exec, scope, x, like.view());
}

} // namespace tessera::inline TESSERA_ABI
