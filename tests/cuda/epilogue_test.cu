// SPDX-License-Identifier: MIT
/// @file
/// The law of epilogues on a device: bit for bit what the function makes of the plain product, for every kind with and without bias
/// and residual (absent, apart, y itself), and for the kernels of few rows, of many rows and of matrix units.

#include "cuda_support.hpp"

#include "cases/epilogue_case.hpp"

namespace {

using namespace tessera_test;

template <class Op>
class epilogue_law {
public:
    epilogue_law(Op const& placed, index_t m)
        : placed_{placed}, m_{m}, n_{placed.view().rows()}, x_{m, placed.view().cols()}, before_{m, n_}, added_{m, n_, 3}, offsets_{1, n_}, accumulator_{m, n_} {
        x_.fill(2);
        before_.fill(3);
        added_.fill(4);
        offsets_.fill(5);
        apply_there(placed_, x_, accumulator_);
    }

    /// With and without bias and with a residual that is absent, apart, or y itself.
    template <class Y = float, class Kind>
    void check_kind(Kind const& kind) {
        on_device<float const> const offsets{std::as_const(offsets_).view()};
        on_device<float const> const added{std::as_const(added_).view()};
        ts::bias const b{ts::vector_view<float const>{offsets.view().data_handle(), n_}};
        ts::residual const apart{ts::kernel_view(added.view())};
        check_one<Y>({false, false}, kind, kind);
        check_one<Y>({true, true}, b | apart | kind, kind);
        if constexpr (std::is_same_v<Y, float>) {
            check_one<Y>({true, false}, b | kind, kind);
            check_one<Y>({false, true}, apart | kind, kind);
            check_in_place(kind);
        }
    }
    /// What layers use, rounded to `Y`.
    template <class Y>
    void check_pair() {
        on_device<float const> const offsets{std::as_const(offsets_).view()};
        on_device<float const> const added{std::as_const(added_).view()};
        ts::bias const b{ts::vector_view<float const>{offsets.view().data_handle(), n_}};
        check_one<Y>({true, true}, b | ts::residual{ts::kernel_view(added.view())} | position_limit{}, position_limit{});
    }

private:
    template <class Y, class Finish, class Kind>
    void check_one(addends const& what, Finish const& finish, Kind const& kind) {
        guarded<Y> y{m_, n_, 1};
        apply_there(placed_, x_, y, finish);
        CHECK(differing_from_law<Y>(std::as_const(y).view(), accumulator_.view(), ts::slice(offsets_.view(), 0, ts::all), added_.view(), what, kind) == 0);
    }
    template <class Kind>
    void check_in_place(Kind const& kind) {
        guarded<float> y{m_, n_, 1};
        for (index_t i = 0; i < m_; ++i)
            for (index_t j = 0; j < n_; ++j) y.view()(i, j) = before_.view()(i, j);
        on_device<float const> const dx{std::as_const(x_).view()};
        on_device<float> const dy{y.view()};
        ts::apply(device{}, placed_, dx.view(), dy.view(), ts::residual{ts::kernel_view(dy.view())} | kind);
        wait();
        dy.fetch();
        CHECK(y.is_intact());
        CHECK(differing_from_law<float>(std::as_const(y).view(), accumulator_.view(), ts::slice(offsets_.view(), 0, ts::all), before_.view(), {false, true}, kind) == 0);
    }

    Op const& placed_;
    index_t m_, n_;
    guarded<float> x_, before_, added_, offsets_, accumulator_;
};

template <class F>
void for_each_count_of_rows(F const& f) {
    for (index_t const m : {1, 2, 8, 16, 17, 64, 128, 131}) {
        CAPTURE(m);
        f(m);
    }
}

/// `w` placed: one epilogue of each part, in float32 and bf16.
template <class Op>
void check_placed(Op const& w) {
    auto const placed = ts::place(device{}, w);
    for_each_count_of_rows([&](index_t m) {
        epilogue_law law{placed, m};
        law.template check_pair<float>();
        law.template check_pair<ts::bf16>();
    });
}

} // namespace

TEST_CASE("epilogues: every kind") {
    for (index_t const n : {1, 31, 64, 530}) {
        CAPTURE(n);
        guarded<float> w{n, 19};
        w.fill(1);
        auto const placed = ts::place(device{}, ts::linear{std::as_const(w).view()});
        for_each_count_of_rows([&](index_t m) {
            epilogue_law law{placed, m};
            law.check_kind(ts::no_epilogue{});
            law.check_kind(ts::relu{});
            law.check_kind(position_limit{});
            law.check_kind<ts::fp16>(ts::relu{});
            law.check_kind<ts::bf16>(ts::relu{});
        });
    }
}

TEST_CASE("epilogues: kernels of codes, few rows and many") {
    auto const int4 = random_quantized<ts::int4_g128>(96, 256);
    check_placed(ts::linear{int4.view()});
    check_placed(ts::linear{int4.view(), ts::as_bf16{}});
    auto const bytes = random_quantized<ts::int8_per_channel>(80, 128);
    check_placed(ts::linear{bytes.view(), ts::int8_per_token{}});
    auto const table = random_quantized<ts::nf4_g64>(33, 128);
    check_placed(ts::linear{table.view()});
}

TEST_CASE("epilogues: sums and transposes") {
    auto const int4 = random_quantized<ts::int4_g32>(96, 64);
    guarded<float> b{96, 4}, a{4, 64};
    b.fill(1, 0.3);
    a.fill(2, 0.3);
    auto const bv = std::as_const(b).view();
    auto const av = std::as_const(a).view();
    check_placed(ts::linear{int4.view()} + ts::low_rank{ts::linear{bv}, ts::linear{av}, 0.5f});
    check_placed(ts::transposed(ts::linear{int4.view()}));
}
