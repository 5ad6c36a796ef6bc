// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The vocabulary of quantisation. A scheme says how a matrix is stored:
///
///     scheme<Format, Granularity, Scale, Zero>        w(n, k) = scale * (Format value(n, k) - zero)
///
/// * Format: any `element_format` (int4, e2m1, nf4, ...).
/// * Granularity: which weights share a scale.
/// * Scale: the type scales are stored in (float, fp16, bf16, or any format that decodes to float), or `two_level<...>`:
///   scales that are codes themselves, under super scales of larger blocks.
/// * Zero: `symmetric` (none) or `affine` (an integer zero point of the format's width per scale).
///
/// How values are chosen (rounding, overflow, range) is not part of what is stored: it is an argument of `quantize`.
/// The second half of the file names what activations become inside a product.

#include "../core/types.hpp"
#include "../numerics/bipolar.hpp"
#include "../numerics/codebook.hpp"
#include "../numerics/fixed_point.hpp"
#include "../numerics/fp6_fp4.hpp"
#include "../numerics/fp8.hpp"
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

namespace detail {

struct two_level_text {
    char text[64];
};

/// "e4m3fn under fp32 of 0 x 0": for layouts' names, which tell stored bytes apart.
[[nodiscard]] constexpr two_level_text two_level_name(char const* scale, char const* super_scale, index_t rows,
                                                      index_t columns) noexcept {
    two_level_text name{};
    int length = 0;
    auto const text = [&](char const* t) {
        for (; *t != '\0' && length < 42; ++t) name.text[length++] = *t;
    };
    auto const number = [&](index_t n) {
        index_t unit = 1;
        while (n / unit >= 10) unit *= 10;
        for (; unit > 0 && length < 60; unit /= 10) name.text[length++] = static_cast<char>('0' + n / unit % 10);
    };
    text(scale);
    text(" under ");
    text(super_scale);
    text(" of ");
    number(rows);
    text(" x ");
    number(columns);
    return name;
}

} // namespace detail

/// Scales of two levels: the scale of a block is super scale * scale, rounded to float32. `Scale` is a format of few bits, stored
/// as one byte each; blocks of `SuperGranularity`, made of whole blocks of the scheme's granularity, share a super scale.
///
///     scheme<e2m1, group<16>, two_level<e4m3fn>>                     // NVFP4: one float32 for the matrix
///     scheme<int4, group<32>, two_level<int6, group<256>, fp16>>     // 6 bits a group, fp16 for eight groups
///     scheme<e2m1, group<128>, two_level<e8m0, per_channel>>         // ZeroQuant-FP's M2: powers of two under a row's scale
template <element_format Scale, granularity SuperGranularity = per_tensor, element_format SuperScale = fp32>
struct two_level {
    using scale_type = Scale;
    using super_granularity_type = SuperGranularity;
    using super_scale_type = SuperScale;
    static constexpr detail::two_level_text name_text = detail::two_level_name(
        Scale::name, SuperScale::name, SuperGranularity::rows, SuperGranularity::columns);
    static constexpr char const* name = name_text.text;
    static_assert(Scale::bits <= 8, "tessera: two_level: scales under a super scale have at most 8 bits");
};

namespace detail {

/// The parts of a scale: of one level, the scale alone.
template <class Scale>
struct scale_levels {
    static constexpr bool are_two = false;
    using lower = Scale;
    using upper = fp32;
    using upper_granularity = per_tensor;
};
template <class Scale, class SuperGranularity, class SuperScale>
struct scale_levels<two_level<Scale, SuperGranularity, SuperScale>> {
    static constexpr bool are_two = true;
    using lower = Scale;
    using upper = SuperScale;
    using upper_granularity = SuperGranularity;
};

/// Blocks of `Size` (0: everything) are made of whole blocks of `Part`.
[[nodiscard]] constexpr bool has_whole_blocks(index_t size, index_t part) noexcept {
    return size == 0 || (part != 0 && size % part == 0);
}

} // namespace detail

/// What scales are stored as: a format, or `two_level`.
template <class S>
concept scale_format = element_format<S> || detail::scale_levels<S>::are_two;

/// How a matrix is stored; see the file comment.
template <element_format Format, granularity Granularity, scale_format Scale = fp32, class Zero = symmetric>
struct scheme {
    using format = Format;
    using granularity_type = Granularity;
    using scale_type = Scale;
    using zero_type = Zero;
    static constexpr bool is_affine = std::same_as<Zero, affine>;
    static constexpr bool has_two_levels = detail::scale_levels<Scale>::are_two;
    static_assert(Format::bits <= 8, "tessera: a scheme's format has at most 8 bits");
    static_assert(std::same_as<Zero, symmetric> || std::same_as<Zero, affine>,
                  "tessera: the last argument of a scheme is symmetric or affine");
    static_assert(!is_affine || (Format::is_integer && Format::decode(0) == 0.0f),
                  "tessera: affine schemes store unsigned integers (uint1 to uint8)");
    static_assert(!has_two_levels ||
                      (detail::has_whole_blocks(detail::scale_levels<Scale>::upper_granularity::rows, Granularity::rows) &&
                       detail::has_whole_blocks(detail::scale_levels<Scale>::upper_granularity::columns, Granularity::columns)),
                  "tessera: blocks that share a super scale must be made of whole blocks that share a scale");
};

/// Common schemes, named format, granularity.
using int4_g32 = scheme<int4, group<32>, fp16>;
using int4_g64 = scheme<int4, group<64>, fp16>;
using int4_g128 = scheme<int4, group<128>, fp16>;
using uint4_g32 = scheme<uint4, group<32>, fp16, affine>;
using uint4_g128 = scheme<uint4, group<128>, fp16, affine>;
using int8_per_channel = scheme<int8, per_channel, fp32>;
using nf4_g64 = scheme<nf4, group<64>, fp32>;

/// OCP Microscaling 1.0: MXFP4, MXFP6 (two), MXFP8 (two), MXINT8. Blocks of 32, scales that are powers of two.
using mx_e2m1 = scheme<e2m1, group<32>, e8m0>;
using mx_e3m2 = scheme<e3m2, group<32>, e8m0>;
using mx_e2m3 = scheme<e2m3, group<32>, e8m0>;
using mx_e4m3 = scheme<e4m3fn, group<32>, e8m0>;
using mx_e5m2 = scheme<e5m2, group<32>, e8m0>;
using mx_int8 = scheme<fixed_point<8, 6>, group<32>, e8m0>;
/// NVFP4: blocks of 16 with scales in e4m3fn, under one float32 scale of the matrix (arXiv:2509.25149, appendix).
using nv_e2m1 = scheme<e2m1, group<16>, two_level<e4m3fn, per_tensor, fp32>>;

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

/// Preparations that are defined beside the storage or the arithmetic that takes them.
template <class P>
inline constexpr bool is_preparation = false;

} // namespace detail

/// One of the preparations above, or `bipolar_per_token` (storage/bit_planes.hpp).
template <class P>
concept preparation =
    std::same_as<P, as_is> || std::same_as<P, as_bf16> || detail::activation_group<P> >= 0 || detail::is_preparation<P>;

} // namespace tessera::inline TESSERA_ABI
