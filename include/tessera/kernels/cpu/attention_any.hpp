// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The stages of attention over a cache whose formats are chosen at run time (storage/any_kv_cache.hpp): scores of a tile of keys,
/// weighted values of a tile, rows as floats. Each is compiled once for a format and an architecture, by the code that a cache of
/// that format alone uses, and called by number; the softmax between them knows no format. Bits are those of the typed cache.

#include "../../storage/any_kv_cache.hpp"
#include "attention_decode.hpp"
#include "attention_prefill_codes.hpp"
#include "attention_tile.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// Stages stop before the softmax.
struct no_score {
    template <class V>
    constexpr V operator()(V s, coord<V>) const noexcept {
        return s;
    }
};

/// Rows as bytes: of the side that a stage does not read, but for asking memory for it.
template <class T>
kv_rows<std::int8_t const> byte_rows(kv_rows<T const> const& r) noexcept {
    constexpr index_t size = sizeof(T);
    return {reinterpret_cast<std::int8_t const*>(r.data), r.head_stride * size, r.slot_stride * size, r.dim_stride};
}

/// A tile, and the side of the cache that a stage reads.
template <class Formats>
struct any_tile_task {
    kv_rows<any_kv_code<Formats> const> rows;
    kv_rows<std::int8_t const> other;
    index_t dim;
    index_t other_bytes; ///< of a row
    kv_view<std::int8_t, std::int8_t> geometry;
    decode_tile_task tile;

    /// What a typed stage is told of the call.
    template <class Key, class Value>
    attention_arguments<float, Key, Value, float, no_score> arguments() const noexcept {
        attention_arguments<float, Key, Value, float, no_score> a{};
        a.q = tensor_view<float const, 3>{nullptr, tile.queries, tile.heads, index_t{0}};
        a.kv.tokens = geometry.tokens;
        a.kv.kv_heads = geometry.kv_heads;
        a.kv.first_position = geometry.first_position;
        a.kv.tokens_after = geometry.tokens_after;
        a.kv.ring_size = geometry.ring_size;
        a.kv.first_slot = geometry.first_slot;
        a.kv.pages = geometry.pages;
        a.kv.page_size = geometry.page_size;
        a.kv.slots = geometry.slots;
        return a;
    }
};

template <class Formats, class K, class V>
any_tile_task<Formats> any_task(kv_view<K, V> const& kv, decode_tile_task const& tile) noexcept {
    any_tile_task<Formats> t{{}, {}, 0, 0, {}, tile};
    t.geometry.tokens = kv.tokens;
    t.geometry.kv_heads = kv.kv_heads;
    t.geometry.first_position = kv.first_position;
    t.geometry.tokens_after = kv.tokens_after;
    t.geometry.ring_size = kv.ring_size;
    t.geometry.first_slot = kv.first_slot;
    t.geometry.pages = kv.pages;
    t.geometry.page_size = kv.page_size;
    t.geometry.slots = kv.slots;
    return t;
}

template <class Arch, class T, class Formats>
struct any_stage {
    using task = any_tile_task<Formats>;
    using rows = kv_rows<any_kv_code<Formats> const>;

