// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of bf16 rows of x with storage that is read by tiles, where the processor has bf16 tiles: panels are decoded to float32
/// columns by their decoder (vector.hpp), 256 at a time, rounded to bf16 in pairs of columns, and go the way of all bf16 products
/// (product_bf16.hpp). Elsewhere x is rounded and the product is that of `as_is`.

#include "product_bf16.hpp"
#include "vector.hpp"

#include <algorithm>
#include <string>

namespace tessera::inline TESSERA_ABI {

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
namespace detail {

/// Decoders as panels: the "data" of a panel is its decoder.
template <class Decoder>
struct decoder_panels {
    index_t columns;
    index_t cols() const noexcept { return columns; }
    static constexpr index_t panel_bytes() noexcept { return sizeof(Decoder); }
};

/// Columns [first, last) of a decoder's panel, first a multiple of 256; padded with 0 to a multiple of 32.
template <class Arch, class Decoder>
void decode_pairs(decoder_panels<Decoder> const&, std::byte const* decoder, index_t first, index_t last, bf16* out) noexcept {
    using floats = simd::floats<Arch>;
    constexpr index_t R = simd::lanes<Arch>;
    alignas(64) float columns[decoded_columns * R];
    for (; first < last; first += decoded_columns) {
        index_t const end = minimum(first + decoded_columns, last);
        reinterpret_cast<Decoder const*>(decoder)->decode(first, end, columns);
        std::fill(columns + (end - first) * R, columns + round_up(end - first, 32) * R, 0.0f);
        for (index_t k = 0; k < round_up(end - first, 32); k += 2, out += 2 * R)
            simd::store_bf16_pairs(out, floats::load_aligned(columns + k * R), floats::load_aligned(columns + (k + 1) * R));
    }
}

} // namespace detail

template <class Arch, class Parallel, tile_storage Storage>
    requires(simd::multiplies_bf16<Arch>)
struct kernel<op::apply, cpu<Arch, Parallel>, linear<Storage, as_bf16>> {
    using exec_type = cpu<Arch, Parallel>;
    using operand = linear<Storage, as_bf16>;
    using decoder = detail::panel_decoder<Arch, Storage>;
    using panels = detail::decoder_panels<decoder>;
    using shape = detail::bf16_shape<Arch, panels>;
    using form = bf16_rows;
    using forms = type_list<form>;
    struct state {};
    static constexpr index_t R = simd::lanes<Arch>;
    /// Fewest rows for tiles.
    static constexpr index_t least_rows = 16;

    template <class Arena>
    static state plan(exec_type const&, operand const&, index_t, Arena&) noexcept {
        return {};
    }
    template <class Inputs>
    static void prepare(exec_type const&, operand const&, Inputs const&, state const&) noexcept {}
    static index_t scratch_bytes(operand const& w, tile_size tile) noexcept {
        return shape::panels * packed_bytes(w) + maximum(shape::tile_bytes(tile.m), shape::dot_bytes(w.cols()));
    }

    template <class Inputs>
    static void accumulate(operand const& w, Inputs const& inputs, state const&, product_task const& task, std::byte* scratch) noexcept {
        form const& x = inputs.template get<form>();
        if (w.cols() == 0) return;
        static_assert(shape::panels == 4);
        decoder decoders[4] = {at(w, scratch, 0), at(w, scratch, 1), at(w, scratch, 2), at(w, scratch, 3)};
        auto const* const data = reinterpret_cast<std::byte const*>(decoders);
        panels const packed{w.cols()};
        scratch += shape::panels * packed_bytes(w);
        bool const by_tiles = task.m1 - task.m0 >= least_rows && simd::amx_is_allowed();
        index_t const last = ceil_div(task.n1, R);
        for (index_t p = task.n0 / R; p < last;) {
            index_t const count = by_tiles ? minimum(shape::panels, last - p) : 1;
            for (index_t q = 0; q < count; ++q) decoders[q].start(p + q);
            if (by_tiles)
                detail::product_panels_bf16<Arch>(packed, data, count, x, task.m0, task.m1, scratch,
                                                  [&](index_t q, index_t m, simd::floats<Arch> const& value) noexcept {
                                                      detail::add_to_task<Arch>(task, m, (p + q) * R, value);
                                                  });
            else
                dots(packed, data, x, task, p, reinterpret_cast<bf16*>(scratch));
            p += count;
        }
    }

    static std::string describe(operand const& w, index_t m) {
        return decoder::name(w.storage()) + (m >= least_rows && simd::amx_is_allowed() ? ", bf16 tiles on decoded columns"
                                                                                       : ", bf16 dot products on decoded columns");
    }

private:
    static index_t packed_bytes(operand const& w) noexcept { return round_up(decoder::scratch_bytes(w.storage()), 64); }
    static decoder at(operand const& w, std::byte* scratch, index_t i) noexcept { return decoder{w.storage(), scratch + i * packed_bytes(w)}; }
    static void dots(panels const& packed, std::byte const* data, form const& x, product_task const& task, index_t p, bf16* pairs) noexcept {
        detail::decode_pairs<Arch>(packed, data, 0, packed.cols(), pairs);
        detail::for_row_blocks<detail::row_block<Arch>>(task.m0, task.m1, [&]<int MR>(index_t m) {
            simd::floats<Arch> result[MR];
            detail::product_panel_bf16<Arch, MR>(pairs, x, m, result);
            for (int i = 0; i < MR; ++i) detail::add_to_task<Arch>(task, m + i, p * R, result[i]);
        });
    }
};
#endif

} // namespace tessera::inline TESSERA_ABI
