// SPDX-License-Identifier: MIT
// Microscaling and NVFP4 against other libraries, bit for bit (tests/data/quant/make_mx.py says how they were asked).

#include "../../support/vectors.hpp"

#include <tessera/quant/quantize.hpp>

#include <doctest/doctest.h>

#include <map>
#include <string>

namespace ts = tessera;
using tessera_test::array;
using tessera_test::read_arrays;
using ts::index_t;

namespace {

using arrays = std::map<std::string, array>;

template <class Scheme>
void check_decoded(arrays const& known, std::string const& name, ts::rounding mode) {
    CAPTURE(name);
    auto const q = ts::quantize<Scheme>(known.at("weights").matrix(), {.mode = mode});
    auto const expected = known.at(name).matrix();
    index_t wrong = 0;
    for (index_t n = 0; n < q.rows(); ++n)
        for (index_t k = 0; k < q.cols(); ++k) wrong += q.view()(n, k) != expected(n, k);
    CHECK(wrong == 0);
}

template <class Scheme>
void check_codes(arrays const& known, std::string const& name, ts::scale_rule rule) {
    CAPTURE(name);
    auto q = ts::quantize<Scheme>(known.at("weights").matrix(), {.scales = rule});
    auto const scales = known.at(name + "_scales").matrix();
    auto const values = known.at(name + "_values").matrix();
    index_t wrong_scales = 0;
    index_t wrong_values = 0;
    for (index_t n = 0; n < q.rows(); ++n)
        for (index_t k = 0; k < q.cols(); ++k) {
            wrong_scales += static_cast<float>(q.scales()[n * 3 + k / 32].to_bits()) != scales(n, k / 32);
            wrong_values += Scheme::format::decode(q.view().code(n, k)) != values(n, k);
        }
    CHECK(wrong_scales == 0);
    CHECK(wrong_values == 0);
}

template <class Scheme>
void check_format(arrays const& known, std::string const& name) {
    check_decoded<Scheme>(known, name + "_even", ts::rounding::nearest_even);
    check_decoded<Scheme>(known, name + "_away", ts::rounding::half_away);
    if (known.count(name + "_floor_scales") == 0) return;
    check_codes<Scheme>(known, name + "_floor", ts::scale_rule::by_scheme);
    check_codes<Scheme>(known, name + "_ceil", ts::scale_rule::up);
}

} // namespace

TEST_CASE("Microscaling is that of microxcaling, for both roundings, and of torchao, for both rules of scales") {
    auto const known = read_arrays("quant/mx");
    check_format<ts::mx_e2m1>(known, "e2m1");
    check_format<ts::mx_e3m2>(known, "e3m2");
    check_format<ts::mx_e2m3>(known, "e2m3");
    check_format<ts::mx_e4m3>(known, "e4m3");
    check_format<ts::mx_e5m2>(known, "e5m2");
    check_format<ts::mx_int8>(known, "int8");
}

TEST_CASE("NVFP4 is that of torchao") {
    auto const known = read_arrays("quant/mx");
    auto q = ts::quantize<ts::nv_e2m1>(known.at("nvfp4_weights").matrix());
    CHECK(q.super_scales()[0] == known.at("nvfp4_tensor_scale").data[0]);
    auto const scales = known.at("nvfp4_scales").matrix();
    auto const values = known.at("nvfp4_values").matrix();
    for (index_t n = 0; n < q.rows(); ++n)
        for (index_t k = 0; k < q.cols(); ++k) {
            CHECK(static_cast<float>(q.scales()[n * 6 + k / 16]) == scales(n, k / 16));
            CHECK(ts::e2m1::decode(q.view().code(n, k)) == values(n, k));
        }
}
