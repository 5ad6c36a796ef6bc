// SPDX-License-Identifier: MIT
// Encoders, gains and storage of pyramid vector codes: golden encodings, distributions and levels computed elsewhere, mean squared
// errors on a unit Gaussian against theory and Monte Carlo values, packing, and input that is no good.

#include <tessera/core/philox.hpp>
#include <tessera/core/thread_pool.hpp>
#include <tessera/numerics/error_bounds.hpp>
#include <tessera/quant/pvq.hpp>
#include <tessera/transform/hadamard.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

constexpr double pi = 3.14159265358979323846;

/// Unit Gaussians by Box and Muller's transform, in pairs.
void fill_gaussian(float* x, std::size_t n, std::uint64_t seed) {
    ts::philox const random{seed};
    for (std::size_t i = 0; i < n; i += 2) {
        double const u = (random.bits(2 * i) + 0.5) * 0x1p-32;
        double const angle = 2 * pi * (random.bits(2 * i + 1) + 0.5) * 0x1p-32;
        double const radius = std::sqrt(-2 * std::log(u));
        x[i] = static_cast<float>(radius * std::cos(angle));
        if (i + 1 < n) x[i + 1] = static_cast<float>(radius * std::sin(angle));
    }
}

/// Mean squared error a weight on a unit Gaussian, the gain as it is.
struct estimate {
    double mean;
    double standard_error;
};
template <class Format>
estimate gaussian_error(ts::pvq_encoder encoder, ts::pvq_target target, index_t groups) {
    constexpr index_t N = Format::group;
    double sum = 0, squares = 0;
    std::vector<float> x(static_cast<std::size_t>(N * groups));
    fill_gaussian(x.data(), x.size(), 77);
    for (index_t g = 0; g < groups; ++g) {
        std::int8_t p[N];
        float const* const v = x.data() + g * N;
        double const gain = ts::pvq_encode<Format>(v, N, p, encoder, target);
        index_t pulses = 0, norm = 0;
        for (int const c : p) pulses += std::abs(c), norm += c * c;
        REQUIRE(pulses == Format::pulses);
        double error = 0;
        for (index_t i = 0; i < N; ++i) {
            double const difference = static_cast<double>(v[i]) - gain * p[i] / std::sqrt(static_cast<double>(norm));
            error += difference * difference / static_cast<double>(N);
        }
        sum += error;
        squares += error * error;
    }
    double const count = static_cast<double>(groups);
    return {sum / count, std::sqrt((squares / count - sum / count * (sum / count)) / count)};
}

template <class Format>
void check_gaussian(double greedy_norm, double greedy, double search_free_norm, index_t groups = 4000) {
    CAPTURE(std::string{Format::name});
    // The expected values have a standard error of up to 0.0009 and four digits.
    auto const close = [](estimate const& e, double expected) {
        CAPTURE(e.mean);
        CHECK(std::fabs(e.mean - expected) <= 4 * e.standard_error + 0.0009 + 0.00005);
    };
    close(gaussian_error<Format>(ts::pvq_encoder::greedy, ts::pvq_target::norm, groups), greedy_norm);
    estimate const best = gaussian_error<Format>(ts::pvq_encoder::greedy, ts::pvq_target::least_squares, groups);
    close(best, greedy);
    close(gaussian_error<Format>(ts::pvq_encoder::search_free, ts::pvq_target::norm, groups), search_free_norm);
    // No code does better than Shannon's bound at its rate; the gain here takes no bits, so an N-th of the energy is free.
    CHECK(best.mean > 0.8 * std::pow(2.0, -2.0 * Format::index_bits / static_cast<double>(Format::group)));
}

/// Theory for fine pyramids. Points lie as the lattice A_(N-1), whose cells have the second moment 1/12 + 1/(6 N) a dimension in
/// units of a pulse (Conway and Sloane, ch. 21), in the N - 1 dimensions of a face; a pulse is |x|_1 / K; the gain takes
/// away the error along x, which leans 1 - 2 / pi into the face.
double fine_pyramid_error(double n, double k) {
    double const pulse_squared = (n + n * (n - 1) * 2 / pi) / (k * k);
    return (n - 1 - (1 - 2 / pi)) / n * (1.0 / 12 + 1 / (6 * n)) * pulse_squared;
}

