// SPDX-License-Identifier: MIT
// Integer products of grids of 256 points: the reference, and the same bits by look-ups, tiles and dot products.

#include "vector_support.hpp"

#include <tessera/operators/describe.hpp>
#include <tessera/storage/vector_grid.hpp>

#include <cmath>
#include <limits>

using namespace tessera_test;

namespace {

/// Random codes of a random grid; scales from 0.5 to 1.5 for every `group` columns.
template <index_t Dims>
struct random_grid {
    std::vector<float> points;
    ts::vector_grid_tensor<Dims, 8> owner;
    random_grid(index_t n, index_t k, index_t group) : points(static_cast<std::size_t>(256 * Dims)) {
        ts::philox const random{7};
        for (index_t i = 0; i < 256 * Dims; ++i) points[static_cast<std::size_t>(i)] = random.normal(static_cast<std::uint64_t>(i));
        owner = ts::vector_grid_tensor<Dims, 8>{points.data(), n, k, group};
        for (index_t i = 0; i < n * ts::ceil_div(k, Dims); ++i) owner.codes()[i] = static_cast<std::uint8_t>(random.bits(static_cast<std::uint64_t>(i)));
        for (index_t i = 0; i < n * ts::ceil_div(k, group); ++i)
            owner.scales()[i] = ts::fp16{0.5f + random.uniform(static_cast<std::uint64_t>(i))};
    }
    auto view() const { return owner.view(); }
};

template <class Arch, index_t Dims, class P>
double check(index_t m, index_t n, index_t k, index_t group) {
    CAPTURE(m);
    CAPTURE(n);
    CAPTURE(k);
    CAPTURE(group);
    random_grid<Dims> const owner{n, k, group};
    ts::linear const w{owner.view(), P{}};
    guarded<float> x{m, k, 1};
    guarded<float> y{m, n, 1};
    x.fill(17);
    apply_case<std::remove_const_t<decltype(w)>> const expected{w, x.view()};
    double const worst = check_on<Arch>(w, x, expected, {m, n, k}, y);
    check_batch_invariant<Arch>(w, x, y);
    return worst;
}
template <class Arch, index_t Dims>
void check_float(index_t m, index_t n, index_t k, index_t group) {
    CAPTURE(m);
    random_grid<Dims> const owner{n, k, group};
    ts::linear const w{owner.view()};
    guarded<float> x{m, k, 1};
    guarded<float> y{m, n, 1};
    x.fill(17);
    check_on<Arch>(w, x, apply_case<std::remove_const_t<decltype(w)>>{w, x.view()}, {m, n, k}, y);
    if (k > 0) check_decoded_bits<Arch>(owner.view());
}

} // namespace

