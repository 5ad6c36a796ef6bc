// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The algebra of linear operators. A leaf is `linear{storage}` (kernels/operand.hpp); these build operators from
/// operators, all of them trivially copyable views:
///
/// | expression | W | y = x Wᵀ |
/// |---|---|---|
/// | `a + b` | A + B | both in one pass over the output |
/// | `a * b` | A B | u = x Bᵀ, then u Aᵀ |
/// | `s * a` | s A | |
/// | `transposed(a)` | Aᵀ | y = x A: the backward pass |
/// | `rows(a, i, j)` | rows [i, j) of A | |
/// | `columns(a, i, j)` | columns [i, j) of A | x is widened with zeros: the work of all of A |
///
/// Shapes are checked where an operator is built.

#include "../core/error.hpp"
#include "../kernels/operand.hpp"

#include <concepts>
#include <type_traits>
#include <utility>

namespace tessera::inline TESSERA_ABI {

/// A + B.
template <linear_operator A, linear_operator B>
class sum {
public:
    using is_linear_operator = void;
    sum(A const& a, B const& b) : a_{a}, b_{b} {
        check::equal("sum", "rows of the second term", b.rows(), a.rows(), "rows of the first");
        check::equal("sum", "columns of the second term", b.cols(), a.cols(), "columns of the first");
    }
    constexpr index_t rows() const noexcept { return a_.rows(); }
    constexpr index_t cols() const noexcept { return a_.cols(); }
    constexpr A const& first() const noexcept { return a_; }
    constexpr B const& second() const noexcept { return b_; }

private:
    A a_;
    B b_;
};

/// A B: A (n, r), B (r, k).
template <linear_operator A, linear_operator B>
class product {
public:
    using is_linear_operator = void;
    product(A const& a, B const& b) : a_{a}, b_{b} {
        check::equal("product", "rows of the second factor", b.rows(), a.cols(), "columns of the first");
    }
    constexpr index_t rows() const noexcept { return a_.rows(); }
    constexpr index_t cols() const noexcept { return b_.cols(); }
    constexpr A const& first() const noexcept { return a_; }
    constexpr B const& second() const noexcept { return b_; }

private:
    A a_;
    B b_;
};

/// factor * A.
template <linear_operator A>
class scaled_operator {
public:
    using is_linear_operator = void;
    constexpr scaled_operator(float factor, A const& a) noexcept : a_{a}, factor_{factor} {}
    constexpr index_t rows() const noexcept { return a_.rows(); }
    constexpr index_t cols() const noexcept { return a_.cols(); }
    constexpr A const& inner() const noexcept { return a_; }
    constexpr float factor() const noexcept { return factor_; }

private:
    A a_;
    float factor_;
};

namespace detail {

/// The side of W that a slice cuts.
struct row_side {
    static constexpr char const* name = "rows";
    static constexpr index_t extent(linear_operator auto const& a) noexcept { return a.rows(); }
};
struct column_side {
    static constexpr char const* name = "columns";
    static constexpr index_t extent(linear_operator auto const& a) noexcept { return a.cols(); }
};

} // namespace detail

/// Rows or columns [first, last) of A: `rows(a, first, last)`, `columns(a, first, last)`.
template <linear_operator A, class Side>
class operator_slice {
public:
    using is_linear_operator = void;
    static constexpr bool is_of_rows = std::is_same_v<Side, detail::row_side>;

    operator_slice(A const& a, index_t first, index_t last) : a_{a}, first_{first}, last_{last} {
        check::within(Side::name, "last", last, 0, Side::extent(a));
        check::within(Side::name, "first", first, 0, last);
    }
    constexpr index_t rows() const noexcept { return is_of_rows ? last_ - first_ : a_.rows(); }
    constexpr index_t cols() const noexcept { return is_of_rows ? a_.cols() : last_ - first_; }
    constexpr A const& inner() const noexcept { return a_; }
    constexpr index_t first() const noexcept { return first_; }
    constexpr index_t last() const noexcept { return last_; }

private:
    A a_;
    index_t first_;
    index_t last_;
};
/// Rows, or columns, of A.
template <linear_operator A>
using row_slice = operator_slice<A, detail::row_side>;
template <linear_operator A>
using column_slice = operator_slice<A, detail::column_side>;

/// The algebra of the file comment: sums, products, multiples and slices of operators.
template <linear_operator A, linear_operator B>
sum<A, B> operator+(A const& a, B const& b) {
    return {a, b};
}
template <linear_operator A, linear_operator B>
product<A, B> operator*(A const& a, B const& b) {
    return {a, b};
}
template <linear_operator A>
constexpr scaled_operator<A> operator*(float factor, A const& a) noexcept {
    return {factor, a};
}
template <linear_operator A>
constexpr scaled_operator<A> operator*(A const& a, float factor) noexcept {
    return {factor, a};
}

/// Rows, or columns, [first, last) of A.
template <linear_operator A>
row_slice<A> rows(A const& a, index_t first, index_t last) {
    return {a, first, last};
}
template <linear_operator A>
column_slice<A> columns(A const& a, index_t first, index_t last) {
    return {a, first, last};
}

/// The transpose is pushed down to the leaves: (A B)ᵀ = Bᵀ Aᵀ, (A + B)ᵀ = Aᵀ + Bᵀ, and twice is nothing.
template <class Storage, preparation P>
constexpr transposed_operator<linear<Storage, P>> transposed(linear<Storage, P> const& a) noexcept {
    return transposed_operator<linear<Storage, P>>{a};
}
template <linear_operator A>
constexpr A transposed(transposed_operator<A> const& a) noexcept {
    return a.inner();
}
template <linear_operator A, linear_operator B>
auto transposed(sum<A, B> const& s) {
    return transposed(s.first()) + transposed(s.second());
}
template <linear_operator A, linear_operator B>
auto transposed(product<A, B> const& p) {
    return transposed(p.second()) * transposed(p.first());
}
template <linear_operator A>
auto transposed(scaled_operator<A> const& s) {
    return s.factor() * transposed(s.inner());
}
/// Rows of A are columns of its transpose.
template <linear_operator A, class Side>
auto transposed(operator_slice<A, Side> const& s) {
    using other = std::conditional_t<operator_slice<A, Side>::is_of_rows, detail::column_side, detail::row_side>;
    return operator_slice<decltype(transposed(s.inner())), other>{transposed(s.inner()), s.first(), s.last()};
}

namespace detail {

template <linear_operator B, linear_operator A>
using low_rank_operator = scaled_operator<product<B, A>>;

} // namespace detail

/// scale * B A with B (n, r) and A (r, k): the low-rank term of LoRA and of error correction.
///
///     auto const dense = low_rank{b, a, 16.f / rank};          // views or tensors
///     auto const coded = low_rank{linear{qb}, linear{qa}};     // any operators
template <linear_operator B, linear_operator A>
class low_rank : public detail::low_rank_operator<B, A> {
public:
    low_rank(B const& b, A const& a, float scale = 1.0f)
        : detail::low_rank_operator<B, A>{scale, product<B, A>{b, a}} {}
    template <class W, class V>
        requires(!linear_operator<std::remove_cvref_t<W>> && !linear_operator<std::remove_cvref_t<V>>)
    low_rank(W&& b, V&& a, float scale = 1.0f) : low_rank{B{std::forward<W>(b)}, A{std::forward<V>(a)}, scale} {}

