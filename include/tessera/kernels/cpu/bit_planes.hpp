// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products by bit planes on the CPU. With B planes of x and C of W, and D_ij the sum over k of the products of signs of plane i
/// of x and plane j of W,
///
///     sum over k of x w = sum over i, j of 2^(i + j) D_ij        D_ij = K - 2 popcount(x_i xor w_j)
///                       = K (2^B - 1)(2^C - 1) - 2 sum over i, j of 2^(i + j) popcount(x_i xor w_j)
///
/// where columns past the end differ in no plane. Counts with the same i + j share a register; all of it is exact, in 64 bits,
/// and becomes float once. Work is B C (xor, popcount, add) for 512 columns with AVX-512; an int8 dot product is 8 instructions
/// for as many.

#include "../../simd/popcount.hpp"
#include "../bit_plane_rows.hpp"
#include "../kernel.hpp"
#include "../operand.hpp"
#include "decode.hpp"
#include "gather.hpp"
#include "prepare.hpp"

#include <string>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Bit i of eight bytes as the eight bits of a number.
TESSERA_FORCE_INLINE std::uint64_t bits_of_bytes(std::uint64_t bytes, int i) noexcept {
    return (bytes >> i & 0x0101010101010101u) * 0x0102040810204080u >> 56;
}

/// Codes as two's complement (the code less 2^(Bits - 1)) of n values; returns their sum.
template <class Arch, int Bits>
std::int64_t encode_bipolar(float const* x, index_t n, float inverse, std::int8_t* codes) noexcept {
    using floats = simd::floats<Arch>;
    constexpr float top = static_cast<float>((1 << (Bits - 1)) - 1);
    std::int64_t sum = 0;
    alignas(64) std::int32_t lane[simd::lanes<Arch>];
    for (index_t k = 0; k < n; k += simd::lanes<Arch>) {
        index_t const count = minimum(simd::lanes<Arch>, n - k);
        floats const v = simd::load_partial<Arch>(x + k, count) * floats(inverse);
        // Magnitude 2 index + 1: both steps of (|v| - 1) / 2 are exact where |v| is at least 1.
        floats const above = simd::max((xsimd::abs(v) - floats(1.0f)) * floats(0.5f), floats(0.0f));
        auto const index = xsimd::nearbyint_as_int(simd::min(above, floats(top)));
        // -1 or 0; zeros of either sign are 1.
        auto const negative = simd::reinterpret<std::int32_t>(simd::select(v < floats(0.0f), floats(-1.0f), floats(0.0f))) >> 31;
        (index ^ negative).store_aligned(lane);
        for (index_t i = 0; i < count; ++i) {
            codes[k + i] = static_cast<std::int8_t>(lane[i]);
            sum += lane[i];
        }
    }
    return sum;
}

/// One chunk of codes in planes.
template <class Arch, int Bits>
void write_planes(std::int8_t const* codes, std::uint64_t* planes) noexcept {
    for (index_t j = 0; j < plane_words; ++j) {
        std::uint64_t word[Bits] = {};
        for (int byte = 0; byte < 8; ++byte) {
            std::uint64_t eight;
            std::memcpy(&eight, codes + 64 * j + 8 * byte, sizeof eight);
            for (int i = 0; i < Bits; ++i) word[i] |= bits_of_bytes(eight, i) << (8 * byte);
        }
        for (int i = 0; i < Bits; ++i) planes[i * plane_words + j] = word[i];
    }
}

/// Bytes of W ahead of a register that are asked for: counting fills the processor's window, which sees no further by itself.
/// Measured: 8 by 2 bits with one row of x from DRAM take 0.36 ms with 2048, 0.41 with 4096, 0.84 without.
inline constexpr index_t plane_prefetch = 2048;

