// SPDX-License-Identifier: MIT
// Codes that stand for several weights. **Add yours here: a line.**
#include "format.hpp"

#include <tessera/quant/higgs.hpp>
#include <tessera/quant/pvq.hpp>

namespace rate_distortion {

namespace {

/// Points of a grid for Dims rotated weights; `published` is the error of the grid.
template <index_t Dims, int Bits>
format higgs(std::string name, double published, double tolerance) {
    return row(std::move(name), family::vectors,
               [](weight_view const& w) {
                   index_t group = 1024; // the largest rotation that needs no padding
                   while (group > 128 && w.extent(1) % group != 0) group -= 128;
                   return ts::quantize_higgs<Dims, Bits>(w, {.group = group});
               })
        .expect(published, tolerance);
}

template <class Format, int GainBits>
format pyramid(std::string name) {
    return row(std::move(name), family::vectors,
               [](weight_view const& w) { return ts::quantize_pvq<Format, ts::gain_code<GainBits>>(w); });
}

} // namespace

void add_vectors(std::vector<format>& out) {
    out.push_back(higgs<1, 2>("HIGGS 1 x 2", 0.117482, 0.005));
    out.push_back(higgs<1, 3>("HIGGS 1 x 3", 0.034548, 0.005));
    out.push_back(higgs<1, 4>("HIGGS 1 x 4", 0.009501, 0.005));
    out.push_back(higgs<2, 4>("HIGGS 2 x 4", 0.1076, 0.01));
    out.push_back(higgs<2, 6>("HIGGS 2 x 6", 0.0299, 0.01));
    out.push_back(higgs<2, 8>("HIGGS 2 x 8", 0.0078, 0.03));
    out.push_back(pyramid<ts::pvq<16, ts::pvq_pulses(16, 32), 7>, 4>("PVQ 16, 32 bits"));
    out.push_back(pyramid<ts::pvq<32, ts::pvq_pulses(32, 64), 3>, 4>("PVQ 32, 64 bits"));
    out.push_back(pyramid<ts::pvq<32, ts::pvq_pulses(32, 96), 7>, 4>("PVQ 32, 96 bits"));
}

} // namespace rate_distortion
