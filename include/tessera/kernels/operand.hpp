// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `linear<Storage, Preparation>`: the leaf of the operator algebra, a stored matrix W (n, k) together with the form that
/// x takes when it is multiplied. A trivially copyable view.

#include "../core/overlap.hpp"
#include "../storage/prepacked.hpp"
#include "../storage/tensor.hpp"

#include <concepts>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class Storage>
constexpr index_t storage_rows(Storage const& w) noexcept {
    if constexpr (dense_storage<Storage>)
        return w.extent(0);
    else
        return w.rows();
}
template <class Storage>
constexpr index_t storage_columns(Storage const& w) noexcept {
    if constexpr (dense_storage<Storage>)
        return w.extent(1);
    else
        return w.cols();
}

} // namespace detail

/// W as an operator: y = x Wᵀ with x prepared as `Preparation`.
///
///     auto const dense = linear{w};                           // dense view, or quantized / blocked / prepacked view; x as it is
///     auto const coded = linear{q, int8_per_group<32>{}};     // x in int8, one scale for 32 columns
///
/// Owners (tensor, quantized_tensor, blocked_tensor, csr_tensor, n_of_m_tensor) are accepted as lvalues; a view of a temporary does not compile.
template <class Storage, preparation Preparation = as_is>
class linear {
public:
    using storage_type = Storage;
    using preparation_type = Preparation;
    using is_linear_operator = void;

    constexpr linear() noexcept = default;
    /// Throws shape_error where the matrix is not empty but has no data, unsupported_error where codes of a run-time format have no
    /// product with this preparation.
    constexpr explicit linear(Storage const& w, Preparation = {}) : storage_{w} {
        if constexpr (dense_storage<Storage>)
            check::elements("linear", "the matrix", w);
        else if constexpr (requires { w.panels(); })
            check::not_null("linear", "placed data", w.data(), w.bytes());
        if constexpr (requires { w.require_preparation(Preparation{}); }) w.require_preparation(Preparation{});
    }
    /// The operator would outlive what it refers to.
    template <class Owner>
        requires detail::is_owner<std::remove_cv_t<Owner>>
    explicit linear(Owner&&, Preparation = {}) = delete;

    constexpr index_t rows() const noexcept { return detail::storage_rows(storage_); }
    constexpr index_t cols() const noexcept { return detail::storage_columns(storage_); }
    constexpr Storage const& storage() const noexcept { return storage_; }

private:
    Storage storage_{};
};

/// Anything with a shape (n, k) that can be multiplied.
template <class Op>
concept linear_operator = std::is_trivially_copyable_v<Op> && requires(Op const& op) {
    typename Op::is_linear_operator;
    { op.rows() } -> std::convertible_to<index_t>;
    { op.cols() } -> std::convertible_to<index_t>;
};

/// Aᵀ. Only leaves are wrapped: `transposed` pushes itself down an expression.
template <linear_operator A>
class transposed_operator {
public:
    using is_linear_operator = void;
    constexpr explicit transposed_operator(A const& a) noexcept : a_{a} {}
    constexpr index_t rows() const noexcept { return a_.cols(); }
    constexpr index_t cols() const noexcept { return a_.rows(); }
    constexpr A const& inner() const noexcept { return a_; }

private:
    A a_;
};

namespace detail {

/// The view type that stands for an argument of `linear{...}`.
template <class T>
struct as_storage;
/// An owner stands for its view, where that is storage.
template <class T>
    requires(is_owner<T> && requires { typename as_storage<typename T::view_type>::type; })
struct as_storage<T> : as_storage<typename T::view_type> {};
template <class T, class E, class L>
    requires(E::rank() == 2)
struct as_storage<view<T, E, L, default_accessor<T>>> {
    using type = matrix_view<std::remove_cv_t<T> const>;
};
template <class Scheme>
struct as_storage<quantized<Scheme>> {
    using type = quantized<Scheme>;
};
template <class Format>
struct as_storage<blocked<Format>> {
    using type = blocked<Format>;
};
template <class Layout, class Storage>
struct as_storage<prepacked<Layout, Storage>> {
    using type = prepacked<Layout, Storage>;
};

} // namespace detail

template <class W>
linear(W const&) -> linear<typename detail::as_storage<W>::type, as_is>;
template <class W, preparation P>
linear(W const&, P) -> linear<typename detail::as_storage<W>::type, P>;

} // namespace tessera::inline TESSERA_ABI
