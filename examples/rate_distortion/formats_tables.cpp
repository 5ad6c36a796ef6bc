// SPDX-License-Identifier: MIT
// Tables of values. **Add yours here: a line.**
#include "format.hpp"
#include "theory.hpp"

#include <tessera/interop/bitsandbytes.hpp>
#include <tessera/quant/any_precision.hpp>
#include <tessera/quant/power.hpp>
#include <tessera/quant/table_quantize.hpp>

#include <cmath>
#include <cstdlib>

namespace rate_distortion {

namespace {

/// One table for all weights and no scale: levels that are right for N(0, 1).
template <int Bits>
format ideal(std::string name, quantiser const& q) {
    std::vector<float> const levels(q.levels.begin(), q.levels.end());
    using storage = ts::table_quantized<Bits, ts::per_tensor, float>;
    return row(std::move(name), family::tables,
               [levels](weight_view const& w) { return ts::quantize_with_table<storage>(w, levels); })
        .expect(q.error)
        .ideal();
}

/// The first Bits planes of a matrix that is stored for 3 to 8.
template <int Bits>
struct nested {
    static constexpr index_t multiple = 1;
    explicit nested(weight_view const& w) : stored{ts::quantize_any_precision(w)} {}
    index_t bytes() const { return stored.template prefix<Bits>().bytes(); }
    void add_row(index_t n, float* out) const {
        auto const view = stored.template prefix<Bits>();
        std::vector<float> tile(static_cast<std::size_t>(view.cols()));
        view.decode_tile(n, n + 1, 0, view.cols(), tile.data(), view.cols());
        for (std::size_t k = 0; k < tile.size(); ++k) out[k] += tile[k];
    }
    decltype(ts::quantize_any_precision(weight_view{})) stored;
};

} // namespace

void add_tables(std::vector<format>& out) {
    auto const table = family::tables;
    out.push_back(scheme<ts::nf4_g64>("nf4 g64", table));
    out.push_back(scheme<ts::scheme<ts::bitsandbytes::fp4, ts::group<64>>>("fp4 of bitsandbytes g64", table));
    out.push_back(scheme<ts::scheme<ts::nf4, ts::group<64>, ts::fp16>>("nf4 g64, least error", table, ts::least_error_range{}));
    out.push_back(row("4-bit table a row", table, [](weight_view const& w) {
        return ts::quantize_tables<ts::table_quantized<4, ts::per_channel>>(w);
    }).at_least([](weight_view const& w) { return least_error_of_tables(w, 16); }, 0.06));
    out.push_back(row("3-bit table a row", table, [](weight_view const& w) {
        return ts::quantize_tables<ts::table_quantized<3, ts::per_channel>>(w);
    }).at_least([](weight_view const& w) { return least_error_of_tables(w, 8); }, 0.02));
    out.push_back(encoding<nested<3>>("3 of 8 nested bits, table a row", table)
                      .at_least([](weight_view const& w) { return least_error_of_tables(w, 8); }, 0.02));
    out.push_back(encoding<nested<4>>("4 of 8 nested bits, table a row", table)
                      .define([](weight_view const& w) { return least_error_of_cut_tables(w, 8); }, 0.03));
    out.push_back(row("4-bit power exponent a row", table, [](weight_view const& w) {
        return ts::quantize_power<4>(w, ts::find_power_exponent(exec_type{}, w, 4));
    }).expect([](weight_view const& w) { // one exponent for all rows: the best in theory
        double least = 1;
        for (double a = 0.5; a <= 0.9; a += 0.01) {
            cells c;
            for (int q = -7; q <= 7; ++q) c.values.push_back(std::copysign(std::pow(std::abs(q) / 7.0, 1 / a), q));
            for (int q = -7; q < 7; ++q) c.edges.push_back(std::copysign(std::pow(std::fabs(q + 0.5) / 7, 1 / a), q + 0.5));
            least = std::fmin(least, block_error(c, static_cast<double>(w.extent(1)), [](double m) { return scales{m, m}; }));
        }
        return least;
    }));
    out.push_back(ideal<1>("Lloyd-Max 1", lloyd_max(2)));
    out.push_back(ideal<2>("Lloyd-Max 2", lloyd_max(4)));
    out.push_back(ideal<3>("Lloyd-Max 3", lloyd_max(8)));
    out.push_back(ideal<4>("Lloyd-Max 4", lloyd_max(16)));
    out.push_back(ideal<5>("Lloyd-Max 5", lloyd_max(32)));
    out.push_back(ideal<2>("equal steps 2", uniform(4)));
    out.push_back(ideal<3>("equal steps 3", uniform(8)));
    out.push_back(ideal<4>("equal steps 4", uniform(16)));
    out.push_back(ideal<5>("equal steps 5", uniform(32)));
    out.push_back(ideal<8>("equal steps 8", uniform(256)));
}

} // namespace rate_distortion