    static void scores(task const& t) noexcept {
        auto a = t.template arguments<T, std::int8_t>();
        a.kv.keys = typed_rows<T>(t.rows);
        a.kv.key_dim = t.dim;
        a.kv.values = t.other;
        a.kv.value_dim = t.other_bytes;
        decode_part<Arch, decltype(a)>{a, t.tile.scratch, t.tile.states, t.tile.kv_head, t.tile.part}.score_keys(t.tile);
    }
    static void values(task const& t) noexcept {
        auto a = t.template arguments<std::int8_t, T>();
        a.kv.values = typed_rows<T>(t.rows);
        a.kv.value_dim = t.dim;
        a.kv.keys = t.other;
        a.kv.key_dim = t.other_bytes;
        decode_part<Arch, decltype(a)>{a, t.tile.scratch, t.tile.states, t.tile.kv_head, t.tile.part}.add_values(t.tile);
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
    using tile_function = void (*)(any_tile_task<formats> const&) noexcept;
    using read_function = void (*)(kv_rows<any_kv_code<formats> const> const&, index_t, index_t const*, index_t, index_t, index_t,
                                   float*) noexcept;

    static constexpr tile_function scores[] = {&stage<Format>::scores...};
    static constexpr tile_function values[] = {&stage<Format>::values...};
    static constexpr read_function read[] = {&stage<Format>::read...};
};

template <class Arch, class View>
void any_scores(View const& kv, decode_tile_task const& tile) noexcept {
    using formats = typename View::key_type::formats;
    auto task = any_task<formats>(kv, tile);
    task.rows = kv.keys;
    task.dim = kv.key_dim;
    task.other = byte_rows(kv.values);
    task.other_bytes = task.other.slot_stride;
    any_stages<Arch, formats>::scores[kv.keys.format](task);
}
template <class Arch, class View>
void any_values(View const& kv, decode_tile_task const& tile) noexcept {
    using formats = typename View::value_type::formats;
    auto task = any_task<formats>(kv, tile);
    task.rows = kv.values;
    task.dim = kv.value_dim;
    task.other = byte_rows(kv.keys);
    task.other_bytes = task.other.slot_stride;
    any_stages<Arch, formats>::values[kv.values.format](task);
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

// The same of prefill from codes: what reads rows is called by number, products know no format.

#if defined(__AMX_INT8__) && defined(__linux__)
template <class Arch, class Formats>
    requires simd::multiplies_digits<Arch>
inline constexpr bool prefill_multiplies_codes<Arch, any_kv_code<Formats>> = true;

/// What a block asks of the side that has format T.
enum class any_code_question { fits, set_queries, stage_keys, stage_values };
template <class Formats>
struct any_code_task {
    any_code_question question;
    prefill_code_scratch const& scratch;
    index_t dim;
    kv_rows<any_kv_code<Formats> const> const& rows;
    index_t head_or_tile = 0;
    float const* queries = nullptr;
    index_t const* slots = nullptr;
    index_t n = 0;
    index_t group = 0; ///< the answer of `fits`
};
template <class Arch, class T, class Formats>
bool ask_any_codes(any_code_task<Formats>& t) noexcept {
    if constexpr (prefill_multiplies_codes<Arch, T>) {
        prefill_code_side<Arch, T> side{t.scratch, t.dim};
        auto const rows = typed_rows<T>(t.rows);
        t.group = code_format<T>::group(t.dim);
        switch (t.question) {
        case any_code_question::fits: return side.fits(rows);
        case any_code_question::set_queries: return side.set_queries(t.head_or_tile, t.queries);
        case any_code_question::stage_keys: return side.stage_keys(rows, t.head_or_tile, t.slots, t.n), true;
        case any_code_question::stage_values: return side.stage_values(rows, t.head_or_tile, t.slots, t.n);
        }
    }
    return false;
}
template <class Arch, class Formats>
struct any_code_sides;
template <class Arch, class... Format>
struct any_code_sides<Arch, kv_formats<Format...>> {
    using formats = kv_formats<Format...>;
    static constexpr bool (*ask[])(any_code_task<formats>&) noexcept = {&ask_any_codes<Arch, kv_element_of<Format>, formats>...};
};

template <class Arch, class Formats>
    requires simd::multiplies_digits<Arch>
class prefill_code_side<Arch, any_kv_code<Formats>> : public prefill_code_products<Arch> {
    using products = prefill_code_products<Arch>;
    using rows_type = kv_rows<any_kv_code<Formats> const>;
    using products::dim_, products::s_;

public:
    prefill_code_side(prefill_code_scratch const& s, index_t dim) noexcept : products{s, dim, dim} {}

    bool fits(rows_type const& rows) noexcept {
        any_code_task<Formats> task{any_code_question::fits, s_, dim_, rows};
        rows_ = &rows;
        if (!ask(task)) return false;
        products::operator=(products{s_, dim_, task.group});
        return true;
    }
    bool set_queries(index_t t, float const* q) const noexcept {
        any_code_task<Formats> task{any_code_question::set_queries, s_, dim_, *rows_, t, q};
        return ask(task);
    }
    void stage_keys(rows_type const& rows, index_t head, index_t const* slots, index_t n) const noexcept {
        any_code_task<Formats> task{any_code_question::stage_keys, s_, dim_, rows, head, nullptr, slots, n};
        ask(task);
    }
    bool stage_values(rows_type const& rows, index_t head, index_t const* slots, index_t n) const noexcept {
        any_code_task<Formats> task{any_code_question::stage_values, s_, dim_, rows, head, nullptr, slots, n};
        return ask(task);
    }

private:
    static bool ask(any_code_task<Formats>& t) noexcept { return any_code_sides<Arch, Formats>::ask[t.rows.format](t); }

    rows_type const* rows_ = nullptr;
};
#endif

} // namespace tessera::inline TESSERA_ABI::detail