/// totals[r] = sum over i, j of 2^(i + j) popcount(x_i xor w_j) for R rows of W.
template <class Arch, int XBits, int Bits, int R>
void count_planes(std::uint64_t const* x, std::uint64_t const* const (&w)[R], index_t chunks, std::int64_t (&totals)[R]) noexcept {
    using bits = simd::bit_register<Arch>;
    using reg = typename bits::type;
    constexpr int sums = XBits + Bits - 1;
    reg count[R][sums];
    for (int r = 0; r < R; ++r)
        for (int s = 0; s < sums; ++s) count[r][s] = bits::zero();
    for (index_t c = 0; c < chunks; ++c)
        for (index_t at = 0; at < plane_words; at += bits::words) {
            reg a[XBits];
            for (int i = 0; i < XBits; ++i) a[i] = bits::load(x + (c * XBits + i) * plane_words + at);
            for (int r = 0; r < R; ++r)
                for (int j = 0; j < Bits; ++j) {
                    std::uint64_t const* const from = w[r] + (c * Bits + j) * plane_words + at;
                    if (at == 0) simd::prefetch(reinterpret_cast<std::byte const*>(from) + plane_prefetch);
                    reg const b = bits::load(from);
                    for (int i = 0; i < XBits; ++i) count[r][i + j] = bits::add(count[r][i + j], bits::count_xor(a[i], b));
                }
        }
    for (int r = 0; r < R; ++r) {
        reg total = count[r][sums - 1];
        for (int s = sums - 2; s >= 0; --s) total = bits::add(bits::add(total, total), count[r][s]);
        totals[r] = bits::reduce(total);
    }
}

} // namespace detail

template <class Arch, class Parallel, int Bits>
struct kernel<op::prepare, cpu<Arch, Parallel>, bit_plane_rows<Bits>> {
    using type = bit_plane_rows<Bits>;

    template <class T, class Arena>
    static type plan(matrix_view<T const> const& x, Arena& arena) {
        type form;
        form.rows = x.extent(0);
        form.columns = x.extent(1);
        form.words = arena.template carve<std::uint64_t>(form.rows, type::row_words_of(form.columns));
        form.scales = arena.template carve<float>(form.rows);
        form.sums = arena.template carve<std::int64_t>(form.rows);
        return form;
    }

    template <class T>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<T const> const& x, type const& form) noexcept {
        parallel_for(exec.parallel(), form.rows, detail::prepare_grain(form.columns),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t m = first; m < last; ++m) row(x, form, m);
                     });
    }

private:
    template <class T>
    static void row(matrix_view<T const> const& x, type const& form, index_t m) noexcept {
        constexpr index_t chunk = detail::plane_columns;
        // The arrays were carved for this call; const only for the terms that read them.
        auto* const words = const_cast<std::uint64_t*>(form.row(m));
        alignas(64) float staged[chunk];
        alignas(64) std::int8_t codes[chunk];
        float a = 0;
        for (index_t k = 0; k < form.columns; k += chunk) {
            index_t const last = minimum(k + chunk, form.columns);
            float const here = detail::magnitude<Arch>(detail::float_span<Arch>(x, m, k, last, staged), last - k);
            a = here > a || here != here ? here : a;
            if (a != a) break;
        }
        detail::bipolar_scale const of{a, Bits};
        std::int64_t sum = 0;
        for (index_t k = 0; k < form.columns; k += chunk) {
            index_t const count = minimum(chunk, form.columns - k);
            for (index_t i = 0; i < chunk; ++i) codes[i] = 0;
            if (of.inverse != 0) {
                float const* const p = detail::float_span<Arch>(x, m, k, k + count, staged);
                sum += detail::encode_bipolar<Arch, Bits>(p, count, of.inverse, codes);
            }
            // Two's complement to unsigned: the highest plane is flipped. Past the end every plane is 0.
            for (index_t i = 0; i < count; ++i) codes[i] = static_cast<std::int8_t>(codes[i] ^ (1 << (Bits - 1)));
            detail::write_planes<Arch, Bits>(codes, words + k / chunk * detail::plane_words * Bits);
        }
        const_cast<float*>(form.scales)[m] = of.scale;
        const_cast<std::int64_t*>(form.sums)[m] = 2 * sum + form.columns; // x = 2 q + 1
    }
};

