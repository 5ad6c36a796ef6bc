// SPDX-License-Identifier: MIT
/// @file
/// Products of many rows of x by tiles (`as_bf16`): every kind of storage, against the reference.

#include "cuda_support.hpp"

namespace {

using namespace tessera_test;

template <class Scheme>
void check_tiles(char const* name, index_t k = 1024) {
    INFO(std::string{name});
    double worst = 0;
    auto const q = random_quantized<Scheme>(300, k);
    auto const odd = random_quantized<Scheme>(131, k - 131);
    for (index_t const m : {16, 33, 64, 65, 130}) {
        CAPTURE(m);
        worst = std::fmax(worst, check_operator<ts::bf16, ts::bf16>(ts::linear{q.view(), ts::as_bf16{}}, m));
        if (m % 2 == 1) worst = std::fmax(worst, check_operator<float, float>(ts::linear{odd.view(), ts::as_bf16{}}, m));
    }
    MESSAGE(std::string{name} << ": worst error / tolerance " << worst);
}

TEST_CASE("tiles: integers") {
    check_tiles<ts::int4_g128>("int4_g128", 2048);
    check_tiles<ts::int4_g32>("int4_g32");
    check_tiles<ts::uint4_g128>("uint4_g128");
    check_tiles<ts::int8_per_channel>("int8_per_channel");
    check_tiles<ts::scheme<ts::int8, ts::group<128>, ts::fp16>>("int8 group 128");
    check_tiles<ts::scheme<ts::int2, ts::group<64>, ts::fp16>>("int2 group 64");
    check_tiles<ts::scheme<ts::int4, ts::group<256>, ts::fp16>>("int4 group 256");
}
TEST_CASE("tiles: codes that are looked up, dense matrices") {
    check_tiles<ts::nf4_g64>("nf4_g64");
    guarded<ts::bf16> w{300, 1024};
    w.fill(4);
    auto const wv = std::as_const(w).view();
    for (index_t const m : {40, 70}) check_operator<ts::bf16, float>(ts::linear{wv, ts::as_bf16{}}, m);
}
TEST_CASE("tiles: whole ones, and equal parts of them") {
    auto const check = [](index_t n, index_t k, std::initializer_list<index_t> ms) {
        auto const q = random_quantized<ts::int4_g128>(n, k);
        for (index_t const m : ms) {
            CAPTURE(n);
            CAPTURE(m);
            check_operator<ts::bf16, float>(ts::linear{q.view(), ts::as_bf16{}}, m);
        }
    };
    check(4000, 640, {9, 40});
    check(1900, 128, {897});
}
TEST_CASE("tiles: a low-rank term") {
    auto const q = random_quantized<ts::int4_g128>(300, 1024);
    guarded<ts::bf16> b{300, 20};
    guarded<ts::bf16> a{20, 1024};
    b.fill(1, 0.3);
    a.fill(2, 0.3);
    auto const bv = std::as_const(b).view();
    auto const av = std::as_const(a).view();
    auto const w = ts::linear{q.view(), ts::as_bf16{}} + ts::low_rank{ts::linear{bv}, ts::linear{av}, 0.5f};
    for (index_t const m : {1, 7, 16, 17, 70}) {
        check_operator<ts::bf16, float>(w, m);
        check_operator<float, float>(w, m);
    }
}
TEST_CASE("tiles: the same bits in every run") {
    auto const q = random_quantized<ts::int4_g128>(700, 4096);
    auto const placed = ts::place(device{}, ts::linear{q.view(), ts::as_bf16{}});
    guarded<float> x{90, 4096};
    guarded<float> y{90, 700};
    guarded<float> again{90, 700};
    x.fill(5);
    apply_there(placed.view(), x, y);
    for (int i = 0; i < 4; ++i) {
        apply_there(placed.view(), x, again);
        CHECK(same_bits<float>(again.view(), y.view()));
    }
}

} // namespace
