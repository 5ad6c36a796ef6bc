// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The vocabulary of quantisation. A scheme says how a matrix is stored:
///
///     scheme<Format, Granularity, Scale, Zero>        w(n, k) = scale * (Format value(n, k) - zero)
///
/// * Format: any `element_format` (int4, e2m1, nf4, ...).
/// * Granularity: which weights share a scale.
/// * Scale: the type scales are stored in (float, fp16, bf16, or any format that decodes to float).
/// * Zero: `symmetric` (none) or `affine` (an integer zero point of the format's width per scale).
///
/// How values are chosen (rounding, overflow, range) is not part of what is stored: it is an argument of `quantize`.
/// The second half of the file names what activations become inside a product.

#include "../core/types.hpp"
#include "../numerics/codebook.hpp"
#include "../numerics/float_format.hpp"
#include "../numerics/half.hpp"
#include "../numerics/int_format.hpp"

#include <concepts>

namespace tessera::inline TESSERA_ABI {

/// One scale for the matrix.
struct per_tensor {
    static constexpr index_t rows = 0; ///< rows that share a scale; 0: all
    static constexpr index_t columns = 0; ///< columns that share a scale; 0: all
};
/// One scale a row (output channel).
struct per_channel {
    static constexpr index_t rows = 1;
    static constexpr index_t columns = 0;
};
/// One scale for N consecutive weights of a row; the last group of a row may be shorter.
template <index_t N>
struct group {
    static_assert(N > 0, "tessera: a group has at least one element");
    static constexpr index_t rows = 1;
    static constexpr index_t columns = N;
};
/// One scale for a block of M rows and N columns; blocks at the edges may be smaller.
template <index_t M, index_t N>
struct block {
    static_assert(M > 0 && N > 0, "tessera: a block has at least one element");
    static constexpr index_t rows = M;
    static constexpr index_t columns = N;
};

template <class G>
concept granularity = requires {
    { G::rows } -> std::convertible_to<index_t>;
    { G::columns } -> std::convertible_to<index_t>;
};

/// No zero point.
struct symmetric {};
/// An integer zero point per scale, stored as one byte: w = scale * (code - zero point).
struct affine {};

/// How a matrix is stored; see the file comment.
template <element_format Format, granularity Granularity, element_format Scale = fp32, class Zero = symmetric>
struct scheme {
    using format = Format;
    using granularity_type = Granularity;
    using scale_type = Scale;
    using zero_type = Zero;
    static constexpr bool is_affine = std::same_as<Zero, affine>;
    static_assert(Format::bits <= 8, "tessera: a scheme's format has at most 8 bits");
    static_assert(std::same_as<Zero, symmetric> || std::same_as<Zero, affine>,
                  "tessera: the last argument of a scheme is symmetric or affine");
    static_assert(!is_affine || (Format::is_integer && Format::decode(0) == 0.0f),
                  "tessera: affine schemes store unsigned integers (uint1 to uint8)");
};

/// Common schemes, named format, granularity.
using int4_g32 = scheme<int4, group<32>, fp16>;
using int4_g64 = scheme<int4, group<64>, fp16>;
using int4_g128 = scheme<int4, group<128>, fp16>;
using uint4_g32 = scheme<uint4, group<32>, fp16, affine>;
using uint4_g128 = scheme<uint4, group<128>, fp16, affine>;
using int8_per_channel = scheme<int8, per_channel, fp32>;
using nf4_g64 = scheme<nf4, group<64>, fp32>;

/// Preparations: what x becomes inside a product. In int8, a row or group whose largest magnitude a has no 127 / a in float32
/// (a below about 3.7e-37) becomes zeros: on purpose, for division would cost more than such values are worth.
///
/// As it is, in float32.
struct as_is {};
/// int8, one scale per row (token): q = round(127 x / max|x|).
struct int8_per_token {};
/// int8, one scale per N consecutive values of a row.
template <index_t N>
struct int8_per_group {
    static_assert(N > 0 && N % 32 == 0, "tessera: int8_per_group<N> needs a positive multiple of 32");
};

/// bf16, each value rounded to nearest even. Where the processor multiplies tiles of bf16 (AMX), the product runs there and W is
/// rounded to bf16 too: for many rows the fastest there is, and nearer to the exact product than int8 is. Elsewhere the sums are
/// those of `as_is`.
struct as_bf16 {};

namespace detail {

/// Values that share a scale in an int8 preparation; 0: the row. -1: not an int8 preparation.
template <class P>
inline constexpr index_t activation_group = -1;
template <>
inline constexpr index_t activation_group<int8_per_token> = 0;
template <index_t N>
inline constexpr index_t activation_group<int8_per_group<N>> = N;

} // namespace detail

/// One of the preparations above.
template <class P>
concept preparation = std::same_as<P, as_is> || std::same_as<P, as_bf16> || (detail::activation_group<P> >= 0);

} // namespace tessera::inline TESSERA_ABI
