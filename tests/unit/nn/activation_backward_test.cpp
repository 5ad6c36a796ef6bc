// SPDX-License-Identifier: MIT
// Gradients of activations and gated units: the definitions against finite differences in double, the kernels against the
// definitions within the bounds of nn/activation.hpp.
#include "nn_support.hpp"

#include <tessera/nn/activation.hpp>

#include <limits>
#include <utility>

using namespace nn_test;

namespace {

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

/// The bounds of nn/activation.hpp, without what storing the result adds.
double bound(ts::activation::silu, double x, bool) { return 8 * u * logistic(x) * (1 + std::abs(x) * logistic(-x)); }
double bound(ts::activation::gelu_erf, double x, bool has_fma) {
    double const below = 0.5 * std::erfc(x * -0.7071067811865476);
    double const density = 0.3989422804014327 * std::exp(-0.5 * x * x);
    return u * ((has_fma ? 10 : 72) * below + std::abs(x) * density * (0.5 * x * x + 6));
}
double bound(ts::activation::gelu_tanh, double x, bool) {
    double const v = 1.5957691216057308 * (x + 0.044715 * x * x * x);
    double const slope = 1.5957691216057308 * (1 + 0.134145 * x * x);
    return u * (10 + 4 * std::abs(v)) * logistic(v) * (1 + std::abs(x) * logistic(-v) * slope);
}
/// Of an exponential that is subnormal.
double tiny(double x) { return (1 + std::abs(x)) * (1 + x * x) * 0x1p-146; }

template <class F, class X, class Y>
void parity(F f, shape s, index_t gap, double scale) {
    CAPTURE(s.m);
    CAPTURE(s.n);
    CAPTURE(F::name);
    guarded<X> x(s.m, s.n, gap), up(s.m, s.n, 1), dy(s.m, s.n, 2);
    x.fill(1, scale);
    up.fill(2, 2);
    dy.fill(3, 1);
    guarded<Y> dx(s.m, s.n, gap), dup(s.m, s.n, 1);
    auto const at = [](auto const& v, index_t i, index_t k) { return static_cast<double>(v.view()(i, k)); };
    auto const check = [&](auto const& exec, bool has_fma, double slack) {
        auto const slope = [&](index_t i, index_t k) { return F::derivative(at(x, i, k)); };
        auto const error = [&](index_t i, index_t k) { return slack * (bound(f, at(x, i, k), has_fma) + tiny(at(x, i, k))); };
        ts::activate_backward(exec, f, std::as_const(x).view(), std::as_const(dy).view(), dx.view());
        auto const product = [&](index_t i, index_t k) { return slope(i, k) * at(dy, i, k); };
        check_close(dx.view(), product, [&](index_t i, index_t k) {
            return error(i, k) * std::abs(at(dy, i, k)) * 1.01 + slack * u * std::abs(product(i, k)) + storing<Y>(product(i, k)) + 0x1p-149;
        });
        ts::gated_backward(exec, f, std::as_const(x).view(), std::as_const(up).view(), std::as_const(dy).view(), dx.view(), dup.view());
        auto const dgate = [&](index_t i, index_t k) { return slope(i, k) * at(up, i, k) * at(dy, i, k); };
        check_close(dx.view(), dgate, [&](index_t i, index_t k) {
            return error(i, k) * std::abs(at(up, i, k) * at(dy, i, k)) * 1.01 + slack * 3 * u * std::abs(dgate(i, k)) +
                   storing<Y>(dgate(i, k)) + 0x1p-146 * (1 + std::abs(at(dy, i, k)));
        });
        // The other gradient is the forward function times dy: one more product than activate, bit for bit.
        guarded<float> value(s.m, s.n, 0);
        ts::activate(exec, f, std::as_const(x).view(), value.view());
        for (index_t i = 0; i < s.m; ++i)
            for (index_t k = 0; k < s.n; ++k) {
                if (slack == 0) {
                    double const p = F::value(at(x, i, k)) * at(dy, i, k);
                    CHECK(agrees(at(dup, i, k), p, storing<Y>(p)));
                } else {
                    CHECK(agrees(at(dup, i, k), static_cast<double>(static_cast<Y>(value.view()(i, k) * static_cast<float>(dy.view()(i, k)))), 0));
                }
            }
        CHECK(dx.is_intact());
        CHECK(dup.is_intact());
    };
    check(ts::reference{}, true, 0);
    for_each_cpu([&](auto const& exec) {
        CAPTURE(name_of(exec));
        check(exec, !std::is_same_v<typename std::remove_cvref_t<decltype(exec)>::arch_type, ts::sse2>, 1);
    });
}

template <class F>
void each_activation(F const& f) {
    f(ts::activation::silu{});
    f(ts::activation::gelu_erf{});
    f(ts::activation::gelu_tanh{});
}

} // namespace

