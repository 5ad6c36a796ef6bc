// SPDX-License-Identifier: MIT
// Hadamard rotations: the matrices, the fast transform against the definition, the algebra, bad input.

#include "unit/operators/operator_laws.hpp"

#include <tessera/operators/describe.hpp>
#include <tessera/transform/hadamard.hpp>

#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

namespace tessera_test {

/// Every number of a group adds to each of its results: log2 of the power steps, the block's sum, two factors.
template <>
struct error_model<ts::hadamard> {
    static index_t roundings(ts::hadamard const& r) {
        return static_cast<index_t>(std::bit_width(static_cast<std::uint64_t>(r.shape().power))) + r.shape().block + 4;
    }
    static row_of_doubles magnitude(ts::hadamard const& r, row_of_doubles const& x) {
        row_of_doubles y(static_cast<std::size_t>(r.rows()), 0.0);
        for (index_t i = 0; i < r.rows(); ++i)
            for (index_t j = i / r.group() * r.group(); j < std::min((i / r.group() + 1) * r.group(), r.cols()); ++j)
                y[static_cast<std::size_t>(i)] += std::abs(x[static_cast<std::size_t>(j)]) / std::sqrt(static_cast<double>(r.group()));
        return y;
    }
};
template <>
struct error_model<ts::hadamard_pair> : error_model<ts::product<ts::hadamard, ts::hadamard>> {
    using base = error_model<ts::product<ts::hadamard, ts::hadamard>>;
    static index_t roundings(ts::hadamard_pair const& p) { return base::roundings({p.first(), p.second()}); }
    static row_of_doubles magnitude(ts::hadamard_pair const& p, row_of_doubles const& x) {
        return base::magnitude({p.first(), p.second()}, x);
    }
};

} // namespace tessera_test

using namespace tessera_test;

namespace {

template <class Arch, class Op>
double check_against_definition(Op const& op, index_t m) {
    guarded<float> x{m, op.cols(), 1, 1};
    guarded<float> y{m, op.rows(), 2, 1};
    x.fill(23);
    apply_case<Op> const expected{op, x.view()};
    ts::cpu<Arch, ts::serial> const exec;
    apply_to(exec, op, x, y);
    double const worst = expected.worst_ratio(ts::matrix_view<float const>{y.view()});
    CHECK(worst <= 1.0);
    auto const placed = ts::place(exec, op);
    guarded<float> again{m, op.rows()};
    apply_to(exec, placed.view(), x, again);
    CHECK(same_bits(y, again));
    return worst;
}

ts::matrix<float> random_matrix(index_t n, index_t k, std::uint64_t seed) {
    ts::matrix<float> w{n, k};
    for (index_t i = 0; i < n * k; ++i) w.data()[i] = ts::philox{seed}.normal(static_cast<std::uint64_t>(i));
    return w;
}

} // namespace

TEST_CASE("natural order, not normalised: a vector by hand") {
    float const from[] = {1, 2, 3, 4, -1, 0, 2, -3};
    float const to[] = {8, 2, -4, -6, 12, -6, -4, 6};
    ts::matrix<float> x{1, 8};
    ts::matrix<float> y{1, 8};
    for (index_t i = 0; i < 8; ++i) x(0, i) = from[i];
    archs_by_width::visit([&]<class Arch>(Arch) {
        ts::walsh_hadamard(ts::cpu<Arch, ts::serial>{}, x, y);
        for (index_t i = 0; i < 8; ++i) CHECK(y(0, i) == to[i]);
    });
    ts::walsh_hadamard(ts::reference{}, x, y);
    for (index_t i = 0; i < 8; ++i) CHECK(y(0, i) == to[i]);
    ts::walsh_hadamard(ts::cpu{}, x, x); // in place
    for (index_t i = 0; i < 8; ++i) CHECK(x(0, i) == to[i]);
}

