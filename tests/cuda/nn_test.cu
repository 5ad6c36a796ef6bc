// SPDX-License-Identifier: MIT
/// @file
/// Norms, softmax, activations and rotary positions on a device against their definitions in double.

#include "cuda_support.hpp"

#include <tessera/kernels/ref/rope.hpp>

#include <cmath>

namespace {

using namespace tessera_test;

/// f(exec, inputs..., y) on the device and by the definition (from the same numbers, to float32): the error is at most `ulps`
/// units in the last place of |y| + `magnitude`, and half a step of y's type. `ulps` is a number, or one for every element.
template <class Y, class There, class Definition, class Units>
double worst_error(index_t m, index_t n, There const& there, Definition const& definition, Units const& ulps, double magnitude = 0) {
    guarded<Y> y{m, n, 8};
    guarded<float> expected{m, n};
    y.clear();
    on_device<Y> const dy{y.view()};
    there(dy.view());
    wait();
    dy.fetch();
    definition(expected.view());
    CHECK(y.is_intact());
    double worst = 0;
    for (index_t i = 0; i < m; ++i)
        for (index_t k = 0; k < n; ++k) {
            double const e = double{expected.view()(i, k)};
            double const v = static_cast<double>(static_cast<float>(y.view()(i, k)));
            if (e != e) {
                CHECK(v != v);
                continue;
            }
            double units = 0;
            if constexpr (std::is_arithmetic_v<Units>)
                units = ulps;
            else
                units = ulps(i, k);
            double allowed = units * 0x1p-24 * (std::abs(e) + magnitude) + 0x1p-149;
            if constexpr (!std::is_same_v<Y, float>) allowed += ts::half_step<ts::format_of_t<Y>>(static_cast<float>(std::abs(e) + allowed));
            double const ratio = v == e ? 0 : std::abs(v - e) / allowed;
            worst = ratio >= worst || ratio != ratio ? (ratio == ratio ? ratio : HUGE_VAL) : worst;
        }
    CHECK(worst <= 1.0);
    return worst;
}

/// The largest |x - mean| r |w| + (|x| + |mean|) r |w| + |b| of a layer norm: what its roundings are relative to.
template <class X>
double largest_norm(ts::matrix_view<X const> x, ts::vector_view<X const> w, ts::vector_view<X const> b) {
    auto const number = [](X v) { return std::abs(static_cast<double>(static_cast<float>(v))); };
    double largest = 0;
    for (index_t i = 0; i < x.extent(0); ++i) {
        double mean = 0, square = 0, most = 0;
        for (index_t k = 0; k < x.extent(1); ++k) mean += static_cast<double>(static_cast<float>(x(i, k))) / static_cast<double>(x.extent(1));
        for (index_t k = 0; k < x.extent(1); ++k) {
            double const d = static_cast<double>(static_cast<float>(x(i, k))) - mean;
            square += d * d / static_cast<double>(x.extent(1));
            most = std::fmax(most, number(x(i, k)) + std::abs(mean));
        }
        for (index_t k = 0; k < x.extent(1); ++k)
            largest = std::fmax(largest, 2 * most / std::sqrt(square + 1e-5) * number(w[k]) + number(b[k]));
    }
    return largest;
}

template <class X, class Y>
void check_rows_of(index_t m, index_t n, index_t gap) {
    CAPTURE(m);
    CAPTURE(n);
    guarded<X> x{m, n, gap};
    guarded<X> up{m, n, gap};
    guarded<X> weight{1, n};
    x.fill(3, 2);
    up.fill(4);
    weight.fill(5);
    guarded<X> shift{1, n};
    shift.fill(6);
    on_device<X const> const db{std::as_const(shift).view()};
    on_device<X const> const dx{std::as_const(x).view()};
    on_device<X const> const du{std::as_const(up).view()};
    on_device<X const> const dw{std::as_const(weight).view()};
    auto const w = ts::slice(std::as_const(weight).view(), 0, ts::all);
    auto const there_w = ts::slice(dw.view(), 0, ts::all);
    auto const cx = std::as_const(x).view();
    auto const cu = std::as_const(up).view();
    double const terms = static_cast<double>(n) + 8;
    worst_error<Y>(m, n, [&](auto y) { ts::rms_norm(device{}, dx.view(), there_w, 1e-5f, y); },
                   [&](auto y) { ts::rms_norm(ts::reference{}, cx, w, 1e-5f, y); }, terms);
    auto const b = ts::slice(std::as_const(shift).view(), 0, ts::all);
    auto const there_b = ts::slice(db.view(), 0, ts::all);
    // (x - mean) r w + b cancels: its roundings count by the largest of |x| and |b|, which is what is added to |y| below.
    worst_error<Y>(m, n, [&](auto y) { ts::layer_norm(device{}, dx.view(), there_w, there_b, 1e-5f, y); },
                   [&](auto y) { ts::layer_norm(ts::reference{}, cx, w, b, 1e-5f, y); }, terms, largest_norm(cx, w, b));
    // In units of 2^-24: erfcf is within 8; two roundings of its argument t = -x / sqrt(2) count at most 2 t^2 + 1 times, where t > 0; two
    // products, and the definition's own rounding.
    auto const units = [&](index_t i, index_t k) {
        double const v = static_cast<double>(static_cast<float>(cx(i, k)));
        return 8 + 2 * (v < 0 ? v * v + 1 : 1) + 3;
    };
    worst_error<Y>(m, n, [&](auto y) { ts::gelu(device{}, dx.view(), y); }, [&](auto y) { ts::gelu(ts::reference{}, cx, y); }, units);
    worst_error<Y>(m, n, [&](auto y) { ts::softmax(device{}, dx.view(), y); }, [&](auto y) { ts::softmax(ts::reference{}, cx, y); },
                   terms + 40); // |x - max| of the argument's rounding
    worst_error<Y>(m, n, [&](auto y) { ts::swiglu(device{}, dx.view(), du.view(), y); },
                   [&](auto y) { ts::swiglu(ts::reference{}, cx, cu, y); }, 24);
    worst_error<Y>(m, n, [&](auto y) { ts::silu(device{}, dx.view(), y); }, [&](auto y) { ts::silu(ts::reference{}, cx, y); }, 24);
    worst_error<Y>(m, n, [&](auto y) { ts::add(device{}, dx.view(), du.view(), y); }, [&](auto y) { ts::add(ts::reference{}, cx, cu, y); }, 2);
}

TEST_CASE("rows: any length, aligned or not") {
    for (index_t const n : {1, 7, 8, 64, 100, 1000, 4096}) {
        check_rows_of<float, float>(3, n, 0);
        check_rows_of<ts::bf16, ts::bf16>(5, n, 8);
        check_rows_of<ts::fp16, float>(2, n, 3);
    }
    check_rows_of<float, ts::bf16>(300, 40, 0);
    check_rows_of<float, float>(0, 5, 0);
}

TEST_CASE("softmax of rows without a finite element, NaN") {
    guarded<float> x{3, 40};
    x.fill(1);
    for (index_t k = 0; k < 40; ++k) x.view()(0, k) = -INFINITY;
    x.view()(1, 7) = NAN;
    x.view()(2, 3) = INFINITY;
    on_device<float const> const dx{std::as_const(x).view()};
    worst_error<float>(3, 40, [&](auto y) { ts::softmax(device{}, dx.view(), y); },
                       [&](auto y) { ts::softmax(ts::reference{}, std::as_const(x).view(), y); }, 100);
}

template <class Style>
void check_rope() {
    ts::rope_table const table{50, 12};
    ts::device_rope_table const there{device{}, table};
    ts::tensor<float, 3> x(7, 3, 20);
    ts::tensor<float, 3> expected(7, 3, 20);
    ts::tensor<float, 3> y(7, 3, 20);
    ts::philox const random{9};
    for (index_t i = 0; i < x.size(); ++i) x.data()[i] = random.normal(static_cast<std::uint64_t>(i));
    ts::device_tensor<float, 3> dx{7, 3, 20};
    ts::device_tensor<float, 3> dy{7, 3, 20};
    ts::copy(device{}, std::as_const(x).view(), dx.view());
    ts::rope(device{}, Style{}, dx, there, 40, dy);
    ts::copy(device{}, dy.view(), y.view());
    wait();
    auto const in = std::as_const(x).view();
    auto const out = expected.view();
    ts::kernel<ts::op::rope, ts::reference, float>::run(
        ts::reference{}, Style{}, in, {table.cosines().data_handle(), table.sines().data_handle(), table.pairs(), nullptr, 40}, out);
    for (index_t i = 0; i < x.size(); ++i) CHECK(std::abs(double{y.data()[i]} - double{expected.data()[i]}) <= 4 * 0x1p-24 * 6);
}
TEST_CASE("rotary positions") {
    check_rope<ts::rope_interleaved>();
    check_rope<ts::rope_halves>();
}

} // namespace
