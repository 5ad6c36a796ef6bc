// SPDX-License-Identifier: MIT
// BitLinear: the fused call is its parts bit for bit, agrees with the definition, with transformers' code, and its gradients with
// the definition, with finite differences and with transformers'.
#include "cases/guarded.hpp"
#include "nn_support.hpp"
#include "support/vectors.hpp"

#include <tessera/nn/bit_linear.hpp>
#include <tessera/operators/place.hpp>
#include <tessera/quant/ternary.hpp>

#include <array>
#include <limits>

using namespace nn_test;

namespace {

using exec_type = ts::cpu<ts::native_arch, ts::serial>;
constexpr float epsilon = 1e-6f;

/// rms_norm(x) in double, and what int8 by tokens makes of it.
struct definition {
    index_t m;
    index_t k;
    std::vector<double> h;    // (m, k)
    std::vector<double> step; // (m): max |h| / 127
    std::vector<double> slack; // (m, k): a step where rounding in float32 may take the other neighbour

    template <class X, class W>
    definition(ts::matrix_view<X const> x, W const& weight) : m{x.extent(0)}, k{x.extent(1)} {
        for (index_t i = 0; i < m; ++i) {
            double squares = 0;
            for (index_t j = 0; j < k; ++j) squares += std::pow(static_cast<double>(x(i, j)), 2);
            double const r = 1 / std::sqrt(squares / static_cast<double>(k) + double{epsilon});
            double most = 0;
            for (index_t j = 0; j < k; ++j) {
                h.push_back(static_cast<double>(x(i, j)) * r * double{weight[j]});
                most = std::fmax(most, std::abs(h.back()));
            }
            step.push_back(most / 127);
            for (index_t j = 0; j < k; ++j) {
                double const q = most == 0 ? 0 : h[at(i, j)] / step.back();
                double const from_tie = std::abs(q - std::floor(q) - 0.5);
                slack.push_back(from_tie <= 2 * gamma_of(k / 2 + 12) * std::abs(q) ? step.back() : 0);
            }
        }
    }
    std::size_t at(index_t i, index_t j) const { return static_cast<std::size_t>(i * k + j); }
    double seen(index_t i, index_t j) const {
        auto const row = static_cast<std::size_t>(i);
        return step[row] == 0 ? 0 : step[row] * std::nearbyint(h[at(i, j)] / step[row]);
    }
    /// Bound of |y - exact| for a product of the int8 values with row n of W in float32.
    template <class W>
    double tolerance(index_t i, index_t n, W const& w) const {
        double sum = 0;
        double flips = 0;
        for (index_t j = 0; j < k; ++j) {
            double const v = std::abs(static_cast<double>(w(n, j)));
            sum += std::abs(seen(i, j)) * v;
            flips += slack[at(i, j)] * v;
        }
        return gamma_of(2 * k + 20) * sum + 1.001 * flips + 0x1p-149;
    }
};

struct problem {
    ts::matrix<float> w;
    guarded<float> x;
    guarded<float> weight;

    problem(index_t m, index_t n, index_t k) : w{n, k}, x{m, k, 3}, weight{1, k, 0} {
        ts::philox const random{77};
        for (index_t i = 0; i < n; ++i)
            for (index_t j = 0; j < k; ++j) w.view()(i, j) = 0.05f * random.normal(static_cast<std::uint64_t>(i * k + j));
        x.fill(1, 2, 0.1);
        weight.fill(2, 0.3, 1);
    }
    auto norm() const { return ts::slice(std::as_const(weight).view(), 0, ts::all); }
    auto input() const { return std::as_const(x).view(); }
};

template <class Exec, class Op>
void check_is_its_parts(Exec const& exec, Op const& op, problem const& p) {
    index_t const m = p.input().extent(0);
    guarded<float> h{m, op.cols(), 0};
    guarded<float> parts{m, op.rows(), 0};
    guarded<float> y{m, op.rows(), 2};
    ts::rms_norm(exec, p.input(), p.norm(), epsilon, h.view());
    ts::apply(exec, op, h.view(), parts.view());
    ts::bit_linear(exec, op, p.input(), p.norm(), epsilon, y.view());
    CHECK(tessera_test::same_bits<float>(std::as_const(y).view(), std::as_const(parts).view()));
    CHECK(y.is_intact());
}

} // namespace

