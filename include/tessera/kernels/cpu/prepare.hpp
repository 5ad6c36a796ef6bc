// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// x into its forms on the CPU.
///
/// int8, for each scale group with magnitude a = max |x|:
///
///     scale = a / 127        code = round_half_even(x * (127 / a))
///
/// in float32. a = 0 gives scale 0 and codes 0, and so does a below 127 / 2^128 = 3.7e-37, where 127 / a is not finite. A NaN
/// or infinity in the group gives scale NaN and codes 0, so the rows of y that depend on it are NaN (the card of integer
/// activations, contract 4).

#include "../../core/exec.hpp"
#include "../../core/view.hpp"
#include "../../simd/convert_block.hpp"
#include "../../simd/memory.hpp"
#include "../forms.hpp"
#include "../kernel.hpp"

#include <cmath>
#include <limits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Rows of x that one chunk prepares: about 16 K elements, so that a single row never pays for a parallel region.
constexpr index_t prepare_grain(index_t columns) noexcept { return maximum(1, 16384 / maximum(columns, 1)); }

/// columns [first, last) of a row of x as float32: a pointer into x where it is that already, else a copy in `copy`.
template <class Arch, class T>
float const* float_span(matrix_view<T const> const& x, index_t m, index_t first, index_t last, float* copy) noexcept {
    if (has_unit_stride(x)) {
        T const* const p = x.data_handle() + m * x.stride(0) + first;
        if constexpr (std::is_same_v<T, float>) {
            return p;
        } else {
            for (index_t i = 0; i < last - first; i += simd::lanes<Arch>) {
                index_t const n = minimum(simd::lanes<Arch>, last - first - i);
                simd::store_partial<Arch>(copy + i, simd::load_partial<Arch>(p + i, n), n);
            }
            return copy;
        }
    }
    for (index_t i = first; i < last; ++i) copy[i - first] = static_cast<float>(x(m, i));
    return copy;
}

/// max |x|; NaN where an element is NaN or infinite.
template <class Arch>
float magnitude(float const* x, index_t n) noexcept {
    using batch = simd::floats<Arch>;
    batch largest(0.0f);
    batch not_finite(0.0f); // x - x is 0 for finite x, NaN otherwise
    index_t i = 0;
    for (; i + simd::lanes<Arch> <= n; i += simd::lanes<Arch>) {
        batch const v = simd::load<Arch>(x + i);
        largest = xsimd::max(largest, xsimd::abs(v));
        not_finite = not_finite + (v - v);
    }
    float result = simd::reduce_max(largest);
    float bad = simd::reduce_add(not_finite);
    for (; i < n; ++i) {
        result = std::fabs(x[i]) > result ? std::fabs(x[i]) : result;
        bad += x[i] - x[i];
    }
    return bad == 0.0f ? result : std::numeric_limits<float>::quiet_NaN();
}

/// Codes of n values (n > 0), which are all written; returns their sum.
template <class Arch>
std::int32_t encode_int8(float const* x, index_t n, float inverse, std::int8_t* codes) noexcept {
    using batch = simd::floats<Arch>;
    simd::ints<Arch> sum(0);
    index_t i = 0;
    for (; i + simd::lanes<Arch> <= n; i += simd::lanes<Arch>) {
        simd::ints<Arch> const q = xsimd::nearbyint_as_int(simd::load<Arch>(x + i) * batch(inverse));
        sum = sum + q;
        simd::store_int8<Arch>(codes + i, q);
    }
    std::int32_t total = simd::reduce_add(sum);
    for (; i < n; ++i) {
        auto const q = static_cast<std::int32_t>(std::nearbyint(x[i] * inverse));
        codes[i] = static_cast<std::int8_t>(q);
        total += q;
    }
    return total;
}

/// One row of x into int8. `span(first, last)` gives columns [first, last) as float32, at most `longest` at a time.
template <class Arch, class Form, class Span>
void encode_int8_row(index_t columns, index_t longest, Span const& span, std::int8_t* codes, float* scales,
                     std::int32_t* sums, float* scaled_sums) noexcept {
    index_t const scale_group = Form::scale_group == 0 ? maximum(columns, 1) : Form::scale_group;
    float inverse = 0;
    if (columns == 0 && Form::scale_group == 0) scales[0] = 0.0f; // the row's scale is read, whatever its length
    for (index_t b = 0; b < Form::blocks_of(columns); ++b) {
        index_t const first = b * Form::block;
        index_t const n = minimum(Form::block, columns - first);
        if (first % scale_group == 0) {
            float a = 0;
            index_t const end = minimum(first + scale_group, columns);
            for (index_t k = first; k < end; k += longest) {
                index_t const last = minimum(k + longest, end);
                float const here = magnitude<Arch>(span(k, last), last - k);
                a = here > a || here != here ? here : a;
            }
            bool const usable = a > 0 && 127.0f / a <= std::numeric_limits<float>::max();
            scales[first / scale_group] = usable ? a / 127.0f : 0.0f * a; // 0, or NaN for NaN
            inverse = usable ? 127.0f / a : 0.0f;
        }
        std::int8_t* const out = codes + b * Form::padded_block;
        sums[b] = inverse == 0 ? 0 : encode_int8<Arch>(span(first, first + n), n, inverse, out);
        scaled_sums[b] = static_cast<float>(sums[b]) * (Form::scale_group == 0 ? 1.0f : scales[first / scale_group]);
        for (index_t i = inverse == 0 ? 0 : n; i < Form::padded_block; ++i) out[i] = 0;
    }
    for (index_t i = Form::blocks_of(columns) * Form::padded_block; i < Form::stride_of(columns); ++i) codes[i] = 0;
}

