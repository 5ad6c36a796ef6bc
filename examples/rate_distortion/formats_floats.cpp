// SPDX-License-Identifier: MIT
// Small floats. **Add yours here: a line.**
#include "format.hpp"

#include <tessera/numerics/fixed_point.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>

#include <cmath>
#include <functional>

namespace rate_distortion {

namespace {

template <class Format, index_t Group>
using grouped = ts::scheme<Format, ts::group<Group>, ts::fp16>;

/// Of significands of so many bits behind the point: a step's square / 12 in every binade, of which few matter.
std::function<double(weight_view const&)> error_of_float(int bits) {
    return [bits](weight_view const&) {
        double sum = 0;
        for (int e = -20; e < 4; ++e) {
            double const step = std::exp2(e - bits);
            sum += (detail::within(std::exp2(e + 1)) - detail::within(std::exp2(e))) * step * step / 12;
        }
        return sum;
    };
}

} // namespace

void add_floats(std::vector<format>& out) {
    auto const small = family::small_floats;
    out.push_back(encoding<compress::narrowed<ts::fp16>>("fp16", small).expect(error_of_float(10)));
    out.push_back(encoding<compress::narrowed<ts::bf16>>("bf16", small).expect(error_of_float(7)));
    out.push_back(scheme<ts::scheme<ts::e4m3fn, ts::per_channel>>("e4m3 per channel", small));
    out.push_back(scheme<ts::scheme<ts::e5m2, ts::per_channel>>("e5m2 per channel", small));
    out.push_back(scheme<ts::mx_e4m3>("MXFP8 e4m3", small));
    out.push_back(scheme<ts::mx_e5m2>("MXFP8 e5m2", small));
    out.push_back(scheme<ts::mx_e2m3>("MXFP6 e2m3", small));
    out.push_back(scheme<ts::mx_e3m2>("MXFP6 e3m2", small));
    out.push_back(scheme<ts::mx_e2m1>("MXFP4", small));
    out.push_back(scheme<ts::mx_int8>("MXINT8", small));
    out.push_back(scheme<ts::nv_e2m1>("NVFP4", small));
    out.push_back(scheme<ts::scheme<ts::e2m1, ts::group<128>, ts::two_level<ts::e8m0, ts::per_channel>>>("e2m1 g128, powers of two a row", small)
                      .define([](weight_view const& w) { return powers_under_a_row_error(w, 128, detail::values_of<ts::e2m1>()); }));
    out.push_back(scheme<grouped<ts::e2m1, 32>>("e2m1 g32", small));
    out.push_back(scheme<grouped<ts::e2m1, 32>>("e2m1 g32, least error", small, ts::least_error_range{}));
    out.push_back(scheme<grouped<ts::minifloat<3, 1, ts::specials::finite>, 64>>("e3m1 g64", small));
    out.push_back(scheme<grouped<ts::minifloat<1, 2, ts::specials::finite>, 64>>("e1m2 g64", small));
    out.push_back(scheme<grouped<ts::minifloat<3, 0, ts::specials::finite>, 64>>("e3m0 g64", small));
    out.push_back(scheme<grouped<ts::minifloat<2, 2, ts::specials::finite>, 64>>("e2m2 g64", small));
}

} // namespace rate_distortion
