// SPDX-License-Identifier: MIT
// Schemes of integers. **Add yours here: a line.**
#include "format.hpp"

#include <tessera/numerics/bipolar.hpp>
#include <tessera/numerics/fixed_point.hpp>
#include <tessera/quant/double_rounding.hpp>
#include <tessera/quant/ternary.hpp>

#include <cmath>

namespace rate_distortion {

namespace {

template <class Format, index_t Group>
using grouped = ts::scheme<Format, ts::group<Group>, ts::fp16>;
template <class Format, index_t Group>
using with_zero_points = ts::scheme<Format, ts::group<Group>, ts::fp16, ts::affine>;

} // namespace

void add_integers(std::vector<format>& out) {
    auto const integer = family::integers;
    out.push_back(scheme<ts::int8_per_channel>("int8 per channel", integer));
    out.push_back(scheme<grouped<ts::int8, 32>>("int8 g32", integer));
    out.push_back(scheme<grouped<ts::int6, 32>>("int6 g32", integer));
    out.push_back(scheme<grouped<ts::int5, 32>>("int5 g32", integer));
    out.push_back(scheme<grouped<ts::int4, 32>>("int4 g32", integer));
    out.push_back(scheme<ts::int4_g128>("int4 g128", integer));
    out.push_back(scheme<ts::int4_g128>("int4 g128, percentile", integer, ts::percentile_range{0.98}).expect([](weight_view const&) {
        return order_statistic_error(integers(-7, 7), 128, 126, [](double m) { // the 126th, 0.98 * 128 rounded up
            double const s = detail::rounded<ts::fp16>(m / 7);
            return scales{s, s};
        });
    }));
    out.push_back(scheme<ts::int4_g128>("int4 g128, Lloyd-Max range", integer, ts::lloyd_max_range{}).define([](weight_view const& w) {
        return lloyd_scale_error(w, 128, 7, detail::rounded<ts::fp16>);
    }));
    out.push_back(scheme<ts::int4_g128>("int4 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<ts::scheme<ts::int4, ts::group<32>, ts::two_level<ts::int6, ts::group<256>, ts::fp16>>>("int4 g32, int6 scales", integer));
    out.push_back(row("int4 of int8 g32, rounded twice", integer, [](weight_view const& w) {
        return ts::switch_width<ts::int4>(ts::quantize<grouped<ts::int8, 32>>(exec_type{}, w));
    }).expect([](weight_view const&) { // codes of 8 bits that round to the same sixteenth are a cell
        cells c;
        for (int q = -127; q <= 127; ++q) {
            double const value = 16 * std::fmin(std::nearbyint(q / 16.0), 7);
            if (!c.values.empty() && value == c.values.back()) continue;
            if (!c.values.empty()) c.edges.push_back(q - 0.5);
            c.values.push_back(value);
        }
        return block_error(c, 32, [](double m) {
            double const s = detail::rounded<ts::fp16>(m / 127);
            return scales{s, s};
        });
    }));
    out.push_back(scheme<with_zero_points<ts::uint4, 32>>("uint4 g32 affine", integer));
    out.push_back(scheme<with_zero_points<ts::uint4, 128>>("uint4 g128 affine", integer));
    out.push_back(scheme<grouped<ts::int7, 32>>("int7 g32", integer));
    out.push_back(scheme<grouped<ts::int3, 32>>("int3 g32", integer));
    out.push_back(scheme<grouped<ts::int2, 32>>("int2 g32", integer));
    out.push_back(scheme<with_zero_points<ts::uint8, 32>>("uint8 g32 affine", integer));
    out.push_back(scheme<ts::scheme<ts::int8, ts::block<32, 32>, ts::fp16>>("int8 of 32 x 32", integer));
    out.push_back(scheme<ts::scheme<ts::int4, ts::group<32>, ts::e4m3fn>>("int4 g32, e4m3 scales", integer));
    out.push_back(scheme<ts::scheme<ts::uint1, ts::group<32>, ts::fp16, ts::affine>>("uint1 g32 affine, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::int3, 128>>("int3 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<with_zero_points<ts::uint3, 64>>("uint3 g64 affine, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<with_zero_points<ts::uint2, 64>>("uint2 g64 affine, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::bipolar<1>, 128>>("bipolar 1 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::bipolar<2>, 128>>("bipolar 2 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::bipolar<3>, 128>>("bipolar 3 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::bipolar<4>, 128>>("bipolar 4 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::k_hot_point<8, 6, 2>, 32>>("8 bits, two ones, g32", integer));
    out.push_back(scheme<grouped<ts::k_hot_point<8, 6, 3>, 32>>("8 bits, three ones, g32", integer));
    // Half of the mean magnitude is the border, and the mean the value: 0.263382 where the mean is that of N(0, 1).
    out.push_back(row("ternary, absmean", integer, [](weight_view const& w) {
        return ts::quantize_absmean<ts::ternary_per_tensor>(w);
    }).expect([](weight_view const& w) {
        double mean = 0;
        for (index_t n = 0; n < w.extent(0); ++n)
            for (index_t k = 0; k < w.extent(1); ++k) mean += std::fabs(static_cast<double>(w(n, k))) / static_cast<double>(w.size());
        return detail::error_between(integers(-1, 1), {mean, mean}, -9, 9);
    }));
    out.push_back(scheme<ts::ternary_g128>("ternary g128, least error", integer, ts::least_error_range{}));
}

} // namespace rate_distortion
