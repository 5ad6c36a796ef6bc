// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `quantize<Scheme>(w)`: a matrix in a quantised scheme, each weight rounded on its own (round to nearest, min-max range).
///
/// For every block of weights that share a scale:
///
/// * symmetric:  scale = max |w| / M,  M the largest magnitude that both signs have (7 for int4, 6 for e2m1, 1 for nf4);
///               code = nearest(w / scale)
/// * affine:     scale = (max(w, 0) - min(w, 0)) / (2^b - 1),  zero point = round(-min(w, 0) / scale),
///               code = nearest(w / scale + zero point)
///
/// The scale is rounded to its stored type first, by a `scale_rule`, and codes are chosen for the rounded one (quotients are
/// those of float32 division): symmetric integers lie in -M to M whatever the rounding did to it, and integer codes of finite
/// weights decode to finite numbers. Scales of two levels: super scale = the widest block's scale / the largest number of the
/// scales' format, rounded to nearest (up where scales are); every block's scale is chosen under it, never 0 where a weight is
/// not 0. Scales in e8m0 under a super scale are 2^-14 to 1, the super scale the widest block's.
///
/// What the scale covers is a range policy (quant/range.hpp); max |w|, min w and max w above are then the ends of what it chose:
///
///     auto q = ts::quantize<ts::int4_g128>(exec, w);                             // min-max
///     auto r = ts::quantize<ts::int4_g128>(exec, w, ts::least_error_range{});    // the clipping of least squared error
///
/// Every backend, for any number of threads, gives the same bits.
///
/// Bad input:
///
/// * A block with a NaN or infinity has a NaN scale, so all of it decodes to NaN, and it has no part in its super scale; where
///   the scale's type has no NaN it is refused with unsupported_error.
/// * A block of zeros, or of weights too small for the scale's type, has scale 0 and decodes to zeros. Where the type has no 0
///   (e8m0), it has the smallest scale and codes of 0, as OCP Microscaling asks: byte 0; in `bipolar` formats, which have no 0,
///   it decodes to that scale with the weights' signs.
/// * Scales may be subnormal: their own rounding is then what is left of the error. Where a scale is beyond its type, it is the
///   type's largest, and weights saturate.
/// * A block of one weight is that weight up to the rounding of its scale. Blocks at the end of a row, and blocks wider than
///   the row, are the columns there are; a matrix without rows or columns has no scales.
///
/// Source: "A White Paper on Neural Network Quantization", arXiv:2106.08295, section 2.2; OCP Microscaling Formats 1.0, section 6.3.

#include "../core/error.hpp"
#include "../core/overlap.hpp"
#include "../storage/quantized.hpp"
#include "../storage/tensor.hpp"
#include "quantizer.hpp"
#include "range.hpp"

#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// w in `Scheme` over what q holds, its scales covering what `range` chooses; see the file comment. O(n k) times what the range
/// costs.
/// @throws shape_error for w and q of unequal shapes; what the range's `check` throws; unsupported_error for a rule of scales that the
/// scheme cannot have, and, when q holds the codes of the finite blocks, for one that is not finite under scales without NaN
template <class Scheme, execution_policy Exec, range_policy Range>
void quantize(Exec const& exec,
              matrix_view<float const> const& w, // (n, k)
              Range const& range, quantize_options const& options,
              quantized_tensor<Scheme>& q) { // (n, k)
    detail::require_backend<Exec>();
    check::elements("quantize", "w", w);
    check::equal("quantize", "rows of q", q.rows(), w.extent(0), "rows of w");
    check::equal("quantize", "columns of q", q.cols(), w.extent(1), "columns of w");
    if constexpr (requires { range.check(); }) range.check();
    if (w.extent(1) > 1 && w.stride(1) != 1) {
        matrix<float> rows{w.extent(0), w.extent(1)}; // with adjacent columns
        for (index_t n = 0; n < w.extent(0); ++n)
            for (index_t k = 0; k < w.extent(1); ++k) rows(n, k) = w(n, k);
        detail::quantizer<Scheme, Exec, Range>{exec, rows.view(), range, options, q}.run();
    } else {
        detail::quantizer<Scheme, Exec, Range>{exec, w, range, options, q}.run();
    }
}

/// w (n, k) in `Scheme`.
template <class Scheme, execution_policy Exec, range_policy Range = min_max_range>
quantized_tensor<Scheme> quantize(Exec const& exec, matrix_view<float const> const& w, Range const& range = {},
                                  quantize_options const& options = {}) {
    quantized_tensor<Scheme> result{w.extent(0), w.extent(1)};
    quantize(exec, w, range, options, result);
    return result;
}
template <class Scheme, execution_policy Exec, range_policy Range = min_max_range>
quantized_tensor<Scheme> quantize(Exec const& exec, matrix<float> const& w, Range const& range = {},
                                  quantize_options const& options = {}) {
    return quantize<Scheme>(exec, matrix_view<float const>{w.view()}, range, options);
}

/// The same in the calling thread, min-max.
template <class Scheme>
quantized_tensor<Scheme> quantize(matrix_view<float const> const& w, quantize_options const& options = {}) {
    using exec = std::conditional_t<std::is_same_v<native_arch, generic_arch>, reference, cpu<native_arch, serial>>;
    return quantize<Scheme>(exec{}, w, min_max_range{}, options);
}
template <class Scheme>
quantized_tensor<Scheme> quantize(matrix<float> const& w, quantize_options const& options = {}) {
    return quantize<Scheme>(w.view(), options);
}

} // namespace tessera::inline TESSERA_ABI
