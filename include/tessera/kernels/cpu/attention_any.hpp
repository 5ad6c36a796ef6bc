// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The stages of attention over a cache whose formats are chosen at run time (storage/any_kv_cache.hpp): scores of a tile of keys,
/// weighted values of a tile, rows as floats. Each is compiled once for a format and an architecture, by the code that a cache of
/// that format alone uses, and called by number; the softmax between them knows no format. Bits are those of the typed cache.

#include "../../storage/any_kv_cache.hpp"
#include "attention_decode.hpp"
#include "attention_tile.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// Stages stop before the softmax.
struct no_score {
    template <class V>
    constexpr V operator()(V s, coord<V>) const noexcept {
        return s;
    }
};

/// What a typed stage is told of the call; sides that it does not read are bytes.
template <class Key, class Value, class Formats>
attention_arguments<float, Key, Value, float, no_score> stage_arguments(
    kv_view<any_kv_code<Formats>, any_kv_code<Formats>> const& kv, decode_tile_task const& t) noexcept {
    attention_arguments<float, Key, Value, float, no_score> a{};
    a.q = tensor_view<float const, 3>{nullptr, t.queries, t.heads, kv.key_dim};
    a.kv.keys = typed_rows<Key>(kv.keys);
    a.kv.values = typed_rows<Value>(kv.values);
    a.kv.tokens = kv.tokens;
    a.kv.kv_heads = kv.kv_heads;
    a.kv.key_dim = std::is_same_v<Key, std::int8_t> && kv.keys.scales == nullptr ? kv.keys.slot_stride : kv.key_dim;
    a.kv.value_dim = std::is_same_v<Value, std::int8_t> && kv.values.scales == nullptr ? kv.values.slot_stride : kv.value_dim;
    a.kv.first_position = kv.first_position;
    a.kv.ring_size = kv.ring_size;
    a.kv.first_slot = kv.first_slot;
    a.kv.pages = kv.pages;
    a.kv.page_size = kv.page_size;
    a.kv.slots = kv.slots;
    return a;
}

template <class Arch, class T, class Formats>
struct any_stage {
    using view = kv_view<any_kv_code<Formats>, any_kv_code<Formats>>;
    using rows = kv_rows<any_kv_code<Formats> const>;

    static void scores(view const& kv, decode_tile_task const& t) noexcept {
        auto const a = stage_arguments<T, std::int8_t>(kv, t);
        decode_part<Arch, std::remove_const_t<decltype(a)>>{a, t.scratch, t.states, t.kv_head, t.part}.score_keys(t.first, t.last);
    }
    static void values(view const& kv, decode_tile_task const& t) noexcept {
        auto const a = stage_arguments<std::int8_t, T>(kv, t);
        decode_part<Arch, std::remove_const_t<decltype(a)>>{a, t.scratch, t.states, t.kv_head, t.part}.add_values(t.first, t.last,
                                                                                                              t.hides);
    }
    /// Rows of n slots, elements [first, last) of each, as floats: to[i * (last - first) + d].
    static void read(rows const& from, index_t head, index_t const* slots, index_t n, index_t first, index_t last, float* to) noexcept {
        auto const typed = typed_rows<T>(from);
        for (index_t i = 0; i < n; ++i) stage_row<Arch>(typed, head, slots[i], first, last - first, to + i * (last - first));
    }
};

template <class Arch, class Formats>
struct any_stages;
template <class Arch, class... Format>
struct any_stages<Arch, kv_formats<Format...>> {
    using formats = kv_formats<Format...>;
    template <class F>
    using stage = any_stage<Arch, kv_element_of<F>, formats>;
    using view = kv_view<any_kv_code<formats>, any_kv_code<formats>>;
    using rows = kv_rows<any_kv_code<formats> const>;
    using tile_function = void (*)(view const&, decode_tile_task const&) noexcept;
    using read_function = void (*)(rows const&, index_t, index_t const*, index_t, index_t, index_t, float*) noexcept;

    static constexpr tile_function scores[] = {&stage<Format>::scores...};
    static constexpr tile_function values[] = {&stage<Format>::values...};
    static constexpr read_function read[] = {&stage<Format>::read...};
};

template <class Arch, class View>
void any_scores(View const& kv, decode_tile_task const& task) noexcept {
    any_stages<Arch, typename View::key_type::formats>::scores[kv.keys.format](kv, task);
}
template <class Arch, class View>
void any_values(View const& kv, decode_tile_task const& task) noexcept {
    any_stages<Arch, typename View::value_type::formats>::values[kv.values.format](kv, task);
}

// The functions of attention_tile.hpp for rows of such a cache.

template <class Arch, class Formats>
void stage_row(kv_rows<any_kv_code<Formats> const> const& rows, index_t head, index_t slot, index_t first, index_t n,
               float* to) noexcept {
    any_stages<Arch, Formats>::read[rows.format](rows, head, &slot, 1, first, first + n, to);
}
template <class Arch, class Formats>
void stage_keys(kv_rows<any_kv_code<Formats> const> const& rows, index_t head, index_t const* slots, index_t n, index_t dim,
                float* to) noexcept {
    any_stages<Arch, Formats>::read[rows.format](rows, head, slots, n, 0, dim, to);
}
template <class Arch, class Formats>
kv_rows<float const> decoded_rows(kv_rows<any_kv_code<Formats> const> const& from, index_t head, index_t const* slots, index_t n,
                                  index_t dim, float* rows) noexcept {
    any_stages<Arch, Formats>::read[from.format](from, head, slots, n, 0, dim, rows);
    return {rows, 0, dim, 1, nullptr, 0, dim};
}

} // namespace tessera::inline TESSERA_ABI::detail
