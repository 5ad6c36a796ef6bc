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

namespace {

template <class Y, class D>
void gradient_parity(shape s, index_t gap) {
    CAPTURE(s.m);
    CAPTURE(s.n);
    CAPTURE(gap);
    guarded<Y> y(s.m, s.n, gap);
    y.fill(3);
    guarded<D> dy(s.m, s.n, gap + 1);
    dy.fill(4);
    auto const weight = std::as_const(y).view();
    auto const d = std::as_const(dy).view();
    guarded<float> expected(s.m, s.n, 0);
    ts::softmax_backward(ts::reference{}, weight, d, expected.view());
    for_each_cpu([&](auto const& exec) {
        CAPTURE(name_of(exec));
        guarded<D> dx(s.m, s.n, gap);
        ts::softmax_backward(exec, weight, d, dx.view());
        CHECK(dx.is_intact());
        for (index_t i = 0; i < s.m; ++i) {
            double sum = 0;
            for (index_t k = 0; k < s.n; ++k)
                sum += std::abs(static_cast<double>(weight(i, k)) * static_cast<double>(d(i, k)));
            check_close(ts::rows(dx.view(), i, i + 1), ts::rows(expected.view(), i, i + 1), [&](index_t, index_t k) {
                double const gradient = static_cast<double>(expected.view()(i, k));
                double const error = gamma_of(s.n) * sum + gamma_of(2) * (std::abs(static_cast<double>(d(i, k))) + sum);
                return 1.01 * error * std::abs(static_cast<double>(weight(i, k))) + u * std::abs(gradient) +
                       storing<D>(gradient) + 0x1p-149;
            });
        }
        ts::softmax_backward(exec, weight, d, dy.view()); // in place
        check_close(dy.view(), dx.view(), [](index_t, index_t) { return 0.0; });
        dy.fill(4);
    });
}

} // namespace

TEST_CASE("the gradient of softmax agrees with the reference, all shapes, strides and element types") {
    for (shape const s : shapes()) {
        gradient_parity<float, float>(s, 0);
        gradient_parity<float, float>(s, 3);
        gradient_parity<ts::bf16, ts::bf16>(s, 1);
        gradient_parity<ts::fp16, float>(s, 0);
    }
}

TEST_CASE("the gradient of softmax agrees with finite differences in double") {
    for (index_t const n : {1, 2, 7, 19}) {
        CAPTURE(n);
        guarded<float> x(1, n, 0), y(1, n, 0), dy(1, n, 0), dx(1, n, 0);
        x.fill(5, 2);
        dy.fill(6);
        ts::softmax(ts::reference{}, x.view(), y.view());
        ts::softmax_backward(ts::reference{}, y.view(), dy.view(), dx.view());
        double size = 0; // of what rounding y to float, which the gradient is made of, changes
        for (index_t k = 0; k < n; ++k) size += std::abs(double{y.view()(0, k)} * double{dy.view()(0, k)});
        for (index_t k = 0; k < n; ++k) {
            auto const objective = [&](double step) {
                double sum = 0;
                double weighted = 0;
                for (index_t j = 0; j < n; ++j) {
                    double const e = std::exp(double{x.view()(0, j)} + (j == k ? step : 0));
                    sum += e;
                    weighted += e * double{dy.view()(0, j)};
                }
                return weighted / sum;
            };
            constexpr double h = 0x1p-13;
            double const coarse = (objective(2 * h) - objective(-2 * h)) / (4 * h);
            double const fine = (objective(h) - objective(-h)) / (2 * h);
            double const rounding = 64 * 0x1p-53 * (1 + std::abs(objective(0))) / h;
            double const of_y = 2 * u * double{y.view()(0, k)} * (std::abs(double{dy.view()(0, k)}) + size);
            CHECK(std::abs(double{dx.view()(0, k)} - fine) <= std::abs(coarse - fine) + rounding + of_y + u * std::abs(fine));
        }
    }
}

TEST_CASE("the gradient of softmax: rows sum to zero, masked rows give zeros, wrong shapes are refused") {
    guarded<float> y(2, 5, 0), dy(2, 5, 0), dx(2, 5, 0), wide(2, 6, 0);
    y.fill(1);
    dy.fill(2);
    for (index_t k = 0; k < 5; ++k) {
        y.view()(0, k) = 0.2f;
        y.view()(1, k) = 0.0f;
    }
    ts::softmax_backward(ts::cpu<>{}, y.view(), dy.view(), dx.view());
    double sum = 0;
    double size = 0;
    for (index_t k = 0; k < 5; ++k) {
        sum += double{dx.view()(0, k)};
        size += std::abs(0.2 * double{dy.view()(0, k)});
        CHECK(dx.view()(1, k) == 0.0f);
    }
    CHECK(std::abs(sum) <= gamma_of(16) * size);
    CHECK(message_of([&] { ts::softmax_backward(ts::cpu<>{}, y.view(), dy.view(), wide.view()); }) ==
          "tessera: softmax_backward: columns of dx is 6, expected 5 (columns of y)");
    CHECK(message_of([&] { ts::softmax_backward(ts::cpu<>{}, y.view(), wide.view(), dx.view()); }) ==
          "tessera: softmax_backward: columns of dy is 6, expected 5 (columns of y)");
}
