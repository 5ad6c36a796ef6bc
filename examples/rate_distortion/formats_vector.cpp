// SPDX-License-Identifier: MIT
// Codes that stand for several weights. **Add yours here: a line.**
#include "format.hpp"

#include <tessera/quant/higgs.hpp>
#include <tessera/quant/pvq.hpp>
#include <tessera/quant/vptq.hpp>

namespace rate_distortion {

namespace {

/// Points of a grid for Dims rotated weights; the error of the grid, to what scales in fp16 and a finite rotation leave open.
template <index_t Dims, int Bits>
format higgs(std::string name) {
    return row(std::move(name), family::vectors,
               [](weight_view const& w) {
                   index_t group = 1024; // the largest rotation that needs no padding
                   while (group > 128 && w.extent(1) % group != 0) group -= 128;
                   return ts::quantize_higgs<Dims, Bits>(w, {.group = group});
               })
        .expect(ts::gaussian_grid_error<Dims, Bits>, 0.01);
}

template <class Format, int GainBits>
format pyramid(std::string name) {
    return row(std::move(name), family::vectors,
               [](weight_view const& w) { return ts::quantize_pvq<Format, ts::gain_code<GainBits>>(w); });
}

format vptq(std::string name, ts::vptq_options const& options) {
    return row(std::move(name), family::vectors, [options](weight_view const& w) { return ts::quantize_vptq(w, options); }).slow();
}

} // namespace

void add_vectors(std::vector<format>& out) {
    out.push_back(higgs<1, 2>("HIGGS 1 x 2"));
    out.push_back(higgs<1, 3>("HIGGS 1 x 3"));
    out.push_back(higgs<1, 4>("HIGGS 1 x 4"));
    out.push_back(higgs<2, 4>("HIGGS 2 x 4"));
    out.push_back(higgs<2, 6>("HIGGS 2 x 6"));
    out.push_back(higgs<2, 8>("HIGGS 2 x 8"));
    out.push_back(higgs<4, 4>("HIGGS 4 x 4"));
    out.push_back(higgs<4, 8>("HIGGS 4 x 8"));
    out.push_back(pyramid<ts::pvq<16, ts::pvq_pulses(16, 32), 7>, 4>("PVQ 16, 32 bits"));
    out.push_back(pyramid<ts::pvq<32, ts::pvq_pulses(32, 64), 3>, 4>("PVQ 32, 64 bits"));
    out.push_back(pyramid<ts::pvq<32, ts::pvq_pulses(32, 96), 7>, 4>("PVQ 32, 96 bits"));
    // Codebooks belong to the matrix: what they take is for a matrix of this size.
    out.push_back(vptq("VPTQ 8, 8 bits", {.vector = 8, .index_bits = 8, .iterations = 20}));
    out.push_back(vptq("VPTQ 4, 8 bits", {.vector = 4, .index_bits = 8, .iterations = 20}));
    out.push_back(vptq("VPTQ 8, 8 + 8 bits", {.vector = 8, .index_bits = 8, .residual_bits = 8, .iterations = 20}));
}

} // namespace rate_distortion
