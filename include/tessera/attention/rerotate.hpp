// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Keys of a cache moved to other positions without the model: a text was edited before them (PIE, He et al. 2024,
/// arXiv:2407.03157), or tokens before them were dropped. Rotations add, so a key rotated for position p is turned by those of
/// `shift` positions and is the key of p + shift; values stay. Keys in codes are decoded, turned and encoded again.
///
/// What the model would have computed for the suffix from the edited text is not what is there: the method is an approximation,
/// and this function only its rotation. What does not fit is a shape_error, and so are shared pages that the pool has no room to
/// copy; nothing is written then.

#include "../nn/rope.hpp"
#include "append.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Elements of a row, turned.
template <rope_style Style>
void turn_row(Style, float* row, float const* cosines, float const* sines, index_t pairs, float direction) noexcept {
    for (index_t i = 0; i < pairs; ++i) {
        float& a = row[Style::first(i, pairs)];
        float& b = row[Style::second(i, pairs)];
        float const x = a;
        float const y = b;
        float const s = direction * sines[i];
        a = x * cosines[i] - y * s;
        b = x * s + y * cosines[i];
    }
}

} // namespace detail

/// Turns the keys of tokens [first, last), numbered from the oldest that the cache holds, by `shift` positions, which may be
/// negative. The table is the model's (its frequencies, scaled or not) and has more positions than |shift|; `kv` is a kv_cache,
/// an any_kv_cache or a paged_sequence, whose shared pages are copied.
template <execution_policy Exec, rope_style Style, class Cache>
void rerotate(Exec const& exec, Style style, rope_table const& table, index_t shift, Cache& kv, index_t first, index_t last) {
    detail::require_backend<Exec>();
    check::within("rerotate", "last token", last, 0, kv.tokens());
    check::within("rerotate", "first token", first, 0, last);
    check::within("rerotate", "dims of the table", 2 * table.pairs(), 0, kv.key_dim());
    check::within("rerotate", "shift", shift, 1 - table.positions(), table.positions() - 1);
    index_t const distance = shift < 0 ? -shift : shift;
    if constexpr (requires { kv.unshare(first, last); }) kv.unshare(first, last);
    auto const view = kv.view();
    auto const keys = kv.key_rows();
    index_t const dim = kv.key_dim();
    float const* const cosines = table.cosines().data_handle() + distance * table.pairs();
    float const* const sines = table.sines().data_handle() + distance * table.pairs();
    workspace_scope scope{exec.scratch()};
    float* const rows = scope.template carve<float>(exec.parallel().concurrency(), 2 * dim);
    index_t const grain = maximum(4096 / maximum(kv.kv_heads() * dim, 1), 1);
    parallel_for(exec.parallel(), last - first, grain, [&](index_t begin, index_t end, index_t worker) noexcept {
        float* const row = rows + worker * 2 * dim;
        for (index_t t = first + begin; t < first + end; ++t)
            for (index_t h = 0; h < view.kv_heads; ++h) {
                index_t const slot = view.slot(t);
                for (index_t d = 0; d < dim; ++d) row[d] = view.keys(h, slot, d);
                detail::turn_row(style, row, cosines, sines, table.pairs(), shift < 0 ? -1.0f : 1.0f);
                detail::append_row<Exec>(row, 1, dim, row + dim, keys, h, slot);
            }
    });
}

} // namespace tessera::inline TESSERA_ABI
