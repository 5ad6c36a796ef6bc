// SPDX-License-Identifier: MIT
#include "nn_support.hpp"

#include <tessera/nn/activation.hpp>

#include <limits>

using namespace nn_test;

namespace {

/// Distance of float32 numbers around y.
double ulp(double y) {
    int exponent = 0;
    std::frexp(y, &exponent);
    return std::ldexp(1.0, std::max(exponent - 24, -149));
}

/// The bounds of nn/activation.hpp for float output.
double bound(ts::activation::silu, double x, double y, bool) { return 3.5 * ulp(y) + std::abs(x) * 0x1p-149; }
double bound(ts::activation::gelu_erf, double x, double y, bool has_fma) {
    return (8.0 + (has_fma ? 0 : 0.5 * x * x)) * ulp(y) + std::abs(x) * 0x1p-148;
}
double bound(ts::activation::gelu_tanh, double x, double y, bool) {
    double const inner = x < 0 ? 1.6 * std::abs(x + 0.044715 * x * x * x) : 0;
    return (4.0 + 3 * inner) * ulp(y) + std::abs(x) * 0x1p-148;
}

template <class F, class X, class Y>
void parity(F f, shape s, index_t gap, double scale) {
    CAPTURE(s.m);
    CAPTURE(s.n);
    CAPTURE(F::name);
    guarded<X> x(s.m, s.n, gap);
    guarded<X> up(s.m, s.n, 1);
    x.fill(1, scale);
    up.fill(2, 2);
    guarded<Y> y(s.m, s.n, gap);
    for_each_cpu([&](auto const& exec) {
        CAPTURE(name_of(exec));
        bool const has_fma = !std::is_same_v<typename std::remove_cvref_t<decltype(exec)>::arch_type, ts::sse2>;
        auto const value = [&](index_t i, index_t k) { return F::value(static_cast<double>(x.view()(i, k))); };
        auto const error = [&](index_t i, index_t k) {
            return bound(f, static_cast<double>(x.view()(i, k)), value(i, k), has_fma);
        };
        ts::activate(exec, f, std::as_const(x).view(), y.view());
        check_close(y.view(), value, [&](index_t i, index_t k) { return error(i, k) + storing<Y>(value(i, k)); });
        ts::gated(exec, f, x.view(), up.view(), y.view());
        auto const product = [&](index_t i, index_t k) { return value(i, k) * static_cast<double>(up.view()(i, k)); };
        check_close(y.view(), product, [&](index_t i, index_t k) {
            double const p = product(i, k);
            return error(i, k) * std::abs(static_cast<double>(up.view()(i, k))) * 1.01 + u * std::abs(p) +
                   storing<Y>(p) + 0x1p-149;
        });
        CHECK(y.is_intact());
    });
}

} // namespace

TEST_CASE("activations and gated units agree with the definition") {
    for (shape const s : shapes())
        for (double const scale : {1.0, 40.0}) {
            auto const all = [&](auto f) {
                parity<decltype(f), float, float>(f, s, 0, scale);
                parity<decltype(f), float, float>(f, s, 3, scale);
                parity<decltype(f), ts::bf16, ts::bf16>(f, s, 1, scale);
            };
            all(ts::activation::silu{});
            all(ts::activation::gelu_erf{});
            all(ts::activation::gelu_tanh{});
        }
    parity<ts::activation::silu, float, float>({}, {2, 20011}, 1, 3); // more than one piece of a row
    parity<ts::activation::silu, ts::fp16, float>({}, {3, 65}, 1, 3);
}

TEST_CASE("the reference is the definition, rounded once") {
    guarded<float> x(2, 9, 1);
    x.fill(5, 3);
    guarded<float> y(2, 9, 0);
    ts::gelu(ts::reference{}, x.view(), y.view());
    check_close(y.view(),
                [&](index_t i, index_t k) {
                    double const v = double{x.view()(i, k)};
                    return v * 0.5 * (1 + std::erf(v / std::sqrt(2.0)));
                },
                [&](index_t i, index_t k) { return storing<float>(double{y.view()(i, k)}) + 0x1p-45; });
    ts::swiglu(ts::reference{}, x.view(), x.view(), y.view());
    check_close(y.view(), [&](index_t i, index_t k) { return std::pow(double{x.view()(i, k)}, 2) / (1 + std::exp(-double{x.view()(i, k)})); },
                [&](index_t i, index_t k) { return storing<float>(double{y.view()(i, k)}) + 0x1p-45; });
}

TEST_CASE("activations: infinities, NaN, zeros and the ends of the range") {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    auto const check = [&](auto const& exec) {
        auto const one = [&](auto f, float v) {
            guarded<float> x(1, 1, 0);
            x.view()(0, 0) = v;
            ts::activate(exec, f, x.view(), x.view());
            return x.view()(0, 0);
        };
        auto const all = [&](auto f) {
            CAPTURE(decltype(f)::name);
            CHECK(one(f, infinity) == infinity);
            CHECK(std::isnan(one(f, -infinity)));
            CHECK(std::isnan(one(f, std::numeric_limits<float>::quiet_NaN())));
            CHECK(one(f, 0.0f) == 0.0f);
            CHECK(std::signbit(one(f, -0.0f)));
            CHECK(one(f, 3e38f) == 3e38f);
            CHECK(one(f, -3e38f) == 0.0f);
            CHECK(one(f, -150.0f) == 0.0f);
        };
        all(ts::activation::silu{});
        all(ts::activation::gelu_erf{});
        all(ts::activation::gelu_tanh{});
    };
    check(ts::reference{});
    for_each_cpu(check);
}

TEST_CASE("add rounds once, and may write to either input") {
    auto const check = [](auto const& exec) {
        for (shape const s : shapes()) {
            guarded<float> a(s.m, s.n, 1);
            guarded<float> b(s.m, s.n, 2);
            a.fill(1);
            b.fill(2);
            guarded<float> sum = a;
            for (index_t i = 0; i < s.m; ++i)
                for (index_t k = 0; k < s.n; ++k) sum.view()(i, k) = a.view()(i, k) + b.view()(i, k);
            guarded<float> y = a;
            ts::add(exec, a.view(), b.view(), y.view());
            check_close(y.view(), sum.view(), [](index_t, index_t) { return 0.0; });
            y = a;
            ts::add(exec, y.view(), b.view(), y.view());
            check_close(y.view(), sum.view(), [](index_t, index_t) { return 0.0; });
            ts::add(exec, a.view(), b.view(), b.view());
            check_close(b.view(), sum.view(), [](index_t, index_t) { return 0.0; });
            CHECK(y.is_intact());
        }
    };
    check(ts::reference{});
    for_each_cpu(check);
}

TEST_CASE("elementwise operations refuse wrong shapes with a sentence") {
    guarded<float> x(2, 5, 0);
    guarded<float> y(2, 6, 0);
    ts::cpu<> const exec;
    CHECK(message_of([&] { ts::silu(exec, x.view(), y.view()); }) ==
          "tessera: silu: columns of y is 6, expected 5 (columns of x)");
    CHECK(message_of([&] { ts::swiglu(exec, y.view(), x.view(), y.view()); }) ==
          "tessera: gated: columns of y is 6, expected 5 (columns of up)");
    CHECK(message_of([&] { ts::add(exec, x.view(), y.view(), x.view()); }) ==
          "tessera: add: columns of y is 5, expected 6 (columns of b)");
}