    constexpr index_t rank() const noexcept { return this->inner().first().cols(); }
    constexpr B const& b() const noexcept { return this->inner().first(); }
    constexpr A const& a() const noexcept { return this->inner().second(); }
};

template <class W, class V>
    requires(!linear_operator<W> && !linear_operator<V>)
low_rank(W const&, V const&, float = 1.0f)
    -> low_rank<linear<typename detail::as_storage<W>::type>, linear<typename detail::as_storage<V>::type>>;
template <linear_operator B, linear_operator A>
low_rank(B const&, A const&, float = 1.0f) -> low_rank<B, A>;

/// s * term, still a low-rank term.
template <linear_operator B, linear_operator A>
low_rank<B, A> operator*(float factor, low_rank<B, A> const& term) {
    return {term.b(), term.a(), factor * term.factor()};
}
template <linear_operator B, linear_operator A>
low_rank<B, A> operator*(low_rank<B, A> const& term, float factor) {
    return factor * term;
}

// --- owners as terms -------------------------------------------------------------------------------------------------

/// Something that owns the memory of an operator: `view()` is the operator.
template <class T>
concept operator_owner = requires(T const& owner) {
    { owner.view() } -> linear_operator;
};

namespace detail {

/// Owner of a stored matrix that `linear{...}` takes.
template <class T>
concept storage_owner = is_owner<T> && requires { typename as_storage<T>::type; };

/// Two operands of the algebra, one of them an owner, and not both of them storage (whose sum would be another thing).
template <class A, class B>
concept owners_and_operators = (linear_operator<A> || operator_owner<A> || storage_owner<A>) &&
                               (linear_operator<B> || operator_owner<B> || storage_owner<B>) &&
                               !(linear_operator<A> && linear_operator<B>) && !(storage_owner<A> && storage_owner<B>);

template <class T>
auto operator_of(T const& w) {
    if constexpr (linear_operator<T>)
        return w;
    else if constexpr (storage_owner<T>)
        return linear{w};
    else
        return w.view();
}

/// A temporary that the operator would outlive.
template <class T>
inline constexpr bool is_temporary_owner = !std::is_lvalue_reference_v<T> && !linear_operator<std::remove_cvref_t<T>>;

} // namespace detail

/// Owners (of `place`, `quantize`, tensors) stand for their operators, which refer to them: `placed + adapter`.
template <class A, class B>
    requires detail::owners_and_operators<std::remove_cvref_t<A>, std::remove_cvref_t<B>>
auto operator+(A&& a, B&& b) {
    static_assert(!detail::is_temporary_owner<A> && !detail::is_temporary_owner<B>,
                  "tessera: an operator of a temporary owner would refer to memory that is gone; give the owner a name");
    return detail::operator_of(a) + detail::operator_of(b);
}
template <class A, class B>
    requires detail::owners_and_operators<std::remove_cvref_t<A>, std::remove_cvref_t<B>>
auto operator*(A&& a, B&& b) {
    static_assert(!detail::is_temporary_owner<A> && !detail::is_temporary_owner<B>,
                  "tessera: an operator of a temporary owner would refer to memory that is gone; give the owner a name");
    return detail::operator_of(a) * detail::operator_of(b);
}
// The return types name what they need: clang 19 looks at the parameters of an operator before its constraints.
template <operator_owner A>
auto operator*(float factor, A const& a) -> decltype(factor * a.view()) {
    return factor * a.view();
}
template <operator_owner A>
auto operator*(float factor, A const&& a) -> decltype(factor * a.view()) = delete;
template <operator_owner A>
auto operator*(A const& a, float factor) -> decltype(factor * a.view()) {
    return factor * a.view();
}
template <operator_owner A>
auto operator*(A const&& a, float factor) -> decltype(factor * a.view()) = delete;
template <operator_owner A>
auto transposed(A const& a) {
    return transposed(a.view());
}
template <operator_owner A>
auto transposed(A const&& a) = delete;

} // namespace tessera::inline TESSERA_ABI
