// SPDX-License-Identifier: MIT
// One law of bad input for storages that are trained, rotated or coded by vectors: tables, nested codes, VPTQ, HIGGS, PVQ, power
// exponents, absmean. bad_input_law_test.cpp has the schemes.

#include <tessera/quant/any_precision.hpp>
#include <tessera/quant/higgs.hpp>
#include <tessera/quant/power.hpp>
#include <tessera/quant/pvq.hpp>
#include <tessera/quant/table_quantize.hpp>
#include <tessera/quant/ternary.hpp>
#include <tessera/quant/vptq.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

using view = ts::matrix_view<float const>;

struct storage_case {
    std::string name;
    std::function<ts::matrix<float>(view const&)> decoded;
    index_t rows;    ///< that become NaN with one; 0: all
    index_t columns; ///< the same
};

template <class View>
ts::matrix<float> decoded(View const& q) {
    ts::matrix<float> out{q.rows(), q.cols()};
    for (index_t n = 0; n < out.extent(0); ++n) {
        if constexpr (requires { q.decode_tile(n, n + 1, n, n, out.data(), n); }) {
            if (out.extent(1) > 0) q.decode_tile(n, n + 1, 0, out.extent(1), out.data() + n * out.extent(1), out.extent(1));
        } else if constexpr (requires { q.decode(n, n + 1, n, n, out.data(), n); }) {
            if (out.extent(1) > 0) q.decode(n, n + 1, 0, out.extent(1), out.data() + n * out.extent(1), out.extent(1));
        } else {
            for (index_t k = 0; k < out.extent(1); ++k) out(n, k) = static_cast<float>(q(n, k));
        }
    }
    return out;
}

template <class Encode>
storage_case of(std::string name, index_t rows, index_t columns, Encode encode) {
    return {std::move(name), [encode](view const& w) {
                auto const q = encode(w);
                return decoded(q.view());
            }, rows, columns};
}

template <index_t Dims, int Bits>
storage_case higgs(std::string name) { // rotated numbers of whole groups; a norm is all that a group has of its own
    return {std::move(name), [](view const& w) {
                auto const q = ts::quantize_higgs<Dims, Bits>(w, {.group = 64});
                return decoded(q.storage());
            }, 1, 64};
}

constexpr float quarters[] = {-0.29f, -0.1f, 0, 0.29f}; // scales would be infinite

std::vector<storage_case> cases() {
    using scaled = ts::table_quantized<4, ts::per_tensor, float, ts::scaled_by<ts::fp16, ts::group<24>>>;
    ts::vptq_options plain{.vector = 4, .index_bits = 4, .columns = ts::normalise::no, .iterations = 5};
    ts::vptq_options many{.vector = 8, .index_bits = 5, .residual_bits = 3, .groups = 3, .iterations = 5};
    return {of("tables of rows", 1, 0, [](view const& w) { return ts::quantize_tables<ts::table_quantized<4, ts::per_channel>>(w); }),
            of("tables of groups", 1, 24, [](view const& w) { return ts::quantize_tables<ts::table_quantized<3, ts::group<24>, float>>(w); }),
            of("a table under scales", 1, 24, [](view const& w) { return ts::quantize_tables<scaled>(w); }),
            of("a given table", 1, 24, [](view const& w) { return ts::quantize_with_table<scaled>(w, ts::nf4_table::values); }),
            of("a given table of small numbers", 1, 24, [](view const& w) {
                return ts::quantize_with_table<ts::table_quantized<2, ts::per_tensor, float, ts::scaled_by<float, ts::group<24>>>>(w, quarters);
            }),
            {"nested codes", [](view const& w) {
                 auto const q = ts::quantize_any_precision(w);
                 return decoded(q.template prefix<4>());
             }, 1, 0},
            of("VPTQ", 0, 1, [plain](view const& w) { return ts::quantize_vptq(w, plain); }),
            of("VPTQ, normalised, residuals", 0, 1, [many](view const& w) { return ts::quantize_vptq(w, many); }),
            higgs<1, 4>("HIGGS 1 x 4"), higgs<2, 6>("HIGGS 2 x 6"), higgs<4, 8>("HIGGS 4 x 8"),
            of("PVQ, coded gains", 1, 0, [](view const& w) { return ts::quantize_pvq<ts::pvq<16, 12>, ts::gain_code<3>>(w); }),
            of("PVQ, gains in fp16", 1, 16, [](view const& w) { return ts::quantize_pvq<ts::pvq<16, 12>, ts::gain_as<ts::fp16>>(w); }),
            of("power exponents", 1, 0, [](view const& w) { return ts::quantize_power<4>(w, 0.5); }),
            of("absmean of rows", 1, 0, [](view const& w) { return ts::quantize_absmean<ts::ternary_per_channel>(w); }),
            of("absmean of groups", 1, 24, [](view const& w) { return ts::quantize_absmean<ts::scheme<ts::ternary, ts::group<24>, ts::fp16>>(w); }),
            of("absmean", 0, 0, [](view const& w) { return ts::quantize_absmean<ts::ternary_per_tensor>(w); })};
}

