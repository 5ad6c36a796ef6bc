// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The gradients of a product with respect to its weights, from x and the gradient dy of its output:
///
///     y = x Wᵀ                dW = dyᵀ x                          weight_backward
///     y = s (x Aᵀ) Bᵀ         dB = s dyᵀ (x Aᵀ), dA = s (dy B)ᵀ x   low_rank_backward
///
/// The gradient with respect to x is `apply(exec, transposed(w), dy, dx)`, through any operator: of a quantised base plus a
/// low-rank adapter, these three are all that training the adapter needs.
///
/// Arguments are matrices of float, fp16 or bf16 with any strides, views or owners; sums are accumulated in float32
/// (`reference`: double). Complexity O(m n k), and O(m r (n + k)) for rank r, whose two products x Aᵀ and dy B, (m, r) each,
/// live in the workspace. Results are overwritten.
///
/// Errors: shape_error when a shape does not fit, data is null, or a result overlaps an input or the other; nothing is
/// written then.

#include "apply.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// An argument, a view or an owner with view(), as a strided matrix.
template <class V>
constexpr auto as_matrix(V& v) noexcept {
    if constexpr (is_view<std::remove_cv_t<V>>) {
        static_assert(V::rank() == 2 && is_activation<typename V::value_type>,
                      "tessera: x and y are matrices of float, fp16 or bf16");
        return matrix_view<typename V::element_type>{v};
    } else {
        auto const inner = v.view();
        return as_matrix(inner);
    }
}
template <class V>
constexpr auto as_input(V const& v) noexcept {
    auto const m = as_matrix(v);
    return matrix_view<typename decltype(m)::value_type const>{m};
}

/// An output (rows, columns) that is apart from x and dy.
template <class X, class D, class Y>
void check_gradient(char const* operation, char const* argument, matrix_view<X> const& x, matrix_view<D> const& dy,
                    matrix_view<Y> const& out) {
    static_assert(!std::is_const_v<Y>, "tessera: the output is read-only");
    check::elements(operation, argument, out);
    check::no_overlap(operation, "x", footprint_of(x), argument, footprint_of(out));
    check::no_overlap(operation, "dy", footprint_of(dy), argument, footprint_of(out));
}

/// x and dy of one product.
template <class X, class D>
void check_pair(char const* operation, matrix_view<X> const& x, matrix_view<D> const& dy) {
    check::equal(operation, "rows of dy", dy.extent(0), x.extent(0), "rows of x");
    check::elements(operation, "x", x);
    check::elements(operation, "dy", dy);
}

/// The definition, in double. u = x Aᵀ and v = dy B are (m, r).
template <class Op, class X, class D, class DA, class DB>
void low_rank_backward_reference(reference const& exec, Op const& w, matrix_view<X const> const& x,
                                 matrix_view<D const> const& dy, matrix_view<DA> const& da, matrix_view<DB> const& db) {
    auto const& a = w.inner().second();
    auto const b = transposed(w.inner().first());
    index_t const m = x.extent(0);
    index_t const r = a.rows();
    workspace_scope scope{exec.scratch()};
    double* const row = scope.carve<double>(maximum(a.cols(), b.cols()));
    double* const u = scope.carve<double>(m, r);
    double* const v = scope.carve<double>(m, r);
    for (index_t i = 0; i < m * r; ++i) u[i] = v[i] = 0;
    for (index_t i = 0; i < m; ++i) {
        for (index_t k = 0; k < x.extent(1); ++k) row[k] = static_cast<double>(static_cast<float>(x(i, k)));
        kernel<op::apply, reference, std::remove_cvref_t<decltype(a)>>::row(a, row, u + i * r, 1.0, exec.scratch());
        for (index_t n = 0; n < dy.extent(1); ++n) row[n] = static_cast<double>(static_cast<float>(dy(i, n)));
        kernel<op::apply, reference, std::remove_const_t<decltype(b)>>::row(b, row, v + i * r, 1.0, exec.scratch());
    }
    auto const store = [&](auto const& out, auto const& left, auto const& right) {
        for (index_t i = 0; i < out.extent(0); ++i)
            for (index_t j = 0; j < out.extent(1); ++j) {
                double sum = 0;
                for (index_t t = 0; t < m; ++t) sum += left(t, i) * right(t, j);
                out(i, j) = static_cast<typename std::remove_cvref_t<decltype(out)>::value_type>(
                    static_cast<double>(w.factor()) * sum);
            }
    };
    auto const of = [](auto const& matrix) {
        return [&matrix](index_t t, index_t i) { return static_cast<double>(static_cast<float>(matrix(t, i))); };
    };
    auto const product_of = [r](double const* p) { return [p, r](index_t t, index_t j) { return p[t * r + j]; }; };
    store(db, of(dy), product_of(u));
    store(da, product_of(v), of(x));
}

/// The four products of the CPU, in order: f(operator, its x, its y). u and v are (m, r).
template <class Op, class X, class D, class U, class DA, class DB, class F>
void for_each_low_rank_product(Op const& w, X const& x, D const& dy, U const& u, U const& v, DA const& da, DB const& db,
                               F const& f) {
    f(w.inner().second(), x, u);
    f(transposed(w.inner().first()), dy, v);
    f(w.factor() * transposed(linear{u}), transposed(dy), db);
    f(w.factor() * transposed(linear{x}), transposed(v), da);
}

} // namespace detail

