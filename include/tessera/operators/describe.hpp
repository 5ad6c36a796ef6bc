// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `describe(exec, op, m)`: what a product with m rows of x runs: instruction set, layout, and the inner loop chosen. For
/// people, and for tests that prove that the selected instructions really run.
///
///     avx512_amx: int4 codes, panel<16, 4>, int8 tiles
///
/// The text of a sum or a product names its terms in parentheses.

#include "../kernels/cpu/decode.hpp"
#include "diagonal.hpp"
#include "prepare.hpp"

#include <string>

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class Storage>
std::string storage_name() {
    if constexpr (is_dense_panel<Storage>) {
        return storage_name<typename Storage::storage>();
    } else if constexpr (dense_storage<Storage>) {
        using element = typename Storage::value_type;
        if constexpr (std::is_same_v<element, float>)
            return fp32::name;
        else
            return element::name;
    } else if constexpr (requires { typename Storage::layout; }) {
        return storage_name<typename Storage::storage>();
    } else {
        return Storage::format::name;
    }
}

template <class Arch, class Parallel, class Storage, class Preparation>
std::string describe_term(cpu<Arch, Parallel> const&, linear<Storage, Preparation> const&, index_t m) {
    using term = kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, Preparation>>;
    std::string const depth = term::is_dense ? "1" : "4";
    std::string text = storage_name<Storage>() + (term::is_dense ? "" : " codes") + ", panel<" + std::to_string(term::R) +
                       ", " + depth + ">" + (term::is_placed ? "" : " packed on the fly") + ", ";
    if (term::is_integer_product)
        return text + (term::uses_tiles(m) ? "int8 tiles" : simd::dot4_name<Arch>);
    if (term::is_bf16_product) return text + (term::uses_tiles(m) ? "bf16 tiles" : "bf16 dot products");
    if (term::is_dense) return text + "float multiply-add";
    return text + (m < decode_once_rows ? "float multiply-add on decoded registers" : "float multiply-add on decoded panels");
}
/// A storage of another kind: its kernel says what it does.
template <class Arch, class Parallel, class Storage, class Preparation>
    requires requires(linear<Storage, Preparation> const& w) {
        kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, Preparation>>::describe(w, index_t{1});
    }
std::string describe_term(cpu<Arch, Parallel> const&, linear<Storage, Preparation> const& w, index_t m) {
    return kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, Preparation>>::describe(w, m);
}
template <class Exec, class A, class B>
std::string describe_term(Exec const& exec, sum<A, B> const& s, index_t m) {
    return "(" + describe_term(exec, s.first(), m) + ") + (" + describe_term(exec, s.second(), m) + ")";
}
template <class Exec, class A, class B>
std::string describe_term(Exec const& exec, product<A, B> const& p, index_t m) {
    return "(" + describe_term(exec, p.first(), m) + ") * (" + describe_term(exec, p.second(), m) + ")";
}
template <class Exec, class A>
std::string describe_term(Exec const& exec, scaled_operator<A> const& s, index_t m) {
    return "scaled " + describe_term(exec, s.inner(), m);
}
template <class Exec, class A>
std::string describe_term(Exec const&, transposed_operator<A> const& t, index_t m) {
    if constexpr (requires { kernel<op::apply, Exec, transposed_operator<A>>::describe(t, m); })
        return kernel<op::apply, Exec, transposed_operator<A>>::describe(t, m);
    else
        return static_cast<void>(t), static_cast<void>(m), "transposed, decoded by rows";
}
template <class Exec, class A, class Side>
std::string describe_term(Exec const& exec, operator_slice<A, Side> const& s, index_t m) {
    return std::string{Side::name} + " of " + describe_term(exec, s.inner(), m);
}

template <class Exec, class A>
std::string describe_term(Exec const& exec, row_scaled<A> const& s, index_t m) {
    return "rows scaled of (" + describe_term(exec, s.inner(), m) + ")";
}
template <class Exec, class A>
std::string describe_term(Exec const& exec, column_scaled<A> const& s, index_t m) {
    return "columns scaled of (" + describe_term(exec, s.inner(), m) + ")";
}

} // namespace detail

/// See the file comment.
template <class Arch, class Parallel, linear_operator Op>
std::string describe(cpu<Arch, Parallel> const& exec, Op const& w, index_t m) {
    using detail::describe_term; // or the operator's own
    return std::string{Arch::name} + ": " + describe_term(exec, w, m);
}
template <linear_operator Op>
std::string describe(reference const&, Op const&, index_t) {
    return "reference";
}

/// The same for owners.
template <class Exec, operator_owner Owner>
std::string describe(Exec const& exec, Owner const& w, index_t m) {
    return describe(exec, w.view(), m);
}

} // namespace tessera::inline TESSERA_ABI