template <class Arch, class Parallel, int Bits>
struct kernel<op::gather, cpu<Arch, Parallel>, bit_plane_rows<Bits>> {
    using type = bit_plane_rows<Bits>;

    template <class Arena>
    static type plan(type const& from, index_t rows, Arena& arena) {
        return {arena.template carve<std::uint64_t>(rows, type::row_words_of(from.columns)), arena.template carve<float>(rows),
                arena.template carve<std::int64_t>(rows), rows, from.columns};
    }
    static void run(cpu<Arch, Parallel> const& exec, type const& from, index_t const* row, type const& to) noexcept {
        index_t const width = type::row_words_of(to.columns);
        parallel_for(exec.parallel(), to.rows, detail::gather_grain(8 * width), [&](index_t first, index_t last, index_t) noexcept {
            for (index_t i = first; i < last; ++i) {
                detail::copy_row(from.words, width, row[i], to.words, width, i, width);
                detail::copy_row(from.scales, 1, row[i], to.scales, 1, i, 1);
                detail::copy_row(from.sums, 1, row[i], to.sums, 1, i, 1);
            }
        });
    }
};

template <class Arch, class Parallel, int Bits, int XBits>
struct kernel<op::apply, cpu<Arch, Parallel>, linear<bit_planes<Bits>, bipolar_per_token<XBits>>> {
    using exec_type = cpu<Arch, Parallel>;
    using operand = linear<bit_planes<Bits>, bipolar_per_token<XBits>>;
    using form = bit_plane_rows<XBits>;
    using forms = type_list<form>;
    struct state {};

    /// Rows of W that pass over a row of x together: two where their sums fit the registers.
    static constexpr int together = XBits + Bits - 1 <= 8 ? 2 : 1;

    template <class Arena>
    static state plan(exec_type const&, operand const&, index_t, Arena&) noexcept {
        return {};
    }
    template <class Inputs>
    static void prepare(exec_type const&, operand const&, Inputs const&, state const&) noexcept {}
    static index_t scratch_bytes(operand const&, tile_size) noexcept { return 0; }

    template <class Inputs>
    static void accumulate(operand const& w, Inputs const& inputs, state const&, product_task const& task, std::byte*) noexcept {
        form const& x = inputs.template get<form>();
        index_t n = task.n0;
        for (; n + together <= task.n1; n += together) block<together>(w.storage(), x, task, n);
        for (; n < task.n1; ++n) block<1>(w.storage(), x, task, n);
    }

    static std::string describe(operand const&, index_t) {
        return std::to_string(XBits) + " by " + std::to_string(Bits) + " bit planes, xor and " + simd::bit_register<Arch>::name;
    }

private:
    template <int R>
    static void block(bit_planes<Bits> const& w, form const& x, product_task const& task, index_t n) noexcept {
        std::uint64_t const* rows[R];
        for (int r = 0; r < R; ++r) rows[r] = w.row(n + r);
        index_t const chunks = ceil_div(x.columns, detail::plane_columns);
        index_t const most = x.columns * ((1 << XBits) - 1) * ((1 << Bits) - 1);
        for (index_t m = task.m0; m < task.m1; ++m) {
            std::int64_t totals[R];
            detail::count_planes<Arch, XBits, Bits, R>(x.row(m), rows, chunks, totals);
            float const sum = static_cast<float>(x.sums[m]);
            float* const out = task.accumulator + (m - task.m0) * task.stride + (n - task.n0);
            for (int r = 0; r < R; ++r) {
                float const dot = w.scale(n + r) * static_cast<float>(most - 2 * totals[r]) + w.offset(n + r) * sum;
                out[r] += task.factor * (x.scales[m] * dot);
            }
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
