// SPDX-License-Identifier: MIT
// Products with x in bf16: tiles and dot products where the processor has them, float sums elsewhere.

#include "operator_laws.hpp"

#include <tessera/operators/describe.hpp>

using namespace tessera_test;

TEST_CASE("float32 with x in bf16") { report_law<dense_storage_of<float>, ts::as_bf16>("as_bf16"); }

TEST_CASE("bf16 with x in bf16") { report_law<dense_storage_of<ts::bf16>, ts::as_bf16, best_arch>("as_bf16"); }

TEST_CASE("q4_1 with x in bf16") { report_law<blocked_storage<ts::q4_1>, ts::as_bf16>("as_bf16"); }

TEST_CASE("uint5 affine in groups of 96 with x in bf16") {
    report_law<scheme_storage<ts::scheme<ts::uint5, ts::group<96>, ts::fp16, ts::affine>>, ts::as_bf16, best_arch>("as_bf16");
}

TEST_CASE("nf4 and int8 with one scale a row with x in bf16") {
    report_law<scheme_storage<ts::nf4_g64>, ts::as_bf16, best_arch>("nf4");
    report_law<scheme_storage<ts::int8_per_channel>, ts::as_bf16, best_arch>("int8");
}

TEST_CASE("groups that tiles do not serve, with x in bf16") {
    report_law<scheme_storage<ts::scheme<ts::uint1, ts::group<5>, ts::fp16, ts::affine>>, ts::as_bf16, best_arch>("as_bf16");
}

TEST_CASE("exact where bf16 is: integers of few bits") {
    // All numbers and sums have few bits, so that nothing rounds, on any path, whatever the order.
    guarded<float> w{37, 300}, x{35, 300}, y{35, 37};
    for (index_t n = 0; n < 37; ++n)
        for (index_t k = 0; k < 300; ++k) w.view()(n, k) = static_cast<float>((n * 7 + k * 5) % 31 - 15);
    for (index_t m = 0; m < 35; ++m)
        for (index_t k = 0; k < 300; ++k) x.view()(m, k) = static_cast<float>((m * 3 + k * 11) % 17 - 8);
    for_each_arch([&]<class Arch>(Arch) {
        for (index_t const rows : {1, 7, 16, 31, 35}) {
            y.clear();
            ts::linear const op{ts::matrix_view<float const>{w.view()}, ts::as_bf16{}};
            ts::apply(ts::cpu<Arch, ts::serial>{}, op, ts::rows(x.view(), 0, rows), ts::rows(y.view(), 0, rows));
            bool same = true;
            for (index_t m = 0; m < rows; ++m)
                for (index_t n = 0; n < 37; ++n) {
                    float sum = 0;
                    for (index_t k = 0; k < 300; ++k) sum += w.view()(n, k) * x.view()(m, k);
                    same = same && y.view()(m, n) == sum;
                }
            CHECK(same);
        }
    });
}

TEST_CASE("describe names the product with x in bf16") {
    ts::matrix<float> const w{16, 32};
    std::string const text = ts::describe(ts::cpu<>{}, ts::linear{w, ts::as_bf16{}}, 16);
    CAPTURE(text);
    CHECK((text.find("bf16") != std::string::npos || text.find("multiply-add") != std::string::npos));
}
