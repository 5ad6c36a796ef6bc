// SPDX-License-Identifier: MIT
// The algebra of operators: every node against the reference, canonical and placed; its laws; epilogues.

#include "operator_laws.hpp"

#include <type_traits>

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
template <class Op>
void check_node_on_every_arch(Op const& w) {
    for (index_t const m : {1, 9, 40}) {
        CAPTURE(m);
        guarded<float> x{m, w.cols(), 2};
        x.fill(31);
        guarded<float> y{m, w.rows(), 1};
        apply_case<Op> const expected{w, x.view()};
        for_each_arch([&]<class Arch>(Arch) { check_on<Arch>(w, x, expected, {m, w.rows(), w.cols()}, y); });
    }
}

struct terms {
    ts::quantized_tensor<ts::int4_g32> q = random_quantized<ts::int4_g32>(37, 70);
    guarded<float> dense{37, 70, 1, 2};
    guarded<float> b{37, 5};
    guarded<float> a{5, 70};
    guarded<float> x{9, 70};
    terms() {
        dense.fill(1);
        b.fill(2);
        a.fill(3);
        x.fill(4);
    }
};

ts::cpu<ts::native_arch, ts::serial> const exec;

template <class Op>
guarded<float> product_of(Op const& w, ts::matrix_view<float const> x) {
    guarded<float> y{x.extent(0), w.rows()};
    ts::apply(exec, w, x, y.view());
    return y;
}

} // namespace

TEST_CASE("sum, product, multiple and low rank are their reference") {
    terms const t;
    ts::linear const q{t.q};
    ts::linear const d{t.dense.view()};
    ts::low_rank const adapter{t.b.view(), t.a.view(), 0.5f};
    CHECK(adapter.rank() == 5);
    check_node(q + d);
    check_node(ts::linear{t.b.view()} * ts::linear{t.a.view()});
    check_node(-1.5f * q);
    check_node(adapter);
    check_node(ts::linear{t.q, ts::int8_per_group<32>{}} + adapter);
    check_node(0.25f * (ts::linear{t.q, ts::int8_per_token{}} + adapter) + 2.0f * d);
}

TEST_CASE("slices are their reference, wherever they cut registers") {
    terms const t;
    ts::linear const q{t.q, ts::int8_per_group<32>{}};
    ts::linear const d{t.dense.view()};
    for (auto const& [first, last] : {std::pair{0, 37}, {0, 1}, {5, 5}, {15, 17}, {16, 37}, {31, 36}, {37, 37}}) {
        CAPTURE(first);
        check_node(ts::rows(q, first, last));
        check_node(ts::rows(d, first, last));
    }
    for (auto const& [first, last] : {std::pair{0, 70}, {0, 1}, {5, 5}, {31, 65}, {70, 70}}) {
        CAPTURE(first);
        check_node(ts::columns(q, first, last));
        check_node(ts::columns(d, first, last));
    }
    check_node(ts::rows(ts::columns(q, 3, 60), 2, 30));
}

TEST_CASE("transposed leaves are their reference on every instruction set") {
    terms const t;
    check_node_on_every_arch(ts::transposed(ts::linear{t.q}));
    check_node_on_every_arch(ts::transposed(ts::linear{t.dense.view()}));
    blocked_storage<ts::q4_1> const q41{130, 96};
    check_node_on_every_arch(ts::transposed(ts::linear{q41.view()}));
    dense_storage_of<ts::fp16> const half{70, 65};
    check_node_on_every_arch(ts::transposed(ts::linear{half.view()}));
}

TEST_CASE("transposed goes down to the leaves") {
    terms const t;
    ts::linear const q{t.q, ts::int8_per_group<32>{}};
    ts::low_rank const adapter{t.b.view(), t.a.view(), 0.5f};
    static_assert(std::is_same_v<decltype(ts::transposed(ts::transposed(q))), std::remove_const_t<decltype(q)>>);
    check_node(ts::transposed(q + adapter));
    check_node(ts::transposed(ts::rows(q, 3, 20)));
    check_node(ts::transposed(ts::columns(q, 3, 60)));
    check_node(ts::transposed(ts::transposed(ts::linear{t.q} + adapter)));
}

TEST_CASE("(A + B) x = A x + B x, (A B) x = A (B x), s (A x) = (s A) x") {
    terms const t;
    ts::linear const q{t.q};
    ts::linear const d{t.dense.view()};
    apply_case<ts::sum<ts::linear<ts::quantized<ts::int4_g32>>, ts::linear<ts::matrix_view<float const>>>> const expected{
        q + d, t.x.view()};
    auto const both = product_of(q + d, t.x.view());
    auto const first = product_of(q, t.x.view());
    auto const second = product_of(d, t.x.view());
    for (index_t m = 0; m < 9; ++m)
        for (index_t n = 0; n < 37; ++n) {
            double const apart = double{first.view()(m, n)} + double{second.view()(m, n)};
            CHECK(std::abs(double{both.view()(m, n)} - apart) <= 2 * expected.tolerance(m, n));
        }
    ts::linear const b{t.b.view()};
    ts::linear const a{t.a.view()};
    CHECK(same_bits(product_of(b * a, t.x.view()), product_of(b, product_of(a, t.x.view()).view())));
    // A power of two commutes with every rounding.
    auto const twice = product_of(2.0f * q, t.x.view());
    for (index_t m = 0; m < 9; ++m)
        for (index_t n = 0; n < 37; ++n) CHECK(twice.view()(m, n) == 2.0f * first.view()(m, n));
}

