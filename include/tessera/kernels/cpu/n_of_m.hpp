// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of N of every M weights with x on the CPU. A lane is a row of W. A group of x fits a register, and the
/// positions of R rows are a permutation of it: x is expanded in registers, and only kept weights are multiplied. Bytes and
/// work at M = 1, 2:4 in fp16: 36 bytes a step of 16 kept weights (32 dense ones), two shuffles, two simple operations and
/// a multiply-add: 15 GB/s are reached four times over.
///
/// Steps are dealt to two sums by their place in the panel, so a row of y has the same bits whatever else is in the batch.

#include "../../simd/sparse.hpp"
#include "../sparse_operand.hpp"
#include "apply.hpp"
#include "sparse_pack.hpp"

#include <cstring>
#include <string>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// The placed form of N of every M weights on an architecture.
template <class Arch, class Storage>
struct kept_form {};
template <class Arch, index_t N, index_t M, class T, class G>
struct kept_form<Arch, n_of_m<N, M, T, G>> {
    using type = prepacked<kept<simd::lanes<Arch>>, n_of_m<N, M, T, G>>;
    static constexpr bool is_placed = false;
};
template <class Arch, index_t R, class Storage>
struct kept_form<Arch, prepacked<kept<R>, Storage>> {
    static_assert(R == simd::lanes<Arch>,
                  "tessera: this operand was placed for another architecture; place it with the policy that applies it");
    using type = prepacked<kept<R>, Storage>;
    static constexpr bool is_placed = true;
};

template <class Storage>
inline constexpr bool is_n_of_m = false;
template <index_t N, index_t M, class T, class G>
inline constexpr bool is_n_of_m<n_of_m<N, M, T, G>> = true;
template <index_t R, class Storage>
inline constexpr bool is_n_of_m<prepacked<kept<R>, Storage>> = true;

/// N of every M weights, canonical or placed.
template <class Storage>
concept n_of_m_storage = is_n_of_m<Storage>;

/// A panel: placed, or packed into scratch.
template <class Arch, class Storage>
struct n_of_m_panels {
    using form = kept_form<Arch, Storage>;
    using weights = typename form::type;

    static weights shape(Storage const& w) noexcept {
        if constexpr (form::is_placed)
            return w;
        else
            return {nullptr, w.rows(), w.cols()};
    }
    static index_t scratch_bytes(Storage const& w) noexcept {
        return form::is_placed ? 0 : round_up(shape(w).panel_bytes(), config::cache_line);
    }
    static std::byte const* stage(Storage const& w, index_t p, std::byte* scratch) noexcept {
        if constexpr (form::is_placed) {
            static_cast<void>(scratch);
            return w.data() + p * w.panel_bytes();
        } else {
            pack_panel(w, shape(w), p, scratch);
            return scratch;
        }
    }
};

/// Bytes ahead of a step that are asked for: measured; further ahead reads 10 to 15% slower here.
inline constexpr index_t kept_prefetch = 1024;

/// The positions of slot `slot` of a record.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::ints<Arch> slot_positions(std::byte const* record, int slot) noexcept {
    constexpr int word_slots = static_cast<int>(Weights::word_slots);
    using ints = simd::ints<Arch>;
    auto const* const words = reinterpret_cast<std::int32_t const*>(record) + slot / word_slots * simd::lanes<Arch>;
    return (ints::load_unaligned(words) >> (slot % word_slots * Weights::position_bits)) &
           ints((1 << Weights::position_bits) - 1);
}

/// sum += the N slots from `first` on of a record, whose columns of x begin at x[m]; slots of even and odd number in turn.
template <class Arch, class Weights, int Odd, int MR>
TESSERA_FORCE_INLINE void multiply_slots(std::byte const* record, int first, float const* const (&x)[MR],
                                         simd::floats<Arch> (&sum)[2][MR]) noexcept {
    constexpr index_t R = simd::lanes<Arch>;
    constexpr index_t M = Weights::storage::group;
    auto const* const values =
        reinterpret_cast<typename Weights::stored_type const*>(record + Weights::positions_bytes);
#pragma GCC unroll 16
    for (int j = 0; j < static_cast<int>(Weights::storage::kept); ++j) {
        int const slot = first + j;
        simd::ints<Arch> const position = slot_positions<Arch, Weights>(record, slot);
        simd::floats<Arch> const value = simd::load<Arch>(values + slot * R);
        // One request a line: more of them than lines fill the queue of misses.
        if (slot * R * static_cast<index_t>(sizeof(*values)) % config::cache_line == 0)
            simd::prefetch(reinterpret_cast<std::byte const*>(values + slot * R) + kept_prefetch);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m)
            sum[(Odd + j) % 2][m] = simd::fma(value, simd::pick<Arch, M>(x[m], position), sum[(Odd + j) % 2][m]);
    }
}