TEST_CASE("bit_linear is rms_norm and apply, bit for bit, and what the definition says") {
    for (auto const [m, n, k] : {std::array<index_t, 3>{0, 3, 5}, {1, 1, 1}, {2, 5, 31}, {3, 17, 64}, {17, 33, 130}, {2, 4, 0}}) {
        CAPTURE(m);
        CAPTURE(n);
        CAPTURE(k);
        problem const p{m, n, k};
        auto const t = ts::quantize_absmean(p.w);
        ts::linear const op{t, ts::int8_per_token{}};
        exec_type const exec;
        check_is_its_parts(exec, op, p);
        auto const placed = ts::place(exec, op);
        check_is_its_parts(exec, placed.view(), p);
        guarded<float> y{m, n, 0};
        guarded<float> expected{m, n, 0};
        ts::bit_linear(ts::cpu<ts::native_arch>{}, placed, p.input(), p.norm(), epsilon, y.view());
        ts::bit_linear(ts::reference{}, op, p.input(), p.norm(), epsilon, expected.view());
        definition const of{p.input(), p.norm()};
        check_close(y.view(), expected.view(), [&](index_t i, index_t j) { return of.tolerance(i, j, t.view()); });
    }
}

TEST_CASE("operators that read x in place, epilogues, several operators behind one norm") {
    problem const p{5, 12, 70};
    auto const t = ts::quantize_absmean(p.w);
    exec_type const exec;
    ts::matrix<float> b{12, 2};
    ts::matrix<float> a{2, 70};
    for (index_t r = 0; r < 2; ++r) {
        for (index_t n = 0; n < 12; ++n) b.view()(n, r) = 0.1f * static_cast<float>(n - 3 * r);
        for (index_t k = 0; k < 70; ++k) a.view()(r, k) = 0.01f * static_cast<float>(k % 9 - r);
    }
    auto const adapted = ts::linear{t, ts::int8_per_token{}} + ts::low_rank{b, a};
    check_is_its_parts(exec, adapted, p);

    guarded<float> one{5, 12, 0};
    guarded<float> two{5, 12, 0};
    std::vector<float> const bias(12, 2.0f);
    ts::bias const add{ts::vector_view<float const>{bias.data(), 12}};
    ts::bit_linear(exec, adapted, p.input(), p.norm(), epsilon, one.view(), add);
    {
        ts::workspace_scope scope{exec.scratch()};
        auto const shared = ts::prepare_normalized(exec, scope, p.input(), p.norm(), epsilon, adapted);
        ts::apply(exec, adapted, shared, two.view(), add);
    }
    CHECK(tessera_test::same_bits<float>(std::as_const(one).view(), std::as_const(two).view()));
    CHECK(ts::bit_linear_workspace_bytes(exec, adapted, p.input()) > 0);
}

TEST_CASE("rows of zeros and rows that are not finite") {
    problem p{3, 4, 40};
    for (index_t k = 0; k < 40; ++k) p.x.view()(0, k) = 0;
    p.x.view()(1, 7) = std::numeric_limits<float>::quiet_NaN();
    auto const t = ts::quantize_absmean(p.w);
    guarded<float> y{3, 4, 0};
    auto const check = [&](auto const& exec) {
        ts::bit_linear(exec, ts::linear{t, ts::int8_per_token{}}, p.input(), p.norm(), 0.0f, y.view());
        CHECK(std::isnan(y.view()(1, 2)));
        CHECK(std::isfinite(y.view()(2, 2)));
        ts::bit_linear(exec, ts::linear{t, ts::int8_per_token{}}, p.input(), p.norm(), epsilon, y.view());
        CHECK(y.view()(0, 1) == 0.0f);
    };
    check(exec_type{});
    check(ts::reference{});
}

