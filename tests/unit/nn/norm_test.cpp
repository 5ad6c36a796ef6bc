// SPDX-License-Identifier: MIT
#include "nn_support.hpp"

#include <tessera/nn/norm.hpp>
#include <tessera/storage/tensor.hpp>

#include <limits>

using namespace nn_test;

namespace {

constexpr float epsilon = 1e-5f;

/// Everything of a row, in double, and bounds of the float32 computation of h = r (x - mean).
struct row {
    double mean = 0;     // what is subtracted
    double inverse = 0;  // r
    double mean_abs = 0; // mean |x|
    double e_mean = 0;   // bound of the error of the mean

    template <class X>
    row(ts::matrix_view<X const> x, index_t i, bool is_layer) {
        index_t const n = x.extent(1);
        double sum = 0;
        for (index_t k = 0; k < n; ++k) {
            sum += static_cast<double>(x(i, k));
            mean_abs += std::abs(static_cast<double>(x(i, k))) / static_cast<double>(n);
        }
        mean = is_layer ? sum / static_cast<double>(n) : 0;
        double squares = 0;
        for (index_t k = 0; k < n; ++k) squares += std::pow(static_cast<double>(x(i, k)) - mean, 2);
        double const spread = squares / static_cast<double>(n) + double{epsilon};
        inverse = 1 / std::sqrt(spread);
        e_mean = is_layer ? gamma_of(n + 2) * mean_abs : 0;
        // r: the sum of squares, a division, a sum, a root, a division; the squares are of x less a wrong mean.
        e_inverse = gamma_of(n / 2 + 6) + e_mean * e_mean / spread;
    }
    /// Relative bound of r.
    double e_inverse = 0;

    double h(double x) const { return inverse * (x - mean); }
    /// Bound of the error of h.
    double e_h(double x) const { return (e_inverse + gamma_of(3)) * std::abs(h(x)) + 1.01 * inverse * e_mean; }
};

template <class X, class Y>
struct inputs {
    guarded<X> x;
    guarded<float> weight;
    guarded<float> bias;
    guarded<Y> y;

    inputs(shape s, index_t gap)
        : x(s.m, s.n, gap), weight(1, s.n, 0), bias(1, s.n, 0), y(s.m, s.n, gap == 0 ? 0 : gap + 2) {
        x.fill(1, 3, 0.5);
        weight.fill(2);
        bias.fill(3);
    }
    ts::vector_view<float const> w() const { return ts::slice(weight.view(), 0, ts::all); }
    ts::vector_view<float const> b() const { return ts::slice(bias.view(), 0, ts::all); }
};

template <class X, class Y>
void forward_parity(shape s, index_t gap) {
    CAPTURE(s.m);
    CAPTURE(s.n);
    CAPTURE(gap);
    inputs<X, Y> in(s, gap);
    auto const x = std::as_const(in.x).view();
    guarded<float> expected(s.m, s.n, 0);
    for_each_cpu([&](auto const& exec) {
        CAPTURE(name_of(exec));
        ts::rms_norm(ts::reference{}, x, in.w(), epsilon, expected.view());
        ts::rms_norm(exec, x, in.w(), epsilon, in.y.view());
        check_close(in.y.view(), expected.view(), [&](index_t i, index_t k) {
            double const y = static_cast<double>(expected.view()(i, k));
            return (row(x, i, false).e_inverse + gamma_of(3)) * std::abs(y) + storing<Y>(y) + 0x1p-149;
        });
        ts::layer_norm(ts::reference{}, x, in.w(), in.b(), epsilon, expected.view());
        ts::layer_norm(exec, x, in.w(), in.b(), epsilon, in.y.view());
        check_close(in.y.view(), expected.view(), [&](index_t i, index_t k) {
            double const y = static_cast<double>(expected.view()(i, k));
            double const w = static_cast<double>(in.w()[k]);
            double const v = static_cast<double>(x(i, k));
            row const of(x, i, true);
            return std::abs(w) * (of.e_h(v) + u * std::abs(of.h(v))) + 2 * u * std::abs(y) + storing<Y>(y) + 0x1p-149;
        });
        CHECK(in.y.is_intact());
    });
}

} // namespace

TEST_CASE("norms agree with the reference, all shapes, strides and element types") {
    for (shape const s : shapes())
        for (index_t const gap : {index_t{0}, index_t{3}}) {
            forward_parity<float, float>(s, gap);
            forward_parity<ts::fp16, ts::fp16>(s, gap);
            forward_parity<ts::bf16, float>(s, gap);
            forward_parity<float, ts::bf16>(s, gap);
        }
}