TEST_CASE("the blocks are Hadamard matrices") {
    index_t found = 0;
    for (index_t order = 1; order <= 256; ++order) {
        if (!ts::detail::has_hadamard_block(order)) continue;
        ++found;
        std::vector<float> h(static_cast<std::size_t>(order * order));
        ts::detail::fill_hadamard_block(order, h.data());
        bool good = true;
        for (index_t i = 0; i < order; ++i)
            for (index_t j = 0; j <= i; ++j) {
                float dot = 0;
                for (index_t k = 0; k < order; ++k) dot += h[static_cast<std::size_t>(i * order + k)] * h[static_cast<std::size_t>(j * order + k)];
                good = good && dot == (i == j ? static_cast<float>(order) : 0.0f);
            }
        CAPTURE(order);
        CHECK(good);
    }
    CHECK(found >= 40);
    for (index_t const order : {12, 20, 28, 36, 44, 52, 60, 76, 100, 108, 140, 148, 156, 172}) CHECK(ts::detail::has_hadamard_block(order));
    CHECK(ts::hadamard{14336}.shape().power == 512); // 28 * 512
    CHECK(ts::hadamard{11008}.shape().power == 64);  // 172 * 64
    CHECK_THROWS_AS(ts::hadamard{7}, ts::unsupported_error);
    CHECK_THROWS_AS(ts::hadamard{92}, ts::unsupported_error);
    CHECK_THROWS_AS(ts::hadamard{-1}, ts::shape_error);
}

TEST_CASE("the rows of QuaRot's tables") {
    // Rows 1 of get_had12, get_had28, get_had40 and 14 of get_had28 in fake_quant/hadamard_utils.py of spcl/QuaRot.
    auto const judge = [](index_t order, index_t row, std::string const& signs) {
        std::vector<float> h(static_cast<std::size_t>(order * order));
        ts::detail::fill_hadamard_block(order, h.data());
        std::string mine;
        for (index_t j = 0; j < order; ++j) mine += h[static_cast<std::size_t>(row * order + j)] > 0 ? '+' : '-';
        CHECK(mine == signs);
    };
    judge(12, 1, "++-+---+++-+");
    judge(28, 1, "+++-++----++-++-+-++----++-+");
    judge(28, 14, "-+++++++++++++--------------");
    judge(40, 1, "++-++----+-+-++++--+++-++----+-+-++++--+");
    CHECK(ts::hadamard{5120}.shape().block == 40);
    CHECK(ts::hadamard{20}.shape().block == 20);
}

TEST_CASE("rotations against the definition") {
    double worst = 0;
    archs_by_width::visit([&]<class Arch>(Arch) {
        for (index_t const k : {1, 2, 4, 8, 16, 32, 64, 256, 1024, 12, 24, 40, 112, 448, 344}) {
            CAPTURE(k);
            worst = std::fmax(worst, check_against_definition<Arch>(ts::hadamard{k}, 3));
            worst = std::fmax(worst, check_against_definition<Arch>(ts::transposed(ts::hadamard{k, 0, ts::random_signs{9}}), 2));
        }
        worst = std::fmax(worst, check_against_definition<Arch>(ts::hadamard{100, 32, ts::random_signs{5}}, 5)); // padded to 128
        worst = std::fmax(worst, check_against_definition<Arch>(ts::transposed(ts::hadamard{100, 32, ts::random_signs{5}}), 5));
        worst = std::fmax(worst, check_against_definition<Arch>(ts::hadamard{96, 24, ts::random_signs{5}}, 5));
        check_against_definition<Arch>(ts::hadamard{0}, 3);
        check_against_definition<Arch>(ts::hadamard{8}, 0);
        check_against_definition<Arch>(ts::hadamard{8} * ts::hadamard{8, 4}, 3);
    });
    MESSAGE("worst error / tolerance " << worst);
}

