// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Encodings whose codes stand for several weights, or are looked up in tables that are data: classes as in encodings.hpp.

#include "encodings.hpp"

#include <tessera/quant/any_precision.hpp>
#include <tessera/quant/higgs.hpp>
#include <tessera/quant/power.hpp>
#include <tessera/quant/pvq.hpp>
#include <tessera/quant/table_quantize.hpp>
#include <tessera/quant/vptq.hpp>

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

/// What `Method::encode` makes of weights, seen as `Method::view` of that: storage that is read by tiles.
template <class Method>
class looked_up {
    using owner = decltype(Method::encode(weight_view{}));
    using view_type = decltype(Method::view(std::declval<owner const&>()));

public:
    static constexpr index_t multiple = 1;
    explicit looked_up(weight_view const& w) : stored_{Method::encode(w)} {}
    index_t bytes() const { return view().bytes(); }
    void add_row(index_t n, float* out) const {
        ts::matrix<float> row{1, view().cols()};
        view().decode_tile(n, n + 1, 0, row.extent(1), row.data(), row.extent(1));
        for (index_t k = 0; k < row.extent(1); ++k) out[k] += row(0, k);
    }
    template <class Preparation>
    auto op() const {
        return ts::linear<view_type, Preparation>{view()};
    }

private:
    view_type view() const { return Method::view(stored_); }
    owner stored_;
};

/// Tables fitted to a tensor, rows or groups.
template <int Bits, class Granularity, class Scale = ts::unscaled>
struct fitted_tables {
    static auto encode(weight_view const& w) { return ts::quantize_tables<ts::table_quantized<Bits, Granularity, ts::fp16, Scale>>(w); }
    template <class Owner>
    static auto view(Owner const& owner) {
        return owner.view();
    }
};

/// The first Bits planes of codes of 8 (Any-Precision).
template <int Bits>
struct nested_codes {
    static auto encode(weight_view const& w) { return ts::quantize_any_precision(w); }
    static auto view(ts::any_precision_tensor const& owner) { return owner.prefix<Bits>(); }
};

/// Powers of equal steps; their exponent is the best of the first rows.
template <int Bits>
struct powers {
    static auto encode(weight_view const& w) {
        ts::cpu<ts::native_arch, ts::serial> const exec;
        return ts::quantize_power<Bits>(w, ts::find_power_exponent(exec, ts::rows(w, 0, ts::minimum(w.extent(0), 64)), Bits));
    }
    template <class Owner>
    static auto view(Owner const& owner) {
        return owner.view();
    }
};

/// Vectors of rows of a column, by a codebook of 256 for the matrix (VPTQ). Few steps: each takes as long as the code itself.
template <int Length>
struct column_vectors {
    static auto encode(weight_view const& w) { return ts::quantize_vptq(w, {.vector = Length, .index_bits = 8, .iterations = 4}); }
    static auto view(ts::vector_codebooks_tensor const& owner) { return owner.view(); }
};

} // namespace compress