TEST_CASE("norms in place") {
    for_each_cpu([&](auto const& exec) {
        inputs<float, float> in({5, 37}, 2);
        ts::rms_norm(exec, in.x.view(), in.w(), epsilon, in.y.view());
        guarded<float> copy = in.x;
        ts::rms_norm(exec, copy.view(), in.w(), epsilon, copy.view());
        check_close(copy.view(), in.y.view(), [](index_t, index_t) { return 0.0; });
        ts::layer_norm(exec, in.x.view(), in.w(), in.b(), epsilon, in.y.view());
        ts::layer_norm(exec, in.x.view(), in.w(), in.b(), epsilon, in.x.view());
        check_close(in.x.view(), in.y.view(), [](index_t, index_t) { return 0.0; });
    });
}

TEST_CASE("norms: zeros, NaN and infinity") {
    auto const check = [](auto const& exec) {
        inputs<float, float> in({4, 21}, 1);
        for (index_t k = 0; k < 21; ++k) in.x.view()(0, k) = 0;
        in.x.view()(1, 20) = std::numeric_limits<float>::quiet_NaN();
        in.x.view()(2, 3) = std::numeric_limits<float>::infinity();
        ts::rms_norm(exec, in.x.view(), in.w(), epsilon, in.y.view());
        for (index_t k = 0; k < 21; ++k) {
            CHECK(in.y.view()(0, k) == 0);
            CHECK(std::isnan(in.y.view()(1, k)));
            CHECK(std::isfinite(in.y.view()(3, k)));
        }
        CHECK(std::isnan(in.y.view()(2, 3))); // infinity times 1 / infinity
        CHECK(in.y.view()(2, 4) == 0);
        ts::layer_norm(exec, in.x.view(), in.w(), in.b(), epsilon, in.y.view());
        for (index_t k = 0; k < 21; ++k) {
            CHECK(in.y.view()(0, k) == in.b()[k]);
            CHECK(std::isnan(in.y.view()(1, k)));
            CHECK(std::isnan(in.y.view()(2, k)));
            CHECK(std::isfinite(in.y.view()(3, k)));
        }
    };
    check(ts::reference{});
    for_each_cpu(check);
}

TEST_CASE("results do not depend on the number of threads") {
    inputs<float, float> in({200, 301}, 0);
    guarded<float> other(200, 301, 0);
    guarded<float> dw(2, 301, 0);
    ts::cpu<ts::native_arch, ts::serial> const one;
    ts::cpu<> const many;
    ts::rms_norm(one, in.x.view(), in.w(), epsilon, in.y.view());
    ts::rms_norm(many, in.x.view(), in.w(), epsilon, other.view());
    check_close(other.view(), in.y.view(), [](index_t, index_t) { return 0.0; });
    ts::rms_norm_backward(one, in.x.view(), in.w(), epsilon, in.x.view(), in.y.view(), ts::slice(dw.view(), 0, ts::all));
    ts::rms_norm_backward(many, in.x.view(), in.w(), epsilon, in.x.view(), other.view(),
                          ts::slice(dw.view(), 1, ts::all));
    check_close(other.view(), in.y.view(), [](index_t, index_t) { return 0.0; });
    for (index_t k = 0; k < 301; ++k) CHECK(dw.view()(0, k) == dw.view()(1, k));
}

namespace {

/// sum dy y of the norm of one row, in double, as a function of the row, weight and bias.
double objective(std::vector<double> const& x, std::vector<double> const& w, std::vector<double> const& b,
                 std::vector<double> const& dy, bool is_layer) {
    auto const n = static_cast<double>(x.size());
    double mean = 0;
    for (double const v : x) mean += is_layer ? v / n : 0;
    double squares = 0;
    for (double const v : x) squares += (v - mean) * (v - mean);
    double const r = 1 / std::sqrt(squares / n + double{epsilon});
    double sum = 0;
    for (std::size_t k = 0; k < x.size(); ++k) sum += dy[k] * (w[k] * r * (x[k] - mean) + b[k]);
    return sum;
}

/// Central difference along one variable, and a bound of its error: the change with the step, and rounding.
template <class F>
std::pair<double, double> difference(F const& f, double& variable) {
    double const saved = variable;
    auto const at = [&](double h) {
        variable = saved + h;
        double const high = f();
        variable = saved - h;
        double const low = f();
        variable = saved;
        return (high - low) / (2 * h);
    };
    double const h = 0x1p-13;
    double const coarse = at(2 * h);
    double const fine = at(h);
    return {fine, std::abs(coarse - fine) + 64 * 0x1p-53 * (1 + std::abs(f())) / h};
}

} // namespace