TEST_CASE("rotations preserve products, and neighbours cancel") {
    ts::cpu<> const exec;
    ts::matrix<float> const a = random_matrix(9, 48, 3);
    ts::matrix<float> const x = random_matrix(4, 48, 4);
    ts::hadamard const r{48, 12, ts::random_signs{77}};
    ts::linear const w{a};
    ts::matrix<float> plain{4, 9};
    ts::matrix<float> cancelled{4, 9};
    ts::apply(exec, w, x, plain);

    auto const chain = w * r * ts::transposed(r);
    CHECK(chain.second().is_identity());
    CHECK(ts::describe(exec, chain, 4).find("rotations that cancel") != std::string::npos);
    ts::apply(exec, chain, x, cancelled);
    CHECK(same_bits<float>(plain.view(), cancelled.view()));
    auto const placed = ts::place(exec, chain);
    ts::apply(exec, placed, x, cancelled);
    CHECK(same_bits<float>(plain.view(), cancelled.view()));
    CHECK((r * (ts::transposed(r) * ts::transposed(w))).first().is_identity());
    // Another seed, another group, a matrix that is padded: they do not.
    CHECK(!cancels(r, ts::transposed(ts::hadamard{48, 12, ts::random_signs{78}})));
    CHECK(!cancels(r, ts::transposed(ts::hadamard{48, 24, ts::random_signs{77}})));
    CHECK(!cancels(r, r));
    CHECK(!cancels(ts::hadamard{100, 32}, ts::transposed(ts::hadamard{100, 32})));
    CHECK(cancels(ts::transposed(ts::hadamard{100, 32}), ts::hadamard{100, 32}));

    // With parameters that are types the operators themselves cancel.
    using fixed = ts::fixed_hadamard<48, 12, 77>;
    static_assert(std::is_same_v<decltype(w * fixed{} * ts::transposed(fixed{})), std::remove_const_t<decltype(w)>>);
    ts::matrix<float> one{4, 9};
    ts::matrix<float> two{4, 9};
    ts::apply(exec, w * fixed{}, x, one);
    ts::apply(exec, w * r, x, two);
    CHECK(same_bits<float>(one.view(), two.view()));

    // Weights rotated beforehand times rotated x are the product: (A Rᵀ) R = A.
    ts::matrix<float> rotated{9, 48};
    ts::apply(exec, r, a, rotated);
    apply_case<std::remove_const_t<decltype(w)>> const expected{w, x.view()};
    ts::apply(exec, ts::linear{rotated} * r, x, one);
    double largest = 0;
    for (index_t m = 0; m < 4; ++m)
        for (index_t n = 0; n < 9; ++n) {
            // |A| and |x| through the rotations: norms are kept, each of the two rounds log2 12 + 12 + 4 times.
            double norms = 0;
            double na = 0;
            double nx = 0;
            for (index_t k = 0; k < 48; ++k) {
                na += double{a(n, k)} * double{a(n, k)};
                nx += double{x(m, k)} * double{x(m, k)};
            }
            norms = std::sqrt(na * nx) * std::sqrt(48.0);
            largest = std::fmax(largest, std::abs(double{one(m, n)} - double{plain(m, n)}) / (ts::gamma(2 * 20 + 56, 0x1p-24) * norms));
        }
    CHECK(largest <= 1.0);
    // The transposed product goes the same way back: (A R)ᵀ = Rᵀ Aᵀ.
    ts::matrix<float> dx{4, 48};
    ts::matrix<float> by_hand{4, 48};
    ts::matrix<float> half{4, 48};
    ts::apply(exec, ts::transposed(w * r), plain, dx);
    ts::apply(exec, ts::transposed(w), plain, half);
    ts::apply(exec, ts::transposed(r), half, by_hand);
    CHECK(same_bits<float>(dx.view(), by_hand.view()));
}

TEST_CASE("NaN stays in its group; signs follow the generator; half precision; threads") {
    ts::matrix<float> x = random_matrix(2, 64, 8);
    x(1, 20) = std::numeric_limits<float>::quiet_NaN();
    ts::matrix<float> y{2, 64};
    ts::apply(ts::cpu{}, ts::hadamard{64, 16}, x, y);
    for (index_t k = 0; k < 64; ++k) {
        CHECK(std::isfinite(y(0, k)));
        CHECK(std::isnan(y(1, k)) == (k >= 16 && k < 32));
    }
    ts::hadamard const signs{64, 1, ts::random_signs{123}};
    ts::apply(ts::cpu{}, signs, x, y);
    for (index_t k = 0; k < 64; ++k) CHECK(y(0, k) == (ts::philox{123}.bits(static_cast<std::uint64_t>(k / 32)) >> (k % 32) & 1u ? -x(0, k) : x(0, k)));
    ts::matrix<ts::fp16> h{1, 8};
    h(0, 3) = ts::fp16{2.0f};
    ts::walsh_hadamard(ts::cpu{}, h.view(), h.view());
    for (index_t k = 0; k < 8; ++k) CHECK(static_cast<float>(h(0, k)) == (std::popcount(static_cast<unsigned>(k & 3)) % 2 ? -2.0f : 2.0f));
    ts::matrix<float> narrow{2, 32};
    CHECK_THROWS_AS(ts::walsh_hadamard(ts::cpu{}, x, narrow), ts::shape_error);
    CHECK_THROWS_AS(ts::walsh_hadamard(ts::cpu{}, x, y, 48), ts::shape_error);
}
