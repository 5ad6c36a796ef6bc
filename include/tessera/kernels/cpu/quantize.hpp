// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Rounding of weights on the CPU, the bits of kernels/ref/quantize.hpp. Integers and minifloats are encoded by arithmetic
/// (simd/convert.hpp), formats of up to 16 values by comparing with the borders between them, which are found by asking
/// the format; wider tables, and roundings half away and toward zero, one weight at a time. Codes are packed eight at a time.
/// Blocks of few registers are rounded several at a time, and their scales a register of them at a time. Random numbers are made
/// a register of counters at a time (simd/random.hpp); integers and minifloats are rounded with them in registers.

#include "../../core/exec.hpp"
#include "../../numerics/int_format.hpp"
#include "../../simd/convert_block.hpp"
#include "../../simd/random.hpp"
#include "../ref/quantize.hpp"

#include <cstdint>
#include <cstring>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// n codes, a multiple of 8, to whole bytes.
template <int Bits>
TESSERA_FORCE_INLINE void pack_whole(std::uint8_t const* codes, index_t n, std::uint8_t* out) noexcept {
    for (index_t i = 0; i < n; i += 8, out += Bits) {
        std::uint64_t word = 0;
        std::memcpy(&word, codes + i, 8);
        word = simd::pack_eight<Bits>(word);
        std::memcpy(out, &word, static_cast<std::size_t>(Bits)); // the machine is little-endian, as everywhere
    }
}

/// Codes k0 to k0 + n of a packed row from bytes; other codes keep their value.
template <int Bits>
void pack_codes(std::uint8_t const* codes, index_t n, std::uint8_t* row, index_t k0) noexcept {
    index_t i = 0;
    for (; i < n && (k0 + i) % 8 != 0; ++i) bitpack::set<Bits>(row, k0 + i, codes[i]);
    index_t const whole = (n - i) / 8 * 8;
    pack_whole<Bits>(codes + i, whole, row + (k0 + i) / 8 * Bits);
    i += whole;
    for (; i < n; ++i) bitpack::set<Bits>(row, k0 + i, codes[i]);
}

/// The values of a format in ascending order, with the largest float that is still nearest to each (ties as the format
/// breaks them), and the code of NaN.
template <class Format>
struct value_borders {
    static constexpr int codes = 1 << Format::bits;
    float value[codes] = {};
    float last[codes] = {};
    std::uint32_t code[codes] = {};
    std::uint32_t nan_code = 0;
    int count = 0;
};

template <class Format>
constexpr value_borders<Format> make_value_borders() noexcept {
    value_borders<Format> b;
    for (std::uint32_t c = 0; c < static_cast<std::uint32_t>(b.codes); ++c) {
        float const v = Format::decode(c);
        if (!(v - v == 0) || Format::encode(v) != c) continue; // not a number, or another code's value
        int at = b.count++;
        for (; at > 0 && b.value[at - 1] > v; --at) {
            b.value[at] = b.value[at - 1];
            b.code[at] = b.code[at - 1];
        }
        b.value[at] = v;
        b.code[at] = c;
    }
    for (int i = 0; i + 1 < b.count; ++i) {
        // The middle is a double; the floats beside it decide alike wherever they are not the middle itself.
        double const middle = 0.5 * (static_cast<double>(b.value[i]) + static_cast<double>(b.value[i + 1]));
        float border = static_cast<float>(middle);
        bool const is_upper = static_cast<double>(border) > middle ||
                              (static_cast<double>(border) == middle && Format::encode(border) != b.code[i]);
        if (is_upper) { // the float below
            auto const bits = detail::bit_cast<std::uint32_t>(border);
            border = border == 0 ? -detail::bit_cast<float>(1u)
                                 : detail::bit_cast<float>(border > 0 ? bits - 1 : bits + 1);
        }
        b.last[i] = border;
    }
    b.nan_code = Format::encode(std::numeric_limits<float>::quiet_NaN());
    return b;
}

