// SPDX-License-Identifier: MIT
// any_coded by int8 x, 1, 3 and 17 rows: every block format of GGUF and schemes of every kind keep the law of their own type's products,
// placed and canonical, in wide and narrow registers, and have their bits; transposed products; what is refused.

#include "cases/apply_case.hpp"
#include "cases/operands.hpp"
#include "support/instruction_sets.hpp"
#include "support/message_of.hpp"

#include <doctest/doctest.h>

#include <tessera/dispatch/gguf_coded.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/operators/apply.hpp>
#include <tessera/operators/place.hpp>
#include <tessera/storage/grid_formats.hpp>

#include <cmath>
#include <string>
#include <vector>

using namespace tessera_test;

namespace {

template <class Op, class Exec>
void apply_into(Exec const& exec, Op const& w, guarded<float> const& x, guarded<float>& y) {
    y.clear();
    ts::apply(exec, w, x.view(), y.view());
    CHECK(y.is_intact());
}

/// The products of `w`, whose own type knows its format, and of the same at run time.
template <class Arch, class Preparation, class Storage>
void check_bits(Storage const& w, index_t m) {
    CAPTURE(m);
    CAPTURE(std::string{Arch::name});
    ts::cpu<Arch, ts::serial> const exec;
    ts::linear const typed{w, Preparation{}};
    ts::linear const erased{ts::any_coded<Arch>{w}, Preparation{}};
    guarded<float> x{m, w.cols(), 1}, expected{m, w.rows()}, y{m, w.rows(), 2};
    x.fill(17);
    apply_into(exec, typed, x, expected);
    apply_into(exec, erased, x, y);
    CHECK(same_bits(y, expected));
    auto const placed = ts::place(exec, erased);
    apply_into(exec, placed.view(), x, y);
    CHECK(same_bits(y, expected));
}

/// Transposed products know no preparation: the bits of float32 x.
template <class Arch, class Preparation, class Storage>
void check_transposed(Storage const& w, index_t m) {
    ts::cpu<Arch, ts::serial> const exec;
    ts::any_coded<Arch> const erased{w};
    guarded<float> dy{m, w.rows()}, expected{m, w.cols()}, dx{m, w.cols()};
    dy.fill(19);
    apply_into(exec, ts::transposed(ts::linear{erased}), dy, expected);
    apply_into(exec, ts::transposed(ts::linear{erased, Preparation{}}), dy, dx);
    CHECK(same_bits(dx, expected));
    auto const placed = ts::place(exec, ts::linear{erased, Preparation{}});
    apply_into(exec, ts::transposed(placed.view()), dy, dx);
    CHECK(same_bits(dx, expected));
}

/// Within the tolerance of the typed operator's definition, on every instruction set; batches change no bit.
template <class Preparation, class Storage>
void check_law(Storage const& w, index_t m) {
    ts::linear const typed{w, Preparation{}};
    guarded<float> x{m, w.cols(), 1}, y{m, w.rows(), 2};
    x.fill(17);
    apply_case<std::remove_const_t<decltype(typed)>> const expected{typed, x.view()};
    all_archs::visit([&]<class Arch>(Arch) {
        CAPTURE(m);
        CAPTURE(std::string{Arch::name});
        ts::cpu<Arch, ts::serial> const exec;
        ts::linear const erased{ts::any_coded<Arch>{w}, Preparation{}};
        guarded<float> again{m, w.rows()};
        apply_into(exec, erased, x, y);
        CHECK(expected.worst_ratio(ts::matrix_view<float const>{y.view()}) <= 1.0);
        auto const placed = ts::place(exec, erased);
        apply_into(exec, placed.view(), x, again);
        CHECK(same_bits(y, again));
        guarded<float> one{1, w.rows()};
        ts::apply(exec, placed.view(), ts::rows(x.view(), m - 1, m), one.view());
        CHECK(same_bits<float>(one.view(), ts::rows(y.view(), m - 1, m)));
    });
}

template <class Format>
void check_format() {
    CAPTURE(std::string{Format::name});
    blocked_storage<Format> const owner{37, 768};
    auto const w = owner.view();
    ts::any_coded<> const erased{w};
    CHECK(erased.takes(ts::int8_per_token{}));
    CHECK(erased.takes(ts::int8_per_group<96>{}));
    for (index_t const m : {1, 3, 17}) {
        check_law<ts::int8_per_token>(w, m);
        check_law<ts::int8_per_group<96>>(w, m);
    }
    check_transposed<ts::native_arch, ts::int8_per_group<96>>(w, 3);
    // The definition is the typed operator's.
    guarded<float> x{2, 768}, y{2, 37};
    x.fill(3);
    ts::linear const typed{w, ts::int8_per_token{}};
    apply_case<std::remove_const_t<decltype(typed)>> const expected{typed, x.view()};
    ts::apply(ts::reference{}, ts::linear{erased, ts::int8_per_token{}}, x.view(), y.view());
    CHECK(expected.worst_ratio(ts::matrix_view<float const>{y.view()}) <= 1.0);
}

template <class Scheme, class Preparation>
void check_scheme() {
    CAPTURE(std::string{Scheme::format::name});
    for (index_t const k : {1, 50, 256, 515, 1030}) {
        CAPTURE(k);
        scheme_storage<Scheme> const owner{21, k};
        for (index_t const m : {1, 3, 17}) check_law<Preparation>(owner.view(), m);
        check_transposed<ts::native_arch, Preparation>(owner.view(), 2);
    }
}
/// The typed products compile for seconds each: one for each way that codes, scales and sums are read.
template <class Preparation, class... Format>
void check_format_bits() {
    auto const check = []<class F>(F) {
        CAPTURE(std::string{F::name});
        blocked_storage<F> const owner{37, 768};
        for (index_t const m : {1, 3, 17}) check_bits<ts::native_arch, Preparation>(owner.view(), m);
    };
    (check(Format{}), ...);
}
template <class Scheme, class Preparation>
void check_scheme_bits() {
    for (index_t const k : {50, 515, 1030}) {
        CAPTURE(k);
        scheme_storage<Scheme> const owner{37, k};
        for (index_t const m : {1, 3, 17}) check_bits<ts::native_arch, Preparation>(owner.view(), m);
    }
}

} // namespace

