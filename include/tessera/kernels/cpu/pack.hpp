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
    constexpr std::uint8_t padding = source::is_integer ? source::zero : 0;

    auto const place = [](std::byte* to, index_t r, auto stored) noexcept {
        std::memcpy(to + r * static_cast<index_t>(sizeof stored), &stored, sizeof stored);
    };
    for (index_t g = 0; g < packed.groups(); ++g) {
        if constexpr (target::super_groups > 0)
            if (g % target::super_groups == 0) {
                for (index_t r = 0; r < R; ++r) {
                    index_t const n = p * R + r;
                    bool const exists = n < w.rows();
                    place(out, r, fp16{exists ? source::super_scale(w, n, g * packed.group()) : 0.0f});
                    if constexpr (source::offset == offset_kind::minimum)
                        place(out + target::super_scale_bytes, r,
                              fp16{exists ? source::super_minimum(w, n, g * packed.group()) : 0.0f});
                }
                out += target::super_bytes;
            }
        index_t const first = g * packed.group();
        index_t const columns = packed.group_columns(g);
        auto* const codes = reinterpret_cast<std::uint8_t*>(out + target::header_bytes);
        index_t const padded = target::vectors(columns) * target::vector_columns;
        for (index_t r = 0; r < R; ++r) {
            index_t const n = p * R + r;
            bool const exists = n < w.rows();
            if constexpr (target::super_groups > 0) {
                place(out, r, static_cast<scale_type>(exists ? source::sub_scale(w, n, first) : 0));
                if constexpr (source::offset == offset_kind::minimum)
                    place(out + target::scale_bytes, r, static_cast<scale_type>(exists ? source::sub_minimum(w, n, first) : 0));
            } else {
                place(out, r, static_cast<scale_type>(exists ? source::scale(w, n, first) : 0.0f));
                if constexpr (source::offset == offset_kind::minimum)
                    place(out + target::scale_bytes, r, static_cast<scale_type>(exists ? source::minimum(w, n, first) : 0.0f));
            }
            if constexpr (source::offset == offset_kind::zero_point)
                out[target::scale_bytes + r] = static_cast<std::byte>(exists ? source::zero_point(w, n, first) : 0);
            for (index_t k = 0; k < padded; ++k) {
                std::uint32_t const code = exists && k < columns ? source::code(w, n, first + k) : padding;
                index_t const within = k % target::vector_columns;
                index_t const at = k / target::vector_columns * target::vector_bytes + 4 * r + within % 4;
                if (target::width == 8 || within < 4)
                    codes[at] = static_cast<std::uint8_t>(code);
                else
                    codes[at] = static_cast<std::uint8_t>(codes[at] | code << 4);
            }
        }
        out += target::record_bytes(columns);
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