template <class Format>
inline constexpr bool is_small_integer = false;
template <int Bits, signedness Sign>
inline constexpr bool is_small_integer<small_integer<Bits, Sign>> = true;

template <class Format>
inline constexpr bool has_arithmetic_lanes = [] {
    if constexpr (is_small_integer<Format>)
        return true;
    else
        return simd::detail::carded<Format> && simd::detail::has_lanes<Format>;
}();

/// A register of codes, and of the values they stand for.
template <class Arch>
struct coded {
    simd::ints<Arch> code;
    simd::floats<Arch> value;
};

template <class Format, class Arch>
TESSERA_FORCE_INLINE coded<Arch> nearest(simd::floats<Arch> const& x) noexcept {
    if constexpr (has_arithmetic_lanes<Format>) {
        simd::ints<Arch> const code = simd::encode<Format, overflow::saturate>(x);
        return {code, simd::decode<Format>(code)};
    } else {
        // The codes' bits pass through float registers: they are only selected.
        using reals = simd::floats<Arch>;
        constexpr value_borders<Format> b = make_value_borders<Format>();
        auto const of = [](std::uint32_t c) noexcept { return reals(detail::bit_cast<float>(c)); };
        reals code = of(b.code[0]);
        reals value(b.value[0]);
        for (int i = 0; i + 1 < b.count; ++i) {
            auto const is_beyond = x > reals(b.last[i]);
            code = simd::select(is_beyond, of(b.code[i + 1]), code);
            value = simd::select(is_beyond, reals(b.value[i + 1]), value);
        }
        auto const is_number = x == x;
        code = simd::select(is_number, code, of(b.nan_code));
        value = simd::select(is_number, value, reals(Format::decode(b.nan_code)));
        return {simd::reinterpret<std::int32_t>(code), value};
    }
}

/// True for formats of scales that are rounded to nearest a register at a time.
template <class Format>
inline constexpr bool scales_in_registers = !std::is_same_v<Format, e8m0> && (std::is_same_v<Format, fp32> || has_arithmetic_lanes<Format>);

/// The codes of x / divisor, x >= 0 or NaN, to nearest, saturating, and the numbers they stand for; whole registers. A divisor
/// of 0 gives 0. With `IsSecond` no positive number becomes 0.
template <class Format, bool IsSecond, class Arch>
void nearest_scales(float const* x, index_t n, float divisor, std::int32_t* codes, float* values) noexcept {
    using reals = simd::floats<Arch>;
    using integers = simd::ints<Arch>;
    for (index_t i = 0; i < n; i += simd::lanes<Arch>) {
        reals const v = reals::load_unaligned(x + i);
        reals const ratio = divisor > 0 ? simd::divide(v, reals(divisor)) : simd::select(v == v, reals(0.0f), v);
        integers code = simd::encode<Format, overflow::saturate>(ratio);
        reals value = simd::decode<Format>(code);
        if constexpr (IsSecond) {
            auto const is_lost = (ratio > reals(0.0f)) & (value == reals(0.0f));
            code = simd::reinterpret<std::int32_t>(
                simd::select(is_lost, reals(detail::bit_cast<float>(1u)), simd::reinterpret<float>(code)));
            value = simd::select(is_lost, reals(Format::decode(1)), value);
        }
        code.store_unaligned(codes + i);
        value.store_unaligned(values + i);
    }
}

/// True for formats whose weights are rounded a register at a time.
template <class Format>
inline constexpr bool rounds_in_registers = [] {
    if constexpr (has_arithmetic_lanes<Format>)
        return true;
    else if constexpr (Format::bits <= 4 && encodes_nearest<Format>)
        return Format::encode(-0.0f) == Format::encode(0.0f); // comparisons do not tell zeros apart
    else
        return false;
}();

/// A grid in registers.
template <class Format, class Arch>
class grid_registers {
    using reals = simd::floats<Arch>;

public:
    explicit grid_registers(weight_grid<Format> const& g) noexcept
        : scale_(g.scale), zero_(g.zero), low_(first(g)), high_(last(g)) {}

