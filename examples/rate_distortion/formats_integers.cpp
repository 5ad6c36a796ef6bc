// SPDX-License-Identifier: MIT
// Schemes of integers. **Add yours here: a line.**
#include "format.hpp"

#include <tessera/numerics/bipolar.hpp>
#include <tessera/numerics/fixed_point.hpp>
#include <tessera/quant/double_rounding.hpp>
#include <tessera/quant/ternary.hpp>

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
    out.push_back(scheme<ts::int4_g128>("int4 g128, percentile", integer, ts::percentile_range{0.98}));
    out.push_back(scheme<ts::int4_g128>("int4 g128, Lloyd-Max range", integer, ts::lloyd_max_range{}));
    out.push_back(scheme<ts::int4_g128>("int4 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<ts::scheme<ts::int4, ts::group<32>, ts::two_level<ts::int6, ts::group<256>, ts::fp16>>>("int4 g32, int6 scales", integer));
    out.push_back(row("int4 of int8 g32, rounded twice", integer, [](weight_view const& w) {
        return ts::switch_width<ts::int4>(ts::quantize<grouped<ts::int8, 32>>(exec_type{}, w));
    }));
    out.push_back(scheme<with_zero_points<ts::uint4, 32>>("uint4 g32 affine", integer));
    out.push_back(scheme<with_zero_points<ts::uint4, 128>>("uint4 g128 affine", integer));
    out.push_back(scheme<grouped<ts::int3, 32>>("int3 g32", integer));
    out.push_back(scheme<grouped<ts::int3, 128>>("int3 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<with_zero_points<ts::uint3, 64>>("uint3 g64 affine, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<with_zero_points<ts::uint2, 64>>("uint2 g64 affine, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::bipolar<1>, 128>>("bipolar 1 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::bipolar<2>, 128>>("bipolar 2 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::bipolar<3>, 128>>("bipolar 3 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::bipolar<4>, 128>>("bipolar 4 g128, least error", integer, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::k_hot_point<8, 6, 2>, 32>>("8 bits, two ones, g32", integer));
    out.push_back(scheme<grouped<ts::k_hot_point<8, 6, 3>, 32>>("8 bits, three ones, g32", integer));
    // Half of the mean magnitude is the border, and the mean the value: 0.2634 (quant/ternary.hpp).
    out.push_back(row("ternary, absmean", integer, [](weight_view const& w) {
        return ts::quantize_absmean<ts::ternary_per_tensor>(w);
    }).expect(0.2634, 5e-4));
    out.push_back(scheme<ts::ternary_g128>("ternary g128, least error", integer, ts::least_error_range{}));
}

} // namespace rate_distortion
