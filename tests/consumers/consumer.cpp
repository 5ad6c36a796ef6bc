// SPDX-License-Identifier: MIT
// A user's program: a quantised layer with a correction, by the library's kernels, against the definition. Projects that
// link a component define CONSUMER_OPENMP or CONSUMER_EIGEN, which then must be there.

#include <tessera/tessera.hpp>
#if defined(CONSUMER_EIGEN)
#include <tessera/interop/eigen.hpp>
#endif

#include <cmath>
#include <cstdio>

namespace ts = tessera;

#if defined(CONSUMER_OPENMP)
static_assert(ts::config::has_openmp && std::is_same_v<ts::default_parallel, ts::openmp>);
#endif
static_assert(ts::version.major == TESSERA_VERSION_MAJOR);

namespace {

ts::matrix<float> numbers(ts::index_t rows, ts::index_t columns, std::uint64_t seed) {
    ts::matrix<float> m{rows, columns};
    ts::philox const random{seed};
    for (ts::index_t i = 0; i < m.size(); ++i) m.data()[i] = random.normal(static_cast<std::uint64_t>(i));
    return m;
}

bool agree(ts::matrix<float> const& a, ts::matrix<float> const& b) {
    double difference = 0, size = 0;
    for (ts::index_t i = 0; i < a.size(); ++i) {
        difference += std::pow(double(a.data()[i]) - double(b.data()[i]), 2);
        size += std::pow(double(b.data()[i]), 2);
    }
    return size > 0 && difference < 1e-8 * size; // sums of 64 products in float32: far less
}

} // namespace

int main() {
    ts::cpu<> const exec;
    auto const w = numbers(40, 64, 1), b = numbers(40, 2, 2), a = numbers(2, 64, 3), x = numbers(5, 64, 4);
    ts::matrix<float> y{5, 40}, expected{5, 40};
    auto const q = ts::quantize<ts::int4_g32>(w);
    auto const layer = ts::linear{q} + ts::low_rank{b, a, 0.5f};
    ts::apply(exec, ts::place(exec, layer), x, y);
    ts::apply(ts::reference{}, layer, x, expected);
    if (!agree(y, expected)) return std::puts("the product is wrong"), 1;

    try {
        ts::apply(exec, layer, y, y);
        return std::puts("a wrong shape was taken"), 2;
    } catch (ts::shape_error const&) {
    }

#if defined(CONSUMER_EIGEN)
    ts::eigen::map(expected) = ts::eigen::map(x) * ts::eigen::map(w).transpose();
    ts::apply(exec, ts::linear{w}, x, y);
    if (!agree(y, expected)) return std::puts("Eigen's product is another"), 3;
#endif
    std::printf("%s\n", ts::describe(exec, layer, 5).c_str());
}