TEST_CASE("the gradients are the definition's, and those of the norm and the product without rounding") {
    index_t const m = 4;
    index_t const n = 9;
    index_t const k = 37;
    problem const p{m, n, k};
    auto const t = ts::quantize_absmean(p.w);
    ts::linear const op{t, ts::int8_per_token{}};
    guarded<float> dy{m, n, 1};
    dy.fill(5);
    auto const d = std::as_const(dy).view();
    guarded<float> dx{m, k, 0}, dx_ref{m, k, 0}, dw{n, k, 0}, dw_ref{n, k, 0}, dn{1, k, 0}, dn_ref{1, k, 0};
    auto const row = [](guarded<float>& v) { return ts::slice(v.view(), 0, ts::all); };
    ts::bit_linear_backward(ts::reference{}, op, p.input(), p.norm(), epsilon, d, dx_ref.view(), row(dn_ref), dw_ref.view());
    exec_type const exec;
    auto const placed = ts::place(exec, op);
    ts::bit_linear_backward(exec, placed, p.input(), p.norm(), epsilon, d, dx.view(), row(dn), dw.view());

    definition const of{p.input(), p.norm()};
    // The loss sum of dy (rms_norm(x) Wᵀ) in double, for central differences of fourth order.
    auto const loss = [&](std::vector<double> const& x, std::vector<double> const& weight) {
        double sum = 0;
        for (index_t i = 0; i < m; ++i) {
            double squares = 0;
            for (index_t j = 0; j < k; ++j) squares += x[of.at(i, j)] * x[of.at(i, j)];
            double const r = 1 / std::sqrt(squares / static_cast<double>(k) + double{epsilon});
            for (index_t j = 0; j < k; ++j)
                for (index_t o = 0; o < n; ++o)
                    sum += double{d(i, o)} * x[of.at(i, j)] * r * weight[static_cast<std::size_t>(j)] * double{t.view()(o, j)};
        }
        return sum;
    };
    std::vector<double> x, weight;
    for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < k; ++j) x.push_back(double{p.input()(i, j)});
    for (index_t j = 0; j < k; ++j) weight.push_back(double{p.norm()[j]});
    auto const difference = [&](double& at) {
        double const keep = at;
        double const step = 1e-3;
        auto const value = [&](double by) {
            at = keep + by * step;
            return loss(x, weight);
        };
        double const slope = (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step);
        at = keep;
        return slope;
    };
    // The sums of magnitudes that the roundings are relative to.
    std::vector<double> g;
    for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < k; ++j) {
            double sum = 0;
            for (index_t o = 0; o < n; ++o) sum += std::abs(double{d(i, o)} * double{t.view()(o, j)});
            g.push_back(sum);
        }
    for (index_t j = 0; j < k; ++j) {
        double bound = 0;
        for (index_t i = 0; i < m; ++i) bound += g[of.at(i, j)] * std::abs(of.h[of.at(i, j)] / weight[static_cast<std::size_t>(j)]);
        CHECK(std::abs(difference(weight[static_cast<std::size_t>(j)]) - double{row(dn_ref)[j]}) <= 1e-9 * bound + u * bound);
        CHECK(std::abs(double{row(dn)[j]} - double{row(dn_ref)[j]}) <= gamma_of(n + m + k + 20) * bound);
    }
    for (index_t i = 0; i < m; ++i) {
        double mean = 0;
        for (index_t j = 0; j < k; ++j) mean += g[of.at(i, j)] * std::abs(of.h[of.at(i, j)]) / static_cast<double>(k);
        double squares = 0;
        for (index_t j = 0; j < k; ++j) squares += std::pow(x[of.at(i, j)], 2);
        double const r = 1 / std::sqrt(squares / static_cast<double>(k) + double{epsilon});
        for (index_t j = 0; j < k; ++j) {
            auto const wj = weight[static_cast<std::size_t>(j)];
            double const bound = r * (g[of.at(i, j)] * std::abs(wj) + std::abs(x[of.at(i, j)] * r) * mean);
            CHECK(std::abs(difference(x[of.at(i, j)]) - double{dx_ref.view()(i, j)}) <= 1e-8 * bound + u * bound);
            CHECK(std::abs(double{dx.view()(i, j)} - double{dx_ref.view()(i, j)}) <= gamma_of(n + 2 * k + 40) * bound);
        }
    }
    for (index_t o = 0; o < n; ++o)
        for (index_t j = 0; j < k; ++j) {
            double exact = 0;
            double bound = 0;
            double flips = 0;
            for (index_t i = 0; i < m; ++i) {
                exact += double{d(i, o)} * of.seen(i, j);
                bound += std::abs(double{d(i, o)} * of.seen(i, j));
                flips += std::abs(double{d(i, o)}) * of.slack[of.at(i, j)];
            }
            double const tolerance = gamma_of(m + k + 20) * bound + 1.001 * flips;
            CHECK(std::abs(double{dw_ref.view()(o, j)} - exact) <= tolerance);
            CHECK(std::abs(double{dw.view()(o, j)} - exact) <= tolerance);
        }
}