TEST_CASE("every block format of GGUF files by int8 x") {
    []<class... Format>(ts::format_list<Format...>) { (check_format<Format>(), ...); }(ts::gguf::block_formats{});
}

TEST_CASE("schemes by int8 x: groups of every length, zero points, tables, pairs of bytes, two levels, blocks of rows") {
    check_scheme<ts::int4_g32, ts::int8_per_token>();
    check_scheme<ts::uint4_g128, ts::int8_per_group<64>>();
    check_scheme<ts::int8_per_channel, ts::int8_per_token>();
    check_scheme<ts::int8_per_channel, ts::int8_per_group<64>>();
    check_scheme<ts::nf4_g64, ts::int8_per_group<64>>();
    check_scheme<ts::mx_e3m2, ts::int8_per_token>();
    check_scheme<ts::mx_int8, ts::int8_per_token>();
    check_scheme<ts::nv_e2m1, ts::int8_per_group<64>>();
    check_scheme<ts::scheme<ts::int4, ts::group<32>, ts::two_level<ts::int6, ts::group<256>, ts::fp16>>, ts::int8_per_token>();
    check_scheme<ts::scheme<ts::uint8, ts::group<288>, ts::fp32, ts::affine>, ts::int8_per_group<64>>();
    check_scheme<ts::scheme<ts::int6, ts::block<32, 32>>, ts::int8_per_token>();
    check_scheme<ts::scheme<ts::uint5, ts::group<7>, ts::fp16, ts::affine>, ts::int8_per_token>();
    check_scheme<ts::scheme<ts::int8, ts::group<300>>, ts::int8_per_token>();
    check_scheme<ts::scheme<ts::int3, ts::group<1>, ts::fp16>, ts::int8_per_token>();
}

TEST_CASE("the bits are those of the typed products: block formats") {
    check_format_bits<ts::int8_per_group<32>, ts::q4_0, ts::q5_1, ts::q2_k, ts::q4_k, ts::q6_k, ts::iq4_nl, ts::iq1_m>();
    check_format_bits<ts::int8_per_token, ts::q2_k, ts::q3_k, ts::iq3_s>();
}