    TESSERA_FORCE_INLINE coded<Arch> operator()(reals const& w) const noexcept {
        return nearest<Format, Arch>(position(w));
    }
    TESSERA_FORCE_INLINE simd::ints<Arch> code(reals const& w) const noexcept {
        if constexpr (is_small_integer<Format>) {
            reals const v = position(w);
            reals const number = simd::select(v == v, v, reals(0.0f));
            // Adding 1.5 * 2^23 rounds to an integer, to even, and leaves it in the low bits.
            auto const rounded = simd::reinterpret<std::int32_t>(number + reals(0x1.8p23f));
            return rounded & simd::ints<Arch>((std::int32_t{1} << Format::bits) - 1);
        } else {
            return nearest<Format, Arch>(position(w)).code;
        }
    }
    /// Rounded at random.
    TESSERA_FORCE_INLINE simd::ints<Arch> code(reals const& w, std::uint32_t const* random) const noexcept {
        return simd::encode_at_random<Format>(position(w),
                                              simd::ints<Arch>::load_unaligned(reinterpret_cast<std::int32_t const*>(random)));
    }
    TESSERA_FORCE_INLINE reals weight(coded<Arch> const& c) const noexcept { return scale_ * (c.value - zero_); }

private:
    /// NaN stays: min and max give the second argument where one is NaN.
    TESSERA_FORCE_INLINE reals position(reals const& w) const noexcept {
        return simd::min(high_, simd::max(low_, simd::divide(w, scale_) + zero_));
    }
    /// Both ends include zero, and integers saturate at theirs.
    static float first(weight_grid<Format> const& g) noexcept {
        if constexpr (is_small_integer<Format>)
            return g.low > Format::min_value ? g.low : static_cast<float>(Format::min_value);
        else
            return g.low;
    }
    static float last(weight_grid<Format> const& g) noexcept {
        if constexpr (is_small_integer<Format>)
            return g.high < Format::max_value ? g.high : static_cast<float>(Format::max_value);
        else
            return g.high;
    }

    reals scale_;
    reals zero_;
    reals low_;
    reals high_;
};

} // namespace detail

template <class Arch, class Parallel, class Format>
struct kernel<op::quantize, cpu<Arch, Parallel>, weight_grid<Format>> {
    using definition = kernel<op::quantize, reference, weight_grid<Format>>;
    static constexpr index_t lanes = simd::lanes<Arch>;

    static weight_range range(float const* w, // (n)
                              index_t n) noexcept {
        using reals = simd::floats<Arch>;
        reals low(0.0f);
        reals high(0.0f);
        reals defect(0.0f); // NaN once something is not finite
        auto const see = [&](float const* at) noexcept {
            reals const v = reals::load_unaligned(at);
            low = simd::min(v, low);
            high = simd::max(v, high);
            defect = defect + (v - v);
        };
        index_t i = 0;
        // A row's end is no end of its matrix: what comes next is asked for early, as the hardware stops at every page.
        constexpr index_t ahead = 512;
        for (; i + 4 * lanes <= n; i += 4 * lanes) {
            simd::prefetch_block<Arch>(w + i + ahead);
            see(w + i);
            see(w + i + lanes);
            see(w + i + 2 * lanes);
            see(w + i + 3 * lanes);
        }
        if (i < n) simd::prefetch_block<Arch>(w + i + ahead);
        for (; i + lanes <= n; i += lanes) see(w + i);
        if (i < n && n >= lanes) { // the last register again: seen twice does not matter
            see(w + n - lanes);
            i = n;
        }
        weight_range r = definition::range(w + i, n - i);
        float const least = -simd::reduce_max(reals(0.0f) - low);
        float const most = simd::reduce_max(high);
        r.low = least < r.low ? least : r.low;
        r.high = most > r.high ? most : r.high;
        r.finite = r.finite && xsimd::all(defect == defect);
        return r;
    }