TEST_CASE("transformers' BitLinear, forward, backward and packed") {
    auto const stored = tessera_test::read_arrays("nn/bit_linear");
    auto const x = stored.at("x").matrix();
    auto const weight = stored.at("norm_weight").vector();
    auto const dy = stored.at("dy").matrix();
    auto const t = ts::quantize_absmean(stored.at("w").matrix());
    index_t const m = x.extent(0);
    index_t const n = t.rows();
    index_t const k = t.cols();
    // Weights: the same codes; the scale to the rounding of a mean that PyTorch sums in float32.
    auto const& theirs = stored.at("ternary");
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < k; ++j)
            CHECK(std::abs(double{t.view()(i, j)} - theirs(i, j)) <= gamma_of(n * k) * std::abs(theirs(i, j)));
    definition const of{ts::matrix_view<float const>{x}, weight};
    ts::linear const op{t, ts::int8_per_token{}};
    guarded<float> y{m, n, 0};
    auto const agree = [&](char const* name) {
        check_close(y.view(), stored.at(name).matrix(), [&](index_t i, index_t j) {
            return 2 * of.tolerance(i, j, t.view()) + gamma_of(n * k) * std::abs(stored.at(name)(i, j));
        });
    };
    exec_type const exec;
    ts::bit_linear(exec, op, x, weight, epsilon, y.view());
    agree("y");
    ts::bit_linear(ts::reference{}, op, x, weight, epsilon, y.view());
    agree("y");

    std::vector<std::uint8_t> bytes;
    for (float const v : stored.at("packed").data) bytes.push_back(static_cast<std::uint8_t>(v));
    auto const relaid = ts::ternary_from_packed_rows(ts::matrix_view<std::uint8_t const>{bytes.data(), n / 4, k}, n,
                                                     1 / stored.at("packed_scale").data[0]);
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < k; ++j) CHECK(relaid.view().code(i, j) == t.view().code(i, j));
    ts::bit_linear(exec, ts::linear{relaid, ts::int8_per_token{}}, x, weight, epsilon, y.view());
    agree("packed_y");

    guarded<float> dx{m, k, 0}, dw{n, k, 0}, dn{1, k, 0};
    ts::bit_linear_backward(exec, op, x, weight, epsilon, dy, dx.view(), ts::slice(dn.view(), 0, ts::all), dw.view());
    double const scale = gamma_of(n * k); // of their scale
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < k; ++j) {
            double tolerance = 0;
            for (index_t r = 0; r < m; ++r)
                tolerance += std::abs(double{dy(r, i)}) * (2 * gamma_of(m + k + 20) * std::abs(of.seen(r, j)) + 1.001 * of.slack[of.at(r, j)]);
            CHECK(std::abs(double{dw.view()(i, j)} - stored.at("dw")(i, j)) <= tolerance);
        }
    for (index_t j = 0; j < k; ++j) {
        double all = 0;
        for (index_t i = 0; i < m; ++i)
            for (index_t o = 0; o < n; ++o)
                all += std::abs(double{dy(i, o)} * double{t.view()(o, j)} * of.h[of.at(i, j)] / double{weight[j]});
        CHECK(std::abs(double{dn.view()(0, j)} - double{stored.at("dnorm_weight").data[static_cast<std::size_t>(j)]}) <=
              (2 * gamma_of(n + m + k + 20) + scale) * all);
    }
    for (index_t i = 0; i < m; ++i) {
        double squares = 0;
        double mean = 0;
        std::vector<double> g;
        for (index_t j = 0; j < k; ++j) {
            squares += std::pow(double{x(i, j)}, 2);
            double sum = 0;
            for (index_t o = 0; o < n; ++o) sum += std::abs(double{dy(i, o)} * double{t.view()(o, j)});
            g.push_back(sum);
            mean += sum * std::abs(of.h[of.at(i, j)]) / static_cast<double>(k);
        }
        double const r = 1 / std::sqrt(squares / static_cast<double>(k) + double{epsilon});
        for (index_t j = 0; j < k; ++j) {
            double const bound = r * (g[static_cast<std::size_t>(j)] * std::abs(double{weight[j]}) + std::abs(double{x(i, j)} * r) * mean);
            CHECK(std::abs(double{dx.view()(i, j)} - stored.at("dx")(i, j)) <= (2 * gamma_of(n + 2 * k + 40) + scale) * bound);
        }
    }
}

