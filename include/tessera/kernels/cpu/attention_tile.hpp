// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The register tiles of attention with many queries. Queries are lanes, so no step reduces across a register and no
/// head dimension wastes lanes; keys and output dimensions are broadcast one float at a time:
///
///     scores(key, query)  = sum over d of    k(key, d) [broadcast] * qᵀ(d, query)
///     out(d, query)      += sum over keys of v(key, d) [broadcast] * p(key, query)
///
/// A tile is `vectors` registers of queries. Its arrays in memory are [d or key][vectors][lanes].

#include "../../simd/decode.hpp"
#include "../../simd/memory.hpp"
#include "../../simd/reduce.hpp"
#include "../../simd/softmax_weight.hpp"
#include "../../simd/transpose.hpp"
#include "../../storage/kv_cache.hpp"
#include "../attention_tiles.hpp"
#include "../score.hpp"
#include "attention_row.hpp"

#include <type_traits>
#include <utility>

namespace tessera::inline TESSERA_ABI::detail {

/// f(0), f(1), ... f(N - 1) with constant arguments: arrays indexed by them stay in registers at any optimisation level.
template <int N, class F>
TESSERA_FORCE_INLINE constexpr void unrolled(F const& f) noexcept {
    [&]<int... I>(std::integer_sequence<int, I...>) { (f(std::integral_constant<int, I>{}), ...); }
    (std::make_integer_sequence<int, N>{});
}

/// Constants of an architecture, not of a machine or a thread count: bits depend on them.
template <class Arch>
struct attention_tile {
    static constexpr index_t width = simd::lanes<Arch>;
    /// rows x vectors accumulators, and vectors + 1 operands, fill the registers: 32 with AVX-512, else 16.
    static constexpr int rows = width == 16 ? 8 : 6;
    static constexpr int vectors = width == 16 ? 3 : 2;
    static constexpr index_t queries = vectors * width;
    /// Keys of one step: with AVX-512 their scores are 128 x 48 floats, 24 KiB.
    static constexpr index_t keys = attention_tile_choice<>::keys(queries);
};

/// s(key, query) for N keys: k(key, d) at k[key * depth + d]. Asks for what follows, the next N keys, a line for every two
/// columns: they come from the second-level cache or from beyond.
template <class Arch, int N>
void score_rows(float const* q, float const* k, index_t depth, float* s) noexcept {
    using tile = attention_tile<Arch>;
    using floats = simd::floats<Arch>;
    constexpr int M = tile::vectors;
    floats sum[N][M];
    unrolled<N * M>([&](auto i) noexcept { sum[i / M][i % M] = floats(0.0f); });
    // The second argument makes three functions of it, each called once: then they are inlined.
    auto const add = [&](index_t d, auto) noexcept {
        floats x[M];
        unrolled<M>([&](auto m) noexcept { x[m] = simd::load<Arch>(q + d * tile::queries + m * tile::width); });
        unrolled<N>([&](auto n) noexcept {
            floats const b(k[n * depth + d]);
            unrolled<M>([&](auto m) noexcept { sum[n][m] = simd::fma(b, x[m], sum[n][m]); });
        });
    };
    float const* const next = k + N * depth;
    index_t d = 0;
    for (; d + 2 <= depth; d += 2) {
        simd::prefetch(next + N * d);
        add(d, std::integral_constant<int, 0>{});
        add(d + 1, std::integral_constant<int, 1>{});
    }
    if (d < depth) add(d, std::integral_constant<int, 2>{});
    unrolled<N * M>([&](auto i) noexcept { simd::store<Arch>(s + i * tile::width, sum[i / M][i % M]); });
}

/// Bytes that are wanted soon: `value_rows` asks for the one at `at`, then for every `step`-th.
struct bytes_ahead {
    char const* at;
    index_t step;
};

/// o(d, query) = o(d, query) * factor(query) + sum of v(key, d) p(key, query), for N values of d: v(key, d) at
/// v[key * N + d]. Asks for the outputs of the next N and for `ahead`, a line of each for every two keys.
template <class Arch, int N>
void value_rows(float const* p, float const* v, index_t keys, float const* factor, float* o, bytes_ahead ahead) noexcept {
    using tile = attention_tile<Arch>;
    using floats = simd::floats<Arch>;
    constexpr int M = tile::vectors;
    constexpr index_t size = N * M * tile::width;
    floats sum[N][M];
    unrolled<N * M>([&](auto i) noexcept {
        sum[i / M][i % M] =
            simd::load<Arch>(o + i * tile::width) * simd::load<Arch>(factor + i % M * tile::width);
    });
    auto const add = [&](index_t k, auto) noexcept {
        floats x[M];
        unrolled<M>([&](auto m) noexcept { x[m] = simd::load<Arch>(p + k * tile::queries + m * tile::width); });
        unrolled<N>([&](auto n) noexcept {
            floats const b(v[k * N + n]);
            unrolled<M>([&](auto m) noexcept { sum[n][m] = simd::fma(b, x[m], sum[n][m]); });
        });
    };
    float const* next = o + size;
    index_t k = 0;
    for (; k + 2 <= keys; k += 2) {
        simd::prefetch(next);
        simd::prefetch_level_2(ahead.at);
        next += ceil_div(size, tile::keys / 2);
        ahead.at += ahead.step;
        add(k, std::integral_constant<int, 0>{});
        add(k + 1, std::integral_constant<int, 1>{});
    }
    if (k < keys) add(k, std::integral_constant<int, 2>{});
    unrolled<N * M>([&](auto i) noexcept { simd::store<Arch>(o + i * tile::width, sum[i / M][i % M]); });
}

/// Calls f(first, N) with N a constant for groups of tile::rows, and for the rest.
template <class Arch, class F>
TESSERA_FORCE_INLINE void in_rows(index_t first, index_t last, F const& f) noexcept {
    constexpr int full = attention_tile<Arch>::rows;
    for (; first + full <= last; first += full) f(first, std::integral_constant<int, full>{});
    unrolled<full - 1>([&](auto i) noexcept {
        if (last - first == i + 1) f(first, std::integral_constant<int, i + 1>{});
    });
}

/// n elements as floats, times scale.
template <class Arch, class T>
TESSERA_FORCE_INLINE void read_row(T const* from, index_t stride, index_t n, float scale, float* to) noexcept {
    if (stride != 1) {
        for (index_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i * stride]) * scale;
        return;
    }
    using floats = simd::floats<Arch>;
    constexpr index_t width = simd::lanes<Arch>;
    index_t i = 0;
    for (; i + width <= n; i += width) simd::store<Arch>(to + i, simd::load<Arch>(from + i) * floats(scale));
    if (i < n) simd::store_partial<Arch>(to + i, simd::load_partial<Arch>(from + i, n - i) * floats(scale), n - i);
}

