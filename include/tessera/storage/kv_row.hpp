// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Keys and values of a cache in any scheme of scheme.hpp: one token of one head is a row of its own, of bytes:
///
///     codes, bit-packed | scales of the groups | zero points of the groups, where the scheme is affine
///
/// `per_channel` is one scale a row (token and head), `group<N>` one for N consecutive elements; scales are fp16, bf16 or fp32. For a
/// group with a = max |x| (and 0), low and high its least and largest number (and 0), M the format's largest magnitude with
/// both signs:
///
///     symmetric   scale = a / M                     code = nearest(x / scale), integers within -M to M
///     affine      scale = (high - low) / (2^b - 1)  zero = nearest(-low / scale)   code = nearest(x / scale + zero)
///
/// as `quantize` has it: the scale is rounded to its type first. x / scale is x times the float32 reciprocal. A group whose scale
/// or its reciprocal is no number of its type decodes to zeros where it is small, and to NaN where it is large or holds a NaN.

#include "bitpack.hpp"
#include "scheme.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// A byte of a row of `kv_row<Scheme>`: what caches in that scheme are arrays of.
template <class Scheme>
struct kv_code {
    std::uint8_t byte;
};

namespace detail {

template <class T>
inline constexpr bool is_kv_code = false;
template <class S>
inline constexpr bool is_kv_code<kv_code<S>> = true;
template <class S>
inline constexpr bool is_kv_code<kv_code<S> const> = true;

/// Codes of a format that the type does not tell: any_kv_cache.hpp.
template <class T>
inline constexpr bool is_any_kv_code = requires { typename T::formats; };

} // namespace detail

/// Rows of n elements in a scheme; see the file comment.
template <class Scheme>
struct kv_row {
    using format = typename Scheme::format;
    using scale_type = typename Scheme::scale_type;
    static constexpr int bits = format::bits;
    static constexpr index_t columns = Scheme::granularity_type::columns;
    static constexpr bool is_affine = Scheme::is_affine;
    static_assert(Scheme::granularity_type::rows == 1,
                  "tessera: a KV cache stores schemes with per_channel or group<N> scales");
    static_assert(std::is_same_v<scale_type, fp16> || std::is_same_v<scale_type, bf16> || std::is_same_v<scale_type, fp32>,
                  "tessera: the scales of a KV cache are fp16, bf16 or fp32");

    /// Elements that share a scale in a row of n.
    static constexpr index_t group(index_t n) noexcept { return columns == 0 ? maximum(n, 1) : columns; }
    static constexpr index_t groups(index_t n) noexcept { return ceil_div(n, group(n)); }
    static constexpr index_t scale_bytes = scale_type::bits / 8;
    static constexpr index_t bytes(index_t n) noexcept {
        return bitpack::bytes(n, bits) + groups(n) * (scale_bytes + (is_affine ? 1 : 0));
    }

    static float scale(std::uint8_t const* row, index_t n, index_t g) noexcept {
        std::conditional_t<scale_bytes == 2, std::uint16_t, std::uint32_t> code;
        std::memcpy(&code, row + bitpack::bytes(n, bits) + g * scale_bytes, sizeof code);
        return scale_type::decode(code);
    }
    static float zero(std::uint8_t const* row, index_t n, index_t g) noexcept {
        if constexpr (is_affine)
            return static_cast<float>(row[bitpack::bytes(n, bits) + groups(n) * scale_bytes + g]);
        else
            return 0.0f;
    }
    /// Element i of a row of n.
    static float value(std::uint8_t const* row, index_t n, index_t i) noexcept {
        index_t const g = i / group(n);
        return (format::decode(bitpack::get<bits>(row, i)) - zero(row, n, g)) * scale(row, n, g);
    }

    /// n elements, `stride` apart, as a row.
    template <class X>
    static void encode(X const* x, index_t stride, index_t n, std::uint8_t* row) noexcept {
        for (index_t i = 0; i < bitpack::bytes(n, bits); ++i) row[i] = 0;
        for (index_t g = 0; g < groups(n); ++g) {
            index_t const first = g * group(n);
            encode_group(x, stride, first, minimum(first + group(n), n), n, g, row);
        }
    }

private:
    static constexpr float limit = [] {
        if constexpr (is_affine)
            return static_cast<float>((1 << bits) - 1);
        else if constexpr (requires { format::symmetric_magnitude; })
            return format::symmetric_magnitude;
        else if constexpr (format::is_integer)
            return static_cast<float>(format::max_value);
        else
            return format::max_magnitude;
    }();

    template <class X>
    static void encode_group(X const* x, index_t stride, index_t first, index_t last, index_t n, index_t g,
                             std::uint8_t* row) noexcept {
        float low = 0;
        float high = 0;
        float poison = 0; // NaN once a number is not finite
        for (index_t i = first; i < last; ++i) {
            float const v = static_cast<float>(x[i * stride]);
            low = v < low ? v : low;
            high = v > high ? v : high;
            poison += v * 0.0f;
        }
        float const exact = (is_affine ? high / limit - low / limit : (high > -low ? high : -low) / limit) + poison;
        auto const code = static_cast<std::conditional_t<scale_bytes == 2, std::uint16_t, std::uint32_t>>(
            scale_type::encode(exact));
        std::memcpy(row + bitpack::bytes(n, bits) + g * scale_bytes, &code, sizeof code);
        float const stored = scale_type::decode(code);
        float const reciprocal = 1.0f / stored;
        float const inverse = stored > 0 && reciprocal <= std::numeric_limits<float>::max() ? reciprocal : 0.0f;
        float offset = 0;
        if constexpr (is_affine) {
            offset = std::nearbyint(-low * inverse);
            offset = offset < limit ? offset : limit;
            offset = offset > 0 ? offset : 0.0f;
            row[bitpack::bytes(n, bits) + groups(n) * scale_bytes + g] = static_cast<std::uint8_t>(offset);
        }
        for (index_t i = first; i < last; ++i) {
            float v = inverse == 0 ? offset : static_cast<float>(x[i * stride]) * inverse + offset;
            if constexpr (format::is_integer && !is_affine) v = v < -limit ? -limit : v > limit ? limit : v;
            bitpack::set<bits>(row, i, format::encode(v, rounding::nearest_even, overflow::saturate));
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
