// SPDX-License-Identifier: MIT
// The block formats of GGUF. **Add yours here: a line.**
#include "format.hpp"

#include <tessera/storage/block_formats.hpp>
#include <tessera/storage/grid_formats.hpp>
#include <tessera/storage/k_formats.hpp>
#include <tessera/storage/table_formats.hpp>
#include <tessera/storage/ternary_formats.hpp>

#include <numbers>

namespace rate_distortion {

namespace {

template <class Format, bool IsSearched = false>
format blocks(std::string name) {
    return encoding<compress::blocks<Format, IsSearched>>(std::move(name), family::gguf);
}

double half(double x) { return detail::rounded<ts::fp16>(x); }

/// Formats whose codes are those of numbers over the largest one / steps, which is stored in fp16.
template <class Format>
format symmetric(std::string name, cells const& c, double steps, largest sign = largest::of_either_sign) {
    return blocks<Format>(std::move(name)).expect([=](weight_view const&) {
        return block_error(c, Format::block_size, [=](double m) { return scales{m / steps, half(m / steps)}; }, sign);
    });
}

/// Codes from 0 to `steps` of numbers between the least and the largest, both ends stored in fp16.
template <class Format>
format affine(std::string name, int steps) {
    return blocks<Format>(std::move(name)).expect([=](weight_view const&) {
        return affine_error(Format::block_size, [=](double a, double b) {
            double const d = (b - a) / steps;
            cells c;
            for (int q = 0; q <= steps; ++q) c.values.push_back(half(a) + half(d) * q);
            for (int q = 0; q < steps; ++q) c.edges.push_back(a + d * (q + 0.5));
            return c;
        });
    });
}

/// Two levels of scales, by the definition.
template <class Format>
format k_format(std::string name, k_format_card const& card) {
    return blocks<Format>(std::move(name)).define([card](weight_view const& w) { return k_format_error(w, card, half); });
}

/// Formats with tables and grids, whose encoders look for scales: what ggml's own gives (version 0.25.3, `ggml_quantize_chunk`,
/// 262144 numbers of N(0, 1) from numpy, decoded by gguf-py, to 0.4 %; tests/data/gguf/ggml_gauss.py). Ours looks less far, and
/// `tolerance` says how much more, or less, its error may be.
template <class Format>
format published(std::string name, double error, double tolerance) {
    return blocks<Format>(std::move(name)).expect(error, tolerance);
}

/// The same of `encode_row_least_error`, which leaves 1 to 9 % less than ggml's.
template <class Format>
format searched(std::string name, double error, double tolerance) {
    return blocks<Format, true>(std::move(name)).expect(error, tolerance);
}

} // namespace

void add_blocks(std::vector<format>& out) {
    out.push_back(symmetric<ts::q8_0>("Q8_0", integers(-127, 127), 127));
    out.push_back(affine<ts::q5_1>("Q5_1", 31));
    out.push_back(symmetric<ts::q5_0>("Q5_0", integers(-16, 15), 16, largest::negative));
    out.push_back(affine<ts::q4_1>("Q4_1", 15));
    out.push_back(symmetric<ts::q4_0>("Q4_0", integers(-8, 7), 8, largest::negative));
    out.push_back(k_format<ts::q6_k>("Q6_K", {16, -32, 31, -128}));
    out.push_back(k_format<ts::q5_k>("Q5_K", {32, 0, 31, 63}));
    out.push_back(k_format<ts::q4_k>("Q4_K", {32, 0, 15, 63}));
    out.push_back(k_format<ts::q3_k>("Q3_K", {16, -4, 3, -32}));
    out.push_back(k_format<ts::q2_k>("Q2_K", {16, 0, 3, 15}));
    out.push_back(searched<ts::q6_k>("Q6_K, least error", 2.994e-4, 0.08));
    out.push_back(searched<ts::q5_k>("Q5_K, least error", 1.2465e-3, 0.08));
    out.push_back(searched<ts::q4_k>("Q4_K, least error", 5.011e-3, 0.08));
    out.push_back(searched<ts::q3_k>("Q3_K, least error", 2.089e-2, 0.08));
    out.push_back(searched<ts::q2_k>("Q2_K, least error", 7.181e-2, 0.08));
    out.push_back(published<ts::iq4_nl>("IQ4_NL", .00579, 0.05)); // these two without an importance matrix, as ours
    out.push_back(published<ts::iq4_xs>("IQ4_XS", .00588, 0.05));
    out.push_back(symmetric<ts::tq2_0>("TQ2_0", integers(-1, 1), 1));
    out.push_back(symmetric<ts::tq1_0>("TQ1_0", integers(-1, 1), 1));
    out.push_back(symmetric<ts::q2_0>("Q2_0", integers(-1, 1), 1));
    // Signs times the mean magnitude g: 1 - E g^2, and the mean of n magnitudes has a variance of (1 - 2 / pi) / n.
    constexpr double square = 2 / std::numbers::pi;
    out.push_back(blocks<ts::q1_0>("Q1_0").expect((1 - square) * (1 - 1.0 / ts::q1_0::block_size), 1e-3));
    out.push_back(blocks<ts::gguf_mxfp4>("MXFP4 of GGUF").expect(detail::error_in_theory<ts::mx_e2m1>));
    // Scales of 16 in e4m3, under none.
    out.push_back(blocks<ts::gguf_nvfp4>("NVFP4 of GGUF").expect(detail::error_in_theory<ts::scheme<ts::e2m1, ts::group<16>, ts::e4m3fn>>));
    out.push_back(published<ts::iq3_s>("IQ3_S", .01870, 0.05));
    out.push_back(searched<ts::iq3_s>("IQ3_S, least error", .01870, 0.10));
    out.push_back(published<ts::iq3_xxs>("IQ3_XXS", .03287, 0.10));
    out.push_back(published<ts::iq2_s>("IQ2_S", .06183, 0.15));
    out.push_back(searched<ts::iq2_s>("IQ2_S, least error", .06183, 0.08));
    out.push_back(published<ts::iq2_xs>("IQ2_XS", .08944, 0.10));
    out.push_back(published<ts::iq2_xxs>("IQ2_XXS", .11765, 0.03));
    out.push_back(searched<ts::iq2_xxs>("IQ2_XXS, least error", .11765, 0.10));
    out.push_back(published<ts::iq1_m>("IQ1_M", .2030, 0.05));
    out.push_back(published<ts::iq1_s>("IQ1_S", .2351, 0.07));
}

} // namespace rate_distortion
