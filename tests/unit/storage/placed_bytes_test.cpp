// SPDX-License-Identifier: MIT
// What placing costs in memory: panels take about what canonical storage takes, whatever shares a scale. A head of a row of groups may
// be padded, the last panel has rows and the last strip columns that do not exist; nothing that belongs to many groups or rows is
// kept for each of them.

#include <doctest/doctest.h>

#include <tessera/storage/prepacked.hpp>

#include <utility>

namespace {

namespace ts = tessera;
using ts::index_t;

/// Panels of a scheme take at most `ratio` times its canonical bytes, and in short rows 20 bytes a row more, for registers of all widths.
template <class Scheme>
void check_bytes(double ratio = 1.01) {
    for (auto const& [n, k] : {std::pair<index_t, index_t>{256, 4096}, {256, 4096 + 48}, {64, 1000}, {64, 64}, {64, 16}, {64, 1}}) {
        CAPTURE(n);
        CAPTURE(k);
        auto const canonical = static_cast<double>(ts::quantized_tensor<Scheme>{n, k}.bytes());
        auto const check = [&]<index_t R>(std::integral_constant<index_t, R>) {
            CAPTURE(R);
            index_t const placed = ts::prepacked<ts::panel<R, 4>, ts::quantized<Scheme>>{nullptr, n, k}.bytes();
            CHECK(static_cast<double>(placed) <= ratio * canonical + 20.0 * static_cast<double>(n));
        };
        check(std::integral_constant<index_t, 4>{});
        check(std::integral_constant<index_t, 8>{});
        check(std::integral_constant<index_t, 16>{});
    }
}

template <class Granularity, class SuperScale = ts::fp16>
using under = ts::scheme<ts::int4, ts::group<32>, ts::two_level<ts::int6, Granularity, SuperScale>>;

} // namespace

TEST_CASE("bytes of panels: scales of one level") {
    check_bytes<ts::int4_g32>();
    check_bytes<ts::uint4_g32>();
    check_bytes<ts::int8_per_channel>();
    check_bytes<ts::scheme<ts::int4, ts::per_tensor>>();
    check_bytes<ts::scheme<ts::int3, ts::group<32>, ts::bf16>>();
    check_bytes<ts::mx_e2m3>(1.05); // a bf16 for an e8m0
    check_bytes<ts::scheme<ts::int8, ts::group<16>, ts::uint7>>();
}

TEST_CASE("bytes of panels: groups that are longer than a row") {
    check_bytes<ts::scheme<ts::int4, ts::group<8192>, ts::fp16>>();
    check_bytes<ts::scheme<ts::uint4, ts::group<index_t{1} << 40>, ts::fp32, ts::affine>>();
    check_bytes<ts::scheme<ts::int4, ts::group<8192>, ts::two_level<ts::int6, ts::per_tensor, ts::fp16>>>();
    check_bytes<ts::scheme<ts::int4, ts::group<index_t{1} << 40>, ts::two_level<ts::int6, ts::per_tensor, ts::fp16>>>();
    check_bytes<ts::scheme<ts::int4, ts::group<8192>, ts::two_level<ts::int6, ts::group<8192 * 64>, ts::fp16>>>();
}

TEST_CASE("bytes of panels: super groups of every length") {
    check_bytes<under<ts::per_tensor>>();
    check_bytes<under<ts::per_channel>>();
    check_bytes<under<ts::group<256>>>();
    check_bytes<under<ts::group<1024>>>();
    check_bytes<under<ts::group<4096>>>();
    check_bytes<under<ts::group<1 << 17>>>();
    check_bytes<under<ts::group<index_t{1} << 40>>>();
    check_bytes<ts::scheme<ts::int4, ts::group<24>, ts::two_level<ts::int6, ts::group<4800>, ts::fp16>>>(1.04);
    check_bytes<ts::scheme<ts::int4, ts::group<8>, ts::two_level<ts::int6, ts::group<24>, ts::fp16>>>(1.02);
}

TEST_CASE("bytes of panels: scales and super scales of blocks of rows") {
    check_bytes<under<ts::block<128, 64>, ts::fp32>>(1.04); // a float for four rows
    check_bytes<under<ts::block<1 << 20, 1 << 20>, ts::fp32>>();
    check_bytes<under<ts::block<8, 128>, ts::fp32>>(1.06); // lanes may be more rows than share a super scale
    check_bytes<ts::scheme<ts::int4, ts::block<32, 32>>>(1.06);
    check_bytes<ts::scheme<ts::uint4, ts::block<32, 32>, ts::fp32, ts::affine>>(1.2); // each in a whole float
    check_bytes<ts::scheme<ts::e4m3fn, ts::block<128, 128>>>(1.02);
    check_bytes<ts::scheme<ts::int4, ts::block<32, 32>, ts::two_level<ts::int6, ts::per_tensor>>>(1.07);
}

TEST_CASE("bytes of panels: lower scales in types that the machine converts") {
    check_bytes<ts::nv_e2m1>(1.12); // fp16 for 8 bits, of 16 codes
    check_bytes<ts::scheme<ts::int4, ts::group<16>, ts::two_level<ts::uint8>>>(1.12);
    check_bytes<ts::scheme<ts::int4, ts::group<16>, ts::two_level<ts::uint6>>>();
    check_bytes<ts::scheme<ts::int4, ts::group<16>, ts::two_level<ts::e5m2>>>(1.12);
    check_bytes<ts::scheme<ts::int4, ts::group<16>, ts::two_level<ts::e8m0>>>(1.12);
    check_bytes<ts::scheme<ts::uint4, ts::group<16>, ts::two_level<ts::uint8, ts::per_channel, ts::fp16>, ts::affine>>(1.11);
}

// Strips have at least four columns: shorter groups, and codes of few bits in groups that no strip divides, pay for whole ones.
TEST_CASE("bytes of panels: groups that are no whole strips") {
    check_bytes<ts::scheme<ts::int8, ts::group<1>, ts::fp16>>(6.0 / 3);
    check_bytes<ts::scheme<ts::int4, ts::group<1>, ts::fp32>>(8.0 / 4.5 + 0.01);
    check_bytes<ts::scheme<ts::int4, ts::group<1>, ts::two_level<ts::int6>>>(5.0 / 1.5 + 0.01);
    check_bytes<ts::scheme<ts::int4, ts::group<1>, ts::two_level<ts::int6, ts::group<4096>, ts::fp16>>>(5.0 / 1.5 + 0.01);
    check_bytes<ts::scheme<ts::int4, ts::group<7>, ts::fp16>>(6.0 / 5.5 + 0.01);
    check_bytes<ts::scheme<ts::int1, ts::group<33>, ts::fp16>>(22.0 / 6.125 + 0.01);
}