    static void encode(float const* w, // (n)
                       index_t n, weight_grid<Format> const& grid, code_choice const& choice, std::uint8_t* row,
                       index_t k0) noexcept {
        if constexpr (detail::rounds_in_registers<Format>) {
            if (choice.mode == rounding::nearest_even && grid.scale > 0) {
                detail::grid_registers<Format, Arch> const round{grid};
                constexpr index_t block = simd::block_size<Arch>;
                alignas(64) std::uint8_t codes[4 * block];
                for (index_t i = 0; i < n; i += 4 * block) {
                    index_t const count = minimum(4 * block, n - i);
                    for (index_t k = 0; k < count; k += block) encode_block(w + i + k, count - k, round, codes + k);
                    detail::pack_codes<Format::bits>(codes, count, row, k0 + i);
                }
                return;
            }
        }
        if (choice.mode == rounding::stochastic)
            encode_at_random(w, n, grid, choice, row, k0);
        else
            definition::encode(w, n, grid, choice, row, k0);
    }

    /// True where the two below take blocks of so many weights: 1, 2 or 4 registers.
    static bool takes_together(index_t block) noexcept {
        return detail::rounds_in_registers<Format> && (block == lanes || block == 2 * lanes || block == 4 * lanes);
    }

    /// The largest |w| of each of `count` blocks, as a range to both sides of 0.
    static void magnitudes(float const* w, // (count * block)
                           index_t block, index_t count, weight_range* ranges) noexcept {
        using reals = simd::floats<Arch>;
        constexpr index_t ahead = 512;
        for (index_t i = 0; i < count; ++i, w += block) {
            __builtin_prefetch(w + ahead);
            if (block > 16) simd::prefetch_block<Arch>(w + ahead);
            reals most(0.0f);
            reals defect(0.0f);
            for (index_t k = 0; k < block; k += lanes) {
                reals const v = reals::load_unaligned(w + k);
                most = simd::max(xsimd::abs(v), most);
                defect = defect + (v - v);
            }
            float const m = simd::reduce_max(most);
            ranges[i] = {-m, m, xsimd::all(defect == defect)};
        }
    }

    /// `encode` to nearest of `count` blocks that follow each other, each with its grid, to codes from k0, a multiple of 8.
    static void encode_together([[maybe_unused]] float const* w, // (count * block)
                                [[maybe_unused]] index_t block, [[maybe_unused]] index_t count,
                                [[maybe_unused]] weight_grid<Format> const* grids, [[maybe_unused]] std::uint8_t* row,
                                [[maybe_unused]] index_t k0) noexcept {
        if constexpr (detail::rounds_in_registers<Format>) {
            if (block == lanes)
                encode_blocks<1>(w, count, grids, row, k0);
            else if (block == 2 * lanes)
                encode_blocks<2>(w, count, grids, row, k0);
            else
                encode_blocks<4>(w, count, grids, row, k0);
        }
    }

