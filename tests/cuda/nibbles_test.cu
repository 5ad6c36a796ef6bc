// SPDX-License-Identifier: MIT
/// @file
/// Products of int4 in groups and int8 on a device.

#include "bytes_support.hpp"

namespace {

using namespace tessera_test;

TEST_CASE("nibbles: int4 in groups x int8 per token") {
    report_device_law<scheme_storage<ts::int4_g128>, ts::int8_per_token>("int4 group 128");
    report_device_law<scheme_storage<ts::scheme<ts::int4, ts::group<256>, ts::bf16>>, ts::int8_per_token>("int4 group 256");
    report_device_law<scheme_storage<ts::scheme<ts::int4, ts::group<64>, ts::fp32>>, ts::int8_per_token>("int4 group 64");
}
TEST_CASE("nibbles: types of x and y") {
    auto const q = random_quantized<ts::int4_g32>(300, 400);
    ts::linear const w{q.view(), ts::int8_per_token{}};
    for (index_t const m : {1, 33, 150}) {
        check_operator<ts::bf16, ts::bf16>(w, m);
        check_operator<float, float>(w, m);
    }
}
TEST_CASE("nibbles: the transpose, of tiles too") {
    auto const q = random_quantized<ts::int4_g128>(300, 400);
    auto const f = random_quantized<ts::scheme<ts::e4m3fn, ts::block<128, 128>>>(300, 400);
    auto const i = random_quantized<ts::int8_per_channel>(300, 400);
    for (index_t const m : {3, 70}) {
        check_operator(ts::transposed(ts::linear{q.view(), ts::int8_per_token{}}), m);
        check_operator(ts::transposed(ts::linear{f.view(), ts::fp8_per_group<128>{}}), m);
        check_operator(ts::transposed(ts::linear{i.view(), ts::int8_per_token{}}), m);
    }
}
TEST_CASE("nibbles: a row's bits are those it has alone, and in every run") { check_invariance<ts::int4_g128, ts::int8_per_token>(); }

} // namespace
