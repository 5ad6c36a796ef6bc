// SPDX-License-Identifier: MIT
// The bounds are those of simd/math.hpp, measured over all 2^32 floats (the case marked skip() with `stride` 1, which takes
// an hour); here every 65,537th and what lies around the special points.
#include "simd_support.hpp"

#include <tessera/simd/math.hpp>
#include <tessera/simd/softmax_weight.hpp>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

using namespace simd_test;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// The distance of float32 numbers around r.
double ulp(double r) {
    if (std::abs(r) > 0x1.fffffep127) return 0x1p104;
    int exponent = 0;
    std::frexp(r, &exponent);
    return std::ldexp(1.0, std::max(exponent - 24, -149));
}

/// The error in ulp; 0 for the same infinity or two NaN, infinite for any other difference of kind, or a wrong sign.
double error(float actual, double expected) {
    constexpr double wrong = std::numeric_limits<double>::infinity();
    auto const rounded = static_cast<float>(expected);
    if (std::isnan(expected) || std::isnan(actual)) return std::isnan(expected) && std::isnan(actual) ? 0 : wrong;
    if (std::isinf(actual) || std::isinf(rounded)) return actual == rounded ? 0 : wrong;
    if (std::signbit(actual) != std::signbit(rounded) && (actual != 0 || expected == 0)) return wrong;
    return std::abs(static_cast<double>(actual) - expected) / ulp(expected);
}

/// The largest error over x, in ulp divided by allowed(x), and where.
struct worst {
    double ratio = 0;
    float at = 0;

    template <class Arch, class F, class G, class A>
    void include(Arch, std::vector<float> const& x, F const& f, G const& g, A const& allowed) {
        constexpr index_t lanes = ts::simd::lanes<Arch>;
        for (index_t i = 0; i < static_cast<index_t>(x.size()); i += lanes) {
            alignas(64) float in[lanes];
            alignas(64) float out[lanes];
            for (index_t l = 0; l < lanes; ++l) in[l] = x[static_cast<std::size_t>(i + l) % x.size()];
            f(ts::simd::floats<Arch>::load_aligned(in)).store_aligned(out);
            for (index_t l = 0; l < lanes; ++l) {
                double const e = error(out[l], g(static_cast<double>(in[l])));
                double const r = e == 0 ? 0 : e / allowed(static_cast<double>(in[l])); // no bound is asked at NaN
                if (!(r <= ratio)) {
                    ratio = r;
                    at = in[l];
                }
            }
        }
    }
};

/// Every `step`-th float, and the neighbours of points where something happens.
std::vector<float> sample(std::uint64_t step) {
    std::vector<float> x;
    for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += step)
        x.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
    for (float const point : {0.0f, 0x1p-149f, 0x1p-126f, 0x1p-24f, 0.34657359f, 0.625f, 0.85f, 1.0f, 10.0f, 15.0f, 16.6f,
                              87.33654f, 88.0f, 88.72284f, 88.8f, 103.0f, 103.97208f, 104.0f, 0x1.fffffep127f, infinity}) {
        float below = point;
        float above = point;
        for (int i = 0; i < 100; ++i) {
            x.insert(x.end(), {below, above, -below, -above});
            below = std::nextafter(below, -infinity);
            above = std::nextafter(above, infinity);
        }
    }
    x.push_back(std::numeric_limits<float>::quiet_NaN());
    x.push_back(std::bit_cast<float>(0x7f800001u)); // signalling, smallest payload
    x.push_back(std::bit_cast<float>(0xffffffffu));
    return x;
}

double normal_tail(double a) { return 0.5 * std::erfc(a * 0.70710678118654752440); }

template <class Arch>
constexpr bool is_fused = !std::is_same_v<Arch, ts::sse2>;

/// f(name, SIMD function, definition, bound in ulp as a function of x, whether negative arguments count)
template <class Arch, class F>
void for_each_function(F const& f) {
    using reals = ts::simd::floats<Arch>;
    auto const ulps = [](double n) { return [n](double) { return n; }; };
    f("exp", [](reals const& x) { return ts::simd::exp(x); }, [](double x) { return std::exp(x); }, ulps(1.01), true);
    f("sigmoid", [](reals const& x) { return ts::simd::sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); },
      ulps(2.41), true);
    f("tanh", [](reals const& x) { return ts::simd::tanh(x); }, [](double x) { return std::tanh(x); }, ulps(1.34), true);
    f("erf", [](reals const& x) { return ts::simd::erf(x); }, [](double x) { return std::erf(x); }, ulps(1.34), true);
    f("normal_tail", [](reals const& x) { return ts::simd::normal_tail(x); }, normal_tail,
      ulps(is_fused<Arch> ? 4.63 : 66.1), false);
    // In the subnormal tail the exponential has no digits left, and x multiplies what is lost.
    auto const tail = [](double n) { return [n](double x) { return x < -80 ? n + std::abs(x) : n; }; };
    f("silu", [](reals const& x) { return ts::simd::silu(x); }, [](double x) { return x / (1 + std::exp(-x)); }, tail(3.5),
      true);
    f("gelu_erf", [](reals const& x) { return ts::simd::gelu_erf(x); },
      [](double x) { return x * 0.5 * std::erfc(x * -0.70710678118654752440); },
      [](double x) { return (is_fused<Arch> ? (x < -12 ? 8 : 6) : 8 + 0.5 * x * x) + (x < -12 ? std::abs(x) : 0); }, true);
    f("gelu_tanh", [](reals const& x) { return ts::simd::gelu_tanh(x); },
      [](double x) { return x / (1 + std::exp(-1.5957691216057307118 * (x + 0.044715 * x * x * x))); },
      [](double x) { return x >= -1 ? 3.5 : 4 + 4.8 * std::abs(x + 0.044715 * x * x * x); }, true);
}

