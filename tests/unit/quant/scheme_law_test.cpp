// SPDX-License-Identifier: MIT
// The law of stored matrices, and of their transposes, for schemes whose scales or formats are of other kinds than those in
// tests/unit/operators: scales of two levels, powers of two, bipolar integers, fixed point. One instruction
// set: the kernels are judged on all of them there.

#include "../operators/operator_laws.hpp"

#include <tessera/operators/place.hpp>
#include <tessera/quant/quantize.hpp>

using namespace tessera_test;

namespace {

/// Normal weights in a scheme.
template <class Scheme>
struct quantized_storage {
    static constexpr index_t group = Scheme::granularity_type::columns;
    static constexpr index_t column_unit = 1;
    ts::quantized_tensor<Scheme> owner;
    quantized_storage(index_t n, index_t k) {
        ts::matrix<float> w{n, k};
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < k; ++j) w(i, j) = ts::philox{5}.normal(static_cast<std::uint64_t>(i * k + j));
        owner = ts::quantize<Scheme>(w);
    }
    auto view() const { return owner.view(); }
};

template <class Scheme>
void check_scheme(char const* name) {
    report_law<quantized_storage<Scheme>, ts::as_is, best_arch>(name);
    quantized_storage<Scheme> const owner{37, 67};
    auto const w = ts::transposed(ts::linear{owner.view()});
    guarded<float> x{3, 37};
    x.fill(23);
    guarded<float> y{3, 67};
    apply_case<std::remove_const_t<decltype(w)>> const expected{w, x.view()};
    apply_to(ts::cpu<ts::native_arch, ts::serial>{}, w, x, y);
    CHECK(expected.worst_ratio(ts::matrix_view<float const>{y.view()}) <= 1.0);
}

} // namespace

TEST_CASE("scales of two levels") {
    check_scheme<ts::nv_e2m1>("NVFP4");
    check_scheme<ts::scheme<ts::uint4, ts::group<24>, ts::two_level<ts::uint8, ts::per_channel, ts::fp16>, ts::affine>>("uint4, uint8 under fp16");
}
TEST_CASE("many groups under a super scale, several super scales in a row") {
    using scheme = ts::scheme<ts::int3, ts::group<2>, ts::two_level<ts::int6, ts::group<34>, ts::fp16>>;
    check_scheme<scheme>("int3, int6 under fp16 of 34");
    report_law<quantized_storage<scheme>, ts::int8_per_token, best_arch>("the same, int8");
}
TEST_CASE("scales and super scales that the rows of a panel share") {
    using blocks = ts::scheme<ts::uint4, ts::block<16, 32>, ts::fp16, ts::affine>;
    check_scheme<blocks>("uint4, blocks of 16 x 32");
    report_law<quantized_storage<blocks>, ts::int8_per_group<32>, best_arch>("the same, int8");
    report_law<quantized_storage<blocks>, ts::as_bf16, best_arch>("the same, bf16");
    using levels = ts::scheme<ts::e2m1, ts::group<16>, ts::two_level<ts::uint8, ts::block<32, 32>, ts::fp32>>;
    check_scheme<levels>("e2m1, uint8 under fp32 of 32 x 32");
    report_law<quantized_storage<levels>, ts::int8_per_token, best_arch>("the same, int8");
}
TEST_CASE("MXINT8: fixed point under powers of two") { check_scheme<ts::mx_int8>("MXINT8"); }
TEST_CASE("bipolar") { check_scheme<ts::scheme<ts::bipolar<3>, ts::group<40>, ts::bf16>>("bipolar3"); }