TEST_CASE("rows of A x are rows of A, times x") {
    terms const t;
    ts::linear const q{t.q, ts::int8_per_group<32>{}};
    auto const whole = product_of(q, t.x.view());
    CHECK(same_bits<float>(product_of(ts::rows(q, 7, 33), t.x.view()).view(), ts::columns(whole.view(), 7, 33)));
}

TEST_CASE("the backward pass is the derivative of the reference") {
    terms const t;
    auto const w = ts::linear{t.q} + ts::low_rank{t.b.view(), t.a.view(), 0.5f};
    using op = std::remove_const_t<decltype(w)>;
    guarded<float> dy{1, 37};
    dy.fill(6);
    auto const back = ts::transposed(w);
    apply_case<std::remove_const_t<decltype(back)>> const expected{back, dy.view()};
    guarded<float> dx{1, 70};
    ts::apply(exec, back, dy.view(), dx.view());
    ts::workspace scratch;
    // L = dy . (x Wᵀ) in double, and the sum of magnitudes that bounds its rounding.
    auto const loss = [&](row_of_doubles const& x) {
        row_of_doubles y(37, 0.0);
        ts::kernel<ts::op::apply, ts::reference, op>::row(w, x.data(), y.data(), 1.0, scratch);
        double sum = 0;
        for (std::size_t n = 0; n < y.size(); ++n) sum += double{dy.view()(0, static_cast<index_t>(n))} * y[n];
        return sum;
    };
    row_of_doubles x(70);
    for (std::size_t k = 0; k < x.size(); ++k) x[k] = double{t.x.view()(0, static_cast<index_t>(k))};
    for (std::size_t k = 0; k < x.size(); ++k) {
        row_of_doubles up = x;
        row_of_doubles down = x;
        up[k] += 1;
        down[k] -= 1;
        row_of_doubles magnitude = error_model<op>::magnitude(w, up);
        double sum = 0;
        for (std::size_t n = 0; n < 37; ++n) sum += magnitude[n] * std::abs(double{dy.view()(0, static_cast<index_t>(n))});
        double const rounding = ts::gamma(error_model<op>::roundings(w) + 40, ts::unit_roundoff<double>) * sum;
        auto const at = static_cast<index_t>(k);
        // The reference reads weights in float32: its decoding rounds, which the tolerance of dx holds too.
        CHECK(std::abs((loss(up) - loss(down)) / 2 - double{dx.view()(0, at)}) <= 2 * expected.tolerance(0, at) + rounding);
    }
}

TEST_CASE("epilogues are functions of the accumulator") {
    terms const t;
    ts::linear const q{t.q, ts::int8_per_token{}};
    auto const plain = product_of(q, t.x.view());
    guarded<float> offsets{1, 37};
    offsets.fill(8);
    ts::vector_view<float const> const b{&offsets.view()(0, 0), index_t{37}};
    guarded<float> y{9, 37, 3, 2};
    y.fill(9);
    guarded<float> before{9, 37};
    before.fill(9);
    // y is its own residual.
    auto const twice_plus = [](float v, index_t m, index_t n) noexcept { return 2.0f * v + static_cast<float>(m + n); };
    ts::apply(exec, q, t.x.view(), y.view(), ts::bias{b} | ts::residual{y.view()} | ts::relu{} | ts::no_epilogue{});
    CHECK(y.is_intact());
    guarded<float> z{9, 37};
    ts::apply(exec, q, t.x.view(), z.view(), twice_plus);
    for (index_t m = 0; m < 9; ++m)
        for (index_t n = 0; n < 37; ++n) {
            float const v = plain.view()(m, n) + b[n] + before.view()(m, n);
            CHECK(y.view()(m, n) == (v < 0 ? 0.0f : v));
            CHECK(z.view()(m, n) == doctest::Approx(twice_plus(plain.view()(m, n), m, n)).epsilon(0x1p-22));
        }
    guarded<float> r{9, 37};
    ts::apply(ts::reference{}, q, t.x.view(), r.view(), ts::bias{b} | ts::relu{});
    ts::apply(exec, q, t.x.view(), z.view(), ts::bias{b} | ts::relu{});
    apply_case<std::remove_const_t<decltype(q)>> const expected{q, t.x.view()};
    for (index_t m = 0; m < 9; ++m)
        for (index_t n = 0; n < 37; ++n)
            CHECK(std::abs(double{z.view()(m, n)} - double{r.view()(m, n)}) <=
                  expected.tolerance(m, n) + 2 * ts::unit_roundoff<float> * (std::abs(double{r.view()(m, n)}) + std::abs(double{b[n]}) + expected.tolerance(m, n)));
    CHECK(ts::relu{}(std::nanf(""), 0, 0) != ts::relu{}(std::nanf(""), 0, 0));
}