template <class Format>
void check_fine(index_t groups = 4000) {
    CAPTURE(std::string{Format::name});
    estimate const e = gaussian_error<Format>(ts::pvq_encoder::greedy, ts::pvq_target::least_squares, groups);
    double const expected = fine_pyramid_error(Format::group, Format::pulses);
    CHECK(std::fabs(e.mean - expected) <= 4 * e.standard_error + 0.02 * expected);
}

template <class Format>
std::vector<int> encoded(std::vector<float> const& x, ts::pvq_encoder encoder, double* gain = nullptr) {
    std::vector<std::int8_t> p(static_cast<std::size_t>(Format::group));
    double const g = ts::pvq_encode<Format>(x.data(), static_cast<index_t>(x.size()), p.data(), encoder);
    if (gain != nullptr) *gain = g;
    return {p.begin(), p.end()};
}

} // namespace

TEST_CASE("golden encodings") {
    std::vector<float> const x{0.9f, -0.5f, 0.3f, 0.1f, -0.05f, 0, 0.7f, -1.2f};
    double gain = 0;
    CHECK(encoded<ts::pvq<8, 4>>(x, ts::pvq_encoder::greedy, &gain) == std::vector<int>{1, -1, 0, 0, 0, 0, 1, -1});
    CHECK(gain == doctest::Approx(1.65).epsilon(1e-7));
    CHECK(encoded<ts::pvq<8, 8>>(x, ts::pvq_encoder::greedy, &gain) == std::vector<int>{2, -1, 1, 0, 0, 0, 1, -3});
    CHECK(gain == doctest::Approx(1.725).epsilon(1e-7));
    CHECK(encoded<ts::pvq<8, 12>>(x, ts::pvq_encoder::greedy, &gain) == std::vector<int>{3, -2, 1, 0, 0, 0, 2, -4});
    CHECK(gain == doctest::Approx(1.749285568).epsilon(1e-7));
    auto const judge = [&]<class Format>(Format, std::vector<int> const& expected, std::uint64_t index, double cosine) {
        std::int8_t p[8];
        double products = 0, of_p = 0, of_x = 0;
        for (std::size_t i = 0; i < 8; ++i) {
            p[i] = static_cast<std::int8_t>(expected[i]);
            products += static_cast<double>(x[i]) * expected[i];
            of_p += expected[i] * expected[i];
            of_x += std::pow(static_cast<double>(x[i]), 2);
        }
        CHECK(Format::index(p).word(0) == index);
        CHECK(products / std::sqrt(of_p * of_x) == doctest::Approx(cosine).epsilon(1e-7));
    };
    judge(ts::pvq<8, 4>{}, {1, -1, 0, 0, 0, 0, 1, -1}, 2033, 0.938272721);
    judge(ts::pvq<8, 8>{}, {2, -1, 1, 0, 0, 0, 1, -3}, 126239, 0.980921481);
    judge(ts::pvq<8, 12>{}, {3, -2, 1, 0, 0, 0, 2, -4}, 1829555, 0.994731473);

    // Rounded and repaired: sums of 8.5 and 7.5 pulses.
    CHECK(encoded<ts::pvq<4, 8>>({3, 3, 1, 1}, ts::pvq_encoder::search_free) == std::vector<int>{3, 3, 1, 1});
    CHECK(encoded<ts::pvq<4, 3>>({1, 1, -1, 1}, ts::pvq_encoder::search_free) == std::vector<int>{0, 1, -1, 1});
    CHECK(encoded<ts::pvq<4, 5>>({1, -1, 1, 1}, ts::pvq_encoder::search_free) == std::vector<int>{2, -1, 1, 1});
    // The largest coordinate is full.
    CHECK(encoded<ts::pvq<4, 8, 3>>({100, 0, 0, -1}, ts::pvq_encoder::greedy) == std::vector<int>{3, 2, 1, -2});
    CHECK(encoded<ts::pvq<4, 8, 3>>({100, 0, 0, -1}, ts::pvq_encoder::search_free) == std::vector<int>{3, 2, 1, -2});
    // No direction.
    CHECK(encoded<ts::pvq<4, 8, 3>>({0, 0, -0.0f, 0}, ts::pvq_encoder::greedy, &gain) == std::vector<int>{3, 3, 2, 0});
    CHECK(gain == 0);
    CHECK(encoded<ts::pvq<4, 8>>({1, NAN, 0, 0}, ts::pvq_encoder::greedy, &gain) == std::vector<int>{8, 0, 0, 0});
    CHECK(std::isnan(gain));
    CHECK(encoded<ts::pvq<4, 8>>({1, HUGE_VALF, 0, 0}, ts::pvq_encoder::search_free, &gain) == std::vector<int>{8, 0, 0, 0});
    CHECK(std::isnan(gain));
    // Any magnitude, and a short group.
    for (float const unit : {0x1p-149f, 0x1p-126f, 1.0f, 0x1p125f})
        for (auto const encoder : {ts::pvq_encoder::greedy, ts::pvq_encoder::search_free})
            CHECK(encoded<ts::pvq<5, 7>>({3 * unit, -3 * unit, unit}, encoder) == std::vector<int>{3, -3, 1, 0, 0});
}