/// The common case of the above, at a third of the time: contiguous groups of 32 that are scaled by themselves, summed in
/// blocks of 32 or 16. False where a value is not finite; then what was written means nothing.
template <class Arch, index_t Block>
bool encode_int8_groups(float const* x, index_t groups, std::int8_t* codes, float* scales, std::int32_t* sums,
                        float* scaled_sums) noexcept {
    using batch = simd::floats<Arch>;
    constexpr index_t lanes = simd::lanes<Arch>;
    constexpr int vectors = static_cast<int>(32 / lanes);
    constexpr int blocks = static_cast<int>(32 / Block);
    batch not_finite(0.0f); // x - x is 0 for finite x, NaN otherwise
    // As many groups together as a register has lanes: they divide together, and no group waits for the one before.
    alignas(64) float largest[lanes];
    alignas(64) float inverse[lanes];
    for (index_t first = 0; first < groups; first += lanes) {
        index_t const here = minimum(lanes, groups - first);
        for (index_t g = 0; g < lanes; ++g) {
            batch most(0.0f);
            for (int i = 0; i < vectors && g < here; ++i) {
                batch const v = simd::load<Arch>(x + g * 32 + i * lanes);
                most = xsimd::max(most, xsimd::abs(v));
                not_finite = not_finite + (v - v);
            }
            largest[g] = simd::reduce_max(most);
        }
        batch const a = batch::load_aligned(largest);
        batch const quotient = simd::divide(batch(127.0f), a);
        auto const usable = (a > batch(0.0f)) & (quotient <= batch(std::numeric_limits<float>::max()));
        simd::select(usable, quotient, batch(0.0f)).store_aligned(inverse);
        simd::select(usable, simd::divide(a, batch(127.0f)), batch(0.0f)).store_aligned(largest);
        for (index_t g = 0; g < here; ++g) {
            scales[first + g] = largest[g];
            for (int b = 0; b < blocks; ++b) {
                simd::ints<Arch> sum(0);
                for (int i = b * (vectors / blocks); i < (b + 1) * (vectors / blocks); ++i) {
                    simd::ints<Arch> const q = xsimd::nearbyint_as_int(simd::load<Arch>(x + g * 32 + i * lanes) * batch(inverse[g]));
                    sum = sum + q;
                    simd::store_int8<Arch>(codes + g * 32 + i * lanes, q);
                }
                index_t const at = blocks * (first + g) + b;
                sums[at] = simd::reduce_add(sum);
                scaled_sums[at] = static_cast<float>(sums[at]) * largest[g];
            }
        }
        x += 32 * here;
        codes += 32 * here;
    }
    return simd::reduce_add(not_finite) == 0.0f;
}

} // namespace detail

template <class Arch, class Parallel, index_t SumGroup, class Preparation>
struct kernel<op::prepare, cpu<Arch, Parallel>, float_rows<SumGroup, Preparation>> {
    using type = float_rows<SumGroup, Preparation>;
    static constexpr bool rounds = std::is_same_v<Preparation, as_bf16>;

    /// float32 x with contiguous rows is used where it is.
    template <class T>
    static bool needs_copy(matrix_view<T const> const& x) noexcept {
        return rounds || !std::is_same_v<T, float> || !has_unit_stride(x);
    }

    template <class T, class Arena>
    static type plan(matrix_view<T const> const& x, Arena& arena) {
        type form;
        form.rows = x.extent(0);
        form.columns = x.extent(1);
        if constexpr (std::is_same_v<T, float> && !rounds) form.data = x.data_handle();
        form.stride = x.stride(0);
        if (needs_copy(x)) {
            form.stride = round_up(form.columns, 16);
            form.data = arena.template carve<float>(form.rows, form.stride);
        }
        if (SumGroup != 0) form.sums = arena.template carve<float>(form.rows, type::sums_of(form.columns));
        return form;
    }

