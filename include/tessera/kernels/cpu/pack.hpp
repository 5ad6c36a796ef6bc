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

/// Writes panel `p` of `w` at `out` (`packed.panel_bytes()` bytes); `packed` has the shape of w.
template <index_t R, coded_storage Storage>
void pack_panel(Storage const& w, prepacked<panel<R, 4>, Storage> const& packed, index_t p, std::byte* out) noexcept {
    using target = prepacked<panel<R, 4>, Storage>;
    using source = typename target::source;
    using scale_type = typename target::scale_type;
    using super_scale_type = typename target::super_scale_type;
    constexpr std::uint8_t padding = source::zero; // 0 where codes are no integers

    auto const place = [](std::byte* to, index_t r, auto stored) noexcept {
        std::memcpy(to + r * static_cast<index_t>(sizeof stored), &stored, sizeof stored);
    };
    for (index_t g = 0; g < packed.groups(); ++g) {
        std::byte* const record = out + packed.record_offset(g);
        if constexpr (target::super_groups > 0)
            if (g % target::super_groups == 0) {
                std::byte* const super = out + target::super_offset(g);
                for (index_t r = 0; r < R; ++r) {
                    index_t const n = p * R + r;
                    bool const exists = n < w.rows();
                    place(super, r, super_scale_type{exists ? source::super_scale(w, n, g * packed.group()) : 0.0f});
                    if constexpr (source::offset == offset_kind::minimum)
                        place(super + target::super_scale_bytes, r,
                              super_scale_type{exists ? source::super_minimum(w, n, g * packed.group()) : 0.0f});
                }
            }
        index_t const first = g * packed.group();
        index_t const columns = packed.group_columns(g);
        auto* const codes = reinterpret_cast<std::uint8_t*>(out + packed.codes_offset(g));
        int const within = target::first_column(g);
        index_t const padded = target::joins_groups ? columns : target::strips(columns) * target::strip_columns;
        if (within == 0) std::memset(codes, 0, static_cast<std::size_t>(target::strips(columns) * target::strip_bytes));
        for (index_t r = 0; r < R; ++r) {
            index_t const n = p * R + r;
            bool const exists = n < w.rows();
            if constexpr (target::packs_minima) {
                int const both = exists ? source::sub_scale(w, n, first) + 16 * source::sub_minimum(w, n, first) : 0;
                place(record, r, static_cast<std::uint8_t>(both));
            } else if constexpr (target::super_groups > 0) {
                place(record, r, static_cast<scale_type>(exists ? source::sub_scale(w, n, first) : 0));
                if constexpr (source::offset == offset_kind::minimum)
                    place(record + target::scale_bytes, r, static_cast<scale_type>(exists ? source::sub_minimum(w, n, first) : 0));
            } else {
                place(record, r, static_cast<scale_type>(exists ? source::scale(w, n, first) : 0.0f));
                if constexpr (source::offset == offset_kind::minimum)
                    place(record + target::scale_bytes, r, static_cast<scale_type>(exists ? source::minimum(w, n, first) : 0.0f));
            }
            if constexpr (source::offset == offset_kind::zero_point)
                record[target::scale_bytes + r] = static_cast<std::byte>(exists ? source::zero_point(w, n, first) : 0);
            for (index_t k = 0; k < padded; ++k) {
                std::uint32_t const code = exists && k < columns ? source::code(w, n, first + k) : padding;
                std::uint8_t* const strip = codes + target::strip_offset(within + k) + 4 * r + k % 4;
                auto const column = static_cast<int>((within + k) % target::strip_columns);
                for (int q = 0; q < target::planes.count; ++q) {
                    std::uint32_t const part = (code >> target::planes.shift[q]) & ((1u << target::planes.bits[q]) - 1u);
                    std::uint8_t& byte = strip[target::planes.vector(q, column) * target::vector_bytes];
                    byte = static_cast<std::uint8_t>(byte | part << target::planes.bit(q, column));
                }
            }
        }
    }
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