TEST_CASE("mean squared error on a unit Gaussian") {
    check_gaussian<ts::pvq<8, 8>>(.0544, .0536, .0551);
    check_gaussian<ts::pvq<16, 8>>(.1594, .1526, .1729);
    check_gaussian<ts::pvq<16, 16>>(.0512, .0505, .0530);
    check_gaussian<ts::pvq<16, 24>>(.0242, .0240, .0246);
    check_gaussian<ts::pvq<16, 32>>(.0139, .0139, .0140);
    check_gaussian<ts::pvq<32, 32>>(.0495, .0488, .0514, 2000);
    check_gaussian<ts::pvq<64, 64>>(.0486, .0480, .0505, 1000);
    check_gaussian<ts::pvq<64, 128>>(.0132, .0131, .0132, 1000);
    check_gaussian<ts::pvq<128, 128>>(.0478, .0473, .0498, 500);
    check_gaussian<ts::pvq<128, 256>>(.0130, .0129, .0131, 500);
}

TEST_CASE("fine pyramids are as fine as theory says") {
    check_fine<ts::pvq<4, 48>>();
    check_fine<ts::pvq<8, 80>>();
    check_fine<ts::pvq<16, 127>>();
    check_fine<ts::pvq<32, 255>>(2000);
    // Bounded by 7, pyramids of 3 bits a weight lose next to nothing.
    double const bounded = gaussian_error<ts::pvq<32, 50, 7>>(ts::pvq_encoder::greedy, ts::pvq_target::least_squares, 2000).mean;
    double const free = gaussian_error<ts::pvq<32, 50>>(ts::pvq_encoder::greedy, ts::pvq_target::least_squares, 2000).mean;
    MESSAGE("pvq<32, 50>: bounded by 7 " << bounded << ", free " << free);
    CHECK(bounded < 1.02 * free);
}

TEST_CASE("levels of gains") {
    auto const check = [](index_t n, index_t d, std::vector<double> const& expected) {
        std::vector<double> levels(expected.size());
        ts::beta_gain_levels(n, d, static_cast<index_t>(levels.size()), levels.data());
        for (std::size_t i = 0; i < levels.size(); ++i)
            CHECK(std::fabs(levels[i] * std::sqrt(static_cast<double>(d) / static_cast<double>(n)) - expected[i]) < 1e-6);
    };
    check(16, 4096, {.784492, .923789, 1.035819, 1.188019});
    check(16, 4096, {.723164, .827663, .894625, .951741, 1.007058, 1.066429, 1.139175, 1.260278});
    check(64, 4096, {.863511, .918185, .952408, .981193, 1.008766, 1.038070, 1.073621, 1.132094});
    check(128, 4096, {.927563, .978016, 1.017210, 1.069013});
    check(16, 128, {.736987, .839133, .903700, .958181, 1.010395, 1.065806, 1.132761, 1.241796});
    check(16, 16, {1, 1});
    double sixteen[16];
    ts::beta_gain_levels(16, 4096, 16, sixteen);
    CHECK(std::fabs(16 * sixteen[0] - .672268) < 1e-6);
    CHECK(std::fabs(16 * sixteen[15] - 1.323073) < 1e-6);
    // Beta(1/2, 1/2) and Beta(1, 1) have simple distributions.
    CHECK(ts::beta_distribution(1, 1)(0.25) == doctest::Approx(2 / pi * std::asin(0.5)).epsilon(1e-12));
    CHECK(ts::beta_distribution(2, 2)(0.625) == doctest::Approx(0.625).epsilon(1e-12));

    // The relative error of the gain, for the law itself by its quantiles.
    std::vector<double> gains(4096);
    ts::beta_gain_levels(16, 4096, 4096, gains.data());
    auto const error = [&](std::vector<double> const& levels) {
        double sum = 0, squares = 0;
        for (double const g : gains) {
            double nearest = HUGE_VAL;
            for (double const level : levels) nearest = std::fmin(nearest, std::fabs(g - level));
            sum += nearest * nearest;
            squares += g * g;
        }
        return sum / squares;
    };
    auto const check_error = [&](index_t n, index_t count, double expected) {
        std::vector<double> levels(static_cast<std::size_t>(count));
        ts::beta_gain_levels(n, 4096, count, levels.data());
        CHECK(std::fabs(error(levels) - expected) < 0.5e-5 + 0.02 * expected); // the last digit published, and ends that the quantiles leave out
    };
    for (index_t const n : {64, 128}) {
        ts::beta_gain_levels(n, 4096, 4096, gains.data());
        if (n == 64) check_error(n, 4, .00112);
        check_error(n, 8, n == 64 ? .00044 : .00022);
    }
    ts::beta_gain_levels(16, 4096, 4096, gains.data());
    check_error(16, 4, .00444);
    check_error(16, 8, .00175);
    check_error(16, 16, .00070);
    std::vector<double> levels(8);
    ts::lloyd_max(gains.data(), 4096, 8, levels.data());
    CHECK(std::fabs(error(levels) - .001037) < 0.02 * .001037); // scipy 1.x's Beta, Lloyd's iteration on 400000 quantiles
    double const few[] = {1, 1, 1, 5};
    ts::lloyd_max(few, 4, 8, levels.data()); // more levels than numbers
    CHECK(error({1}) > 0);
    CHECK(std::is_sorted(levels.begin(), levels.end()));
}