template <class Arch>
void sweep(std::vector<float> const& x) {
    std::vector<float> positive;
    for (float const v : x)
        if (!(v < 0) && !(v == 0 && std::signbit(v))) positive.push_back(v);
    for_each_function<Arch>([&](char const* name, auto const& f, auto const& g, auto const& allowed, bool all) {
        worst w;
        w.include(Arch{}, all ? x : positive, f, g, allowed);
        CAPTURE(std::string{name});
        CAPTURE(Arch::name);
        CAPTURE(w.at);
        CHECK(w.ratio <= 1);
    });
}

template <class Arch, class F>
float one(F const& f, float x) {
    alignas(64) float out[ts::simd::lanes<Arch>];
    f(ts::simd::floats<Arch>(x)).store_aligned(out);
    return out[0];
}

} // namespace

TEST_CASE("elementary functions are within their stated bounds") {
    auto const x = sample(65537);
    for_each_arch([&](auto arch) { sweep<decltype(arch)>(x); });
}

TEST_CASE("elementary functions over every 31st float" * doctest::skip()) {
    constexpr std::uint64_t stride = 31;
    for (std::uint64_t part = 0; part < 256; ++part) {
        std::vector<float> x;
        for (std::uint64_t bits = part << 24; bits < (part + 1) << 24; bits += stride)
            x.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
        for_each_arch([&](auto arch) { sweep<decltype(arch)>(x); });
    }
}

TEST_CASE("elementary functions at the special points") {
    for_each_arch([](auto arch) {
        using A = decltype(arch);
        CAPTURE(A::name);
        auto const exp = [](auto const& x) { return ts::simd::exp(x); };
        CHECK(one<A>(exp, 0.0f) == 1.0f);
        CHECK(one<A>(exp, -infinity) == 0.0f);
        CHECK_FALSE(std::signbit(one<A>(exp, -infinity)));
        CHECK(one<A>(exp, infinity) == infinity);
        CHECK(one<A>(exp, 88.72283f) < infinity);
        CHECK(one<A>(exp, 88.72284f) == infinity);
        CHECK(one<A>(exp, -103.0f) == 0x1p-149f); // gradual underflow
        CHECK(one<A>(exp, -104.0f) == 0.0f);
        CHECK(one<A>(exp, -3e38f) == 0.0f);
        auto const tanh = [](auto const& x) { return ts::simd::tanh(x); };
        auto const erf = [](auto const& x) { return ts::simd::erf(x); };
        CHECK(one<A>(tanh, infinity) == 1.0f);
        CHECK(one<A>(tanh, -infinity) == -1.0f);
        CHECK(std::signbit(one<A>(tanh, -0.0f)));
        CHECK(one<A>(erf, infinity) == 1.0f);
        CHECK(one<A>(erf, -infinity) == -1.0f);
        CHECK(std::signbit(one<A>(erf, -0.0f)));
        auto const sigmoid = [](auto const& x) { return ts::simd::sigmoid(x); };
        CHECK(one<A>(sigmoid, infinity) == 1.0f);
        CHECK(one<A>(sigmoid, -infinity) == 0.0f);
        CHECK(one<A>(sigmoid, 0.0f) == 0.5f);
    });
}

TEST_CASE("softmax_weight is within its stated bound up to 80; what would be subnormal is 0, every NaN is NaN") {
    auto x = sample(65537);
    for (float const point : {-87.0f, 80.0f})
        for (int i = -100; i <= 100; ++i) x.push_back(point + static_cast<float>(i) * 0x1p-17f);
    for (std::uint32_t bits = 0; bits < 512; ++bits) // all that is moved to an exponent
        x.insert(x.end(), {std::bit_cast<float>(0x7fc00000u + bits), std::bit_cast<float>(0xfffffe00u + bits), std::bit_cast<float>(0x7f800001u + bits)});
    for_each_arch([&](auto arch) {
        using A = decltype(arch);
        double const slope = ts::simd::lanes<A> == 16 ? 0.25 : 1.25;
        double worst_ratio = 0;
        int wrong = 0;
        for (float const v : x) {
            float const y = one<A>([](auto const& batch) { return ts::simd::softmax_weight(batch); }, v);
            if (std::isnan(v)) {
                wrong += !std::isnan(y);
            } else if (v < -87) {
                wrong += y != 0 || std::signbit(y);
            } else if (v <= 80) {
                double const expected = std::exp(double{v});
                worst_ratio = std::max(worst_ratio, std::abs(y - expected) / expected / (slope * 0x1p-24 * std::abs(double{v}) + 0x1p-22));
            }
        }
        CAPTURE(A::name);
        CHECK(wrong == 0);
        CHECK(worst_ratio <= 1);
        CHECK(worst_ratio > 0.5);
    });
}

TEST_CASE("neighbours are exchanged") {
    for_each_arch([](auto arch) {
        using A = decltype(arch);
        constexpr index_t lanes = ts::simd::lanes<A>;
        alignas(64) float x[lanes];
        for (index_t i = 0; i < lanes; ++i) x[i] = static_cast<float>(i) - 1.5f;
        alignas(64) float y[lanes];
        ts::simd::exchange_neighbours(ts::simd::floats<A>::load_aligned(x)).store_aligned(y);
        for (index_t i = 0; i < lanes; ++i) CHECK(y[i] == x[i ^ 1]);
    });
}
