// SPDX-License-Identifier: MIT
// The card of integer activations: a row with NaN or infinity gives NaN, and only that row; zeros give zeros; rows too small
// for a scale count as zeros.

#include "operator_laws.hpp"

#include <limits>

using namespace tessera_test;

namespace {

template <class Op>
void check_card(Op const& w) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    for (index_t const m : {7, 23}) {
        CAPTURE(m);
        guarded<float> x{m, w.cols()};
        x.fill(41);
        guarded<float> clean{m, w.rows()};
        guarded<float> y{m, w.rows()};
        for_each_arch([&]<class Arch>(Arch) {
            CAPTURE(std::string{Arch::name});
            ts::cpu<Arch, ts::serial> const exec;
            x.fill(41);
            ts::apply(exec, w, x.view(), clean.view());
            x.view()(1, 0) = nan;
            x.view()(2, w.cols() - 1) = infinity;
            x.view()(3, w.cols() / 2) = -infinity;
            for (index_t k = 0; k < w.cols(); ++k) {
                x.view()(4, k) = k % 2 == 0 ? 0.0f : -0.0f;
                x.view()(5, k) = std::numeric_limits<float>::denorm_min() * static_cast<float>(k + 1);
                x.view()(6, k) = k == 0 ? 3.6e-37f : 1e-40f; // the largest magnitude below 127 / 2^128
            }
            ts::apply(exec, w, x.view(), y.view());
            for (index_t i = 0; i < m; ++i)
                for (index_t n = 0; n < w.rows(); ++n) {
                    float const v = y.view()(i, n);
                    if (i >= 1 && i <= 3)
                        CHECK(std::isnan(v));
                    else if (i >= 4 && i <= 6)
                        CHECK(v == 0.0f);
                    else
                        CHECK(v == clean.view()(i, n));
                }
            guarded<float> defined{m, w.rows()};
            ts::apply(ts::reference{}, w, x.view(), defined.view());
            for (index_t i = 1; i < 7; ++i)
                for (index_t n = 0; n < w.rows(); ++n)
                    CHECK(std::isnan(defined.view()(i, n)) == std::isnan(y.view()(i, n)));
        });
    }
}

} // namespace

TEST_CASE("int8 activations") {
    auto const q = random_quantized<ts::int4_g32>(19, 70);
    check_card(ts::linear{q, ts::int8_per_token{}});
    check_card(ts::linear{q, ts::int8_per_group<32>{}});
    blocked_storage<ts::q4_1> const blocks{19, 64};
    check_card(ts::linear{blocks.view(), ts::int8_per_group<32>{}});
}

TEST_CASE("just above the smallest usable magnitude, codes are not zeros") {
    ts::quantized_tensor<ts::int8_per_channel> q{1, 1};
    *q.codes() = 127;
    *q.scales() = 1.0f;
    ts::matrix<float> x(1, 1);
    ts::matrix<float> y(1, 1);
    x(0, 0) = 3.8e-37f;
    ts::apply(ts::cpu<>{}, ts::linear{q, ts::int8_per_token{}}, x, y);
    CHECK(y(0, 0) == doctest::Approx(3.8e-37f * 127).epsilon(0x1p-20));
}

TEST_CASE("a matrix without columns gives zeros, whatever scratch memory holds") {
    auto const q = random_quantized<ts::int8_per_channel>(5, 0);
    ts::matrix<float> const dense(5, 0);
    ts::workspace scratch{1 << 16};
    {
        ts::workspace_scope scope{scratch};
        float* const p = scope.carve<float>(1 << 14);
        for (int i = 0; i < 1 << 14; ++i) p[i] = std::numeric_limits<float>::quiet_NaN();
    }
    ts::cpu<ts::native_arch, ts::serial> const exec{ts::serial{}, scratch};
    for (index_t const m : {1, 17}) {
        guarded<float> const x{m, 0};
        guarded<float> y{m, 5};
        auto const zeros = [&] {
            bool result = true;
            for (index_t i = 0; i < m; ++i)
                for (index_t n = 0; n < 5; ++n) result = result && y.view()(i, n) == 0.0f;
            return result;
        };
        ts::apply(exec, ts::linear{q, ts::int8_per_token{}}, x.view(), y.view());
        CHECK(zeros());
        ts::apply(exec, ts::linear{q, ts::int8_per_group<32>{}}, x.view(), y.view());
        CHECK(zeros());
        ts::apply(exec, ts::linear{q}, x.view(), y.view());
        CHECK(zeros());
        ts::apply(exec, ts::linear{dense}, x.view(), y.view());
        CHECK(zeros());
    }
}