namespace {

ts::matrix<float> gaussian(index_t n, index_t k, std::uint64_t seed) {
    ts::matrix<float> w{n, k};
    fill_gaussian(w.data(), static_cast<std::size_t>(w.size()), seed);
    return w;
}

template <class Format, class Gain>
ts::matrix<float> decoded(ts::pvq_tensor<Format, Gain> const& q) {
    ts::matrix<float> out{q.rows(), q.cols()};
    ts::decode_tile(q.view(), 0, 0, out.view());
    return out;
}

double error_of(ts::matrix<float> const& w, ts::matrix<float> const& v) {
    double sum = 0;
    for (index_t i = 0; i < w.size(); ++i) {
        double const d = static_cast<double>(w.data()[i]) - static_cast<double>(v.data()[i]);
        sum += d * d / static_cast<double>(w.size());
    }
    return sum;
}

/// What is stored is what the encoder chose: in any number of columns, with any number of indices a word, tile by tile.
template <class Format, class Gain>
void check_storage(index_t n, index_t k) {
    CAPTURE(n);
    CAPTURE(k);
    auto const w = gaussian(n, k, 5);
    auto const q = ts::quantize_pvq<Format, Gain>(w, {.target = ts::pvq_target::norm});
    auto const view = q.view();
    REQUIRE(view.rows() == n);
    REQUIRE(view.cols() == k);
    auto const all = decoded(q);
    for (index_t r = 0; r < n; ++r)
        for (index_t g = 0; g < view.groups(); ++g) {
            std::int8_t p[Format::group], stored[Format::group];
            index_t const columns = std::min(Format::group, k - g * Format::group);
            double const gain = ts::pvq_encode<Format>(&w(r, g * Format::group), columns, p, ts::pvq_encoder::greedy, ts::pvq_target::norm);
            auto const scale = static_cast<float>(view.group(r, g, stored));
            REQUIRE(std::equal(p, p + Format::group, stored));
            REQUIRE(view.index(r, g) == Format::index(p));
            double norm = 0;
            for (int const c : p) norm += c * c;
            if constexpr (std::is_same_v<Gain, ts::gain_as<float>>)
                CHECK(std::fabs(static_cast<double>(scale) - gain / std::sqrt(norm)) <= 4 * 0x1p-24 * gain / std::sqrt(norm));
            else if constexpr (!std::is_same_v<Gain, ts::gain_code<3>>) // the gain's rounding, and the scale's
                CHECK(std::fabs(static_cast<double>(scale) - gain / std::sqrt(norm)) <=
                      ts::gamma(3, ts::unit_roundoff<ts::bf16>) * gain / std::sqrt(norm));
            for (index_t c = 0; c < columns; ++c) REQUIRE(all(r, g * Format::group + c) == scale * static_cast<float>(p[c]));
        }
    for (index_t const first : {index_t{0}, k / 3, k / 2}) {
        ts::matrix<float> tile{n / 2, k - first};
        ts::decode_tile(view, n - n / 2, first, tile.view());
        for (index_t i = 0; i < tile.extent(0); ++i)
            for (index_t j = 0; j < tile.extent(1); ++j) REQUIRE(tile(i, j) == all(n - n / 2 + i, first + j));
    }
}

} // namespace

