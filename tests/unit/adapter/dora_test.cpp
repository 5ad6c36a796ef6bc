// SPDX-License-Identifier: MIT
// Diagonal scalings of operators and DoRA: every node against the reference, the norms against their definition.

#include "unit/operators/operator_laws.hpp"

#include <tessera/adapter/dora.hpp>
#include <tessera/operators/describe.hpp>

#include <utility>

namespace tessera_test {

template <class A>
struct error_model<ts::row_scaled<A>> {
    static index_t roundings(ts::row_scaled<A> const& s) { return error_model<A>::roundings(s.inner()) + 3; }
    static row_of_doubles magnitude(ts::row_scaled<A> const& s, row_of_doubles const& x) {
        row_of_doubles y = error_model<A>::magnitude(s.inner(), x);
        for (std::size_t n = 0; n < y.size(); ++n) y[n] *= std::abs(double{s.factors()[static_cast<index_t>(n)]});
        return y;
    }
};
template <class A>
struct error_model<ts::column_scaled<A>> {
    static index_t roundings(ts::column_scaled<A> const& s) { return error_model<A>::roundings(s.inner()) + 1; }
    static row_of_doubles magnitude(ts::column_scaled<A> const& s, row_of_doubles x) {
        for (std::size_t k = 0; k < x.size(); ++k) x[k] *= std::abs(double{s.factors()[static_cast<index_t>(k)]});
        return error_model<A>::magnitude(s.inner(), x);
    }
};
template <class B, class L>
struct error_model<ts::dora<B, L>> : error_model<ts::row_scaled<ts::sum<B, L>>> {};

} // namespace tessera_test

using namespace tessera_test;

namespace {

/// Canonical and placed against the reference, for few and many rows of x.
template <class Op>
void check_node(Op const& w) {
    for (index_t const m : {0, 1, 3, 17}) {
        CAPTURE(m);
        guarded<float> x{m, w.cols(), 2};
        x.fill(31);
        guarded<float> y{m, w.rows(), 1};
        check_on<ts::native_arch>(w, x, apply_case<Op>{w, x.view()}, {m, w.rows(), w.cols()}, y);
    }
}

ts::vector<float> random_vector(index_t n, std::uint64_t seed) {
    ts::vector<float> v{n};
    ts::philox const random{seed};
    for (index_t i = 0; i < n; ++i) v(i) = random.normal(static_cast<std::uint64_t>(i));
    return v;
}

struct terms {
    ts::quantized_tensor<ts::int4_g32> q = random_quantized<ts::int4_g32>(37, 70);
    guarded<float> b{37, 5};
    guarded<float> a{5, 70};
    ts::vector<float> rows = random_vector(37, 8);
    ts::vector<float> columns = random_vector(70, 9);
    terms() {
        b.fill(2);
        a.fill(3);
    }
};

ts::cpu<ts::native_arch, ts::serial> const exec;

template <class T>
concept can_scale = requires(T&& f, ts::linear<ts::matrix_view<float const>> a) { ts::row_scaled{std::forward<T>(f), a}; };

} // namespace

static_assert(can_scale<ts::vector<float>&> && !can_scale<ts::vector<float>>);

TEST_CASE("diagonal scalings are their reference, alone and inside sums") {
    terms const t;
    ts::linear const q{t.q};
    ts::linear const fast{t.q, ts::int8_per_group<32>{}};
    ts::low_rank const adapter{t.b.view(), t.a.view(), 0.5f};
    check_node(ts::row_scaled{t.rows, q});
    check_node(ts::row_scaled{t.rows, fast});
    check_node(ts::column_scaled{q, t.columns});
    check_node(ts::column_scaled{ts::row_scaled{t.rows, q}, t.columns});
    check_node(-2.0f * ts::row_scaled{t.rows, fast + adapter} + q);
    check_node(ts::rows(ts::row_scaled{t.rows, q}, 3, 30));
    check_node(ts::row_scaled{t.rows, ts::linear{t.b.view()}} * ts::column_scaled{ts::linear{t.a.view()}, t.columns});
    check_node(ts::transposed(ts::row_scaled{t.rows, q + adapter}));
    check_node(ts::transposed(ts::column_scaled{q, t.columns}));
    CHECK(ts::describe(exec, ts::row_scaled{t.rows, q}, 1).find("rows scaled") != std::string::npos);
}