TEST_CASE("dimensions, groups and tails against the definition; rows alone give the batch's bits") {
    double worst = 0;
    best_arch::visit([&]<class Arch>(Arch) {
        worst = std::fmax(worst, check<Arch, 2, ts::int8_per_token>(3, 17, 31, 6)); // odd codes, a last point cut off
        worst = std::fmax(worst, check<Arch, 2, ts::int8_per_token>(33, 70, 1100, 1024));
        worst = std::fmax(worst, check<Arch, 4, ts::int8_per_token>(16, 64, 1300, 2048));
        worst = std::fmax(worst, check<Arch, 8, ts::int8_per_token>(50, 131, 200, 64));
        worst = std::fmax(worst, check<Arch, 8, ts::int8_per_group<32>>(5, 40, 270, 128));
        worst = std::fmax(worst, check<Arch, 2, ts::int8_per_group<64>>(21, 65, 300, 192));
        worst = std::fmax(worst, check<Arch, 4, ts::int8_per_token>(1, 1, 1, 4));
        worst = std::fmax(worst, check<Arch, 2, ts::int8_per_token>(6, 515, 700, 256)); // one row: look-ups
        worst = std::fmax(worst, check<Arch, 8, ts::int8_per_token>(17, 600, 2100, 2104));
        worst = std::fmax(worst, check<Arch, 4, ts::int8_per_group<128>>(2, 530, 1500, 96));
    });
    MESSAGE("worst error / tolerance " << worst);
}
TEST_CASE("float32 x: tables of dot products with few rows, decoded columns with more") {
    best_arch::visit([&]<class Arch>(Arch) {
        check_float<Arch, 8>(1, 600, 2100, 2104);
        check_float<Arch, 8>(3, 530, 130, 24);
        check_float<Arch, 4>(2, 515, 701, 64);
        check_float<Arch, 4>(5, 70, 301, 300);
        check_float<Arch, 8>(20, 131, 259, 128);
        check_float<Arch, 8>(1, 530, 0, 8); // no grid to table
    });
}
#if defined(TESSERA_TEST_EVERY_ARCH)
TEST_CASE("other registers, and empty shapes") {
    archs_by_width::visit([&]<class Arch>(Arch) {
        check<Arch, 2, ts::int8_per_token>(3, 21, 70, 6);
        check<Arch, 8, ts::int8_per_group<32>>(2, 66, 100, 64);
        check<Arch, 4, ts::int8_per_token>(2, 0, 8, 4);
        check<Arch, 4, ts::int8_per_token>(2, 5, 0, 4);
    });
}
#endif
TEST_CASE("transposed and canonical: float32 weights") {
    random_grid<8> const owner{70, 130, 32};
    ts::linear const w{owner.view(), ts::int8_per_token{}};
    ts::cpu<> const exec;
    auto const placed = ts::place(exec, w);
    ts::matrix<float> dy{3, 70}, dx{3, 130}, again{3, 130};
    for (index_t i = 0; i < dy.size(); ++i) dy.data()[i] = ts::philox{5}.normal(static_cast<std::uint64_t>(i));
    ts::apply(exec, ts::transposed(ts::linear{owner.view()}), dy, dx);
    ts::apply(exec, ts::transposed(placed.view()), dy, again);
    CHECK(same_bits<float>(dx.view(), again.view()));
    ts::matrix<float> const back = decoded(placed.view().storage());
    ts::matrix<float> const whole = decoded(owner.view());
    CHECK(same_bits<float>(back.view(), whole.view()));
    CHECK(ts::describe(exec, placed, 1).find("grid_panels, int8") != std::string::npos);
    CHECK(ts::describe(exec, placed, 16).find("matrix tiles") == std::string::npos); // groups of 32 are no whole steps
}
TEST_CASE("the largest sums fit: points and x at the ends of their range; zeros; a grid that is not finite") {
    random_grid<8> owner{640, 4096, 4096};
    for (float& p : owner.points) p = 1.0f;
    ts::linear const w{owner.view(), ts::int8_per_token{}};
    ts::matrix<float> x{17, 4096}, y{17, 640}, one{1, 640};
    for (index_t i = 0; i < x.size(); ++i) x.data()[i] = i / 4096 % 2 == 0 ? 1.0f : -1.0f;
    ts::cpu<> const exec;
    ts::apply(exec, w, x, y);
    ts::apply(exec, w, ts::rows(x.view(), 0, 1), one.view());
    bool right = true;
    for (index_t n = 0; n < 640; ++n) {
        float const expected = 4096 * static_cast<float>(owner.owner.scales()[n]);
        right = right && std::abs(y(0, n) / expected - 1) < 1e-6f && y(1, n) == -y(0, n) && one(0, n) == y(0, n);
    }
    CHECK(right);
    for (float& p : owner.points) p = 0.0f;
    ts::apply(exec, w, x, y);
    CHECK(y(0, 0) == 0.0f);
    owner.points[3] = std::numeric_limits<float>::infinity();
    ts::apply(exec, w, x, y);
    CHECK(std::isnan(y(0, 0)));
}