TEST_CASE("storage") {
    for (index_t const k : {0, 1, 7, 8, 9, 31, 67}) {
        check_storage<ts::pvq<8, 8>, ts::gain_as<float>>(3, k);
        check_storage<ts::pvq<8, 8, 8, 4>, ts::gain_as<ts::bf16>>(3, k);
        check_storage<ts::pvq<8, 6, 3, 3>, ts::gain_code<3>>(5, k);
        check_storage<ts::pvq<32, 22, 3>, ts::gain_as<ts::fp16>>(2, k);
    }
    check_storage<ts::pvq<128, 256>, ts::gain_as<float>>(2, 300);
    check_storage<ts::pvq<16, 15>, ts::gain_as<float>>(0, 40);

    // 18 bits for 8 weights alone, 70 for 32 together; rows start on a byte.
    ts::pvq_tensor<ts::pvq<8, 8>, ts::gain_code<4>> const one{16, 4096};
    CHECK(one.bytes() == 16 * (512 * 18 / 8 + 512 / 2 + 4) + 16 * 4);
    ts::pvq_tensor<ts::pvq<8, 8, 8, 4>, ts::gain_code<4>> const four{16, 4096};
    CHECK(four.bytes() == 16 * (128 * 70 / 8 + 512 / 2 + 4) + 16 * 4);
    ts::pvq_tensor<ts::pvq<32, 22>, ts::gain_as<ts::fp16>> const wide{1, 33};
    CHECK(wide.bytes() == 16 + 4);

    // A tensor that nothing was written to, and words that hold no index, are zeros.
    auto const zeros = decoded(four);
    CHECK(std::all_of(zeros.data(), zeros.data() + zeros.size(), [](float v) { return v == 0; }));
    ts::pvq_tensor<ts::pvq<8, 8, 8, 2>, ts::gain_as<float>> foreign{1, 16};
    std::fill(foreign.words(), foreign.words() + 5, std::uint8_t{0xff});
    foreign.gain_arrays().gains()[0] = foreign.gain_arrays().gains()[1] = 1;
    CHECK(decoded(foreign)(0, 15) == 0);
    ts::pvq_tensor<ts::pvq<8, 8, 8, 2>, ts::gain_as<float>> moved = std::move(foreign);
    CHECK(foreign.rows() == 0);
    CHECK(moved.cols() == 16);
    CHECK_THROWS_AS((ts::pvq_tensor<ts::pvq<8, 8>, ts::gain_code<4>>{-1, 8}), ts::shape_error);
    CHECK_THROWS_AS((ts::pvq_matrix<ts::pvq<8, 8>, ts::gain_as<float>>{nullptr, {}, 1, 8}), ts::shape_error);
    ts::matrix<float> tile{2, 8};
    CHECK_THROWS_AS(ts::decode_tile(moved.view(), 0, 0, tile.view()), ts::shape_error);
}