/// n floats rounded to the elements of `to`.
template <class Arch, class T>
void write_row(float const* from, index_t n, T* to, index_t stride) noexcept {
    if (stride != 1) {
        for (index_t i = 0; i < n; ++i) to[i * stride] = static_cast<T>(from[i]);
        return;
    }
    constexpr index_t width = simd::lanes<Arch>;
    index_t i = 0;
    for (; i + width <= n; i += width) simd::store<Arch>(to + i, simd::load<Arch>(from + i));
    if (i < n) simd::store_partial<Arch>(to + i, simd::load_partial<Arch>(from + i, n - i), n - i);
}

/// Elements [first, first + n) of a row of a cache as floats.
template <class Arch, class T>
TESSERA_FORCE_INLINE void stage_row(kv_rows<T const> const& rows, index_t head, index_t slot, index_t first, index_t n,
                                    float* to) noexcept {
    read_row<Arch>(rows.row(head, slot) + first * rows.dim_stride, rows.dim_stride, n,
                   rows.scales == nullptr ? 1.0f : *rows.scale_row(head, slot), to);
}
template <class Arch, class Scheme>
TESSERA_FORCE_INLINE void stage_row(kv_rows<kv_code<Scheme> const> const& rows, index_t head, index_t slot, index_t first,
                                    index_t n, float* to) noexcept {
    decode_kv_row<Arch, Scheme>(reinterpret_cast<std::uint8_t const*>(rows.row(head, slot)), rows.dim, first, first + n, to);
}

/// Asks for n elements from p on, early.
template <class T>
TESSERA_FORCE_INLINE void ask_row(T const* p, index_t n) noexcept {
    auto const* const line = reinterpret_cast<char const*>(p);
    for (index_t b = 0; b < n * static_cast<index_t>(sizeof(T)); b += config::cache_line) simd::prefetch_level_2(line + b);
}

