// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// rope on the CPU. All heads of a token share its cosines and sines: a register of them is made once and used for every
/// head.

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
    simd::for_each<Arch>(pairs, [&](index_t i, index_t count) noexcept {
        auto const c = simd::load_partial<Arch>(cosine + i, count);
        auto const s = simd::load_partial<Arch>(sine + i, count);
        for (index_t h = 0; h < at.heads; ++h) {
            X const* const x = at.x + h * at.x_stride + i;
            Y* const y = at.y + h * at.y_stride + i;
            auto const a = simd::load_partial<Arch>(x, count);
            auto const b = simd::load_partial<Arch>(x + pairs, count);
            simd::store_partial<Arch>(y, simd::fnma(b, s, a * c), count);
            simd::store_partial<Arch>(y + pairs, simd::fma(a, s, b * c), count);
        }
    });
}

template <class Arch, class X, class Y>
void rope_token(rope_interleaved, token_heads<X, Y> const& at, float const* cosine, float const* sine,
                index_t pairs) noexcept {
    simd::for_each<Arch>(2 * pairs, [&](index_t i, index_t count) noexcept {
        // c c ... and -s s ...: then y = x c + (x with neighbours exchanged) s. A register holds whole pairs.
        alignas(64) float c_lane[simd::lanes<Arch>] = {};
        alignas(64) float s_lane[simd::lanes<Arch>] = {};
        for (index_t k = 0; k < count; k += 2) {
            c_lane[k] = c_lane[k + 1] = cosine[(i + k) / 2];
            s_lane[k] = -sine[(i + k) / 2];
            s_lane[k + 1] = sine[(i + k) / 2];
        }
        auto const c = simd::floats<Arch>::load_aligned(c_lane);
        auto const s = simd::floats<Arch>::load_aligned(s_lane);
        for (index_t h = 0; h < at.heads; ++h) {
            auto const v = simd::load_partial<Arch>(at.x + h * at.x_stride + i, count);
            simd::store_partial<Arch>(at.y + h * at.y_stride + i, simd::fma(simd::exchange_neighbours(v), s, v * c),
                                      count);
        }
    });
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
