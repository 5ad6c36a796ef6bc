// SPDX-License-Identifier: MIT
// Codes that stand for several weights. **Add yours here: a line.**
#include "format.hpp"
#include "sources.hpp"

#include <tessera/quant/higgs.hpp>
#include <tessera/quant/pvq.hpp>
#include <tessera/quant/vptq.hpp>

#include <cmath>
#include <limits>

namespace rate_distortion {

namespace {

/// The largest rotation that needs no padding.
index_t group_of(weight_view const& w) {
    index_t group = 1024;
    while (group > 128 && w.extent(1) % group != 0) group -= 128;
    return group;
}

/// The error of a grid for N(0, 1) on rotated groups, whose numbers are those of a point on a sphere: the grid's own, and the mean of
/// error times excess, so small a number that its mean over samples is exact enough.
template <index_t Dims, int Bits>
double error_on_sphere(double g) {
    constexpr index_t count = index_t{1} << 14;
    constexpr index_t points = index_t{1} << Bits;
    float const* const grid = ts::gaussian_grid<Dims, Bits>();
    ts::matrix<float> const x = gaussian(count, Dims, 17);
    double sum = 0;
    for (index_t i = 0; i < count; ++i) {
        double square = 0;
        double least = std::numeric_limits<double>::infinity();
        for (index_t d = 0; d < Dims; ++d) square += static_cast<double>(x(i, d)) * static_cast<double>(x(i, d));
        for (index_t p = 0; p < points; ++p) {
            double distance = 0;
            for (index_t d = 0; d < Dims; ++d) distance += std::pow(static_cast<double>(x(i, d) - grid[p * Dims + d]), 2);
            least = std::fmin(least, distance);
        }
        sum += least * sphere_excess(static_cast<double>(Dims), g, square);
    }
    return ts::gaussian_grid_error<Dims, Bits> + sum / static_cast<double>(count * Dims);
}

/// Points of a grid for Dims rotated weights. Grids of one dimension have exact errors, the others' are known to 0.2 % (quant/
/// gaussian_grids.hpp); scales in fp16 add a millionth of the weights' square at most.
template <index_t Dims, int Bits>
format higgs(std::string name) {
    constexpr double error = ts::gaussian_grid_error<Dims, Bits>;
    return row(std::move(name), family::vectors,
               [](weight_view const& w) { return ts::quantize_higgs<Dims, Bits>(w, {.group = group_of(w)}); })
        .expect([](weight_view const& w) { return error_on_sphere<Dims, Bits>(static_cast<double>(group_of(w))); },
                (Dims == 1 ? 0 : 2e-3) + 1e-6 / error);
}

/// Greedy placing from none on instead of from the projection.
template <class Format, int GainBits>
format pyramid(std::string name) {
    return row(std::move(name), family::vectors, [](weight_view const& w) {
               return ts::quantize_pvq<Format, ts::gain_code<GainBits>>(w);
           }).define([](weight_view const& w) {
        return pyramid_error(w, Format::group, static_cast<int>(Format::pulses), static_cast<int>(Format::largest), std::size_t{1} << GainBits);
    }, 5e-3);
}

/// Pyramids with free gains: errors of a million numbers, published to 0.0009 (standard error).
template <index_t N, index_t K>
format free_pyramid(std::string name, double error) {
    return row(std::move(name), family::vectors, [](weight_view const& w) {
               return ts::quantize_pvq<ts::pvq<N, K>, ts::gain_as<float>>(w);
           }).expect(error, 4 * 0.0009 / error);
}

/// Against Lloyd's iteration in numpy on as many numbers, from another start (tests/data/quant/vptq_gauss.py): three seeds differ by
/// 0.4 %, local optima by 1 or 2.
format vptq(std::string name, double error, ts::vptq_options const& options) {
    return row(std::move(name), family::vectors, [options](weight_view const& w) { return ts::quantize_vptq(w, options); })
        .expect(error, 0.02)
        .slow();
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
    out.push_back(free_pyramid<16, 16>("PVQ 16, 16 pulses, free gains", .0505));
    out.push_back(free_pyramid<32, 32>("PVQ 32, 32 pulses, free gains", .0488));
    // Codebooks belong to the matrix: what they take is for a matrix of this size.
    out.push_back(vptq("VPTQ 8, 8 bits", .3317, {.vector = 8, .index_bits = 8, .iterations = 20}));
    out.push_back(vptq("VPTQ 4, 8 bits", .1010, {.vector = 4, .index_bits = 8, .iterations = 20}));
    out.push_back(vptq("VPTQ 8, 8 + 8 bits", .1053, {.vector = 8, .index_bits = 8, .residual_bits = 8, .iterations = 20}));
    out.push_back(vptq("VPTQ 8, 8 bits, 8 outliers", .3292, {.vector = 8, .index_bits = 8, .outliers = 8, .iterations = 20}));
}

} // namespace rate_distortion
