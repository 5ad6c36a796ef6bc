// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Vector codes (storage/vector_codebooks.hpp) in panels of R rows: `prepacked<code_panels<R>, vector_codebooks>`. What panels
/// share comes first: for every column, in the order of x, where its codes, centroids and residuals are, its scale and bias; then
/// the centroids and residuals of all codebooks, fp16. A panel holds for every column the codes of the vectors that its rows meet:
/// R / v of them where v divides R, one where R divides v, else as many as R rows can meet; indices in one or two bytes, then the
/// residuals' in as many as they need. The order of the columns and the bit streams are gone, codes are the same.

#include "prepacked.hpp"
#include "vector_codebooks.hpp"

#include <cstring>

namespace tessera::inline TESSERA_ABI {

/// R rows side by side, vectors of rows.
template <index_t R>
struct code_panels {
    static constexpr index_t rows = R;
};

/// Vector codes in panels; see the file comment. A view.
template <index_t R>
class prepacked<code_panels<R>, vector_codebooks> {
public:
    using is_tile_storage = void;
    using layout = code_panels<R>;
    using storage = vector_codebooks;
    /// What panels share of a column. Offsets: bytes in a panel, numbers in the arrays of centroids and residuals.
    struct column {
        index_t centroid;
        index_t residual;
        float scale;
        float bias;
        std::uint32_t codes;
        std::int32_t part;
    };

    constexpr prepacked() noexcept = default;
    constexpr prepacked(std::byte const* data, vector_codebooks const& w) noexcept : data_{data}, shape_{w.shape()} { measure(); }
    constexpr prepacked(std::byte const* data, prepacked const& other) noexcept : prepacked{other} { data_ = data; }

    constexpr index_t rows() const noexcept { return shape_.rows; }
    constexpr index_t cols() const noexcept { return shape_.cols(); }
    constexpr std::byte const* data() const noexcept { return data_; }
    constexpr vector_codebooks_shape const& shape() const noexcept { return shape_; }
    constexpr index_t panels() const noexcept { return cols() == 0 ? 0 : ceil_div(rows(), R); }
    constexpr index_t panel_bytes() const noexcept { return panel_bytes_; }
    constexpr index_t centroid_offset() const noexcept { return round_up(cols() * static_cast<index_t>(sizeof(column)), 64); }
    constexpr index_t residual_offset() const noexcept { return centroid_offset() + numbers_bytes(&codebook_layout::centroid_count); }
    constexpr index_t shared_bytes() const noexcept {
        return panels() == 0 ? 0 : residual_offset() + numbers_bytes(&codebook_layout::residual_count);
    }
    constexpr index_t bytes() const noexcept { return shared_bytes() + panels() * panel_bytes(); }
    constexpr std::byte const* panel_data(index_t p) const noexcept { return data_ + shared_bytes() + p * panel_bytes(); }

    /// Vectors of v rows that R rows from a multiple of R on can meet.
    static constexpr index_t pieces(index_t v) noexcept {
        return R % v == 0 ? R / v : v % R == 0 ? 1 : ceil_div(R - 1, v) + 1;
    }
    static constexpr index_t index_bytes(int bits) noexcept { return ceil_div(bits, 8); }
    /// Bytes of a column of a panel.
    static constexpr index_t column_bytes(codebook_layout const& s) noexcept {
        return pieces(s.vector) * (index_bytes(s.index_bits) + index_bytes(s.residual_bits));
    }
    static std::uint32_t read(std::byte const* at, index_t bytes) noexcept {
        auto const* const p = reinterpret_cast<std::uint8_t const*>(at);
        return bytes == 2 ? static_cast<std::uint32_t>(p[0] | p[1] << 8) : p[0];
    }

    column const* columns() const noexcept { return reinterpret_cast<column const*>(data_); }
    fp16 const* centroids() const noexcept { return reinterpret_cast<fp16 const*>(data_ + centroid_offset()); }
    fp16 const* residuals() const noexcept { return reinterpret_cast<fp16 const*>(data_ + residual_offset()); }