TEST_CASE("the bits are those of the typed products: schemes") {
    check_scheme_bits<ts::nf4_g64, ts::int8_per_group<32>>();
    check_scheme_bits<ts::uint4_g128, ts::int8_per_group<64>>();
    check_scheme_bits<ts::int8_per_channel, ts::int8_per_token>();
    check_scheme_bits<ts::scheme<ts::uint5, ts::group<7>, ts::fp16, ts::affine>, ts::int8_per_token>();
    check_scheme_bits<ts::scheme<ts::int8, ts::group<300>>, ts::int8_per_token>();
}

TEST_CASE("what int8 x has no product with is refused by the format's name, placed or not") {
    ts::any_coded<> w;
    CHECK(w.takes(ts::int8_per_token{})); // nothing at all
    scheme_storage<ts::mx_e4m3> const eight_bits{16, 64};
    w = ts::any_coded<>{eight_bits.view()};
    CHECK(!w.takes(ts::int8_per_token{}));
    CHECK(!w.takes(ts::int8_per_group<32>{}));
    CHECK(w.takes(ts::as_is{}));
    CHECK(w.takes(ts::as_bf16{}));
    CHECK_THROWS_AS((ts::linear{w, ts::int8_per_token{}}), ts::unsupported_error);
    std::string const message = message_of([&] { static_cast<void>(ts::linear{w, ts::int8_per_token{}}); });
    CHECK(message.find(w.name()) != std::string::npos);
    CHECK(message.find("have no product with int8 x") != std::string::npos);
    auto const placed = ts::place(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{w});
    CHECK_THROWS_AS((ts::linear{placed.view().storage(), ts::int8_per_token{}}), ts::unsupported_error);

    scheme_storage<ts::scheme<ts::int4, ts::group<24>>> const odd{16, 64};
    w = ts::any_coded<>{odd.view()};
    CHECK(w.takes(ts::int8_per_token{}));
    CHECK(!w.takes(ts::int8_per_group<32>{}));
    std::string const other = message_of([&] { static_cast<void>(ts::linear{w, ts::int8_per_group<32>{}}); });
    CHECK(other.find(w.name()) != std::string::npos);
    CHECK(other.find("use int8_per_token") != std::string::npos);
}

TEST_CASE("nothing by int8 x; one prepared x for two formats; what describe says") {
    using exec_type = ts::cpu<ts::native_arch, ts::serial>;
    exec_type const exec;
    ts::linear const nothing{ts::any_coded<>{}, ts::int8_per_token{}};
    ts::matrix<float> none{2, 0};
    ts::apply(exec, nothing, none, none);
    ts::apply(exec, ts::place(exec, nothing), none, none);
    ts::apply(ts::reference{}, nothing, none, none);

    blocked_storage<ts::q4_k> const first{16, 256};
    blocked_storage<ts::iq3_s> const second{16, 256};
    ts::linear const a{ts::any_coded<>{first.view()}, ts::int8_per_group<32>{}};
    ts::linear const b{ts::any_coded<>{second.view()}, ts::int8_per_group<32>{}};
    guarded<float> x{5, 256}, of_a{5, 16}, of_b{5, 16}, y{5, 16};
    x.fill(3);
    apply_into(exec, a, x, of_a);
    apply_into(exec, b, x, of_b);
    apply_into(exec, a + b, x, y);
    bool near = true;
    for (index_t m = 0; m < 5; ++m)
        for (index_t n = 0; n < 16; ++n)
            near = near && std::fabs(y.view()(m, n) - (of_a.view()(m, n) + of_b.view()(m, n))) <= 1e-6f * (1 + std::fabs(y.view()(m, n)));
    CHECK(near);
    CHECK(ts::describe(exec, ts::place(exec, a), 1) ==
          std::string{ts::native_arch::name} + ": q4_k codes, panel<" + std::to_string(ts::simd::lanes<ts::native_arch>) +
              ", 4>, bytes of decoded columns by " + ts::simd::dot4_name<ts::native_arch>);
}
