// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The decoder of vectors that lie along the rows of a panel (storage/vector_panels.hpp): a column of R lanes is R / v vectors of
/// halves beside each other, or a part of one, loaded and widened; the residuals' are added; then one multiply-add. Vectors whose
/// length neither divides R nor is a multiple of it are decoded number by number. One row of x meets the columns of four panels as
/// they are decoded: they share what a column has in common, and their sums keep each other's units busy.

#include "../../simd/lookup.hpp"
#include "../../storage/vector_panels.hpp"
#include "vector.hpp"

namespace tessera::inline TESSERA_ABI::detail {

template <class Arch, index_t R>
struct panel_decoder<Arch, prepacked<code_panels<R>, vector_codebooks>> {
    static_assert(R == simd::lanes<Arch>,
                  "tessera: this operand was placed for another architecture; place it with the policy that applies it");
    using weights = prepacked<code_panels<R>, vector_codebooks>;
    using floats = simd::floats<Arch>;
    static constexpr bool is_placed = true;

    static weights shape(weights const& w, std::byte const* data) noexcept { return weights{data, w}; }
    static index_t scratch_bytes(weights const&) noexcept { return 0; }

    panel_decoder(weights const& w, std::byte*) noexcept : w_{w} {}
    void start(index_t p) noexcept { start_at(w_.panel_data(p), p); }
    void start_at(std::byte const* panel, index_t p) noexcept {
        panel_ = panel;
        row_ = p * R;
    }

    void decode(index_t k0, index_t k1, float* out) const noexcept {
        int const vector = w_.shape().part[1].vector;
        if (R == 16 && vector == 8)
            decode_columns<minimum(8, R)>(k0, k1, out);
        else if (R >= 8 && vector == 4)
            decode_columns<minimum(4, R)>(k0, k1, out);
        else if (vector % R == 0)
            decode_columns<R>(k0, k1, out);
        else
            for (index_t k = k0; k < k1; ++k) by_element(k, out + (k - k0) * R);
    }

    /// Panels that one row of x meets together.
    static constexpr int row_panels = 4;
    static bool has_row_product(weights const& w) noexcept { return R >= 8 && w.shape().part[1].vector == 8; }
    /// result[q] = panel q of these by a row of x; where `has_row_product`.
    template <int NP>
    static void row_product(panel_decoder const* const (&panel)[NP], float const* x, floats (&result)[NP]) noexcept {
        if constexpr (R >= 8) {
            codebook_layout const& s = panel[0]->w_.shape().part[1];
            bool const is_short = s.index_bits <= 8;
            if (s.residual_bits == 0)
                is_short ? columns_product<1, 0, NP>(panel, x, result) : columns_product<2, 0, NP>(panel, x, result);
            else if (s.residual_bits <= 8)
                is_short ? columns_product<1, 1, NP>(panel, x, result) : columns_product<2, 1, NP>(panel, x, result);
            else
                is_short ? columns_product<1, 2, NP>(panel, x, result) : columns_product<2, 2, NP>(panel, x, result);
        }
    }

    static std::string name(weights const& w) {
        codebook_layout const& s = w.shape().part[1];
        return std::to_string(s.index_bits) + "-bit codes of " + std::to_string(s.vector) + " rows" +
               (s.residual_bits > 0 ? ", residuals of " + std::to_string(s.residual_bits) + " bits" : "") + ", code_panels<" +
               std::to_string(R) + ">";
    }

private:
    void by_element(index_t k, float* out) const noexcept {
        for (index_t r = 0; r < R; ++r) out[r] = w_.element(panel_, row_ + r, k);
    }
    /// Codes of one or two bytes without a branch: two bytes, and a mask.
    struct code_reader {
        index_t bytes;
        std::uint32_t mask;
        explicit code_reader(int bits) noexcept : bytes{weights::index_bytes(bits)}, mask{bytes == 1 ? 0xffu : 0xffffu} {}
        TESSERA_FORCE_INLINE index_t operator()(std::byte const* codes, index_t i) const noexcept {
            std::uint16_t two;
            std::memcpy(&two, codes + i * bytes, sizeof two);
            return static_cast<index_t>(two & mask);
        }
    };
    /// R numbers from R / Piece vectors of `numbers`, of each the Piece from `first` on.
    template <index_t Piece>
    TESSERA_FORCE_INLINE static floats load(fp16 const* numbers, std::byte const* codes, code_reader const& read, index_t vector, index_t first) noexcept {
        fp16 const* piece[R / Piece];
#pragma GCC unroll 4
        for (index_t j = 0; j < R / Piece; ++j) piece[j] = numbers + read(codes, j) * (Piece == R ? vector : Piece) + first;
        return simd::load_pieces<Arch, Piece>(piece);
    }
    /// Columns of the part whose vectors are Piece, or a multiple of R, long; outliers number by number.
    template <index_t Piece>
    void decode_columns(index_t k0, index_t k1, float* out) const noexcept {
        codebook_layout const s = w_.shape().part[1];
        code_reader const index{s.index_bits};
        code_reader const residual_index{s.residual_bits};
        index_t const first = Piece == R ? row_ % s.vector : 0;
        auto const* const columns = w_.columns();
        fp16 const* const centroids = w_.centroids();
        fp16 const* const residuals = w_.residuals();
        for (index_t k = k0; k < k1; ++k, out += R) {
            auto const& c = columns[k];
            if (c.part == 0) {
                by_element(k, out);
                continue;
            }
            std::byte const* const codes = panel_ + c.codes;
            simd::prefetch(codes + prefetch_distance);
            floats value = load<Piece>(centroids + c.centroid, codes, index, s.vector, first);
            if (s.residual_bits > 0)
                value = value + load<Piece>(residuals + c.residual, codes + R / Piece * index.bytes, residual_index, s.vector, first);
            simd::store<Arch>(out, simd::fma(floats(c.scale), value, floats(c.bias)));
        }
    }

