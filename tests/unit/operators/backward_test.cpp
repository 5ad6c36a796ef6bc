// SPDX-License-Identifier: MIT
// Gradients with respect to weights: the definition in double, finite differences of a loss, every instruction set, any
// number of threads, accumulation in place, and the door.

#include "operator_laws.hpp"

#include <tessera/core/thread_pool.hpp>
#include <tessera/operators/backward.hpp>

using namespace tessera_test;

namespace {

struct gradient_shape {
    index_t m, n, k, r;
};
std::vector<gradient_shape> gradient_shapes() {
    return {{0, 5, 7, 2}, {4, 0, 7, 2}, {4, 5, 0, 2}, {4, 5, 7, 0}, {1, 1, 1, 1}, {1, 33, 17, 3}, {7, 16, 31, 8},
            {64, 17, 40, 4}, {65, 40, 33, 5}, {130, 35, 66, 16}};
}

/// |y - reference| <= tolerance for the policy, canonical y with gaps.
template <class Case, class Run>
double check_gradient(Case const& expected, index_t rows, index_t columns, Run const& run) {
    guarded<float> y{rows, columns, 1, 2};
    run(y);
    CHECK(y.is_intact());
    double const ratio = expected.worst_ratio(ts::matrix_view<float const>{y.view()});
    CHECK(ratio <= 1.0);
    return ratio;
}

template <class X>
double check_weight_backward(gradient_shape s) {
    guarded<X> x{s.m, s.k, 1, 1 + s.m % 2};
    guarded<X> dy{s.m, s.n, 2};
    x.fill(1);
    dy.fill(2);
    ts::linear const w{x.view()};
    auto const back = ts::transposed(w);
    ts::matrix_view<X const> const turned = ts::transposed(std::as_const(dy).view());
    apply_case<std::remove_const_t<decltype(back)>, X> const expected{back, turned};
    // The reference is the definition, rounded once.
    guarded<float> reference{s.n, s.k};
    ts::weight_backward(ts::reference{}, x.view(), dy.view(), reference.view());
    for (index_t n = 0; n < s.n; ++n)
        for (index_t k = 0; k < s.k; ++k) {
            double sum = 0;
            for (index_t m = 0; m < s.m; ++m)
                sum += static_cast<double>(static_cast<float>(dy.view()(m, n))) * static_cast<double>(static_cast<float>(x.view()(m, k)));
            CHECK(reference.view()(n, k) == static_cast<float>(sum));
        }
    double worst = 0;
    for_each_arch([&]<class Arch>(Arch) {
        worst = std::fmax(worst, check_gradient(expected, s.n, s.k, [&](guarded<float>& dw) {
                              ts::weight_backward(ts::cpu<Arch, ts::serial>{}, x.view(), dy.view(), dw.view());
                          }));
    });
    return worst;
}

struct adapter {
    guarded<float> b, a, x, dy;
    explicit adapter(gradient_shape s) : b{s.n, s.r, 1}, a{s.r, s.k, 0, 2}, x{s.m, s.k, 3}, dy{s.m, s.n, 1, 2} {
        b.fill(1);
        a.fill(2);
        x.fill(3);
        dy.fill(4);
    }
    ts::low_rank<ts::linear<ts::matrix_view<float const>>, ts::linear<ts::matrix_view<float const>>> view() const {
        return {b.view(), a.view(), 0.75f};
    }
};

double check_low_rank_backward(gradient_shape s) {
    adapter const t{s};
    auto const w = t.view();
    // Judged as products of three: dB = s dyᵀ (x Aᵀ), dA = s Bᵀ (dyᵀ x).
    ts::linear const x{t.x.view()};
    auto const to_b = w.factor() * (w.a() * ts::transposed(x));
    auto const to_a = w.factor() * (ts::transposed(x) * ts::linear{t.dy.view()});
    apply_case<std::remove_const_t<decltype(to_b)>> const expected_b{to_b, ts::transposed(t.dy.view())};
    apply_case<std::remove_const_t<decltype(to_a)>> const expected_a{to_a, ts::transposed(t.b.view())};
    double worst = 0;
    auto const check = [&](auto const& exec) {
        guarded<float> db{s.n, s.r, 2};
        worst = std::fmax(worst, check_gradient(expected_a, s.r, s.k, [&](guarded<float>& da) {
                              ts::low_rank_backward(exec, w, t.x.view(), t.dy.view(), da.view(), db.view());
                          }));
        CHECK(db.is_intact());
        double const ratio = expected_b.worst_ratio(ts::matrix_view<float const>{db.view()});
        CHECK(ratio <= 1.0);
        worst = std::fmax(worst, ratio);
    };
    check(ts::reference{});
    for_each_arch([&]<class Arch>(Arch) { check(ts::cpu<Arch, ts::serial>{}); });
    return worst;
}

/// Multiples of 1/8 below 2: every sum below is exact, in double and in float.
void fill_exact(guarded<float>& g, std::uint64_t seed) {
    ts::philox const random{seed};
    auto const v = g.view();
    for (index_t i = 0; i < v.extent(0); ++i)
        for (index_t k = 0; k < v.extent(1); ++k)
            v(i, k) = static_cast<float>(static_cast<int>(random.bits(static_cast<std::uint64_t>(i * v.extent(1) + k)) % 31) - 15) / 8;
}

/// sum of dy y for y = x Wᵀ, and for y = s (x Aᵀ) Bᵀ.
double loss(guarded<float> const& x, guarded<float> const& dy, guarded<float> const& w) {
    double sum = 0;
    for (index_t m = 0; m < x.view().extent(0); ++m)
        for (index_t n = 0; n < w.view().extent(0); ++n)
            for (index_t k = 0; k < w.view().extent(1); ++k)
                sum += double{dy.view()(m, n)} * double{x.view()(m, k)} * double{w.view()(n, k)};
    return sum;
}
double loss(adapter const& t, double scale) {
    double sum = 0;
    for (index_t m = 0; m < t.x.view().extent(0); ++m)
        for (index_t j = 0; j < t.a.view().extent(0); ++j) {
            double u = 0;
            for (index_t k = 0; k < t.a.view().extent(1); ++k) u += double{t.x.view()(m, k)} * double{t.a.view()(j, k)};
            for (index_t n = 0; n < t.b.view().extent(0); ++n)
                sum += scale * double{t.dy.view()(m, n)} * u * double{t.b.view()(n, j)};
        }
    return sum;
}

/// gradient(i, j) = (loss(p + 1) - loss(p - 1)) / 2 for every element p of `parameter`; the loss is linear in it.
template <class Loss>
void check_differences(guarded<float>& parameter, guarded<float> const& gradient, Loss const& value) {
    auto const p = parameter.view();
    for (index_t i = 0; i < p.extent(0); ++i)
        for (index_t j = 0; j < p.extent(1); ++j) {
            float const kept = p(i, j);
            p(i, j) = kept + 1;
            double const up = value();
            p(i, j) = kept - 1;
            double const down = value();
            p(i, j) = kept;
            CHECK(double{gradient.view()(i, j)} == (up - down) / 2);
        }
}

template <class Policy>
void check_finite_differences(Policy const& exec) {
    guarded<float> x{5, 6};
    guarded<float> dy{5, 7};
    guarded<float> w{7, 6};
    guarded<float> dw{7, 6};
    fill_exact(x, 1);
    fill_exact(dy, 2);
    fill_exact(w, 3);
    ts::weight_backward(exec, x.view(), dy.view(), dw.view());
    check_differences(w, dw, [&] { return loss(x, dy, w); });
    adapter t{{5, 7, 6, 3}};
    fill_exact(t.b, 4);
    fill_exact(t.a, 5);
    fill_exact(t.x, 6);
    fill_exact(t.dy, 7);
    guarded<float> da{3, 6};
    guarded<float> db{7, 3};
    ts::low_rank_backward(exec, ts::low_rank{t.b.view(), t.a.view(), 0.5f}, t.x.view(), t.dy.view(), da.view(), db.view());
    check_differences(t.a, da, [&] { return loss(t, 0.5); });
    check_differences(t.b, db, [&] { return loss(t, 0.5); });
}

} // namespace