TEST_CASE("x in bf16 is its numbers; its gradient passes through bf16") {
    index_t const m = 3;
    index_t const n = 7;
    index_t const k = 45;
    problem p{m, n, k};
    auto const t = ts::quantize_absmean(p.w);
    ts::linear const op{t, ts::int8_per_token{}};
    guarded<ts::bf16> half{m, k, 1};
    for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < k; ++j) {
            half.view()(i, j) = static_cast<ts::bf16>(p.x.view()(i, j));
            p.x.view()(i, j) = static_cast<float>(half.view()(i, j));
        }
    exec_type const exec;
    auto const x = std::as_const(half).view();
    guarded<float> y{m, n, 0}, y_half{m, n, 0}, dy{m, n, 0};
    ts::bit_linear(exec, op, p.input(), p.norm(), epsilon, y.view());
    ts::bit_linear(exec, op, x, p.norm(), epsilon, y_half.view());
    CHECK(tessera_test::same_bits<float>(std::as_const(y).view(), std::as_const(y_half).view()));
    dy.fill(9);
    guarded<float> dx{m, k, 0}, dw{n, k, 0}, dn{1, k, 0}, dx_half{m, k, 0}, dw_half{n, k, 0}, dn_half{1, k, 0};
    auto const row = [](guarded<float>& v) { return ts::slice(v.view(), 0, ts::all); };
    auto const d = std::as_const(dy).view();
    ts::bit_linear_backward(exec, op, p.input(), p.norm(), epsilon, d, dx.view(), row(dn), dw.view());
    ts::bit_linear_backward(exec, op, x, p.norm(), epsilon, d, dx_half.view(), row(dn_half), dw_half.view());
    CHECK(tessera_test::same_bits<float>(std::as_const(dw).view(), std::as_const(dw_half).view()));
    definition const of{p.input(), p.norm()};
    for (index_t i = 0; i < m; ++i) {
        double squares = 0;
        double mean = 0;
        std::vector<double> g;
        for (index_t j = 0; j < k; ++j) {
            squares += std::pow(double{p.input()(i, j)}, 2);
            double sum = 0;
            for (index_t o = 0; o < n; ++o) sum += std::abs(double{d(i, o)} * double{t.view()(o, j)});
            g.push_back(sum);
            mean += sum * std::abs(of.h[of.at(i, j)]) / static_cast<double>(k);
        }
        double const r = 1 / std::sqrt(squares / static_cast<double>(k) + double{epsilon});
        for (index_t j = 0; j < k; ++j) {
            double const bound = r * (g[static_cast<std::size_t>(j)] * std::abs(double{p.norm()[j]}) +
                                      std::abs(double{p.input()(i, j)} * r) * mean);
            // The gradient of the norm's output is rounded to bf16.
            CHECK(std::abs(double{dx.view()(i, j)} - double{dx_half.view()(i, j)}) <= (0x1p-8 + 2 * gamma_of(n + 2 * k + 40)) * bound);
        }
    }
}

TEST_CASE("wrong arguments") {
    problem const p{3, 4, 40};
    auto const t = ts::quantize_absmean(p.w);
    ts::linear const op{t, ts::int8_per_token{}};
    guarded<float> y{3, 5, 0};
    CHECK(message_of([&] { ts::bit_linear(exec_type{}, op, p.input(), p.norm(), epsilon, y.view()); })
              .find("bit_linear: columns of y is 5") != std::string::npos);
    CHECK(message_of([&] { ts::bit_linear(exec_type{}, op, p.input(), p.norm(), -1.0f, y.view()); })
              .find("bit_linear: epsilon") != std::string::npos);
    guarded<float> dx{3, 40, 0}, dw{4, 39, 0}, dn{1, 40, 0}, dy{3, 4, 0};
    CHECK(message_of([&] {
              ts::bit_linear_backward(exec_type{}, op, p.input(), p.norm(), epsilon, dy.view(), dx.view(),
                                      ts::slice(dn.view(), 0, ts::all), dw.view());
          }) == "tessera: bit_linear_backward: columns of dw is 39, expected 40 (columns of the operator)");
    CHECK(dx.is_intact());
}