TEST_CASE("gradients of the reference agree with finite differences") {
    for (index_t const n : {1, 2, 7, 19}) {
        CAPTURE(n);
        inputs<float, float> in({1, n}, 0);
        guarded<float> dy(1, n, 0);
        dy.fill(9);
        guarded<float> dx(1, n, 0);
        guarded<float> dw(1, n, 0);
        guarded<float> db(1, n, 0);
        auto const doubles = [&](guarded<float>& g) {
            std::vector<double> v;
            for (index_t k = 0; k < n; ++k) v.push_back(double{g.view()(0, k)});
            return v;
        };
        auto x = doubles(in.x);
        auto w = doubles(in.weight);
        auto b = doubles(in.bias);
        auto const d = doubles(dy);
        auto const flat = [](guarded<float>& g) { return ts::slice(g.view(), 0, ts::all); };
        for (bool const is_layer : {false, true}) {
            CAPTURE(is_layer);
            if (is_layer)
                ts::layer_norm_backward(ts::reference{}, in.x.view(), in.w(), epsilon, dy.view(), dx.view(), flat(dw),
                                        flat(db));
            else
                ts::rms_norm_backward(ts::reference{}, in.x.view(), in.w(), epsilon, dy.view(), dx.view(), flat(dw));
            auto const f = [&] { return objective(x, w, b, d, is_layer); };
            auto const check = [&](float gradient, double& variable) {
                auto const [expected, bound] = difference(f, variable);
                CHECK(std::abs(double{gradient} - expected) <= bound + 2 * u * std::abs(expected));
            };
            for (index_t k = 0; k < n; ++k) {
                check(dx.view()(0, k), x[static_cast<std::size_t>(k)]);
                check(dw.view()(0, k), w[static_cast<std::size_t>(k)]);
                if (is_layer) check(db.view()(0, k), b[static_cast<std::size_t>(k)]);
            }
        }
    }
}

namespace {

template <class X>
void backward_parity(shape s, bool is_layer) {
    CAPTURE(s.m);
    CAPTURE(s.n);
    CAPTURE(is_layer);
    inputs<X, float> in(s, 2);
    guarded<X> dy(s.m, s.n, 1);
    dy.fill(4);
    auto const x = std::as_const(in.x).view();
    auto const d = std::as_const(dy).view();
    guarded<float> dx(s.m, s.n, 0);
    guarded<float> parameters(4, s.n, 0); // dw, db expected, then actual
    auto const part = [&](index_t i) { return ts::slice(parameters.view(), i, ts::all); };
    auto const run = [&](auto const& exec, ts::matrix_view<float> to, index_t at) {
        if (is_layer)
            ts::layer_norm_backward(exec, x, in.w(), epsilon, d, to, part(at), part(at + 1));
        else
            ts::rms_norm_backward(exec, x, in.w(), epsilon, d, to, part(at));
    };
    run(ts::reference{}, dx.view(), 0);
    index_t const n = s.n;
    for_each_cpu([&](auto const& exec) {
        CAPTURE(name_of(exec));
        run(exec, in.y.view(), 2);
        for (index_t i = 0; i < s.m; ++i) {
            row const of(x, i, is_layer);
            double g_mean = 0;
            double gh_mean = 0;
            double e_gh_mean = 0; // from the errors of h
            for (index_t k = 0; k < n; ++k) {
                double const v = static_cast<double>(x(i, k));
                double const g = std::abs(double{in.w()[k]} * static_cast<double>(d(i, k))) / static_cast<double>(n);
                g_mean += is_layer ? g : 0;
                gh_mean += g * std::abs(of.h(v));
                e_gh_mean += g * of.e_h(v);
            }
            check_close(ts::rows(in.y.view(), i, i + 1), ts::rows(dx.view(), i, i + 1), [&](index_t, index_t k) {
                double const v = static_cast<double>(x(i, k));
                double const g = std::abs(double{in.w()[k]} * static_cast<double>(d(i, k)));
                double const h = std::abs(of.h(v));
                double const terms = g + g_mean + h * gh_mean;
                double const e_terms = gamma_of(4) * terms + gamma_of(n + 4) * (g_mean + h * gh_mean) + of.e_h(v) * gh_mean +
                                       h * e_gh_mean;
                return of.inverse * (1.01 * e_terms + (of.e_inverse + gamma_of(2)) * terms) + 0x1p-149;
            });
        }
        for (index_t k = 0; k < n; ++k) {
            double size = 0;
            double plain = 0;
            double from_h = 0;
            for (index_t i = 0; i < s.m; ++i) {
                row const of(x, i, is_layer);
                double const v = static_cast<double>(x(i, k));
                double const dyk = std::abs(static_cast<double>(d(i, k)));
                size += dyk * std::abs(of.h(v));
                from_h += dyk * of.e_h(v);
                plain += dyk;
            }
            CHECK(std::abs(double{part(2)[k]} - double{part(0)[k]}) <=
                  1.01 * (gamma_of(s.m + 3) * size + from_h) + 0x1p-149);
            if (is_layer)
                CHECK(std::abs(double{part(3)[k]} - double{part(1)[k]}) <= gamma_of(s.m + 1) * plain + 0x1p-149);
        }
        CHECK(in.y.is_intact());
    });
}

} // namespace

