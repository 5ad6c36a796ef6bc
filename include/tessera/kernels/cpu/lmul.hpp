// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products by L-Mul on the CPU, for any storage that decodes: a register's width of rows of W is decoded and rounded to the
/// format, then every row of x is added to them, 16 columns at a time with AVX-512. Numbers of a narrower format stay float32
/// words: their low mantissa bits are 0, so the word's sum is the format's, and only the format's range has to be kept. On
/// processors with multiply-add this is no faster than a product; it computes what hardware with adders alone would.

#include "../../simd/reduce.hpp"
#include "../lmul.hpp"
#include "decode.hpp"
#include "gather.hpp"

#include <limits>
#include <string>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// n values rounded to `Format`, subnormal ones of it to zero, in place; whether one is not finite.
template <class Arch, class Format>
bool round_for_l_mul(float* x, index_t n) noexcept {
    bool bad = false;
    constexpr float least = least_normal<Format>;
    for (index_t k = 0; k < n; ++k) {
        float const v = Format::decode(Format::encode(x[k]));
        bad = bad || !(v - v == 0.0f);
        x[k] = v < least && v > -least ? 0.0f : v;
    }
    return bad;
}

/// The sum of L-Mul products of finite values of `Format`.
template <class Arch, class Format>
float l_mul_dot(float const* x, float const* w, index_t n) noexcept {
    using floats = simd::floats<Arch>;
    using ints = simd::ints<Arch>;
    constexpr auto word = [](float v) { return detail::bit_cast<std::int32_t>(v); };
    // C of the format in float32's word, whose bias is 127 and whose mantissa has 23 bits.
    constexpr int shift = l_mul_shift(fields_of<Format>.mantissa_bits);
    ints const constant((127 << 23) - (1 << (23 - shift)));
    ints const largest(word(Format::decode(fields_of<Format>.largest)));
    ints const least(word(least_normal<Format>));
    ints const magnitude(0x7fffffff);
    return simd::sum<Arch>(n, [&](index_t i, index_t count) noexcept {
        ints const a = simd::reinterpret<std::int32_t>(simd::load_partial<Arch>(x + i, count));
        ints const b = simd::reinterpret<std::int32_t>(simd::load_partial<Arch>(w + i, count));
        ints const p = a & magnitude;
        ints const q = b & magnitude;
        ints const sum = xsimd::min(p - constant, largest - q) + q; // saturated before it is made: no overflow
        ints const kept = simd::select(xsimd::min(p, q) > ints(0), sum, ints(0));
        ints const normal = simd::select(kept < least, ints(0), kept);
        return floats(simd::reinterpret<float>(ints(normal | ((a ^ b) & ~magnitude))));
    });
}

} // namespace detail

template <class Arch, class Parallel, class Format>
struct kernel<op::prepare, cpu<Arch, Parallel>, l_mul_rows<Format>> {
    using type = l_mul_rows<Format>;

    template <class T, class Arena>
    static type plan(matrix_view<T const> const& x, Arena& arena) {
        type form;
        form.rows = x.extent(0);
        form.columns = x.extent(1);
        form.data = arena.template carve<float>(form.rows, type::stride_of(form.columns));
        form.not_finite = arena.template carve<std::uint8_t>(form.rows);
        return form;
    }
    template <class T>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<T const> const& x, type const& form) noexcept {
        parallel_for(exec.parallel(), form.rows, detail::prepare_grain(form.columns),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t m = first; m < last; ++m) {
                             // The arrays were carved for this call; const only for the terms that read them.
                             auto* const row = const_cast<float*>(form.row(m));
                             for (index_t k = 0; k < form.columns; ++k) row[k] = static_cast<float>(x(m, k));
                             bool const bad = detail::round_for_l_mul<Arch, Format>(row, form.columns);
                             const_cast<std::uint8_t*>(form.not_finite)[m] = bad ? 1 : 0;
                         }
                     });
    }
};

template <class Arch, class Parallel, class Format>
struct kernel<op::gather, cpu<Arch, Parallel>, l_mul_rows<Format>> {
    using type = l_mul_rows<Format>;

    template <class Arena>
    static type plan(type const& from, index_t rows, Arena& arena) {
        return {arena.template carve<float>(rows, type::stride_of(from.columns)), arena.template carve<std::uint8_t>(rows), rows,
                from.columns};
    }
    static void run(cpu<Arch, Parallel> const&, type const& from, index_t const* row, type const& to) noexcept {
        index_t const step = type::stride_of(to.columns);
        for (index_t i = 0; i < to.rows; ++i) {
            detail::copy_row(from.data, step, row[i], to.data, step, i, to.columns);
            detail::copy_row(from.not_finite, 1, row[i], to.not_finite, 1, i, 1);
        }
    }
};

template <class Arch, class Parallel, class Storage, class Format>
struct kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, l_mul<Format>>> {
    using exec_type = cpu<Arch, Parallel>;
    using operand = linear<Storage, l_mul<Format>>;
    using decoder = kernel<op::decode, exec_type, Storage>;
    using form = l_mul_rows<Format>;
    using forms = type_list<form>;
    struct state {};
    static constexpr index_t R = simd::lanes<Arch>;

    template <class Arena>
    static state plan(exec_type const&, operand const&, index_t, Arena&) noexcept {
        return {};
    }
    template <class Inputs>
    static void prepare(exec_type const&, operand const&, Inputs const&, state const&) noexcept {}
    static index_t decoded_bytes(operand const& w) noexcept {
        return round_up(R * w.cols() * static_cast<index_t>(sizeof(float)), config::cache_line);
    }
    static index_t scratch_bytes(operand const& w, tile_size) noexcept {
        return decoded_bytes(w) + decoder::scratch_bytes(w.storage());
    }

    template <class Inputs>
    static void accumulate(operand const& w, Inputs const& inputs, state const&, product_task const& task,
                           std::byte* scratch) noexcept {
        form const& x = inputs.template get<form>();
        auto* const decoded = reinterpret_cast<float*>(scratch);
        index_t const columns = w.cols();
        for (index_t first = task.n0; first < task.n1;) {
            index_t const last = minimum((first / R + 1) * R, task.n1); // a panel, where they are placed
            decoder::tile(w.storage(), first, last, 0, columns, decoded, columns, scratch + decoded_bytes(w));
            for (index_t n = first; n < last; ++n) {
                float* const row = decoded + (n - first) * columns;
                bool const bad = detail::round_for_l_mul<Arch, Format>(row, columns);
                for (index_t m = task.m0; m < task.m1; ++m) {
                    float const dot = bad || x.not_finite[m] != 0 ? careful_dot(x.row(m), row, columns)
                                                                  : detail::l_mul_dot<Arch, Format>(x.row(m), row, columns);
                    task.accumulator[(m - task.m0) * task.stride + n - task.n0] += task.factor * dot;
                }
            }
            first = last;
        }
    }

    static std::string describe(operand const&, index_t) {
        return std::string{"L-Mul of "} + Format::name + ", integer addition on decoded rows";
    }

private:
    /// With NaN or infinity among the values.
    static float careful_dot(float const* x, float const* w, index_t n) noexcept {
        float dot = 0;
        for (index_t k = 0; k < n; ++k) dot += l_multiply<Format>(x[k], w[k]);
        return dot;
    }
};

} // namespace tessera::inline TESSERA_ABI