TEST_CASE("coded gains") {
    constexpr index_t n = 64, k = 1024;
    auto const w = gaussian(n, k, 9);
    using format = ts::pvq<16, 24>;
    auto const coded = [&]<class Gain>(Gain, ts::pvq_options const& options) { return decoded(ts::quantize_pvq<format, Gain>(w, options)); };
    auto const free_norm = coded(ts::gain_as<float>{}, {.target = ts::pvq_target::norm});
    double const best = error_of(w, coded(ts::gain_as<float>{}, {}));
    CHECK(best < error_of(w, free_norm));
    // The relative error of the gain adds to that of the shape; differences by group, for their standard error.
    auto const check_added = [&](ts::pvq_levels levels, double expected) {
        auto const v = coded(ts::gain_code<3>{}, {.target = ts::pvq_target::norm, .levels = levels});
        double sum = 0, squares = 0, energy = 0;
        for (index_t i = 0; i < w.size(); i += 16) {
            double added = 0;
            for (index_t j = i; j < i + 16; ++j) {
                double const x = static_cast<double>(w.data()[j]);
                double const a = x - static_cast<double>(v.data()[j]), b = x - static_cast<double>(free_norm.data()[j]);
                added += a * a - b * b;
                energy += x * x;
            }
            sum += added;
            squares += added * added;
        }
        double const groups = static_cast<double>(w.size()) / 16;
        double const error = 4 * std::sqrt(squares / groups - sum / groups * (sum / groups)) * std::sqrt(groups) / energy;
        CAPTURE(error);
        CHECK(std::fabs(sum / energy - expected) <= error + 0.05 * expected);
        return error_of(w, v);
    };
    double const quantile = check_added(ts::pvq_levels::beta_quantile, .00175);
    double const random = check_added(ts::pvq_levels::beta_lloyd_max, .001037);
    double const chosen = error_of(w, coded(ts::gain_code<3>{}, {}));
    CHECK(chosen < random);
    CHECK(random < quantile);
    CHECK(error_of(w, coded(ts::gain_code<8>{}, {})) < 1.01 * best);
    CHECK(error_of(w, coded(ts::gain_code<1>{}, {})) > chosen);
    MESSAGE("pvq<16, 24>: gain free " << best << ", 3 bits Lloyd-Max " << chosen << ", Beta Lloyd-Max " << random << ", Beta quantiles " << quantile);
}

TEST_CASE("any number of threads, and groups encoded anew") {
    auto const w = gaussian(37, 100, 3);
    using format = ts::pvq<8, 8, 8, 3>;
    auto one = ts::quantize_pvq<format>(w);
    ts::thread_pool pool{2};
    auto const two = ts::quantize_pvq<format>(ts::cpu<ts::native_arch, ts::threads>{ts::threads{pool}}, w);
    auto const same = [](auto const& a, auto const& b) {
        std::vector<std::pair<void const*, index_t>> arrays;
        a.view().for_each_array([&](void const* data, index_t bytes) { arrays.emplace_back(data, bytes); });
        std::size_t i = 0;
        b.view().for_each_array([&](void const* data, index_t bytes) {
            CHECK(std::memcmp(data, arrays[i].first, static_cast<std::size_t>(bytes)) == 0);
            ++i;
        });
    };
    same(one, two);
    // The same weights give the same code; others only change their group.
    for (index_t g = 0; g < 13; ++g)
        ts::encode_nearest_group(one, 5, g, ts::vector_view<float const>{&w(5, 8 * g), std::min<index_t>(8, 100 - 8 * g)});
    same(one, two);
    auto const before = decoded(one);
    float const other[8] = {0, -1, 0, 0, 2, 0, 0, 1};
    ts::encode_nearest_group(one, 5, 7, ts::vector_view<float const>{other, 8});
    auto const after = decoded(one);
    for (index_t n = 0; n < 37; ++n)
        for (index_t k = 0; k < 100; ++k)
            if (n != 5 || k / 8 != 7) CHECK(before(n, k) == after(n, k));
    CHECK(after(5, 57) == -after(5, 63));
    CHECK(after(5, 60) == 2 * after(5, 63));
    CHECK(after(5, 63) == doctest::Approx(1).epsilon(0.2)); // of 16 levels
    CHECK_THROWS_AS(ts::encode_nearest_group(one, 37, 0, ts::vector_view<float const>{other, 8}), ts::shape_error);
    CHECK_THROWS_AS(ts::encode_nearest_group(one, 5, 12, ts::vector_view<float const>{other, 8}), ts::shape_error);
}

TEST_CASE("rotated weights are Gaussian to the pyramid") {
    constexpr index_t n = 24, k = 1024;
    auto w = gaussian(n, k, 15);
    for (index_t i = 0; i < w.size(); ++i) w.data()[i] = w.data()[i] * w.data()[i] * w.data()[i]; // far from it
    ts::hadamard const r{k, k, ts::random_signs{4}};
    ts::matrix<float> rotated{n, k}, x{2, k}, y{2, n}, expected{2, n};
    ts::apply(ts::reference{}, r, w, rotated);
    auto const q = ts::quantize_pvq<ts::pvq<32, 32>>(rotated, {.levels = ts::pvq_levels::beta_lloyd_max});
    ts::matrix<float> zeros{n, k};
    std::fill(zeros.data(), zeros.data() + zeros.size(), 0.0f);
    double const relative = error_of(rotated, decoded(q)) / error_of(rotated, zeros);
    CHECK(std::fabs(relative - .0488) < 0.04 * .0488); // as of Gaussian weights, and 16 levels of gains
    // x R' (W R')' = x W'
    fill_gaussian(x.data(), 2 * k, 16);
    ts::apply(ts::reference{}, ts::linear{q} * r, x, y);
    ts::apply(ts::reference{}, ts::linear{w}, x, expected);
    CHECK(error_of(expected, y) < 2 * relative * error_of(rotated, zeros) * k);
}

