// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Look-up storage (storage/vector_storage.hpp) in panels: `prepacked<lookup<R>, Storage>`. A lane is a row. First, once, the
/// tensor's table if there is one, by component: dims arrays of max(16, 2^bits) floats, short ones repeated; or point by
/// point, where two dimensions have more than 64 points: both numbers come by one gather. Then panels of R rows:
///
///     tables of the rows: groups x R x 2^bits floats | scales: groups x R | chunks of 32 codes of each row
///
/// A chunk holds codes as slices of 8, 4, 2 and 1 bits, widest first, the widest the lowest bits of a code (3 bits are 2 + 1,
/// 7 are 4 + 2 + 1, 12 are 8 + 4): code c of a slice of s bits is at bit c s mod 32 of 32-bit word c s / 32 of its row, and the
/// R rows' words lie side by side. So b-bit codes take b bits, none straddles a word, and a code is one to three shifts.
/// Chunks are padded with code 0, the last panel with rows of code and scale 0.

#include "prepacked.hpp"
#include "vector_storage.hpp"

#include <cstddef>
#include <cstring>

namespace tessera::inline TESSERA_ABI {

/// R rows side by side, codes in slices.
template <index_t R>
struct lookup {
    static constexpr index_t rows = R;
};

namespace detail {

/// The slices of codes of `Bits` bits.
template <int Bits>
struct code_slices {
    static_assert(Bits >= 1 && Bits <= 16, "tessera: codes have 1 to 16 bits");
    static constexpr int count = Bits / 8 + (Bits >> 2 & 1) + (Bits >> 1 & 1) + (Bits & 1);
    /// Width of slice i, and the bit of the code, and the word of a chunk, at which it begins.
    static constexpr int width(int i) noexcept {
        if (i < Bits / 8) return 8;
        i -= Bits / 8;
        for (int w = 4; w > 0; w /= 2)
            if ((Bits & w) != 0 && i-- == 0) return w;
        return 0;
    }
    static constexpr int first(int i) noexcept { return i == 0 ? 0 : first(i - 1) + width(i - 1); }
};

} // namespace detail

/// Codes of look-ups in panels; see the file comment. A view.
template <index_t R, detail::lookup_storage Storage>
class prepacked<lookup<R>, Storage> {
public:
    using is_tile_storage = void;
    using layout = lookup<R>;
    using storage = Storage;
    using stored_scale = typename Storage::stored_scale;
    static constexpr int code_bits = Storage::code_bits;
    static constexpr index_t dims = Storage::dims;
    static constexpr detail::table_kind tables = Storage::tables;
    static constexpr bool has_scale = !std::is_same_v<stored_scale, detail::without_scale>;
    static constexpr index_t table_size = index_t{1} << code_bits;
    /// Floats of a component of the tensor's table.
    static constexpr index_t padded_size = maximum(table_size, 16);
    /// Whether the numbers of a point of the tensor's table are neighbours.
    static constexpr bool is_by_points = dims == 2 && code_bits > 6;
    /// Where number d of a code is in the tensor's table.
    static constexpr index_t table_place(std::uint32_t code, index_t d) noexcept {
        return is_by_points ? static_cast<index_t>(code) * dims + d : d * padded_size + static_cast<index_t>(code);
    }
    static constexpr index_t chunk_columns = 32 * dims;
    static constexpr index_t chunk_bytes = 4 * R * code_bits;

    constexpr prepacked() noexcept = default;
    constexpr prepacked(std::byte const* data, Storage const& shape) noexcept
        : data_{data}, rows_{shape.rows()}, cols_{shape.cols()}, group_{shape.group()} {}
    constexpr prepacked(std::byte const* data, prepacked const& shape) noexcept : prepacked{shape} { data_ = data; }

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    constexpr index_t group() const noexcept { return group_; }
    constexpr index_t groups() const noexcept { return ceil_div(cols_, group_); }
    constexpr std::byte const* data() const noexcept { return data_; }
    constexpr index_t panels() const noexcept { return cols_ == 0 ? 0 : ceil_div(rows_, R); }
    constexpr index_t shared_bytes() const noexcept {
        return tables == detail::table_kind::tensor && panels() > 0 ? padded_size * dims * static_cast<index_t>(sizeof(float)) : 0;
    }
    /// Of a panel, where scales and codes begin; tables come first.
    constexpr index_t scale_offset() const noexcept {
        if (tables == detail::table_kind::tensor) return 0;
        return (tables == detail::table_kind::row ? 1 : groups()) * R * table_size * static_cast<index_t>(sizeof(float));
    }
    constexpr index_t code_offset() const noexcept {
        return scale_offset() + (has_scale ? groups() * R * static_cast<index_t>(sizeof(stored_scale)) : 0);
    }
    constexpr index_t panel_bytes() const noexcept {
        return cols_ == 0 ? 0 : round_up(code_offset() + ceil_div(cols_, chunk_columns) * chunk_bytes, 64);
    }
    constexpr index_t bytes() const noexcept { return shared_bytes() + panels() * panel_bytes(); }
    constexpr std::byte const* panel_data(index_t p) const noexcept { return data_ + shared_bytes() + p * panel_bytes(); }

