// SPDX-License-Identifier: MIT
// Sparse weights, alone and as outliers. A few large weights ruin a quantised matrix, because they stretch the scale of
// their whole group. Kept apart in a sparse matrix they cost little, and base + outliers is still one operator.

#include <tessera/operators/apply.hpp>
#include <tessera/quant/quantize.hpp>
#include <tessera/sparse/place.hpp>
#include <tessera/sparse/sparsify.hpp>

#include "tour.hpp"

#include <cstdio>

namespace ts = tessera;

namespace {

template <class Weight>
void show(char const* name, ts::cpu<> const& exec, Weight const& layer, double bytes, ts::matrix<float> const& x,
          ts::matrix<float> const& exact) {
    ts::matrix<float> y{x.extent(0), layer.rows()};
    ts::apply(exec, layer, x, y);
    std::printf("%-28s %5.2f bits a weight, SNR of y %4.1f dB\n", name,
                8 * bytes / double(layer.rows() * layer.cols()), tour::snr(exact, y));
}

} // namespace

int main() {
    ts::cpu<> const exec;
    auto w = tour::normal(/*seed=*/1, 256, 512);
    for (ts::index_t i = 0; i < w.size(); i += 211) w.data()[i] *= 12; // one weight in 211 is far out
    auto const x = tour::normal(2, 32, 512);
    ts::matrix<float> exact{32, 256};
    ts::apply(ts::reference{}, ts::linear{w}, x, exact);

    // Sparse alone: two of every four weights, positions packed; or the largest tenth of all, in compressed rows.
    auto const pruned = ts::sparsify<ts::n_of_m<2, 4, ts::int8>>(w);
    auto const tenth = ts::sparsify<ts::csr<ts::fp16>>(w, ts::keep_fraction{0.1});
    show("2 of 4 in int8", exec, ts::linear{pruned}, double(pruned.bytes()), x, exact);
    show("the largest 10% in fp16", exec, ts::linear{tenth}, double(tenth.bytes()), x, exact);

    // Quantised alone: the groups with an outlier are coarse.
    auto const coarse = ts::quantize<ts::int4_g128>(w);
    show("int4_g128", exec, ts::linear{coarse}, double(coarse.bytes()), x, exact);

    // Outliers apart: take the largest 0.5% out, and quantise what is left.
    auto const outliers = ts::sparsify<ts::csr<ts::fp16>>(w, ts::keep_fraction{0.005});
    auto const taken = ts::densify(outliers);
    ts::matrix<float> rest{256, 512};
    for (ts::index_t i = 0; i < w.size(); ++i) rest.data()[i] = taken.data()[i] == 0 ? w.data()[i] : 0.0f;
    auto const q = ts::quantize<ts::int4_g128>(rest);
    auto const layer = ts::linear{q} + ts::linear{outliers};
    show("int4_g128 + 0.5% outliers", exec, layer, double(q.bytes() + outliers.bytes()), x, exact);

    // Placed, both are read in one pass over y; the transpose, for training, works as for any operator.
    auto const placed = ts::place(exec, layer);
    ts::matrix<float> y{32, 256}, dx{32, 512};
    ts::apply(exec, placed, x, y);
    ts::apply(exec, ts::transposed(placed.view()), y, dx);
    std::printf("placed: %ld outliers, SNR of y %.1f dB\n", long(outliers.nonzeros()), tour::snr(exact, y));
}
// Output:
// 2 of 4 in int8                5.06 bits a weight, SNR of y 10.9 dB
// the largest 10% in fp16       4.93 bits a weight, SNR of y  4.6 dB
// int4_g128                     4.12 bits a weight, SNR of y 10.8 dB
// int4_g128 + 0.5% outliers     4.49 bits a weight, SNR of y 21.6 dB
// placed: 655 outliers, SNR of y 21.6 dB