TEST_CASE("the definitions of derivatives are the limits of difference quotients") {
    each_activation([](auto f) {
        using function = decltype(f);
        CAPTURE(function::name);
        for (int i = -4000; i <= 4000; ++i) {
            double const x = i * 0.005 + 0.00123;
            auto const quotient = [&](double h) { return (function::value(x + h) - function::value(x - h)) / (2 * h); };
            double const coarse = quotient(0x1p-10), fine = quotient(0x1p-11);
            // Richardson's extrapolation; its error is below a sixteenth of the last correction, and that of rounding.
            double const limit = fine + (fine - coarse) / 3;
            CHECK(std::abs(function::derivative(x) - limit) <= std::abs(fine - coarse) / 16 + (1 + std::abs(x)) * 0x1p-53 * 0x1p+13);
        }
        CHECK(function::derivative(0) == 0.5);
        CHECK(std::abs(function::derivative(40) - 1) < 1e-15);
        CHECK(std::abs(function::derivative(-40)) < 1e-15);
    });
}

TEST_CASE("gradients of activations and gated units agree with the definition") {
    for (shape const s : shapes())
        for (double const scale : {1.0, 30.0})
            each_activation([&](auto f) {
                parity<decltype(f), float, float>(f, s, 3, scale);
                parity<decltype(f), ts::bf16, ts::bf16>(f, s, 1, scale);
            });
    parity<ts::activation::silu, float, float>({}, {2, 20011}, 1, 3); // more than one piece of a row
    parity<ts::activation::silu, ts::fp16, float>({}, {3, 65}, 1, 3);
}

TEST_CASE("gradients in place, and what they refuse") {
    auto const check = [](auto const& exec) {
        guarded<float> x(3, 37, 1), up(3, 37, 1), dy(3, 37, 1), dx(3, 37, 1), dup(3, 37, 1);
        x.fill(1), up.fill(2), dy.fill(3);
        ts::silu_backward(exec, x.view(), dy.view(), dx.view());
        guarded<float> copy = dy;
        ts::silu_backward(exec, x.view(), copy.view(), copy.view());
        check_close(copy.view(), dx.view(), [](index_t, index_t) { return 0.0; });
        ts::gelu_backward(exec, x.view(), dy.view(), dx.view());
        copy = x;
        ts::gelu_backward(exec, copy.view(), dy.view(), copy.view());
        check_close(copy.view(), dx.view(), [](index_t, index_t) { return 0.0; });
        ts::swiglu_backward(exec, x.view(), up.view(), dy.view(), dx.view(), dup.view());
        guarded<float> g = x, h = up; // the outputs are the inputs, crossed
        ts::swiglu_backward(exec, g.view(), h.view(), dy.view(), h.view(), g.view());
        check_close(h.view(), dx.view(), [](index_t, index_t) { return 0.0; });
        check_close(g.view(), dup.view(), [](index_t, index_t) { return 0.0; });

        guarded<float> narrow(3, 36, 1);
        CHECK_THROWS_WITH_AS(ts::silu_backward(exec, x.view(), narrow.view(), dx.view()),
                             "tessera: silu_backward: columns of dx is 37, expected 36 (columns of dy)", ts::shape_error);
        CHECK_THROWS_WITH_AS(ts::swiglu_backward(exec, x.view(), up.view(), dy.view(), dx.view(), narrow.view()),
                             "tessera: gated_backward: columns of dup is 36, expected 37 (columns of gate)", ts::shape_error);
        CHECK_THROWS_AS(ts::swiglu_backward(exec, x.view(), up.view(), dy.view(), dx.view(), dx.view()), ts::shape_error);
        CHECK_THROWS_AS(ts::silu_backward(exec, ts::columns(x.view(), 0, 30), ts::columns(dy.view(), 0, 30), ts::columns(x.view(), 1, 31)),
                        ts::shape_error);
    };
    check(ts::reference{});
    for_each_cpu(check);
}

TEST_CASE("derivatives at NaN and infinity") {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    auto const check = [&](auto const& exec) {
        each_activation([&](auto f) {
            CAPTURE(decltype(f)::name);
            auto const one = [&](float v) {
                guarded<float> x(1, 1, 0), dy(1, 1, 0);
                x.view()(0, 0) = v;
                dy.view()(0, 0) = 1;
                ts::activate_backward(exec, f, x.view(), dy.view(), x.view());
                return x.view()(0, 0);
            };
            CHECK(std::isnan(one(std::numeric_limits<float>::quiet_NaN())));
            CHECK(std::isnan(one(infinity)));
            CHECK(std::isnan(one(-infinity)));
            CHECK(one(0.0f) == 0.5f);
            CHECK(one(60.0f) == 1.0f);
            CHECK(one(-200.0f) == 0.0f);
        });
    };
    check(ts::reference{});
    for_each_cpu(check);
}