TEST_CASE("gradients of the norms agree with the reference") {
    for (shape const s : {shape{0, 5}, {3, 0}, {1, 1}, {2, 3}, {4, 17}, {3, 64}, {7, 101}, {2, 577}})
        for (bool const is_layer : {false, true}) {
            backward_parity<float>(s, is_layer);
            backward_parity<ts::bf16>(s, is_layer);
        }
}

TEST_CASE("no allocation in the backward pass after reserve") {
    ts::workspace memory;
    ts::cpu<> const exec{memory};
    exec.reserve(ts::norm_backward_workspace_bytes(40));
    index_t const before = memory.capacity();
    inputs<float, float> in({40, 65}, 0);
    ts::rms_norm_backward(exec, in.x.view(), in.w(), epsilon, in.x.view(), in.y.view(),
                          ts::slice(in.bias.view(), 0, ts::all));
    CHECK(memory.capacity() == before);
}

TEST_CASE("norms refuse wrong arguments with a sentence and write nothing") {
    ts::cpu<> const exec;
    inputs<float, float> in({3, 8}, 2);
    guarded<float> narrow(3, 7, 0);
    auto const rms = [&](auto const& x, auto const& w, float e, auto const& y) {
        return message_of([&] { ts::rms_norm(exec, x, w, e, y); });
    };
    CHECK(rms(in.x.view(), in.w(), epsilon, narrow.view()) ==
          "tessera: rms_norm: columns of y is 7, expected 8 (columns of x)");
    CHECK(rms(ts::rows(in.x.view(), 0, 2), in.w(), epsilon, in.y.view()) ==
          "tessera: rms_norm: rows of y is 3, expected 2 (rows of x)");
    CHECK(rms(narrow.view(), in.w(), epsilon, narrow.view()) ==
          "tessera: rms_norm: weight is 8, expected 7 (columns of x)");
    CHECK(rms(in.x.view(), in.w(), -1.0f, in.y.view()) ==
          "tessera: rms_norm: epsilon is -1.000000, expected a finite number that is not negative");
    CHECK(rms(ts::matrix_view<float>(nullptr, 3, 8), in.w(), epsilon, in.y.view()) ==
          "tessera: rms_norm: x is null but has 24 elements, expected 0 or a pointer");
    CHECK(rms(ts::transposed(ts::matrix_view<float>(in.x.view().data_handle(), 8, 3)), in.w(), epsilon, in.y.view()) ==
          "tessera: rms_norm: stride inside a row of x is 3, expected 1 (rows are contiguous)");
    CHECK_THROWS_AS(ts::rms_norm(exec, in.x.view(), in.w(), epsilon,
                                 ts::matrix_view<float>(in.x.view().data_handle() + 1, 3, 8)),
                    ts::shape_error);
    CHECK_THROWS_AS(ts::rms_norm(exec, in.x.view(), ts::slice(std::as_const(in.y).view(), 1, ts::all), epsilon, in.y.view()),
                    ts::shape_error);
    for (index_t i = 0; i < 3; ++i)
        for (index_t k = 0; k < 8; ++k) CHECK(in.y.view()(i, k) == -123.0f);
}

TEST_CASE("columns of one matrix may be input and output") {
    ts::cpu<> const exec;
    ts::matrix<float> both(4, 20);
    for (index_t i = 0; i < both.size(); ++i) both.data()[i] = static_cast<float>(i % 7);
    ts::vector<float> w(10);
    for (index_t i = 0; i < 10; ++i) w(i) = 1;
    ts::rms_norm(exec, ts::columns(both.view(), 0, 10), w, epsilon, ts::columns(both.view(), 10, 20));
    ts::rms_norm(exec, ts::columns(both.view(), 10, 20), w, epsilon, ts::columns(both.view(), 0, 10));
    CHECK_THROWS_AS(ts::rms_norm(exec, ts::columns(both.view(), 0, 10), w, epsilon, ts::columns(both.view(), 9, 19)),
                    ts::shape_error);
}