    static void round(float const* w, // (n)
                      index_t n, weight_grid<Format> const& grid,
                      float* out) noexcept { // (n)
        index_t i = 0;
        if constexpr (detail::rounds_in_registers<Format>) {
            if (grid.scale > 0) {
                detail::grid_registers<Format, Arch> const nearest{grid};
                for (; i + lanes <= n; i += lanes)
                    simd::store<Arch>(out + i, nearest.weight(nearest(simd::load<Arch>(w + i))));
            }
        }
        definition::round(w + i, n - i, grid, out + i);
    }

private:
    /// `encode` with random numbers.
    static void encode_at_random(float const* w, index_t n, weight_grid<Format> const& grid, code_choice const& choice,
                                 std::uint8_t* row, index_t k0) noexcept {
        constexpr index_t block = simd::block_size<Arch>;
        alignas(64) std::uint8_t codes[4 * block];
        alignas(64) std::uint32_t numbers[4 * block + 2 * simd::random_block<Arch>];
        for (index_t i = 0; i < n; i += 4 * block) {
            index_t const count = minimum(4 * block, n - i);
            std::uint32_t const* const random =
                simd::random_bits<Arch>(choice.seed, choice.first + static_cast<std::uint64_t>(i), count, numbers);
            bool in_registers = false;
            if constexpr (simd::rounds_at_random<Format>) {
                in_registers = grid.scale > 0;
                if (in_registers) {
                    detail::grid_registers<Format, Arch> const round{grid};
                    for (index_t k = 0; k < count; k += block) {
                        auto const part = [&](index_t at) noexcept {
                            index_t const left = count - at;
                            if (left <= 0) return simd::ints<Arch>(0);
                            return round.code(left < lanes ? simd::load_partial<Arch>(w + i + at, left)
                                                           : simd::load<Arch>(w + i + at),
                                              random + at);
                        };
                        simd::detail::code_block<Arch> const four = {
                            {part(k), part(k + lanes), part(k + 2 * lanes), part(k + 3 * lanes)}};
                        simd::detail::store_codes<Arch>(codes + k, four);
                    }
                }
            }
            if (!in_registers)
                for (index_t k = 0; k < count; ++k)
                    codes[k] = static_cast<std::uint8_t>(grid.code(w[i + k], rounding::stochastic, random[k]));
            detail::pack_codes<Format::bits>(codes, count, row, k0 + i);
        }
    }
    /// Blocks of `Registers` registers.
    template <index_t Registers>
    static void encode_blocks(float const* w, index_t count, weight_grid<Format> const* grids, std::uint8_t* row,
                              index_t k0) noexcept {
        constexpr index_t together = 4 / Registers;
        constexpr index_t n = simd::block_size<Arch>;
        index_t i = 0;
        for (; i + together <= count; i += together, w += n, k0 += n) {
            auto const part = [&](index_t p) noexcept { return encode_on(w + p * lanes, grids[i + p / Registers]); };
            simd::detail::code_block<Arch> const block = {{part(0), part(1), part(2), part(3)}};
            alignas(64) std::uint8_t codes[n];
            simd::detail::store_codes<Arch>(codes, block);
            detail::pack_whole<Format::bits>(codes, n, row + k0 / 8 * Format::bits);
        }
        for (; i < count; ++i, w += Registers * lanes, k0 += Registers * lanes)
            encode(w, Registers * lanes, grids[i], {}, row, k0);
    }
    /// A scale of 0 or NaN makes every quotient 0.
    TESSERA_FORCE_INLINE static simd::ints<Arch> encode_on(float const* w, weight_grid<Format> grid) noexcept {
        bool const has_scale = grid.scale > 0;
        grid.scale = has_scale ? grid.scale : 1.0f;
        detail::grid_registers<Format, Arch> const round{grid};
        return round.code(has_scale ? simd::load<Arch>(w) : simd::floats<Arch>(0.0f));
    }

    /// Codes of a block, or of the n weights that are left of one.
    TESSERA_FORCE_INLINE static void encode_block(float const* w, index_t n,
                                                  detail::grid_registers<Format, Arch> const& round,
                                                  std::uint8_t* codes) noexcept {
        simd::detail::code_block<Arch> const block = {
            {encode_register(w, n, round), encode_register(w + lanes, n - lanes, round),
             encode_register(w + 2 * lanes, n - 2 * lanes, round), encode_register(w + 3 * lanes, n - 3 * lanes, round)}};
        simd::detail::store_codes<Arch>(codes, block);
    }
    TESSERA_FORCE_INLINE static simd::ints<Arch> encode_register(float const* w, index_t n,
                                                                 detail::grid_registers<Format, Arch> const& round) noexcept {
        if (n >= lanes) return round.code(simd::load<Arch>(w));
        if (n <= 0) return simd::ints<Arch>(0);
        return round.code(simd::load_partial<Arch>(w, n));
    }
};

} // namespace tessera::inline TESSERA_ABI
