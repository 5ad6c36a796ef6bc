// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Loops over the elements of a row in registers, and sums and maxima of what they make. `f(i, count)` gives the register
/// for elements [i, i + count); count is lanes<Arch> but in the last call, whose other lanes are ignored.
///
/// The order of a sum is a constant of (n, Arch): four accumulators of lanes, combined pairwise. An element takes part in
/// at most n / (4 lanes) + 3 + log2(lanes) + 1 additions, so gamma of that many roundings bounds the error.

#include "memory.hpp"

namespace tessera::inline TESSERA_ABI::simd {

/// f(i, count) over [0, n).
template <class Arch, class F>
TESSERA_FORCE_INLINE void for_each(index_t n, F const& f) noexcept {
    index_t i = 0;
    for (; i + lanes<Arch> <= n; i += lanes<Arch>) f(i, lanes<Arch>);
    if (i < n) f(i, n - i);
}

/// v in the first n lanes, `other` in the rest.
template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> keep_first(floats<Arch> const& v, index_t n, float other) noexcept {
    alignas(64) static constexpr float index[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return simd::select(floats<Arch>::load_aligned(index) < floats<Arch>(static_cast<float>(n)), v,
                         floats<Arch>(other));
}

/// The sum of the elements of f(0..n).
template <class Arch, class F>
TESSERA_FORCE_INLINE float sum(index_t n, F const& f) noexcept {
    constexpr index_t step = lanes<Arch>;
    floats<Arch> a(0.0f);
    floats<Arch> b(0.0f);
    floats<Arch> c(0.0f);
    floats<Arch> d(0.0f);
    index_t i = 0;
    for (; i + 4 * step <= n; i += 4 * step) {
        a = a + f(i, step);
        b = b + f(i + step, step);
        c = c + f(i + 2 * step, step);
        d = d + f(i + 3 * step, step);
    }
    for (; i + step <= n; i += step) a = a + f(i, step);
    if (i < n) b = b + keep_first<Arch>(f(i, n - i), n - i, 0.0f);
    return simd::reduce_add((a + b) + (c + d));
}

/// The largest element of f(0..n), at least `least`; elements that are NaN may be passed over.
template <class Arch, class F>
TESSERA_FORCE_INLINE float largest(index_t n, float least, F const& f) noexcept {
    constexpr index_t step = lanes<Arch>;
    floats<Arch> a(least);
    floats<Arch> b(least);
    index_t i = 0;
    for (; i + 2 * step <= n; i += 2 * step) {
        a = simd::max(f(i, step), a);
        b = simd::max(f(i + step, step), b);
    }
    for (; i + step <= n; i += step) a = simd::max(f(i, step), a);
    if (i < n) b = simd::max(keep_first<Arch>(f(i, n - i), n - i, least), b);
    return simd::reduce_max(simd::max(a, b));
}

} // namespace tessera::inline TESSERA_ABI::simd