    /// Vectors of 8 rows, of `numbers`, that codes of Bytes bytes name.
    template <index_t Bytes>
    TESSERA_FORCE_INLINE static floats vectors(fp16 const* numbers, std::byte const* codes) noexcept {
        fp16 const* piece[R / 8];
#pragma GCC unroll 2
        for (index_t j = 0; j < R / 8; ++j) {
            std::uint16_t code = 0;
            std::memcpy(&code, codes + j * Bytes, Bytes);
            piece[j] = numbers + 8 * static_cast<index_t>(code);
        }
        return simd::load_pieces<Arch, 8>(piece);
    }
    template <index_t IndexBytes, index_t ResidualBytes, int NP>
    static void columns_product(panel_decoder const* const (&panel)[NP], float const* x, floats (&result)[NP]) noexcept {
        weights const& w = panel[0]->w_;
        auto const* const columns = w.columns();
        fp16 const* const centroids = w.centroids();
        fp16 const* const residuals = w.residuals();
        std::byte const* data[NP];
        floats sum[NP]; // of its own: the compiler keeps it in registers
        for (int q = 0; q < NP; ++q) {
            data[q] = panel[q]->panel_;
            sum[q] = floats(0.0f);
        }
        constexpr index_t column_bytes = R / 8 * (IndexBytes + ResidualBytes);
        constexpr index_t columns_a_line = maximum(64 / column_bytes, 1);
        for (index_t k = 0; k < w.cols(); ++k) {
            auto const& c = columns[k];
            floats const a(x[k]);
            if (c.part == 0) {
                alignas(64) float column[R];
                for (int q = 0; q < NP; ++q) {
                    panel[q]->by_element(k, column);
                    sum[q] = simd::fma(floats::load_aligned(column), a, sum[q]);
                }
                continue;
            }
            floats const scale(c.scale);
            floats const bias(c.bias);
            if (k % columns_a_line == 0)
                for (int q = 0; q < NP; ++q) simd::prefetch(data[q] + c.codes + prefetch_distance / 4);
#pragma GCC unroll 4
            for (int q = 0; q < NP; ++q) {
                std::byte const* const codes = data[q] + c.codes;
                floats value = vectors<IndexBytes>(centroids + c.centroid, codes);
                if constexpr (ResidualBytes > 0) value = value + vectors<ResidualBytes>(residuals + c.residual, codes + R / 8 * IndexBytes);
                sum[q] = simd::fma(simd::fma(scale, value, bias), a, sum[q]);
            }
        }
        for (int q = 0; q < NP; ++q) result[q] = sum[q];
    }

    weights w_;
    std::byte const* panel_ = nullptr;
    index_t row_ = 0;
};

/// Canonical vector codes are packed when their turn comes.
template <class Arch>
struct panel_decoder<Arch, vector_codebooks>
    : packing_decoder<Arch, vector_codebooks, prepacked<code_panels<simd::lanes<Arch>>, vector_codebooks>> {
    using packing_decoder<Arch, vector_codebooks, prepacked<code_panels<simd::lanes<Arch>>, vector_codebooks>>::packing_decoder;
};

} // namespace tessera::inline TESSERA_ABI::detail
