// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Canonical storage into panels (storage/prepacked.hpp describes them): what `place` does to the whole matrix, and what
/// a product with an operand that was not placed does to a panel at a time, in scratch memory.

#include "../../storage/prepacked.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Writes the super scales at `super` of rows of w from n0 on, of the super group that begins with column `first`.
template <class Packed, class Storage>
void pack_super_scales(Storage const& w, index_t n0, index_t first, std::byte* super) noexcept {
    using source = code_source<Storage>;
    using type = typename Packed::super_scale_type;
    auto const place = [](std::byte* to, index_t r, type stored) noexcept { std::memcpy(to + r * static_cast<index_t>(sizeof stored), &stored, sizeof stored); };
    for (index_t r = 0; r < (Packed::shares_super_scales ? 1 : Packed::layout::rows); ++r) {
        bool const exists = n0 + r < w.rows();
        place(super, r, type{exists ? source::super_scale(w, n0 + r, first) : 0.0f});
        if constexpr (source::offset == offset_kind::minimum)
            place(super + Packed::super_scale_bytes, r, type{exists ? source::super_minimum(w, n0 + r, first) : 0.0f});
    }
}

/// Writes group g, all rows and columns, of a panel at `out`: rows of w from n0 on, the group's columns from `first` on.
template <class Packed, class Storage>
void pack_group(Storage const& w, Packed const& packed, index_t n0, index_t first, index_t g, std::byte* out) noexcept {
    using source = code_source<Storage>;
    using scale_type = typename Packed::scale_type;
    constexpr index_t R = Packed::layout::rows;
    constexpr std::uint8_t padding = source::zero; // 0 where codes are no integers

    auto const place = [](std::byte* to, index_t r, auto stored) noexcept {
        std::memcpy(to + r * static_cast<index_t>(sizeof stored), &stored, sizeof stored);
    };
    if (Packed::within_record(g) == 0) {
        index_t const begin = g == 0 ? 0 : packed.record_offset(g); // with what is before the first
        std::memset(out + begin, 0, static_cast<std::size_t>(packed.codes_offset(g) - begin));
    }
    if constexpr (Packed::super_groups > 0)
        if (g % Packed::super_groups == 0) pack_super_scales<Packed>(w, n0, first, out + packed.super_offset(g));
    std::byte* const scales = out + packed.scales_offset(g);
    index_t const columns = packed.group_columns(g);
    auto* const codes = reinterpret_cast<std::uint8_t*>(out + packed.codes_offset(g));
    int const within = Packed::first_column(g);
    index_t const padded = Packed::joins_groups ? columns : Packed::strips(columns) * Packed::strip_columns;
    if (within == 0) std::memset(codes, 0, static_cast<std::size_t>(Packed::strips(columns) * Packed::strip_bytes));
    for (index_t r = 0; r < R; ++r) {
        index_t const n = n0 + r;
        bool const exists = n < w.rows();
        if (Packed::shares_scales && r > 0) {
            // the first row's are all rows'
        } else if constexpr (Packed::packs_minima) {
            int const both = exists ? source::sub_scale(w, n, first) + 16 * source::sub_minimum(w, n, first) : 0;
            place(scales, r, static_cast<std::uint8_t>(both));
        } else if constexpr (Packed::super_groups > 0) {
            place(scales, r, static_cast<scale_type>(exists ? source::sub_scale(w, n, first) : 0));
            if constexpr (source::offset == offset_kind::minimum)
                place(scales + Packed::scale_bytes, r, static_cast<scale_type>(exists ? source::sub_minimum(w, n, first) : 0));
        } else {
            place(scales, r, static_cast<scale_type>(exists ? source::scale(w, n, first) : 0.0f));
            if constexpr (source::offset == offset_kind::minimum)
                place(scales + Packed::scale_bytes, r, static_cast<scale_type>(exists ? source::minimum(w, n, first) : 0.0f));
        }
        if (source::offset == offset_kind::zero_point && (!Packed::shares_scales || r == 0))
            scales[Packed::scale_bytes + r] = static_cast<std::byte>(exists ? source::zero_point(w, n, first) : 0);
        std::uint32_t absent = padding; // under a shared zero point that one is 0
        if constexpr (Packed::shares_scales && source::offset == offset_kind::zero_point)
            if (!exists) absent = static_cast<std::uint32_t>(source::zero_point(w, n0, first));
        for (index_t k = 0; k < padded; ++k) {
            std::uint32_t const code = exists && k < columns ? source::code(w, n, first + k) : absent;
            std::uint8_t* const strip = codes + Packed::strip_offset(within + k) + 4 * r + k % 4;
            auto const column = static_cast<int>((within + k) % Packed::strip_columns);
            for (int q = 0; q < Packed::planes.count; ++q) {
                std::uint32_t const part = (code >> Packed::planes.shift[q]) & ((1u << Packed::planes.bits[q]) - 1u);
                std::uint8_t& byte = strip[Packed::planes.vector(q, column) * Packed::vector_bytes];
                byte = static_cast<std::uint8_t>(byte | part << Packed::planes.bit(q, column));
            }
        }
    }
}

} // namespace detail

/// Writes panel `p` of `w` at `out` (`packed.panel_bytes()` bytes); `packed` has the shape of w.
template <index_t R, coded_storage Storage>
void pack_panel(Storage const& w, prepacked<panel<R, 4>, Storage> const& packed, index_t p, std::byte* out) noexcept {
    for (index_t g = 0; g < packed.groups(); ++g) detail::pack_group(w, packed, p * R, g * packed.group(), g, out);
}

/// Dense panels.
template <index_t R, class T>
void pack_panel(matrix_view<T const> const& w, prepacked<panel<R, 1>, matrix_view<T const>> const&, index_t p,
                std::byte* out) noexcept {
    auto* const to = reinterpret_cast<T*>(out);
    index_t const rows = minimum(R, w.extent(0) - p * R);
    for (index_t r = 0; r < R; ++r)
        for (index_t k = 0; k < w.extent(1); ++k) to[k * R + r] = r < rows ? w(p * R + r, k) : T{};
}

} // namespace tessera::inline TESSERA_ABI
