// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// rope on the CPU, head by head: memory is walked in order, and all heads of a token find its cosines and sines in the
/// first-level cache.

#include "../../core/view.hpp"
#include "../../simd/math.hpp"
#include "../../simd/reduce.hpp"
#include "../kernel.hpp"
#include "../rope_style.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// The heads of one token.
template <class X, class Y>
struct token_heads {
    X const* x;
    Y* y;
    index_t heads;
    index_t x_stride;
    index_t y_stride;
};

template <class Arch, class X, class Y>
void rope_token(rope_halves, token_heads<X, Y> const& at, float const* cosine, float const* sine, index_t pairs) noexcept {
    for (index_t h = 0; h < at.heads; ++h) {
        X const* const x = at.x + h * at.x_stride;
        Y* const y = at.y + h * at.y_stride;
        simd::for_each<Arch>(pairs, [&](index_t i, index_t count) noexcept {
            auto const c = simd::load_partial<Arch>(cosine + i, count);
            auto const s = simd::load_partial<Arch>(sine + i, count);
            auto const a = simd::load_partial<Arch>(x + i, count);
            auto const b = simd::load_partial<Arch>(x + pairs + i, count);
            simd::store_partial<Arch>(y + i, simd::fnma(b, s, a * c), count);
            simd::store_partial<Arch>(y + pairs + i, simd::fma(a, s, b * c), count);
        });
    }
}

/// With c c ... and -s s ... in memory, y = x c + (x with neighbours exchanged) s. Registers hold whole pairs.
template <class Arch, class X, class Y>
void rope_token(rope_interleaved, token_heads<X, Y> const& at, float const* cosine, float const* sine,
                index_t pairs) noexcept {
    constexpr index_t most = 64; // pairs whose doubled cosines and sines are kept, 1 KiB: those of most models at once
    alignas(64) float c[2 * most];
    alignas(64) float s[2 * most];
    for (index_t first = 0; first < pairs; first += most) {
        index_t const size = minimum(most, pairs - first);
        for (index_t i = 0; i < size; ++i) {
            c[2 * i] = c[2 * i + 1] = cosine[first + i];
            s[2 * i] = -sine[first + i];
            s[2 * i + 1] = sine[first + i];
        }
        for (index_t h = 0; h < at.heads; ++h) {
            X const* const x = at.x + h * at.x_stride + 2 * first;
            Y* const y = at.y + h * at.y_stride + 2 * first;
            simd::for_each<Arch>(2 * size, [&](index_t i, index_t count) noexcept {
                auto const v = simd::load_partial<Arch>(x + i, count);
                auto const other = simd::exchange_neighbours(v) * simd::load_partial<Arch>(s + i, count);
                simd::store_partial<Arch>(y + i, simd::fma(v, simd::load_partial<Arch>(c + i, count), other), count);
            });
        }
    }
}

} // namespace detail

template <class Arch, class Parallel, class X>
struct kernel<op::rope, cpu<Arch, Parallel>, X> {
    template <class Style, class Y>
    static void run(cpu<Arch, Parallel> const& exec, Style style, tensor_view<X const, 3> x, detail::rotations r,
                    tensor_view<Y, 3> y) noexcept {
        index_t const heads = x.extent(1);
        index_t const rest = x.extent(2) - 2 * r.pairs;
        parallel_for(exec.parallel(), x.extent(0), maximum(1, 16384 / maximum(heads * x.extent(2), 1)),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t t = first; t < last; ++t) {
                             detail::token_heads<X, Y> const at{x.data_handle() + t * x.stride(0),
                                                                y.data_handle() + t * y.stride(0), heads, x.stride(1),
                                                                y.stride(1)};
                             detail::rope_token<Arch>(style, at, r.cosine(t), r.sine(t), r.pairs);
                             for (index_t h = 0; h < heads; ++h) {
                                 X const* const from = at.x + h * at.x_stride + 2 * r.pairs;
                                 Y* const to = at.y + h * at.y_stride + 2 * r.pairs;
                                 simd::for_each<Arch>(rest, [&](index_t i, index_t count) noexcept {
                                     simd::store_partial<Arch>(to + i, simd::load_partial<Arch>(from + i, count), count);
                                 });
                             }
                         }
                     });
    }
};

} // namespace tessera::inline TESSERA_ABI