TEST_CASE("weights that are not finite, zero, tiny or huge") {
    constexpr float largest = std::numeric_limits<float>::max();
    ts::matrix<float> w{5, 40};
    for (index_t i = 0; i < w.size(); ++i) w.data()[i] = static_cast<float>(i % 7) - 3.0f;
    for (index_t k = 0; k < 40; ++k) w(1, k) = k < 16 ? 0.0f : w(1, k), w(2, k) = k % 2 == 0 ? largest : -largest, w(3, k) *= 0x1p-149f;
    w(0, 17) = NAN;
    w(4, 39) = -HUGE_VALF;
    auto const check = [&]<class Gain>(Gain) {
        using format = ts::pvq<16, 24>;
        auto const v = decoded(ts::quantize_pvq<format, Gain>(w));
        constexpr bool is_coded = std::is_same_v<Gain, ts::gain_code<4>>;
        for (index_t k = 0; k < 40; ++k) {
            CHECK(std::isnan(v(0, k)) == (is_coded || (k >= 16 && k < 32)));
            CHECK(std::isnan(v(4, k)) == (is_coded || k >= 32));
            CHECK(std::isfinite(v(2, k)));
            CHECK(std::fabs(v(2, k)) > (std::is_same_v<Gain, ts::gain_as<ts::fp16>> ? 1e4f : 1e37f));
            CHECK(std::isfinite(v(3, k)));
            if (k < 16) CHECK(v(1, k) == 0);
        }
    };
    check(ts::gain_as<float>{});
    check(ts::gain_as<ts::fp16>{});
    check(ts::gain_as<ts::bf16>{});
    check(ts::gain_code<4>{});
    ts::matrix<float> const zeros = [] { ts::matrix<float> z{2, 20}; std::fill(z.data(), z.data() + 40, 0.0f); return z; }();
    CHECK(error_of(zeros, decoded(ts::quantize_pvq<ts::pvq<16, 24>>(zeros))) == 0);
    CHECK(ts::quantize_pvq<ts::pvq<16, 24>>(ts::matrix<float>{3, 0}).rows() == 3);
    CHECK_THROWS_AS((ts::quantize_pvq<ts::pvq<16, 24>>(ts::matrix_view<float const>{nullptr, 2, 2})), ts::shape_error);
}

TEST_CASE("activations") {
    auto x = gaussian(9, 70, 12);
    x(3, 65) = NAN;
    for (index_t k = 0; k < 32; ++k) x(4, k) = 0;
    ts::matrix<float> y{9, 70};
    ts::round_pvq<ts::pvq<32, 34>>(x.view(), y.view());
    auto const stored = decoded(ts::quantize_pvq<ts::pvq<32, 34>, ts::gain_as<float>>(x, {.encoder = ts::pvq_encoder::search_free}));
    for (index_t i = 0; i < y.size(); ++i)
        CHECK((y.data()[i] == stored.data()[i] || (std::isnan(y.data()[i]) && std::isnan(stored.data()[i]))));
    CHECK(std::isnan(y(3, 64)));
    CHECK(std::isfinite(y(3, 63)));
    CHECK(y(4, 31) == 0);
    ts::round_pvq<ts::pvq<32, 34>>(x.view(), x.view());
    CHECK(x(8, 69) == y(8, 69));
    ts::matrix<float> narrow{9, 69};
    CHECK_THROWS_AS((ts::round_pvq<ts::pvq<32, 34>>(x.view(), narrow.view())), ts::shape_error);
    ts::matrix_view<float const> const part{x.data(), 8, 70};
    ts::matrix_view<float> const moved{x.data() + 70, 8, 70};
    CHECK_THROWS_AS((ts::round_pvq<ts::pvq<32, 34>>(part, moved)), ts::shape_error);
}
