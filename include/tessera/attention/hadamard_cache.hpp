// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A KV cache whose rows are rotated before they are rounded (QuaRot, arXiv:2404.00456): outliers of a channel spread over all, so
/// that few bits lose less.
///
///     ts::hadamard_kv_cache cache{std::move(kv)};              // kv: a kv_cache, any_kv_cache, ...
///     ts::append(exec, cache, k, v);                           // stores R k and S v
///     ts::attention(exec, q, cache, out, ts::causal);          // (R q) . (R k) = q . k;  Sᵀ of what S v adds up to
///
/// R and S are `hadamard` operators of key_dim and value_dim columns, by default of their full order without signs. Keys carry
/// their rotary positions already: a cache like this is not turned afterwards. Errors are those of `append` and `attention`.

#include "../transform/hadamard.hpp"
#include "attention.hpp"

#include <utility>

namespace tessera::inline TESSERA_ABI {

/// See the file comment.
template <class Cache>
class hadamard_kv_cache {
public:
    using cache_type = Cache;

    explicit hadamard_kv_cache(Cache&& kv) : hadamard_kv_cache{std::move(kv), hadamard{kv.key_dim()}, hadamard{kv.value_dim()}} {}
    /// Rotations of orders that divide key_dim and value_dim.
    hadamard_kv_cache(Cache&& kv, hadamard const& keys, hadamard const& values)
        : cache_{std::move(kv)}, keys_{keys}, values_{values} {
        check::equal("hadamard_kv_cache", "columns of the keys' rotation", keys.cols(), cache_.key_dim(), "key_dim");
        check::equal("hadamard_kv_cache", "rows of the keys' rotation", keys.rows(), cache_.key_dim(), "key_dim");
        check::equal("hadamard_kv_cache", "columns of the values' rotation", values.cols(), cache_.value_dim(), "value_dim");
        check::equal("hadamard_kv_cache", "rows of the values' rotation", values.rows(), cache_.value_dim(), "value_dim");
    }

    /// The rotated rows.
    Cache& stored() noexcept { return cache_; }
    Cache const& stored() const noexcept { return cache_; }
    hadamard const& key_rotation() const noexcept { return keys_; }
    hadamard const& value_rotation() const noexcept { return values_; }
    index_t tokens() const noexcept { return cache_.tokens(); }
    index_t kv_heads() const noexcept { return cache_.kv_heads(); }
    index_t key_dim() const noexcept { return cache_.key_dim(); }
    index_t value_dim() const noexcept { return cache_.value_dim(); }
    index_t end_position() const noexcept { return cache_.end_position(); }
    index_t bytes() const noexcept { return cache_.bytes(); }
    void clear() noexcept { cache_.clear(); }
    void truncate(index_t tokens) { cache_.truncate(tokens); }

private:
    Cache cache_;
    hadamard keys_;
    hadamard values_;
};

namespace detail {

/// Every row of x by r: to(t, h, :) = r x(t, h, :), in few products.
template <class Exec, class X, class Y>
void rotate_rows(Exec const& exec, hadamard const& r, tensor_view<X, 3> const& x, tensor_view<Y, 3> const& to) {
    bool const by_head = x.extent(1) < x.extent(0);
    std::size_t const outer = by_head ? 1 : 0;
    std::size_t const inner = by_head ? 0 : 1;
    auto const rows = [&](auto const& a, index_t i) {
        using element = typename std::remove_cvref_t<decltype(a)>::element_type;
        using matrix_type = matrix_view<element>;
        index_t const sizes[] = {a.extent(inner), a.extent(2)};
        index_t const strides[] = {a.stride(inner), a.stride(2)};
        return matrix_type{a.data_handle() + i * a.stride(outer), typename matrix_type::mapping_type{extents_from<2>(sizes), strides}};
    };
    for (index_t i = 0; i < x.extent(outer); ++i) apply(exec, r, rows(x, i), rows(to, i));
}

template <class Exec, class Cache, class Q, class O, class Score, class Attend>
void rotated_attention(Exec const& exec, hadamard_kv_cache<Cache> const& kv, tensor_view<Q const, 3> const& q,
                       tensor_view<O, 3> const& out, Score const& score, matrix_view<float> const& lse, Attend const& attend) {
    auto const view = kv_of(kv.stored());
    check_attention("attention", q, view, out, lse);
    check_score("attention", score, q.extent(1), checked_end_position("attention", view));
    workspace_scope scope{exec.scratch()};
    index_t const n = q.extent(0), heads = q.extent(1);
    tensor_view<float, 3> const rotated{scope.template carve<float>(n, heads, view.key_dim), n, heads, view.key_dim};
    tensor_view<float, 3> const result{scope.template carve<float>(n, heads, view.value_dim), n, heads, view.value_dim};
    if (view.key_dim > 0) rotate_rows(exec, kv.key_rotation(), q, rotated);
    attend(rotated, view, result);
    if (view.value_dim > 0) rotate_rows(exec, transposed(kv.value_rotation()), tensor_view<float const, 3>{result}, out);
}

} // namespace detail

/// Appends the tokens of k and v, rotated.
template <execution_policy Exec, class Cache>
void append(Exec const& exec, hadamard_kv_cache<Cache>& kv,
            array3_argument auto const& k,   // (tokens, kv_heads, key_dim)
            array3_argument auto const& v) { // (tokens, kv_heads, value_dim)
    detail::require_backend<Exec>();
    auto const keys = detail::input(k);
    auto const values = detail::input(v);
    detail::check_append(kv.stored(), keys, values);
    workspace_scope scope{exec.scratch()};
    index_t const n = keys.extent(0), heads = kv.kv_heads();
    tensor_view<float, 3> const rotated_keys{scope.template carve<float>(n, heads, kv.key_dim()), n, heads, kv.key_dim()};
    tensor_view<float, 3> const rotated_values{scope.template carve<float>(n, heads, kv.value_dim()), n, heads, kv.value_dim()};
    if (kv.key_dim() > 0) detail::rotate_rows(exec, kv.key_rotation(), keys, rotated_keys);
    if (kv.value_dim() > 0) detail::rotate_rows(exec, kv.value_rotation(), values, rotated_values);
    append(exec, kv.stored(), rotated_keys, rotated_values);
}

/// Attention over a rotated cache: the values of `attention`, rotations' roundings apart.
template <execution_policy Exec, class Cache, score_functor Score = full_t>
void attention(Exec const& exec,
               array3_argument auto const& q,       // (tokens, heads, key_dim)
               hadamard_kv_cache<Cache> const& kv,
               array3_argument auto&& out,          // (tokens, heads, value_dim)
               Score const& score = {}) {
    detail::rotated_attention(exec, kv, detail::input(q), detail::output(out), score, {},
                              [&](auto const& x, auto const& view, auto const& y) { attention(exec, x, view, y, score); });
}
template <execution_policy Exec, class Cache, score_functor Score>
void attention(Exec const& exec,
               array3_argument auto const& q,         // (tokens, heads, key_dim)
               hadamard_kv_cache<Cache> const& kv,
               array3_argument auto&& out,            // (tokens, heads, value_dim)
               Score const& score,
               matrix_argument auto&& log_sum_exp) {  // (heads, tokens)
    auto const lse = detail::output(log_sum_exp);
    detail::check_log_sum_exp("attention", detail::input(q), lse);
    detail::rotated_attention(exec, kv, detail::input(q), detail::output(out), score, lse,
                              [&](auto const& x, auto const& view, auto const& y) { attention(exec, x, view, y, score, lse); });
}

} // namespace tessera::inline TESSERA_ABI
