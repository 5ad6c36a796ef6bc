// SPDX-License-Identifier: MIT
// The law of epilogues: y = finish(accumulator, m, n), once for every element and nothing else. Every kind with and without
// bias and residual, on every instruction set and by the reference, over shapes around tiles of y: bit for bit what the
// function makes of the plain product, and near the reference.

#include "operator_laws.hpp"

#include "cases/epilogue_case.hpp"

using namespace tessera_test;

namespace {

/// for_each_arch, and the tags between those.
template <class F>
void for_every_arch(F const& f) {
    for_each_arch(f);
    visit_lesser<ts::avx512>(f);
    visit_lesser<ts::neon64_dotprod>(f);
#if defined(__AVXVNNI__)
    if constexpr (judges_lesser_archs) f(ts::avx2_vnni{});
#endif
}

using operand = ts::linear<ts::matrix_view<float const>>;

/// One shape: plain product, reference, and what epilogues read.
struct epilogue_case {
    guarded<float> w, x, before, added, offsets;
    apply_case<operand> plain;
    epilogue_case(index_t m, index_t n, index_t k)
        : w{n, k, 1}, x{m, k, 2}, before{m, n}, added{m, n, 3, 2}, offsets{1, n, 0, 3},
          plain{(w.fill(1), x.fill(2), before.fill(3), added.fill(4), offsets.fill(5), operand{w.view()}), x.view()} {}
    ts::vector_view<float const> bias() const {
        return ts::slice(offsets.view(), 0, ts::all);
    }
};

/// One epilogue on one policy. `in_place`: the residual is y itself.
template <class Y, class Policy, class Epilogue, class Kind>
void check_epilogue(Policy const& exec, epilogue_case const& c, addends const& what, Kind const& kind, Epilogue const& finish,
                    guarded<Y>& y, ts::matrix_view<float const> r, guarded<float> const& accumulator) {
    index_t const m_end = c.x.view().extent(0);
    index_t const n_end = c.w.view().extent(0);
    ts::apply(exec, operand{c.w.view()}, c.x.view(), y.view(), finish);
    CHECK(y.is_intact());
    CHECK(differing_from_law<Y>(std::as_const(y).view(), accumulator.view(), c.bias(), r, what, kind) == 0);
    double worst = 0;
    for (index_t m = 0; m < m_end; ++m)
        for (index_t n = 0; n < n_end; ++n) {
            Y const actual = y.view()(m, n);
            // The reference's accumulator, the definition in double. Kinds bring values no further apart.
            double const acc = c.plain.reference()(m, n);
            double sum = acc;
            if (what.has_bias) sum += double{c.bias()[n]};
            if (what.has_residual) sum += double{r(m, n)};
            double const defined = kind(static_cast<float>(sum), m, n);
            double const before = c.plain.tolerance(m, n);
            double allowed = before + ts::gamma(3, ts::unit_roundoff<float>) * (std::abs(acc) + before + what.magnitude(c.bias(), r, m, n));
            if constexpr (!std::is_same_v<Y, float>)
                allowed += ts::half_step<ts::format_of_t<Y>>(static_cast<float>(std::abs(defined) + allowed));
            double const error = std::abs(static_cast<double>(static_cast<float>(actual)) - defined);
            worst = std::fmax(worst, error == 0 ? 0.0 : error / allowed);
        }
    CHECK(worst <= 1.0);
}

/// A kind with and without bias and with a residual that is absent, apart, or y itself.
template <class Y = float, class Policy, class Kind>
void check_kind(Policy const& exec, epilogue_case const& c, Kind const& kind, guarded<float> const& accumulator) {
    index_t const m = c.x.view().extent(0);
    index_t const n = c.w.view().extent(0);
    guarded<Y> y{m, n, 1, 1 + m % 2};
    ts::bias const b{c.bias()};
    ts::residual const apart{c.added.view()};
    auto const check = [&](addends const& what, auto const& finish, ts::matrix_view<float const> r) {
        check_epilogue(exec, c, what, kind, finish, y, r, accumulator);
    };
    check({false, false}, kind, c.added.view());
    check({true, false}, b | kind, c.added.view());
    check({false, true}, apart | kind, c.added.view());
    check({true, true}, b | apart | kind, c.added.view());
    if constexpr (std::is_same_v<Y, float>) {
        for (bool const has_bias : {false, true}) {
            for (index_t i = 0; i < m; ++i)
                for (index_t j = 0; j < n; ++j) y.view()(i, j) = c.before.view()(i, j);
            ts::residual const itself{y.view()};
            if (has_bias)
                check({true, true}, b | (itself | kind), c.before.view());
            else
                check({false, true}, itself | kind, c.before.view());
        }
    }
}

template <class Policy>
void check_policy(Policy const& exec, epilogue_case const& c) {
    guarded<float> accumulator{c.x.view().extent(0), c.w.view().extent(0)};
    ts::apply(exec, operand{c.w.view()}, c.x.view(), accumulator.view());
    check_kind(exec, c, ts::no_epilogue{}, accumulator);
    check_kind(exec, c, ts::relu{}, accumulator);
    check_kind(exec, c, position_limit{}, accumulator);
    check_kind<ts::fp16>(exec, c, ts::relu{}, accumulator);
    check_kind<ts::bf16>(exec, c, ts::relu{}, accumulator);
}

} // namespace

TEST_CASE("epilogues on every instruction set, around tiles of y") {
    for (index_t const m : {1, 2, 8, 16, 17, 128, 131})
        for (index_t const n : {1, 16, 31, 64, 65, 530}) {
            if (m > 17 && n > 65) continue;
            CAPTURE(m);
            CAPTURE(n);
            epilogue_case const c{m, n, 19};
            for_every_arch([&]<class Arch>(Arch) {
                CAPTURE(std::string{Arch::name});
                check_policy(ts::cpu<Arch, ts::serial>{}, c);
            });
        }
}

TEST_CASE("epilogues by the reference") {
    for (index_t const m : {0, 1, 5})
        for (index_t const n : {0, 1, 33}) {
            CAPTURE(m);
            CAPTURE(n);
            check_policy(ts::reference{}, epilogue_case{m, n, 7});
        }
}

TEST_CASE("relu keeps NaN, and the order of a pair is that of its text") {
    CHECK(std::isnan(ts::relu{}(std::nanf(""), 0, 0)));
    CHECK(ts::relu{}(-0.0f, 0, 0) == 0.0f);
    float const minus_two[] = {-2.0f};
    ts::bias const b{ts::vector_view<float const>{minus_two, 1}};
    CHECK((b | ts::relu{})(1.0f, 0, 0) == 0.0f);
    CHECK((ts::relu{} | b)(1.0f, 0, 0) == -1.0f);
}
