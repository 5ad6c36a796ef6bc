// SPDX-License-Identifier: MIT
// The law of stored matrices for dense ones with any strides; and every pair of types of x and y.

#include "operator_laws.hpp"

using namespace tessera_test;

TEST_CASE_TEMPLATE("dense", T, float, ts::fp16, ts::bf16) { report_law<dense_storage_of<T>, ts::as_is>("as_is"); }

namespace {

template <class X, class Y, class Op>
double check_types(Op const& w, index_t m, index_t step) {
    guarded<X> x{m, w.cols(), 1, step};
    x.fill(23);
    guarded<Y> y{m, w.rows(), 1, step};
    apply_case<Op, X> const expected{w, x.view()};
    double worst = 0;
    archs_by_width::visit([&]<class Arch>(Arch) {
        y.clear();
        ts::apply(ts::cpu<Arch, ts::serial>{}, w, x.view(), y.view());
        CHECK(y.is_intact());
        double const ratio = expected.worst_ratio(ts::matrix_view<Y const>{y.view()});
        CHECK(ratio <= 1.0);
        worst = std::fmax(worst, ratio);
    });
    return worst;
}

template <class X, class Y>
double check_types() {
    auto const q = random_quantized<ts::uint4_g32>(37, 75);
    double worst = 0;
    for (index_t const m : {1, 3, 17})
        for (index_t const step : {1, 2}) {
            worst = std::fmax(worst, check_types<X, Y>(ts::linear{q}, m, step));
            worst = std::fmax(worst, check_types<X, Y>(ts::linear{q, ts::int8_per_group<32>{}}, m, step));
        }
    return worst;
}

} // namespace

TEST_CASE_TEMPLATE("types of x and y", X, float, ts::fp16, ts::bf16) {
    double const worst = std::fmax(check_types<X, float>(), std::fmax(check_types<X, ts::fp16>(), check_types<X, ts::bf16>()));
    MESSAGE("worst error / tolerance " << worst);
}