    /// Element (n, k) of the panel of row n at `panel`: the layout's definition.
    float element(std::byte const* panel, index_t n, index_t k) const noexcept {
        column const& c = columns()[k];
        codebook_layout const& s = shape_.part[c.part];
        index_t const piece = n / s.vector - n / R * R / s.vector;
        index_t const ib = index_bytes(s.index_bits);
        index_t const rb = index_bytes(s.residual_bits);
        std::byte const* const codes = panel + c.codes;
        float value = static_cast<float>(centroids()[c.centroid + static_cast<index_t>(read(codes + piece * ib, ib)) * s.vector + n % s.vector]);
        if (rb > 0) {
            std::uint32_t const r = read(codes + pieces(s.vector) * ib + piece * rb, rb);
            value += static_cast<float>(residuals()[c.residual + static_cast<index_t>(r) * s.vector + n % s.vector]);
        }
        return std::fma(c.scale, value, c.bias);
    }
    void decode_tile(index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) const noexcept {
        for (index_t n = n0; n < n1; ++n)
            for (index_t k = k0; k < k1; ++k) out[(n - n0) * stride + k - k0] = element(panel_data(n / R), n, k);
    }
    template <class F>
    void for_each_array(F const& f) const {
        f(data_, bytes());
    }

private:
    /// Bytes of both parts' numbers, and a register's more: vectors are read whole.
    constexpr index_t numbers_bytes(index_t (codebook_layout::*count)() const noexcept) const noexcept {
        return round_up(((shape_.part[0].*count)() + (shape_.part[1].*count)() + 32) * static_cast<index_t>(sizeof(fp16)), 64);
    }
    constexpr void measure() noexcept {
        index_t bytes = 0;
        for (codebook_layout const& s : shape_.part) bytes += s.columns * column_bytes(s);
        panel_bytes_ = round_up(bytes + 1, 64); // codes of one byte are read as two
    }

    std::byte const* data_ = nullptr;
    vector_codebooks_shape shape_{};
    index_t panel_bytes_ = 0;
};

/// Writes what all panels share.
template <index_t R>
void pack_shared(vector_codebooks const& w, prepacked<code_panels<R>, vector_codebooks> const& packed, std::byte* out) noexcept {
    using target = prepacked<code_panels<R>, vector_codebooks>;
    if (packed.shared_bytes() == 0) return;
    std::memset(out, 0, static_cast<std::size_t>(packed.shared_bytes()));
    vector_codebooks_shape const& shape = w.shape();
    auto* const columns = reinterpret_cast<typename target::column*>(out);
    std::uint32_t codes = 0;
    for (index_t k = 0; k < w.cols(); ++k) {
        auto const at = w.place(k);
        codebook_layout const& s = shape.part[at.part];
        // The parts' numbers follow each other. Without a scale: 1 and -0, which change no number.
        index_t const first = at.part == 0 ? 0 : shape.part[0].centroid_count();
        index_t const first_residual = at.part == 0 ? 0 : shape.part[0].residual_count();
        columns[k] = {first + (at.group * s.vector << s.index_bits), first_residual + (at.group * s.vector << s.residual_bits),
                      w.scale(k), w.has_scale() ? w.bias(k) : -0.0f, codes, at.part};
        codes += static_cast<std::uint32_t>(target::column_bytes(s));
    }
    auto const copy = [](std::byte* to, fp16 const* from, index_t count) noexcept {
        if (count > 0) std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(fp16));
        return to + count * static_cast<index_t>(sizeof(fp16));
    };
    std::byte* to = out + packed.centroid_offset();
    for (int p = 0; p < 2; ++p) to = copy(to, w.part(p).centroids, shape.part[p].centroid_count());
    to = out + packed.residual_offset();
    for (int p = 0; p < 2; ++p) to = copy(to, w.part(p).residuals, shape.part[p].residual_count());
}

/// Writes panel p at `out`.
template <index_t R>
void pack_panel(vector_codebooks const& w, prepacked<code_panels<R>, vector_codebooks> const& packed, index_t p, std::byte* out) noexcept {
    using target = prepacked<code_panels<R>, vector_codebooks>;
    auto const write = [](std::byte*& to, std::uint32_t code, index_t bytes) noexcept {
        for (index_t b = 0; b < bytes; ++b) *to++ = static_cast<std::byte>(code >> (8 * b) & 0xffu);
    };
    std::byte* to = out;
    for (index_t k = 0; k < w.cols(); ++k) {
        auto const at = w.place(k);
        codebook_layout const& s = w.shape().part[at.part];
        std::uint32_t code[R + 1];
        index_t const pieces = target::pieces(s.vector);
        index_t const first = p * R / s.vector;
        for (index_t j = 0; j < pieces; ++j) code[j] = first + j < s.vectors(w.rows()) ? w.code(at, first + j) : 0;
        for (index_t j = 0; j < pieces; ++j) write(to, code[j] & ((1u << s.index_bits) - 1u), target::index_bytes(s.index_bits));
        for (index_t j = 0; j < pieces; ++j) write(to, code[j] >> s.index_bits, target::index_bytes(s.residual_bits));
    }
    std::memset(to, 0, static_cast<std::size_t>(out + packed.panel_bytes() - to));
}

} // namespace tessera::inline TESSERA_ABI