/// Group `group` of a record.
template <class Arch, class Weights, int MR>
TESSERA_FORCE_INLINE void multiply_group(std::byte const* record, int group, float const* const (&x)[MR],
                                         simd::floats<Arch> (&sum)[2][MR]) noexcept {
    constexpr int N = static_cast<int>(Weights::storage::kept);
    // The sums are chosen at compile time: they stay in registers.
    if (group * N % 2 == 0)
        multiply_slots<Arch, Weights, 0, MR>(record, group * N, x, sum);
    else
        multiply_slots<Arch, Weights, 1, MR>(record, group * N, x, sum);
}

/// result[m] = a panel times row m of x, before scales. `columns`: of x.
template <class Arch, class Weights, int MR>
void product_panel_kept(Weights const& w, std::byte const* record, float const* const (&row)[MR],
                        simd::floats<Arch> (&result)[MR]) noexcept {
    constexpr index_t M = Weights::storage::group;
    constexpr index_t reach = simd::pick_reach<Arch, M>;
    constexpr index_t groups = Weights::record_groups;
    simd::floats<Arch> sum[2][MR];
    for (auto& half : sum)
        for (auto& s : half) s = simd::floats<Arch>(0.0f);
    float const* x[MR];
    index_t g = 0;
    // Whole records whose last group has a register's width of x behind it.
    for (; (g + groups - 1) * M + reach <= w.cols(); g += groups, record += Weights::record_bytes(groups)) {
        simd::prefetch(record + kept_prefetch);
#pragma GCC unroll 32
        for (int i = 0; i < static_cast<int>(groups); ++i) {
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) x[m] = row[m] + (g + i) * M;
            multiply_group<Arch, Weights, MR>(record, i, x, sum);
        }
    }
    alignas(64) float end[MR][reach];
    for (int i = 0; g < w.groups(); ++g) {
        index_t const here = minimum(reach, w.cols() - g * M);
        for (int m = 0; m < MR; ++m) {
            for (index_t c = 0; c < reach; ++c) end[m][c] = c < here ? row[m][g * M + c] : 0.0f;
            x[m] = end[m];
        }
        multiply_group<Arch, Weights, MR>(record, i, x, sum);
        if (++i == static_cast<int>(groups)) {
            i = 0;
            record += Weights::record_bytes(groups);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) result[m] = sum[0][m] + sum[1][m];
}

} // namespace detail

template <class Arch, class Parallel, detail::n_of_m_storage Storage, class Preparation>
struct kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, Preparation>> {
    using exec_type = cpu<Arch, Parallel>;
    using operand = linear<Storage, Preparation>;
    using staged = detail::n_of_m_panels<Arch, Storage>;
    using weights = typename staged::weights;
    using form = float_rows<0>;
    using forms = type_list<form>;
    struct state {};
    static constexpr index_t R = simd::lanes<Arch>;

    template <class Arena>
    static state plan(exec_type const&, operand const&, index_t, Arena&) noexcept {
        detail::require_as_is<Preparation>();
        return {};
    }
    template <class Inputs>
    static void prepare(exec_type const&, operand const&, Inputs const&, state const&) noexcept {}
    static index_t scratch_bytes(operand const& w, tile_size) noexcept { return staged::scratch_bytes(w.storage()); }

    template <class Inputs>
    static void accumulate(operand const& w, Inputs const& inputs, state const&, product_task const& task,
                           std::byte* scratch) noexcept {
        form const& x = inputs.template get<form>();
        weights const packed = staged::shape(w.storage());
        for (index_t p = task.n0 / R; p * R < task.n1; ++p) {
            std::byte const* const data = staged::stage(w.storage(), p, scratch);
            detail::for_row_blocks<detail::row_block<Arch>>(task.m0, task.m1, [&]<int MR>(index_t m) {
                float const* row[MR];
                for (int i = 0; i < MR; ++i) row[i] = x.row(m + i);
                simd::floats<Arch> result[MR];
                detail::product_panel_kept<Arch, weights, MR>(packed, data + weights::header_bytes, row, result);
                for (int i = 0; i < MR; ++i) {
                    if constexpr (weights::has_scale)
                        result[i] = result[i] * simd::load<Arch>(reinterpret_cast<float const*>(data));
                    detail::add_to_task<Arch>(task, m + i, p * R, result[i]);
                }
            });
        }
    }

    static std::string describe(operand const&, index_t) {
        using storage = typename weights::storage;
        return std::to_string(storage::kept) + " of " + std::to_string(storage::group) + " " +
               detail::sparse_value<typename storage::value_type>::name + ", kept<" + std::to_string(R) + ">" +
               (staged::form::is_placed ? "" : " packed on the fly") + ", float multiply-add on permuted x";
    }
};

} // namespace tessera::inline TESSERA_ABI
