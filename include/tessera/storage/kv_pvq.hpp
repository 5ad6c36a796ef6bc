// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Keys and values of a cache as pyramid vectors: a row is cut into groups of N numbers, each a point p of the pyramid P(N, K) of
/// numerics/pvq.hpp and a scale, gain / |p| rounded to fp16.
///
///     ts::kv_cache<ts::key<ts::kv_pvq<ts::pvq<32, 22, 3>>>, ts::value<ts::int8_per_token>> kv{4096, 8, 128};
///
///     indices of the groups, bit-packed | scales of the groups
///
/// The last group may be shorter: the numbers that it lacks are zeros to the encoder. 64-bit indices of 32 numbers take 2.5 bits a
/// number with their scale. Reading enumerates: 30 cycles a number, so that this is for caches where memory is what is short. A group
/// with a NaN or an infinity decodes to NaN; a gain beyond fp16 becomes its largest number.

#include "../numerics/pvq.hpp"
#include "../numerics/pvq_encode.hpp"
#include "bitpack.hpp"
#include "kv_cache.hpp"

#include <cmath>
#include <cstring>

namespace tessera::inline TESSERA_ABI {

/// A format of kv_cache; see the file comment. `Format` is a pvq<N, K, ...> of one vector a word.
template <class Format>
struct kv_pvq {
    using pvq_format = Format;
    static_assert(Format::together == 1, "tessera: kv_pvq takes one vector a word");
};

/// Rows of n elements in vector codes.
template <class Format>
struct kv_row<kv_pvq<Format>> {
    static constexpr index_t group = Format::group;

    static constexpr index_t groups(index_t n) noexcept { return ceil_div(n, group); }
    static constexpr index_t index_bytes(index_t n) noexcept { return ceil_div(groups(n) * Format::index_bits, 8); }
    static constexpr index_t bytes(index_t n) noexcept { return index_bytes(n) + 2 * groups(n); }

    /// Element i of a row of n.
    static float value(std::uint8_t const* row, index_t n, index_t i) noexcept {
        float x;
        decode(row, n, i, i + 1, &x);
        return x;
    }
    /// Elements [first, last) of a row of n.
    static void decode(std::uint8_t const* row, index_t n, index_t first, index_t last, float* to) noexcept {
        std::int8_t p[group];
        for (index_t i = first; i < last;) {
            index_t const g = i / group;
            index_t const end = minimum((g + 1) * group, last);
            auto const index = bitpack::read_wide<typename Format::index_type>(row, g * Format::index_bits, Format::index_bits);
            Format::vector(index, p);
            std::uint16_t code;
            std::memcpy(&code, row + index_bytes(n) + 2 * g, sizeof code);
            float const scale = fp16::decode(code);
            for (; i < end; ++i) to[i - first] = scale * static_cast<float>(p[i % group]);
        }
    }
    /// n elements, `stride` apart, as a row.
    template <class X>
    static void encode(X const* x, index_t stride, index_t n, std::uint8_t* row) noexcept {
        for (index_t i = 0; i < index_bytes(n); ++i) row[i] = 0;
        for (index_t g = 0; g < groups(n); ++g) {
            float values[group];
            std::int8_t p[group];
            index_t const count = minimum(group, n - g * group);
            for (index_t i = 0; i < count; ++i) values[i] = static_cast<float>(x[(g * group + i) * stride]);
            double const gain = pvq_encode<Format>(values, count, p);
            bitpack::write_wide(row, g * Format::index_bits, Format::index_bits, Format::index(p));
            double squares = 0;
            for (index_t i = 0; i < group; ++i) squares += double{1} * p[i] * p[i];
            double const scale = squares == 0 ? 0.0 * gain : gain / std::sqrt(squares);
            double const most = double{fp16::max_magnitude};
            auto const code = static_cast<std::uint16_t>(fp16::encode(static_cast<float>(scale > most ? most : scale)));
            std::memcpy(row + index_bytes(n) + 2 * g, &code, sizeof code);
        }
    }
};

namespace detail {

template <class Format>
struct kv_format<kv_pvq<Format>> {
    using element = kv_code<kv_pvq<Format>>;
    static constexpr bool has_scale = false;
    static constexpr index_t row(index_t dim) noexcept { return kv_row<kv_pvq<Format>>::bytes(dim); }
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