    /// The layout's definition.
    std::uint32_t code(index_t n, index_t i) const noexcept {
        using slices = detail::code_slices<code_bits>;
        std::byte const* word = panel_data(n / R) + code_offset() + i / 32 * chunk_bytes;
        std::uint32_t code = 0;
        for (int s = 0; s < slices::count; ++s) {
            index_t const bit = i % 32 * slices::width(s);
            std::uint32_t here;
            std::memcpy(&here, word + (bit / 32 * R + n % R) * 4, 4);
            code |= (here >> (bit % 32) & ((1u << slices::width(s)) - 1u)) << slices::first(s);
            word += slices::width(s) * R * 4;
        }
        return code;
    }
    void load_codes(index_t n, index_t first, index_t count, std::uint16_t* codes) const noexcept {
        for (index_t i = 0; i < count; ++i) codes[i] = static_cast<std::uint16_t>(code(n, first + i));
    }
    float table_value(index_t n, index_t g, std::uint32_t code, int d) const noexcept {
        if (tables == detail::table_kind::tensor) return reinterpret_cast<float const*>(data_)[table_place(code, d)];
        index_t const table = (tables == detail::table_kind::row ? 0 : g) * R + n % R;
        return reinterpret_cast<float const*>(panel_data(n / R))[table * table_size + code];
    }
    stored_scale scale(index_t n, index_t g) const noexcept {
        return reinterpret_cast<stored_scale const*>(panel_data(n / R) + scale_offset())[g * R + n % R];
    }
    void decode_tile(index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) const noexcept {
        detail::decode_lookups(*this, n0, n1, k0, k1, out, stride);
    }
    template <class F>
    void for_each_array(F const& f) const {
        f(data_, bytes());
    }

private:
    std::byte const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
    index_t group_ = 1;
};

namespace detail {

/// The words of 32 codes of row r.
template <int Bits, index_t R>
void pack_codes(std::uint16_t const (&codes)[32], index_t r, std::byte* chunk) noexcept {
    using slices = code_slices<Bits>;
    for (int s = 0; s < slices::count; ++s) {
        int const width = slices::width(s);
        int const each = 32 / width;
        for (int word = 0; word < width; ++word) {
            std::uint32_t bits = 0;
            for (int i = 0; i < each; ++i)
                bits |= (static_cast<std::uint32_t>(codes[word * each + i]) >> slices::first(s) & ((1u << width) - 1u)) << (i * width);
            std::memcpy(chunk + (word * R + r) * 4, &bits, 4);
        }
        chunk += width * R * 4;
    }
}

} // namespace detail

/// Writes what all panels share.
template <index_t R, detail::lookup_storage Storage>
void pack_shared(Storage const& w, prepacked<lookup<R>, Storage> const& packed, std::byte* out) noexcept {
    using target = prepacked<lookup<R>, Storage>;
    if (packed.shared_bytes() == 0) return;
    auto* const to = reinterpret_cast<float*>(out);
    for (index_t d = 0; d < target::dims; ++d)
        for (index_t c = 0; c < target::padded_size; ++c)
            to[target::table_place(static_cast<std::uint32_t>(c), d)] =
                w.table_value(0, 0, static_cast<std::uint32_t>(c % target::table_size), static_cast<int>(d));
}

/// Writes panel p at `out`.
template <index_t R, detail::lookup_storage Storage>
void pack_panel(Storage const& w, prepacked<lookup<R>, Storage> const& packed, index_t p, std::byte* out) noexcept {
    using target = prepacked<lookup<R>, Storage>;
    index_t const vectors = ceil_div(w.cols(), target::dims);
    auto* const tables = reinterpret_cast<float*>(out);
    for (index_t r = 0; r < R; ++r) {
        index_t const n = p * R + r;
        bool const exists = n < w.rows();
        if constexpr (target::tables != detail::table_kind::tensor)
            for (index_t g = 0; g < (target::tables == detail::table_kind::row ? 1 : packed.groups()); ++g)
                for (index_t c = 0; c < target::table_size; ++c)
                    tables[(g * R + r) * target::table_size + c] =
                        exists ? w.table_value(n, g, static_cast<std::uint32_t>(c), 0) : 0.0f;
        if constexpr (target::has_scale) {
            auto* const scales = reinterpret_cast<typename target::stored_scale*>(out + packed.scale_offset());
            for (index_t g = 0; g < packed.groups(); ++g)
                scales[g * R + r] = exists ? w.scale(n, g) : static_cast<typename target::stored_scale>(0.0f);
        }
        std::byte* chunk = out + packed.code_offset();
        for (index_t i = 0; i < vectors; i += 32, chunk += target::chunk_bytes) {
            std::uint16_t codes[32] = {};
            if (exists) w.load_codes(n, i, minimum(32, vectors - i), codes);
            detail::pack_codes<target::code_bits, R>(codes, r, chunk);
        }
    }
    index_t const used = packed.code_offset() + ceil_div(w.cols(), target::chunk_columns) * target::chunk_bytes;
    std::memset(out + used, 0, static_cast<std::size_t>(packed.panel_bytes() - used));
}

} // namespace tessera::inline TESSERA_ABI