TEST_CASE("the gradient of a dense weight is dyᵀ x") {
    double worst = 0;
    for (auto const& s : gradient_shapes()) {
        worst = std::fmax(worst, check_weight_backward<float>(s));
        worst = std::fmax(worst, check_weight_backward<ts::bf16>(s));
    }
    MESSAGE("worst error / tolerance " << worst);
}

TEST_CASE("the gradients of the factors of a low-rank operator") {
    double worst = 0;
    for (auto const& s : gradient_shapes()) worst = std::fmax(worst, check_low_rank_backward(s));
    MESSAGE("worst error / tolerance " << worst);
}

TEST_CASE("gradients are the differences of a loss") {
    check_finite_differences(ts::reference{});
    for_each_arch([]<class Arch>(Arch) { check_finite_differences(ts::cpu<Arch, ts::serial>{}); });
}

TEST_CASE("gradients accumulate in place, come in narrow types, and into owners") {
    ts::cpu<ts::native_arch, ts::serial> const exec;
    guarded<float> x{9, 20};
    guarded<float> dy{9, 11};
    x.fill(1);
    dy.fill(2);
    ts::matrix<float> once(11, 20);
    ts::matrix<float> twice(11, 20);
    ts::matrix<ts::bf16> narrow(11, 20);
    ts::weight_backward(exec, x.view(), dy.view(), once);
    ts::weight_backward(exec, x.view(), dy.view(), twice);
    ts::weight_backward(exec, x.view(), dy.view(), twice, ts::residual{twice});
    ts::weight_backward(exec, x.view(), dy.view(), narrow);
    for (index_t i = 0; i < once.size(); ++i) {
        CHECK(twice.data()[i] == 2 * once.data()[i]);
        CHECK(static_cast<float>(narrow.data()[i]) == static_cast<float>(ts::bf16{once.data()[i]}));
    }
}

