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
    check(4000, 3900, {1, 8}); // K with a tail
    check(8000, 3900, {1, 16});
}
TEST_CASE("tiles: 256 rows of x, in halves of k, whole, and in parts") {
    auto const halves = random_quantized<ts::int4_g128>(7200, 300); // 57 tiles of 3 steps
    check_operator<ts::bf16, float>(ts::linear{halves.view(), ts::as_bf16{}}, 129);
    auto const whole = random_quantized<ts::int4_g128>(7170, 128); // twice as many
    check_operator<ts::bf16, float>(ts::linear{whole.view(), ts::as_bf16{}}, 257);
    auto const parts = random_quantized<ts::int4_g128>(140, 1000);
    check_operator<float, ts::bf16>(ts::linear{parts.view(), ts::as_bf16{}}, 257);
}
TEST_CASE("tiles: groups whose scale is 0, tiny or large") {
    auto q = random_quantized<ts::int4_g128>(300, 2048);
    auto const view = q.view();
    index_t const groups = view.scale_columns();
    for (index_t n = 0; n < 300; ++n)
        for (index_t g = 0; g < groups; ++g) {
            index_t const turn = (n + g * (n % 7)) % 5;
            bool const is_zero = turn == 0 || n == 5 || (n == 6 && g > 0) || (n == 7 && g + 1 < groups);
            if (is_zero)
                q.scales()[n * groups + g] = ts::fp16{0.0f};
            else if (turn == 1)
                q.scales()[n * groups + g] = ts::fp16{6e-8f};
            else if (turn == 2 && n % 3 == 0)
                q.scales()[n * groups + g] = ts::fp16{60000.0f};
        }
    for (index_t const m : {16, 64, 130, 200}) {
        CAPTURE(m);
        check_operator<ts::bf16, float>(ts::linear{q.view(), ts::as_bf16{}}, m);
    }
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
    for (index_t const m : {1, 7, 16, 17, 70, 140}) {
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
    guarded<float> wide_x{190, 4096};
    guarded<float> wide_y{190, 700};
    guarded<float> wide_again{190, 700};
    wide_x.fill(6);
    apply_there(placed.view(), wide_x, wide_y);
    for (int i = 0; i < 4; ++i) {
        apply_there(placed.view(), wide_x, wide_again);
        CHECK(same_bits<float>(wide_again.view(), wide_y.view()));
    }
}

} // namespace