TEST_CASE("dora is m / |W0 + s B A| (W0 + s B A)") {
    terms const t;
    ts::vector<float> const magnitude = random_vector(37, 12);
    auto const check = [&](auto const& base) {
        ts::low_rank const adapter{t.b.view(), t.a.view(), 0.5f};
        ts::vector<float> const factors = ts::dora_factors(exec, base, adapter, magnitude);
        for (index_t n = 0; n < 37; ++n) {
            double squares = 0;
            double largest = 0;
            for (index_t k = 0; k < 70; ++k) {
                double w = double{ts::detail::reference_element(base.storage(), n, k)};
                double sum = std::abs(w);
                for (index_t r = 0; r < 5; ++r) {
                    double const p = 0.5 * double{t.b.view()(n, r)} * double{t.a.view()(r, k)};
                    w += p;
                    sum += std::abs(p);
                }
                squares += w * w;
                largest += sum * sum;
            }
            // Each element is off by at most gamma(16) times the sum of magnitudes; the norm by the norm of that.
            double const norm = std::sqrt(squares);
            double const off = ts::gamma(16, ts::unit_roundoff<float>) * std::sqrt(largest) / norm;
            double const expected = double{magnitude(n)} / norm;
            CHECK(std::abs(double{factors(n)} - expected) <= (2 * off + 0x1p-23) * std::abs(expected));
        }
        ts::dora const w{base, adapter, factors};
        check_node(w);
        CHECK(ts::place(exec, w).bytes() > 0);
    };
    check(ts::linear{t.q});
    check(ts::linear{t.q, ts::int8_per_group<32>{}});
    dense_storage_of<ts::fp16> const half{37, 70};
    check(ts::linear{half.view()});
    auto const placed = ts::place(exec, ts::linear{t.q});
    ts::low_rank const adapter{t.b.view(), t.a.view(), 0.5f};
    ts::vector<float> const canonical = ts::dora_factors(exec, ts::linear{t.q}, adapter, magnitude);
    ts::vector<float> const of_placed = ts::dora_factors(exec, placed.view(), adapter, magnitude);
    ts::vector<float> const defined = ts::dora_factors(ts::reference{}, ts::linear{t.q}, adapter, magnitude);
    ts::vector<float> const sliced = ts::dora_factors(exec, ts::rows(ts::linear{t.q}, 0, 37), adapter, magnitude);
    for (index_t n = 0; n < 37; ++n) {
        CHECK(of_placed(n) == canonical(n));
        CHECK(defined(n) == doctest::Approx(canonical(n)).epsilon(1e-5));
        CHECK(sliced(n) == doctest::Approx(canonical(n)).epsilon(1e-5));
    }
}

TEST_CASE("with the norms of W0 + s B A as magnitude, dora is the sum; rows of zeros stay zero") {
    terms const t;
    ts::low_rank const adapter{t.b.view(), t.a.view(), 0.5f};
    ts::vector<float> ones{37};
    for (index_t n = 0; n < 37; ++n) ones(n) = 1.0f;
    ts::vector<float> const inverse = ts::dora_factors(exec, ts::linear{t.q}, adapter, ones);
    ts::vector<float> norms{37};
    for (index_t n = 0; n < 37; ++n) norms(n) = 1.0f / inverse(n);
    ts::vector<float> const factors = ts::dora_factors(exec, ts::linear{t.q}, adapter, norms);
    for (index_t n = 0; n < 37; ++n) CHECK(std::abs(factors(n) - 1.0f) <= 0x1p-22f);

    ts::matrix<float> const zero{3, 4};
    ts::matrix<float> const b{3, 1};
    ts::matrix<float> const a{1, 4};
    ts::vector<float> const none = ts::dora_factors(exec, ts::linear{zero}, ts::low_rank{b, a}, ts::vector_view<float const>{ones.data(), 3});
    for (index_t n = 0; n < 3; ++n) CHECK(none(n) == 0.0f);
}

TEST_CASE("wrong shapes are refused") {
    terms const t;
    ts::linear const q{t.q};
    ts::low_rank const adapter{t.b.view(), t.a.view()};
    CHECK_THROWS_WITH_AS((ts::row_scaled{t.columns, q}),
                         "tessera: row_scaled: number of factors is 70, expected 37 (rows of the operator)", ts::shape_error);
    CHECK_THROWS_AS((ts::column_scaled{q, t.rows}), ts::shape_error);
    CHECK_THROWS_AS((ts::row_scaled{ts::vector_view<float const>{nullptr, 37}, q}), ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::dora_factors(exec, q, adapter, t.columns),
                         "tessera: dora_factors: size of the magnitude is 70, expected 37 (rows of the base)", ts::shape_error);
    ts::vector<float> y{37};
    ts::matrix<float> const x{1, 70};
    ts::row_scaled const w{y, q};
    CHECK_THROWS_AS(ts::apply(exec, w, x.view(), ts::matrix_view<float>{y.data(), 1, 37}), ts::shape_error);
}
