// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Encodings whose codes stand for several weights: classes as in encodings.hpp.

#include "encodings.hpp"

#include <tessera/quant/higgs.hpp>
#include <tessera/quant/pvq.hpp>

namespace compress {

/// Weights that are rotated, and rounded Dims at a time to a grid of 2^Bits points (HIGGS).
template <index_t Dims, int Bits>
class grid_points {
public:
    static constexpr index_t multiple = 64;
    explicit grid_points(weight_view const& w)
        : stored_{ts::quantize_higgs<Dims, Bits>(w, {.group = group_of(w.extent(1))})} {}
    index_t bytes() const { return stored_.bytes(); }
    void add_row(index_t n, float* out) const {
        auto const codes = stored_.storage();
        ts::matrix<float> rotated{1, codes.cols()};
        ts::matrix<float> row{1, stored_.cols()};
        codes.decode_tile(n, n + 1, 0, codes.cols(), rotated.data(), codes.cols());
        ts::apply(ts::cpu<ts::native_arch, ts::serial>{}, ts::transposed(stored_.rotation()), rotated, row);
        for (index_t k = 0; k < row.extent(1); ++k) out[k] += row(0, k);
    }
    template <class Preparation>
    auto op() const {
        return ts::linear<ts::vector_grid<Dims, Bits>, Preparation>{stored_.storage()} * stored_.rotation();
    }

private:
    /// The largest order up to 1024 that needs no zeros.
    static index_t group_of(index_t k) {
        index_t group = 1024;
        while (k % group != 0 && group > 64) group -= 64;
        return group;
    }
    ts::higgs_tensor<Dims, Bits> stored_;
};

/// Groups of weights as points of a pyramid, with gains of GainBits bits (PVQ).
template <class Format, int GainBits>
class pyramid {
public:
    static constexpr index_t multiple = 1;
    explicit pyramid(weight_view const& w) : stored_{ts::quantize_pvq<Format, ts::gain_code<GainBits>>(w)} {}
    index_t bytes() const { return stored_.bytes(); }
    void add_row(index_t n, float* out) const {
        ts::matrix<float> row{1, stored_.cols()};
        stored_.view().decode(n, n + 1, 0, stored_.cols(), row.data(), stored_.cols());
        for (index_t k = 0; k < row.extent(1); ++k) out[k] += row(0, k);
    }
    template <class Preparation>
    auto op() const {
        return ts::linear<ts::pvq_matrix<Format, ts::gain_code<GainBits>>, Preparation>{stored_.view()};
    }

private:
    ts::pvq_tensor<Format, ts::gain_code<GainBits>> stored_;
};

} // namespace compress
