// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Several low-rank terms over one base as one term.
///
///     auto const both = ts::stack(one, 0.5f * two);                 // owns; rank of one + rank of two
///     auto const layer = ts::place(exec, ts::linear{q} + both.view());
///
/// | function | B | A | rank | equals |
/// |---|---|---|---|---|
/// | `stack` | [B1 B2 ...] | [s1 A1; s2 A2; ...] | sum of the ranks | s1 B1 A1 + s2 B2 A2 + ... |
/// | `blend` | sum of sqrt(abs(s)) B | sum of sign(s) sqrt(abs(s)) A | theirs, all equal | that and products of unlike factors |
///
/// `stack` is what several adapters loaded at once compute, in one pass over x and y; PEFT calls the two "cat" and "linear" in
/// `add_weighted_adapter`. Adapters of DoRA are no sums and cannot be combined so. The scale of each term goes into A, rounded
/// to float32.

#include "../operators/linear_operator.hpp"
#include "../storage/tensor.hpp"

#include <cmath>
#include <concepts>
#include <span>

namespace tessera::inline TESSERA_ABI {

/// s B A with dense float32 factors.
using dense_low_rank = low_rank<linear<matrix_view<float const>>, linear<matrix_view<float const>>>;

/// Owner of a low-rank term B A of scale 1. A move leaves an empty one.
class low_rank_tensor {
public:
    low_rank_tensor() noexcept = default;
    /// Zeros.
    low_rank_tensor(index_t n, index_t rank, index_t k) : b_{n, rank}, a_{rank, k} {}

    index_t rows() const noexcept { return b_.extent(0); }
    index_t cols() const noexcept { return a_.extent(1); }
    index_t rank() const noexcept { return a_.extent(0); }
    index_t bytes() const noexcept { return (b_.size() + a_.size()) * static_cast<index_t>(sizeof(float)); }
    matrix<float>& b() noexcept { return b_; } // (n, r)
    matrix<float>& a() noexcept { return a_; } // (r, k)

    dense_low_rank view() const& { return {linear{b_}, linear{a_}}; }
    void view() const&& = delete;

private:
    matrix<float> b_;
    matrix<float> a_;
};

namespace detail {

inline void check_terms(char const* operation, std::span<dense_low_rank const> terms) {
    check::at_least(operation, "number of terms", static_cast<index_t>(terms.size()), 1);
    for (dense_low_rank const& t : terms) {
        check::equal(operation, "rows of a term", t.rows(), terms[0].rows(), "rows of the first");
        check::equal(operation, "columns of a term", t.cols(), terms[0].cols(), "columns of the first");
    }
}

/// to += factor * from
inline void add_scaled(float factor, matrix_view<float const> const& from, matrix_view<float> const& to) noexcept {
    for (index_t i = 0; i < from.extent(0); ++i)
        for (index_t j = 0; j < from.extent(1); ++j) to(i, j) += factor * from(i, j);
}

} // namespace detail

/// The sum of the terms; see the file comment. Throws shape_error where they have not one shape, or there is none.
inline low_rank_tensor stack(std::span<dense_low_rank const> terms) {
    detail::check_terms("stack", terms);
    index_t rank = 0;
    for (dense_low_rank const& t : terms) rank += t.rank();
    low_rank_tensor out{terms[0].rows(), rank, terms[0].cols()};
    index_t at = 0;
    for (dense_low_rank const& t : terms) {
        detail::add_scaled(1.0f, t.b().storage(), columns(out.b().view(), at, at + t.rank()));
        detail::add_scaled(t.factor(), t.a().storage(), rows(out.a().view(), at, at + t.rank()));
        at += t.rank();
    }
    return out;
}
template <class... Rest>
    requires(std::same_as<Rest, dense_low_rank> && ...)
low_rank_tensor stack(dense_low_rank const& first, Rest const&... rest) {
    dense_low_rank const terms[] = {first, rest...};
    return stack(std::span<dense_low_rank const>{terms});
}

/// The terms' factors added up; see the file comment. Throws shape_error where they have not one shape and rank, or there is none.
inline low_rank_tensor blend(std::span<dense_low_rank const> terms) {
    detail::check_terms("blend", terms);
    for (dense_low_rank const& t : terms) check::equal("blend", "rank of a term", t.rank(), terms[0].rank(), "rank of the first");
    low_rank_tensor out{terms[0].rows(), terms[0].rank(), terms[0].cols()};
    for (dense_low_rank const& t : terms) {
        float const root = std::sqrt(std::fabs(t.factor()));
        detail::add_scaled(root, t.b().storage(), out.b().view());
        detail::add_scaled(t.factor() < 0 ? -root : root, t.a().storage(), out.a().view());
    }
    return out;
}
template <class... Rest>
    requires(std::same_as<Rest, dense_low_rank> && ...)
low_rank_tensor blend(dense_low_rank const& first, Rest const&... rest) {
    dense_low_rank const terms[] = {first, rest...};
    return blend(std::span<dense_low_rank const>{terms});
}

} // namespace tessera::inline TESSERA_ABI