/// dw = finish(dyᵀ x). With `residual{dw}` as epilogue gradients are added to those that are there.
template <execution_policy Exec, epilogue Epilogue = no_epilogue>
void weight_backward(Exec const& exec,
                     auto const& x,  // (m, k)
                     auto const& dy, // (m, n)
                     auto&& dw,      // (n, k)
                     Epilogue const& finish = {}) {
    detail::require_backend<Exec>();
    char const* const name = "weight_backward";
    auto const from = detail::as_input(x);
    auto const d = detail::as_input(dy);
    auto const out = detail::as_matrix(dw);
    detail::check_pair(name, from, d);
    check::equal(name, "rows of dw", out.extent(0), d.extent(1), "columns of dy");
    check::equal(name, "columns of dw", out.extent(1), from.extent(1), "columns of x");
    detail::check_gradient(name, "dw", from, d, out);
    detail::check_epilogue(name, finish, out.extent(0), out.extent(1));
    detail::check_epilogue_apart(name, finish, "dw", out);
    apply(exec, transposed(linear{from}), transposed(d), out, finish);
}

/// da and db of a low-rank operator (or of any multiple of a product B A).
template <execution_policy Exec, linear_operator B, linear_operator A>
void low_rank_backward(Exec const& exec, scaled_operator<product<B, A>> const& w,
                       auto const& x,  // (m, k)
                       auto const& dy, // (m, n)
                       auto&& da,      // (r, k)
                       auto&& db) {    // (n, r)
    detail::require_backend<Exec>();
    char const* const name = "low_rank_backward";
    auto const from = detail::as_input(x);
    auto const d = detail::as_input(dy);
    auto const out_a = detail::as_matrix(da);
    auto const out_b = detail::as_matrix(db);
    A const& a = w.inner().second();
    B const& b = w.inner().first();
    detail::check_pair(name, from, d);
    check::equal(name, "columns of x", from.extent(1), w.cols(), "columns of the operator");
    check::equal(name, "columns of dy", d.extent(1), w.rows(), "rows of the operator");
    check::equal(name, "rows of da", out_a.extent(0), a.rows(), "rows of a");
    check::equal(name, "columns of da", out_a.extent(1), a.cols(), "columns of a");
    check::equal(name, "rows of db", out_b.extent(0), b.rows(), "rows of b");
    check::equal(name, "columns of db", out_b.extent(1), b.cols(), "columns of b");
    detail::check_gradient(name, "da", from, d, out_a);
    detail::check_gradient(name, "db", from, d, out_b);
    detail::check_operator_apart(name, w, "da", footprint_of(out_a));
    detail::check_operator_apart(name, w, "db", footprint_of(out_b));
    check::no_overlap(name, "da", footprint_of(out_a), "db", footprint_of(out_b));
    if constexpr (std::is_same_v<Exec, reference>) {
        detail::low_rank_backward_reference(exec, w, from, d, out_a, out_b);
    } else {
        workspace_scope scope{exec.scratch()};
        index_t const m = from.extent(0);
        index_t const r = a.rows();
        matrix_view<float> const u{scope.carve<float>(m, r), m, r};
        matrix_view<float> const v{scope.carve<float>(m, r), m, r};
        detail::for_each_low_rank_product(w, from, d, u, v, out_a, out_b, [&](auto const& op, auto const& in, auto const& out) {
            apply(exec, op, in, out);
        });
    }
}

/// Bytes of scratch that `weight_backward(exec, x, dy, dw)` carves from the policy's workspace.
template <execution_policy Exec>
index_t weight_backward_workspace_bytes(Exec const& exec, auto const& x, auto const& dy) {
    auto const from = detail::as_input(x);
    return workspace_bytes(exec, transposed(linear{from}), transposed(detail::as_input(dy)));
}

/// Bytes of scratch that `low_rank_backward(exec, w, x, dy, da, db)` carves from the policy's workspace.
template <execution_policy Exec, linear_operator B, linear_operator A>
index_t low_rank_backward_workspace_bytes(Exec const& exec, scaled_operator<product<B, A>> const& w, auto const& x,
                                          auto const& dy) {
    auto const from = detail::as_input(x);
    auto const d = detail::as_input(dy);
    index_t const m = from.extent(0);
    index_t const r = w.inner().second().rows();
    workspace_sizer sizer;
    if constexpr (std::is_same_v<Exec, reference>) {
        sizer.carve<double>(maximum(w.cols(), w.rows()));
        sizer.carve<double>(m, r);
        sizer.carve<double>(m, r);
        auto const bytes_of = [](auto const& factor) {
            workspace_sizer inner;
            kernel<op::apply, reference, std::remove_cvref_t<decltype(factor)>>::plan(factor, inner);
            return inner.bytes();
        };
        return sizer.bytes() + maximum(bytes_of(w.inner().second()), bytes_of(transposed(w.inner().first())));
    } else {
        sizer.carve<float>(m, r);
        sizer.carve<float>(m, r);
        float const place = 0; // of views that are only measured
        matrix_view<float const> const between{&place, m, r};
        index_t most = 0;
        detail::for_each_low_rank_product(w, from, d, between, between, 0, 0, [&](auto const& op, auto const& in, auto const&) {
            most = maximum(most, workspace_bytes(exec, op, in));
        });
        return sizer.bytes() + most;
    }
}

} // namespace tessera::inline TESSERA_ABI