    template <class T>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<T const> const& x, type const& form) noexcept {
        if (!needs_copy(x) && SumGroup == 0) return;
        auto const rows = [&](index_t first, index_t last, index_t) noexcept {
            for (index_t m = first; m < last; ++m) {
                // The arrays were carved for this call; const only for the terms that read them.
                auto* const data = const_cast<float*>(form.row(m));
                if (needs_copy(x)) {
                    float const* const p = detail::float_span<Arch>(x, m, 0, form.columns, data);
                    if constexpr (rounds)
                        for (index_t k = 0; k < form.columns; ++k) data[k] = static_cast<float>(static_cast<bf16>(p[k]));
                    else if (p != data)
                        std::memcpy(data, p, static_cast<std::size_t>(form.columns) * sizeof(float));
                }
                for (index_t g = 0; g < type::sums_of(form.columns); ++g) {
                    index_t const width = SumGroup < 0 ? form.columns : SumGroup;
                    float sum = 0;
                    for (index_t k = g * width; k < minimum((g + 1) * width, form.columns); ++k) sum += data[k];
                    const_cast<float*>(form.sums)[m * type::sums_of(form.columns) + g] = sum;
                }
            }
        };
        parallel_for(exec.parallel(), form.rows, detail::prepare_grain(form.columns), rows);
    }
};

template <class Arch, class Parallel>
struct kernel<op::prepare, cpu<Arch, Parallel>, bf16_rows> {
    template <class T, class Arena>
    static bf16_rows plan(matrix_view<T const> const& x, Arena& arena) {
        bf16_rows form;
        form.rows = x.extent(0);
        form.columns = x.extent(1);
        form.data = arena.template carve<bf16>(form.rows, bf16_rows::stride_of(form.columns));
        return form;
    }

    template <class T>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<T const> const& x, bf16_rows const& form) noexcept {
        constexpr index_t block = simd::block_size<Arch>;
        parallel_for(exec.parallel(), form.rows, detail::prepare_grain(form.columns),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t m = first; m < last; ++m) {
                             auto* const out = const_cast<bf16*>(form.row(m));
                             alignas(64) float staged[block];
                             for (index_t k = 0; k < form.columns; k += block) {
                                 index_t const n = minimum(block, form.columns - k);
                                 float const* const p = detail::float_span<Arch>(x, m, k, k + n, staged);
                                 if (n == block)
                                     simd::store_block<Arch, overflow::infinity>(out + k, simd::load_block<Arch>(p));
                                 else
                                     for (index_t i = 0; i < n; ++i) out[k + i] = static_cast<bf16>(p[i]);
                             }
                             for (index_t k = form.columns; k < bf16_rows::stride_of(form.columns); ++k) out[k] = bf16{};
                         }
                     });
    }
};

template <class Arch, class Parallel, index_t ScaleGroup, index_t Block>
struct kernel<op::prepare, cpu<Arch, Parallel>, int8_rows<ScaleGroup, Block>> {
    using type = int8_rows<ScaleGroup, Block>;

    template <class T, class Arena>
    static type plan(matrix_view<T const> const& x, Arena& arena) {
        type form;
        form.rows = x.extent(0);
        form.columns = x.extent(1);
        form.codes = arena.template carve<std::int8_t>(form.rows, type::stride_of(form.columns));
        form.scales = arena.template carve<float>(form.rows, type::scales_of(form.columns));
        form.sums = arena.template carve<std::int32_t>(form.rows, type::blocks_of(form.columns));
        form.scaled_sums = arena.template carve<float>(form.rows, type::blocks_of(form.columns));
        return form;
    }

    template <class T>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<T const> const& x, type const& form) noexcept {
        auto const rows = [&](index_t first, index_t last, index_t) noexcept {
            for (index_t m = first; m < last; ++m) {
                auto* const codes = const_cast<std::int8_t*>(form.row(m));
                auto* const scales = const_cast<float*>(form.scales) + m * type::scales_of(form.columns);
                auto* const sums = const_cast<std::int32_t*>(form.row_sums(m));
                auto* const scaled_sums = const_cast<float*>(form.scaled_sums) + m * type::blocks_of(form.columns);
                bool const in_place = std::is_same_v<T, float> && has_unit_stride(x);
                if constexpr (ScaleGroup == 32 && (Block == 32 || Block == 16) && std::is_same_v<T, float>)
                    if (in_place && form.columns % 64 == 0 && // no padding
                        detail::encode_int8_groups<Arch, Block>(x.data_handle() + m * x.stride(0), form.columns / 32, codes, scales,
                                                         sums, scaled_sums))
                        continue;
                alignas(64) float staged[type::padded_block];
                auto const span = [&](index_t k0, index_t k1) noexcept {
                    return detail::float_span<Arch>(x, m, k0, k1, staged);
                };
                detail::encode_int8_row<Arch, type>(form.columns, in_place ? maximum(form.columns, 1) : type::block, span,
                                                    codes, scales, sums, scaled_sums);
            }
        };
        parallel_for(exec.parallel(), form.rows, detail::prepare_grain(form.columns), rows);
    }
};

} // namespace tessera::inline TESSERA_ABI