TEST_CASE("any number of threads gives the same gradients; reserved workspace is enough") {
    adapter const t{{300, 70, 90, 8}};
    auto const all = [&](auto const& exec, guarded<float>& dw, guarded<float>& da, guarded<float>& db) {
        ts::weight_backward(exec, t.x.view(), t.dy.view(), dw.view());
        ts::low_rank_backward(exec, t.view(), t.x.view(), t.dy.view(), da.view(), db.view());
    };
    guarded<float> dw{70, 90}, da{8, 90}, db{70, 8};
    all(ts::cpu{ts::serial{}}, dw, da, db);
    ts::thread_pool pool{3};
    guarded<float> dw3{70, 90}, da3{8, 90}, db3{70, 8};
    all(ts::cpu{ts::threads{pool}}, dw3, da3, db3);
    CHECK(same_bits(dw, dw3));
    CHECK(same_bits(da, da3));
    CHECK(same_bits(db, db3));
    auto const check_reserved = [&](auto const& policy_on) {
        ts::workspace scratch;
        auto const exec = policy_on(scratch);
        index_t const bytes = ts::maximum(ts::weight_backward_workspace_bytes(exec, t.x.view(), t.dy.view()),
                                          ts::low_rank_backward_workspace_bytes(exec, t.view(), t.x.view(), t.dy.view()));
        exec.reserve(bytes);
        all(exec, dw3, da3, db3);
        CHECK(scratch.capacity() == bytes);
    };
    check_reserved([](ts::workspace& w) { return ts::cpu{ts::serial{}, w}; });
    check_reserved([](ts::workspace& w) { return ts::reference{w}; });
}

TEST_CASE("gradients: the door") {
    ts::cpu<ts::native_arch, ts::serial> const exec;
    adapter t{{3, 5, 6, 2}};
    guarded<float> dw{5, 6}, da{2, 6}, db{5, 2}, wrong{4, 6};
    auto const message = [](auto const& call) -> std::string {
        try {
            call();
        } catch (ts::shape_error const& e) {
            return e.what();
        }
        return "no error";
    };
    auto const weight = [&](auto const& x, auto const& dy, auto const& out) {
        return message([&] { ts::weight_backward(exec, x, dy, out); });
    };
    CHECK(weight(wrong.view(), t.dy.view(), dw.view()) == "tessera: weight_backward: rows of dy is 3, expected 4 (rows of x)");
    CHECK(weight(t.x.view(), t.dy.view(), wrong.view()) ==
          "tessera: weight_backward: rows of dw is 4, expected 5 (columns of dy)");
    CHECK(weight(t.x.view(), t.dy.view(), db.view()) ==
          "tessera: weight_backward: columns of dw is 2, expected 6 (columns of x)");
    ts::matrix<float> both(6, 6);
    ts::matrix_view<float> const low{both.data(), 5, 6};
    CHECK(weight(ts::rows(both.view(), 3, 6), t.dy.view(), low) ==
          "tessera: weight_backward: x (72 bytes) overlaps dw (120 bytes)");
    CHECK(message([&] { ts::weight_backward(exec, t.x.view(), t.dy.view(), low, ts::residual{ts::rows(both.view(), 1, 6)}); }) ==
          "tessera: weight_backward: the residual (120 bytes) overlaps dw (120 bytes)");
    auto const factors = [&](auto const& w, auto const& out_a, auto const& out_b) {
        return message([&] { ts::low_rank_backward(exec, w, t.x.view(), t.dy.view(), out_a, out_b); });
    };
    CHECK(factors(t.view(), db.view(), db.view()) == "tessera: low_rank_backward: rows of da is 5, expected 2 (rows of a)");
    CHECK(factors(t.view(), da.view(), da.view()) == "tessera: low_rank_backward: rows of db is 2, expected 5 (rows of b)");
    CHECK(factors(t.view(), ts::matrix_view<float>{nullptr, 2, 6}, db.view()) ==
          "tessera: low_rank_backward: da is null but has 12 elements, expected 0 or a pointer");
    CHECK(factors(t.view(), t.a.view(), db.view()) ==
          "tessera: low_rank_backward: the operator (92 bytes) overlaps da (92 bytes)");
    CHECK(factors(t.view(), ts::matrix_view<float>{both.data(), 2, 6}, ts::matrix_view<float>{both.data() + 11, 5, 2}) ==
          "tessera: low_rank_backward: da (48 bytes) overlaps db (40 bytes)");
    CHECK(dw.is_untouched());
    CHECK(da.is_untouched());
    CHECK(db.is_untouched());
    for (index_t i = 0; i < both.size(); ++i) CHECK(both.data()[i] == 0.0f);
}
