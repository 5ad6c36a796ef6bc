// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The decoder of vectors that lie along the rows of a panel (storage/vector_panels.hpp): a column of R lanes is R / v vectors of
/// halves beside each other, or a part of one, loaded and widened; the residuals' are added; then one multiply-add. Vectors whose
/// length neither divides R nor is a multiple of it are decoded number by number.

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
        for (index_t k = k0; k < k1; ++k, out += R) {
            codebook_layout const& s = w_.shape().part[w_.columns()[k].part];
            if (s.vector == 8 && R == 16)
                store_column<8>(k, s, out);
            else if (s.vector == 4 && R >= 8)
                store_column<4>(k, s, out);
            else if (s.vector % R == 0)
                store_column<R>(k, s, out);
            else
                for (index_t r = 0; r < R; ++r) out[r] = w_.element(panel_, row_ + r, k);
        }
    }

    static std::string name(weights const& w) {
        codebook_layout const& s = w.shape().part[1];
        return std::to_string(s.index_bits) + "-bit codes of " + std::to_string(s.vector) + " rows" +
               (s.residual_bits > 0 ? ", residuals of " + std::to_string(s.residual_bits) + " bits" : "") + ", code_panels<" +
               std::to_string(R) + ">";
    }

private:
    /// R numbers from R / Piece vectors of `numbers`, of each the Piece from `first` on.
    template <index_t Piece>
    TESSERA_FORCE_INLINE static floats load(fp16 const* numbers, std::byte const* codes, index_t bytes, index_t vector, index_t first) noexcept {
        fp16 const* piece[R / Piece];
#pragma GCC unroll 4
        for (index_t j = 0; j < R / Piece; ++j)
            piece[j] = numbers + static_cast<index_t>(weights::read(codes + j * bytes, bytes)) * vector + first;
        return simd::load_pieces<Arch, Piece>(piece);
    }
    template <index_t Piece>
    TESSERA_FORCE_INLINE void store_column(index_t k, codebook_layout const& s, float* out) const noexcept {
        auto const& c = w_.columns()[k];
        std::byte const* const codes = panel_ + c.codes;
        simd::prefetch(codes + prefetch_distance);
        index_t const ib = weights::index_bytes(s.index_bits);
        index_t const first = Piece == R ? row_ % s.vector : 0;
        floats value = load<Piece>(w_.centroids() + c.centroid, codes, ib, s.vector, first);
        if (s.residual_bits > 0)
            value = value + load<Piece>(w_.residuals() + c.residual, codes + R / Piece * ib, weights::index_bytes(s.residual_bits), s.vector, first);
        simd::store<Arch>(out, simd::fma(floats(c.scale), value, floats(c.bias)));
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