/// Rows of a cache that are wanted soon, a piece for each of some calls of `value_rows`.
template <class Arch>
class rows_ahead {
public:
    rows_ahead() noexcept = default;
    /// Rows of `bytes`, `stride` bytes apart.
    rows_ahead(void const* data, index_t bytes, index_t stride, index_t rows, index_t calls) noexcept
        : at_{static_cast<char const*>(data)}, left_{rows * stride} {
        bool const is_whole = stride - bytes < config::cache_line; // one run of lines
        advance_ = is_whole ? ceil_div(left_, maximum(calls, 1)) : ceil_div(rows, maximum(calls, 1)) * stride;
        step_ = ceil_div(is_whole ? advance_ : bytes, attention_tile<Arch>::keys / 2);
    }
    bytes_ahead next() noexcept {
        bytes_ahead const piece{at_, left_ > 0 ? step_ : 0};
        if (left_ > 0) at_ += advance_;
        left_ -= advance_;
        return piece;
    }

private:
    char const* at_ = nullptr;
    index_t left_ = 0; ///< bytes
    index_t advance_ = 0;
    index_t step_ = 0;
};

/// Keys of n slots as floats: to[i * dim + d]. Float keys too, where rows lie apart: a power of two between them would put all
/// into one set of the first-level cache.
template <class Arch, class T>
void stage_keys(kv_rows<T const> const& rows, index_t head, index_t const* slots, index_t n, index_t dim, float* to) noexcept {
    for (index_t i = 0; i < n; ++i) stage_row<Arch>(rows, head, slots[i], 0, dim, to + i * dim);
}

/// Rows of codes as floats, for `stage_values`: rows[i * dim + d].
template <class Arch, class T>
kv_rows<float const> decoded_rows(kv_rows<T const> const& from, index_t head, index_t const* slots, index_t n,
                                  index_t dim, float* rows) noexcept {
    for (index_t i = 0; i < n; ++i) stage_row<Arch>(from, head, slots[i], 0, dim, rows + i * dim);
    return {rows, 0, dim, 1, nullptr, 0, dim};
}

/// Values of n slots as floats in panels of tile::rows columns, the last one narrower: v(i, d0 + j) at
/// to[d0 * n + i * N + j], N the width of the panel at d0. `to` has one register more than it needs: whole registers are
/// written, and what is beyond a row's N floats is written over by the next row or panel.
template <class Arch, class T>
void stage_values(kv_rows<T const> const& rows, index_t head, index_t const* slots, index_t n, index_t dim,
                  float* to) noexcept {
    using floats = simd::floats<Arch>;
    constexpr index_t width = simd::lanes<Arch>;
    index_t d = 0;
    if constexpr (!is_kv_code<T> && attention_tile<Arch>::rows * 2 == width)
        for (; rows.dim_stride == 1 && d + width <= dim; d += width, to += n * width) // two panels are one register
            for (index_t i = 0; i < n; ++i) {
                float const scale = rows.scales == nullptr ? 1.0f : *rows.scale_row(head, slots[i]);
                floats const x = simd::load<Arch>(rows.row(head, slots[i]) + d) * floats(scale);
                simd::store_halves<Arch>(to + i * width / 2, to + (n + i) * width / 2, x);
            }
    for (; d < dim; d += attention_tile<Arch>::rows) {
        index_t const panel = minimum(attention_tile<Arch>::rows, dim - d);
        bool const whole = rows.dim_stride == 1 && d + round_up(panel, width) <= dim;
        for (index_t i = 0; i < n; ++i, to += panel) {
            if constexpr (!is_kv_code<T>) {
                if (whole) {
                    T const* const from = rows.row(head, slots[i]) + d;
                    float const scale = rows.scales == nullptr ? 1.0f : *rows.scale_row(head, slots[i]);
                    for (index_t j = 0; j < panel; j += width)
                        simd::store<Arch>(to + j, simd::load<Arch>(from + j) * floats(scale));
                    continue;
                }
            }
            stage_row<Arch>(rows, head, slots[i], d, panel, to);
        }
    }
}

/// Whether n numbers are all finite. The weight of a key that a query does not see is 0, and 0 times NaN or infinity is NaN:
/// tiles where something is hidden ask this of their values, and treat the others apart.
template <class Arch, class T>
bool all_finite(T const* x, index_t n) noexcept {
    if constexpr (std::is_integral_v<T>)
        return true;
    else
        return simd::sum<Arch>(n, [&](index_t i, index_t count) noexcept {
                   return simd::load_partial<Arch>(x + i, count) * simd::floats<Arch>(0.0f);
               }) == 0.0f;
}

/// 0, 1, 2, ...
template <class Arch>
TESSERA_FORCE_INLINE simd::floats<Arch> lane_index() noexcept {
    alignas(64) static constexpr float index[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return simd::floats<Arch>::load_aligned(index);
}

} // namespace tessera::inline TESSERA_ABI::detail
