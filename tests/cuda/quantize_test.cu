// SPDX-License-Identifier: MIT
/// @file
/// Quantising and Hadamard transforms on a device: codes and scales bit for bit those of the host's arithmetic, rotations against the
/// definition.

#include "cuda_support.hpp"

#include <tessera/kernels/ref/hadamard.hpp>
#include <tessera/kernels/ref/quantize.hpp>
#include <tessera/quant/quantize.cuh>

#include <cmath>
#include <cstring>
#include <vector>

namespace {

using namespace tessera_test;

template <class T>
std::vector<T> fetched(T const* from, index_t n) {
    std::vector<T> to(static_cast<std::size_t>(n));
    REQUIRE(cudaMemcpy(to.data(), from, static_cast<std::size_t>(n) * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return to;
}

/// The definition (quant/quantize.hpp, file comment): a scale of max |w| / M in its type, or OCP's power of two; nearest codes.
template <class Scheme>
void quantize_here(ts::matrix_view<float const> const& w, std::vector<std::uint8_t>& codes, std::vector<typename ts::quantized<Scheme>::scale_type>& scales) {
    using format = typename Scheme::format;
    using stored = typename ts::quantized<Scheme>::scale_type;
    constexpr index_t group = Scheme::granularity_type::columns;
    float const steps = ts::detail::device_symmetric_limit<format>();
    index_t const k = w.extent(1);
    index_t const columns = ts::quantized<Scheme>::scale_columns(k);
    index_t const row_bytes = ts::bitpack::bytes(k, format::bits);
    codes.assign(static_cast<std::size_t>(w.extent(0) * row_bytes), 0);
    scales.resize(static_cast<std::size_t>(w.extent(0) * columns));
    for (index_t n = 0; n < w.extent(0); ++n)
        for (index_t c = 0; c < columns; ++c) {
            index_t const first = c * group;
            index_t const last = group == 0 ? k : std::min(first + group, k);
            ts::weight_range range;
            for (index_t i = first; i < last; ++i) range.include(w(n, i));
            float wanted = range.finite ? range.magnitude() / steps : NAN;
            stored scale;
            if constexpr (std::is_same_v<stored, ts::e8m0>) {
                int const e = range.magnitude() > 0 ? std::ilogb(range.magnitude()) - std::ilogb(steps) : -127;
                scale = !range.finite ? ts::e8m0{NAN} : ts::e8m0::from_bits(static_cast<std::uint8_t>(std::max(e + 127, 0)));
            } else {
                scale = static_cast<stored>(wanted);
                if constexpr (!std::is_same_v<stored, float>)
                    if (wanted > stored::max_magnitude) scale = stored{stored::max_magnitude};
            }
            scales[static_cast<std::size_t>(n * columns + c)] = scale;
            ts::weight_grid<format> grid{static_cast<float>(scale)};
            if constexpr (format::is_integer) {
                grid.low = -steps;
                grid.high = steps;
            }
            ts::kernel<ts::op::quantize, ts::reference, ts::weight_grid<format>>::encode(
                w.data_handle() + n * w.stride(0) + first, last - first, grid, {}, codes.data() + n * row_bytes, first);
        }
}

template <class Scheme>
void check_codes(ts::matrix_view<float const> const& w, ts::device_quantized<Scheme> const& q) {
    std::vector<std::uint8_t> codes;
    std::vector<typename ts::quantized<Scheme>::scale_type> scales;
    quantize_here<Scheme>(w, codes, scales);
    CHECK(fetched(q.codes(), static_cast<index_t>(codes.size())) == codes);
    auto const got = fetched(q.scales(), static_cast<index_t>(scales.size()));
    index_t wrong = 0;
    for (std::size_t i = 0; i < scales.size(); ++i) {
        auto const a = static_cast<float>(got[i]);
        auto const b = static_cast<float>(scales[i]);
        wrong += a == b || (a != a && b != b) ? 0 : 1;
    }
    CHECK(wrong == 0);
}

template <class Scheme, class X>
void check_quantize(index_t n, index_t k, index_t gap, float scale) {
    CAPTURE(n);
    CAPTURE(k);
    CAPTURE(gap);
    guarded<X> x{n, k, gap};
    x.fill(5, scale);
    if (n > 2 && k > 3) {
        for (index_t i = 0; i < k; ++i) x.view()(1, i) = static_cast<X>(0.0f);
        x.view()(2, 3) = static_cast<X>(NAN);
    }
    ts::matrix<float> wide{n, k};
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < k; ++j) wide(i, j) = static_cast<float>(x.view()(i, j));
    on_device<X const> const there{std::as_const(x).view()};
    ts::device_quantized<Scheme> q{n, k};
    ts::quantize(device{}, there.view(), q);
    wait();
    check_codes(std::as_const(wide).view(), q);
}

template <class Scheme>
void check_scheme() {
    for (index_t const k : {1, 7, 64, 100, 128, 1000, 4096})
        for (index_t const n : {1, 5}) {
            check_quantize<Scheme, ts::bf16>(n, k, 0, 1.0f);
            check_quantize<Scheme, float>(n, k, 3, 1e-3f);
        }
    check_quantize<Scheme, ts::fp16>(300, 256, 8, 100.0f);
    check_quantize<Scheme, float>(3, 256, 0, 1e-37f);
    check_quantize<Scheme, float>(0, 256, 0, 1.0f);
}

TEST_CASE("quantize: codes and scales") {
    check_scheme<ts::int4_g128>();
    check_scheme<ts::int4_g32>();
    check_scheme<ts::int8_per_channel>();
    check_scheme<ts::scheme<ts::e4m3fn, ts::per_channel>>();
    check_scheme<ts::mx_e4m3>();
    check_scheme<ts::mx_e2m1>();
    check_scheme<ts::scheme<ts::int3, ts::group<64>, ts::bf16>>();
    check_quantize<ts::int8_per_channel, ts::bf16>(700, 4096, 0, 1.0f);
    check_quantize<ts::int4_g128, ts::bf16>(1001, 384, 0, 1e-30f);
}

/// Numbers next to ties of codes, of scales whose digits make their quotients end next to the middles of two float32; zeros with signs.
template <class Scheme>
void check_ties() {
    using format = typename Scheme::format;
    index_t const n = 512;
    index_t const k = 1024;
    float const steps = ts::detail::device_symmetric_limit<format>();
    ts::matrix<float> x{n, k};
    ts::philox const random{17};
    for (index_t i = 0; i < n; ++i) {
        float const scale = std::ldexp(static_cast<float>((64 + i % 64) * 131072 + i / 64 * 8 - 28), -23);
        x(i, 0) = scale * steps;
        for (index_t j = 1; j < k; ++j) {
            std::uint32_t const bits = random.bits(static_cast<std::uint64_t>(i * k + j));
            float const tie = format::is_integer ? static_cast<float>(bits % static_cast<std::uint32_t>(steps)) + 0.5f
                                                 : std::ldexp(static_cast<float>(17 + bits % 8 * 2), static_cast<int>(bits / 8 % 12) - 12);
            float w = tie * scale;
            for (unsigned step = bits >> 30; step > 0; --step) w = std::nextafter(w, (bits >> 29 & 1u) != 0 ? 0.0f : 1e30f);
            x(i, j) = bits >> 23 == 0 ? -0.0f : (bits >> 28 & 1u) != 0 ? w : -w;
        }
    }
    ts::device_matrix<float> there{n, k};
    ts::copy(device{}, std::as_const(x).view(), there.view());
    ts::device_quantized<Scheme> q{n, k};
    ts::quantize(device{}, there, q);
    wait();
    check_codes(std::as_const(x).view(), q);
}
TEST_CASE("quantize: numbers next to ties") {
    check_ties<ts::int8_per_channel>();
    check_ties<ts::scheme<ts::e4m3fn, ts::per_channel>>();
    check_ties<ts::scheme<ts::int4, ts::per_channel>>();
    check_ties<ts::int4_g128>();
}

template <class Scheme>
void check_fused(index_t n, index_t k, index_t order) {
    CAPTURE(k);
    CAPTURE(order);
    guarded<ts::bf16> x{n, k, 8};
    guarded<ts::bf16> weight{1, k};
    x.fill(3, 2);
    weight.fill(4);
    on_device<ts::bf16 const> const dx{std::as_const(x).view()};
    on_device<ts::bf16 const> const dw{std::as_const(weight).view()};
    auto const w = ts::slice(dw.view(), 0, ts::all);
    ts::matrix<float> normed{n, k};
    ts::device_matrix<float> there{n, k};
    ts::rms_norm(device{}, dx.view(), w, 1e-5f, there);
    ts::device_quantized<Scheme> q{n, k};
    if (order > 1) {
        ts::walsh_hadamard(device{}, there, there, order);
        ts::rms_norm_rotate_quantize(device{}, dx.view(), w, 1e-5f, order, q);
    } else {
        ts::rms_norm_quantize(device{}, dx.view(), w, 1e-5f, q);
    }
    ts::copy(device{}, there.view(), normed.view());
    wait();
    float const factor = 1.0f / std::sqrt(static_cast<float>(order));
    for (index_t i = 0; i < normed.size(); ++i) normed.data()[i] *= factor;
    check_codes(std::as_const(normed).view(), q);
}
TEST_CASE("a norm, a rotation and codes in one kernel: the bits of one after the other") {
    for (index_t const k : {8, 256, 4096, 8192}) {
        check_fused<ts::int8_per_channel>(7, k, 1);
        check_fused<ts::scheme<ts::e4m3fn, ts::per_channel>>(7, k, 1);
    }
    check_fused<ts::int8_per_channel>(3, 4096, 128);
    check_fused<ts::scheme<ts::e4m3fn, ts::per_channel>>(3, 4096, 4096);
    check_fused<ts::int8_per_channel>(3, 11008, 256);
    check_fused<ts::scheme<ts::e4m3fn, ts::per_channel>>(5, 1536, 64);
    for (int const order : {8, 16, 32, 64, 256}) check_fused<ts::int8_per_channel>(4, 768 + order, order); // quads of lanes have 128 numbers
    check_fused<ts::int8_per_channel>(4, 2816, 256);
    // More rows than a device holds blocks.
    check_fused<ts::scheme<ts::e4m3fn, ts::per_channel>>(700, 4096, 1);
    check_fused<ts::scheme<ts::e4m3fn, ts::per_channel>>(700, 4096, 128);
    check_fused<ts::int8_per_channel>(700, 4096, 4096);
    check_fused<ts::scheme<ts::int4, ts::per_channel>>(5, 4096, 4096);
    for (index_t const k : {2048, 6144, 8192}) check_fused<ts::scheme<ts::e4m3fn, ts::per_channel>>(5, k, 128); // 64 numbers a thread
    check_fused<ts::int8_per_channel>(5, 8192, 256);
}

template <class X, class Y>
double check_hadamard(index_t m, index_t k, index_t group, index_t gap) {
    CAPTURE(k);
    CAPTURE(group);
    guarded<X> x{m, k, gap};
    guarded<Y> y{m, k, gap};
    x.fill(9);
    y.clear();
    on_device<X const> const dx{std::as_const(x).view()};
    on_device<Y> const dy{y.view()};
    ts::walsh_hadamard(device{}, dx.view(), dy.view(), group);
    wait();
    dy.fetch();
    CHECK(y.is_intact());
    ts::detail::hadamard_shape shape = ts::detail::hadamard_of_order(group);
    shape.size = k;
    std::vector<float> table(static_cast<std::size_t>(shape.table_floats()));
    ts::matrix<float> expected{m, k};
    ts::kernel<ts::op::hadamard, ts::reference, float>::run(ts::reference{}, shape, 1.0f, std::as_const(x).view(), expected.view(), table.data());
    double worst = 0;
    for (index_t i = 0; i < m; ++i)
        for (index_t g = 0; g < k; g += group) {
            double sum = 0;
            for (index_t j = g; j < g + group; ++j) sum += std::abs(static_cast<double>(static_cast<float>(x.view()(i, j))));
            for (index_t j = g; j < g + group; ++j) {
                double const e = expected(i, j);
                double allowed = ts::gamma(std::bit_width(static_cast<std::uint64_t>(group)), ts::unit_roundoff<float>) * sum + 0x1p-24 * std::abs(e);
                if constexpr (!std::is_same_v<Y, float>) allowed += ts::half_step<Y>(static_cast<float>(std::abs(e) + allowed));
                worst = std::fmax(worst, std::abs(static_cast<double>(static_cast<float>(y.view()(i, j))) - e) / (allowed + 0x1p-149));
            }
        }
    CHECK(worst <= 1.0);
    return worst;
}
TEST_CASE("walsh_hadamard: a row has the same bits among more rows than a device holds blocks") {
    index_t const n = 1700;
    index_t const k = 4096;
    guarded<ts::bf16> x{n, k};
    x.fill(11);
    on_device<ts::bf16 const> const there{std::as_const(x).view()};
    ts::device_matrix<float> all{n, k};
    ts::device_matrix<float> few{100, k};
    ts::walsh_hadamard(device{}, there.view(), all, k);
    auto const expected = fetched(all.data(), n * k);
    for (index_t first = 0; first < n; first += 100) {
        ts::walsh_hadamard(device{}, ts::slice(there.view(), ts::range{first, first + 100}, ts::all), few, k);
        auto const got = fetched(few.data(), 100 * k);
        CHECK(std::memcmp(got.data(), expected.data() + first * k, got.size() * sizeof(float)) == 0);
    }
}
TEST_CASE("walsh_hadamard: powers of two") {
    for (index_t const group : {1, 2, 8, 16, 32, 128, 256, 512, 2048, 4096}) {
        check_hadamard<float, float>(2, group, group, 0);
        check_hadamard<ts::bf16, ts::bf16>(2, 2 * group, group, 8);
        check_hadamard<ts::fp16, float>(1, 3 * group, group, 3);
    }
    check_hadamard<float, float>(1, 16384, 16384, 0);
    check_hadamard<ts::bf16, ts::bf16>(2, 11008, 256, 0);
    check_hadamard<ts::bf16, ts::bf16>(2, 8192, 4096, 8);
    check_hadamard<ts::fp16, float>(3, 4096, 4096, 8);
    guarded<float> x{1, 96};
    on_device<float> const there{x.view()};
    CHECK_THROWS_AS(ts::walsh_hadamard(device{}, there.view(), there.view(), 96), ts::unsupported_error);
}

} // namespace
