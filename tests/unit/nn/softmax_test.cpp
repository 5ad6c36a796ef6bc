// SPDX-License-Identifier: MIT
#include "nn_support.hpp"

#include <tessera/nn/softmax.hpp>

#include <limits>

using namespace nn_test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

template <class X, class Y>
void parity(shape s, index_t gap, double scale) {
    CAPTURE(s.m);
    CAPTURE(s.n);
    CAPTURE(gap);
    CAPTURE(scale);
    guarded<X> input(s.m, s.n, gap);
    input.fill(7, scale);
    auto const x = std::as_const(input).view();
    guarded<float> expected(s.m, s.n, 0);
    guarded<Y> y(s.m, s.n, gap);
    ts::softmax(ts::reference{}, x, expected.view());
    for_each_cpu([&](auto const& exec) {
        CAPTURE(name_of(exec));
        ts::softmax(exec, x, y.view());
        CHECK(y.is_intact());
        for (index_t i = 0; i < s.m; ++i) {
            double top = -1e300;
            for (index_t k = 0; k < s.n; ++k) top = std::max(top, static_cast<double>(x(i, k)));
            double mean_distance = 0; // of the arguments of the exponentials, whose roundings meet in the sum
            for (index_t k = 0; k < s.n; ++k)
                mean_distance += static_cast<double>(expected.view()(i, k)) * (top - static_cast<double>(x(i, k)));
            check_close(ts::rows(y.view(), i, i + 1), ts::rows(expected.view(), i, i + 1), [&](index_t, index_t k) {
                double const p = static_cast<double>(expected.view()(i, k));
                double const distance = top - static_cast<double>(x(i, k));
                return (gamma_of(s.n + 8) + 1.01 * u * (distance + mean_distance)) * p + storing<Y>(p) + 0x1p-149;
            });
        }
    });
}

} // namespace

TEST_CASE("softmax agrees with the reference, all shapes, strides and element types") {
    for (shape const s : shapes())
        for (double const scale : {1.0, 30.0}) {
            parity<float, float>(s, 0, scale);
            parity<float, float>(s, 5, scale);
            parity<ts::fp16, ts::fp16>(s, 1, scale);
            parity<ts::bf16, float>(s, 0, scale);
            parity<float, ts::bf16>(s, 2, scale);
        }
}

TEST_CASE("softmax: rows sum to one, in place, and a shift changes nothing beyond rounding") {
    for_each_cpu([&](auto const& exec) {
        guarded<float> x(3, 333, 1);
        x.fill(2, 4);
        guarded<float> y = x;
        ts::softmax(exec, x.view(), y.view());
        ts::softmax(exec, x.view(), x.view());
        check_close(x.view(), y.view(), [](index_t, index_t) { return 0.0; });
        for (index_t i = 0; i < 3; ++i) {
            double sum = 0;
            for (index_t k = 0; k < 333; ++k) sum += double{y.view()(i, k)};
            CHECK(std::abs(sum - 1) <= gamma_of(333 + 8));
        }
    });
}

TEST_CASE("softmax: masked rows give zeros, NaN and plus infinity give NaN, extremes do not overflow") {
    auto const check = [](auto const& exec) {
        for (index_t const n : {1, 4, 17, 40}) {
            CAPTURE(n);
            guarded<float> x(6, n, 0);
            x.fill(1);
            auto const v = x.view();
            for (index_t k = 0; k < n; ++k) {
                v(0, k) = -infinity;
                v(1, k) = -infinity;
                v(4, k) = 3e38f;
            }
            v(1, n - 1) = -2.0f;
            v(2, n / 2) = std::numeric_limits<float>::quiet_NaN();
            v(3, n / 2) = infinity;
            for (index_t k = 0; k < n; ++k) v(5, k) = -infinity;
            v(5, 0) = std::numeric_limits<float>::quiet_NaN();
            ts::softmax(exec, v, v);
            for (index_t k = 0; k < n; ++k) {
                CHECK(v(0, k) == 0);
                CHECK(v(1, k) == (k == n - 1 ? 1.0f : 0.0f));
                CHECK(std::isnan(v(2, k)));
                CHECK(std::isnan(v(5, k)));
                CHECK(std::abs(double{v(4, k)} - 1.0 / static_cast<double>(n)) <= gamma_of(n + 8));
            }
            CHECK(std::isnan(v(3, n / 2))); // infinity less infinity, as IEEE says
        }
    };
    check(ts::reference{});
    for_each_cpu(check);
}

TEST_CASE("softmax refuses wrong shapes with a sentence") {
    guarded<float> x(2, 5, 0);
    guarded<float> y(3, 5, 0);
    CHECK(message_of([&] { ts::softmax(ts::cpu<>{}, x.view(), y.view()); }) ==
          "tessera: softmax: rows of y is 3, expected 2 (rows of x)");
    CHECK_THROWS_AS(ts::softmax(ts::cpu<>{}, ts::matrix_view<float const>(nullptr, 3, 5), y.view()), ts::shape_error);
}