std::vector<float> numbers(index_t count, std::uint64_t seed) {
    std::vector<float> w(static_cast<std::size_t>(count));
    for (index_t i = 0; i < count; ++i) w[static_cast<std::size_t>(i)] = ts::philox{seed}.normal(static_cast<std::uint64_t>(i));
    return w;
}

index_t not_finite(ts::matrix<float> const& m) {
    index_t count = 0;
    for (index_t i = 0; i < m.size(); ++i) count += !std::isfinite(m.data()[i]);
    return count;
}

} // namespace

TEST_CASE("any shape, and zeros") {
    for (auto const& c : cases()) {
        CAPTURE(c.name);
        CHECK(c.decoded(view{nullptr, 0, 5}).extent(0) == 0);
        CHECK(c.decoded(view{nullptr, 3, 0}).size() == 0);
        CHECK(c.decoded(view{nullptr, 0, 0}).size() == 0);
        for (index_t const n : {1, 3})
            for (index_t const k : {1, 2, 23, 25, 65}) {
                auto w = numbers(n * k, 7);
                CHECK(not_finite(c.decoded(view{w.data(), n, k})) == 0);
                std::fill(w.begin(), w.end(), 0.0f);
                auto const zeros = c.decoded(view{w.data(), n, k});
                CHECK(std::all_of(zeros.data(), zeros.data() + zeros.size(), [](float v) { return v == 0.0f; }));
                std::fill(w.begin(), w.begin() + std::min<index_t>(k, 24), 1.0f); // zeros behind
                CHECK(not_finite(c.decoded(view{w.data(), n, k})) == 0);
            }
    }
}

TEST_CASE("what is not finite is NaN as far as a scale, a norm or a table reaches") {
    constexpr index_t rows = 6, columns = 70;
    for (auto const& c : cases())
        for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()})
            for (auto const& [n, k] : {std::pair<index_t, index_t>{0, 0}, {3, 37}, {5, 69}}) {
                CAPTURE(c.name);
                auto w = numbers(rows * columns, 8);
                w[static_cast<std::size_t>(n * columns + k)] = bad;
                auto const back = c.decoded(view{w.data(), rows, columns});
                index_t wrong = 0;
                for (index_t r = 0; r < rows; ++r)
                    for (index_t j = 0; j < columns; ++j) {
                        bool const is_reached = (c.rows == 0 || r / c.rows == n / c.rows) && (c.columns == 0 || j / c.columns == k / c.columns);
                        wrong += is_reached ? !std::isnan(back(r, j)) : !std::isfinite(back(r, j));
                    }
                CHECK(wrong == 0);
            }
}

TEST_CASE("weights of every magnitude are finite, and no larger than what they were") {
    for (auto const& c : cases())
        for (int exponent = -149; exponent <= 127; ++exponent) {
            CAPTURE(c.name);
            CAPTURE(exponent);
            float const unit = std::ldexp(1.0f, exponent);
            float const top = exponent == 127 ? std::numeric_limits<float>::max() : 1.75f * unit;
            float const some[6] = {top, -top, 0.25f * unit, 0, -0.75f * unit, unit};
            std::vector<float> w(2 * 30);
            for (std::size_t i = 0; i < w.size(); ++i) w[i] = some[i % 6];
            auto const back = c.decoded(view{w.data(), 2, 30});
            double most = 0;
            for (index_t i = 0; i < back.size(); ++i) most = std::fmax(most, std::fabs(static_cast<double>(back.data()[i])));
            CHECK(not_finite(back) == 0);
            // A row of 30 has a norm of at most 5.5 times its largest; absmean's floor of the scale is 1e-5.
            CHECK(most <= 6 * static_cast<double>(top) + 1.1e-5);
        }
}

TEST_CASE("absmean under scales without NaN") {
    using integer = ts::scheme<ts::ternary, ts::per_channel, ts::uint8>;
    float w[2] = {4, -200};
    auto const q = ts::quantize_absmean<integer>(view{w, 1, 2});
    CHECK(q.view()(0, 1) == -102.0f);
    w[0] = std::numeric_limits<float>::infinity();
    CHECK_THROWS_AS(ts::quantize_absmean<integer>(view{w, 1, 2}), ts::unsupported_error);
}
