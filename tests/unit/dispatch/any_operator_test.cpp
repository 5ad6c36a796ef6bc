// SPDX-License-Identifier: MIT
// any_operator gives the bits of the operator that was erased: alone, as a term, with epilogues, in every element type; and
// tensors of files become one by their type.

#include <doctest/doctest.h>

#include "cases/guarded.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/core/thread_pool.hpp>
#include <tessera/dispatch/any_operator.hpp>
#include <tessera/dispatch/gguf_operator.hpp>
#include <tessera/quant/quantize.hpp>

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace ts = tessera;
using ts::index_t;
using tessera_test::guarded;
using tessera_test::same_bits;

namespace {

using exec_type = ts::cpu<ts::native_arch, ts::serial>;
using g32 = ts::int8_per_group<32>;

static_assert(ts::linear_operator<ts::any_view<exec_type>> && ts::operator_owner<ts::any_operator<exec_type>>);
static_assert(std::is_nothrow_move_constructible_v<ts::any_operator<exec_type>> && sizeof(ts::any_operator<exec_type>) <= 32);
static_assert(sizeof(ts::any_view<exec_type>) <= 24);

template <class Format>
struct blocks_of {
    std::vector<typename Format::block> blocks;
    index_t n, k;
    blocks_of(index_t rows, index_t columns) : blocks(static_cast<std::size_t>(rows * columns / Format::block_size)), n{rows}, k{columns} {
        std::vector<float> x(static_cast<std::size_t>(rows * columns));
        ts::philox const random{7};
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = random.normal(i);
        ts::encode_row<Format>(x.data(), rows * columns, blocks.data());
    }
    ts::blocked<Format> view() const { return {blocks.data(), n, k}; }
    ts::gguf::tensor_entry tensor() const {
        ts::gguf::tensor_entry t{};
        t.name = "w";
        t.type = ts::gguf::detail::type_for<Format>;
        t.rank = 2;
        t.dims = {k, n, 1, 1};
        t.bytes = std::as_bytes(std::span{blocks});
        return t;
    }
};

template <class T>
ts::matrix<T> random_matrix(index_t rows, index_t columns, std::uint64_t seed) {
    ts::matrix<T> m{rows, columns};
    ts::philox const random{seed};
    for (index_t i = 0; i < m.size(); ++i) m.data()[i] = static_cast<T>(random.normal(static_cast<std::uint64_t>(i)));
    return m;
}

/// Two operators, the same bits.
template <class Exec, class A, class B, class X, class... Finish>
void check_same(Exec const& exec, A const& a, B const& b, ts::matrix<X> const& x, Finish const&... finish) {
    index_t const n = a.view().rows();
    guarded<float> first{x.extent(0), n}, second{x.extent(0), n, 1, 2};
    first.clear();
    second.clear();
    ts::apply(exec, a.view(), x.view(), first.view(), finish...);
    ts::apply(exec, b.view(), x.view(), second.view(), finish...);
    CHECK(second.is_intact());
    CHECK(same_bits(first, second));
}

/// An operator as its own owner, for check_same.
template <class Op>
struct itself {
    Op op;
    Op view() const { return op; }
};

} // namespace

TEST_CASE_TEMPLATE("a placed operator and its erased form", Format, ts::q4_k, ts::q6_k) {
    blocks_of<Format> const w{37, 512};
    exec_type const exec;
    auto const typed = ts::place(exec, ts::linear{w.view(), g32{}});
    auto const any = ts::erase(exec, ts::place(exec, ts::linear{w.view(), g32{}}));
    CHECK(any.rows() == 37);
    CHECK(any.cols() == 512);
    CHECK(any.bytes() == typed.bytes());
    CHECK(ts::describe(exec, any, 1) == ts::describe(exec, typed.view(), 1));
    for (index_t const m : {0, 1, 3, 17}) check_same(exec, typed, any, random_matrix<float>(m, 512, 1));
    std::vector<float> const bias(37, 0.5f);
    ts::vector_view<float const> const b{bias.data(), 37};
    check_same(exec, typed, any, random_matrix<float>(3, 512, 2), ts::bias{b});
    check_same(exec, typed, any, random_matrix<ts::fp16>(5, 512, 3));
    check_same(exec, typed, any, random_matrix<ts::bf16>(17, 512, 4));
}

TEST_CASE("an erased operator is a term, a factor, a slice") {
    blocks_of<ts::q4_k> const w{37, 256};
    auto const b = random_matrix<float>(37, 5, 1);
    auto const a = random_matrix<float>(5, 256, 2);
    exec_type const exec;
    auto const base = ts::linear{w.view(), g32{}};
    ts::low_rank const adapter{b, a, 0.5f};
    auto const any = ts::erase(exec, base);
    CHECK(any.bytes() == 0);
    for (index_t const m : {1, 17}) {
        auto const x = random_matrix<float>(m, 256, 3);
        check_same(exec, itself{base + adapter}, itself{any.view() + adapter}, x);
        check_same(exec, itself{adapter + base}, ts::erase(exec, adapter + base), x);
        check_same(exec, itself{2.0f * base}, itself{2.0f * any.view()}, x);
        check_same(exec, itself{ts::rows(base, 3, 20)}, itself{ts::rows(any.view(), 3, 20)}, x);
        auto const narrow = random_matrix<float>(m, 99, 4);
        check_same(exec, itself{ts::columns(base, 1, 100)}, itself{ts::columns(any.view(), 1, 100)}, narrow);
    }
    CHECK(ts::describe(exec, any.view() + adapter, 1) == ts::describe(exec, base + adapter, 1));
}

TEST_CASE_TEMPLATE("both directions of an erased operator", Exec, exec_type, ts::reference) {
    blocks_of<ts::q4_k> const w{37, 256};
    auto const b = random_matrix<float>(37, 5, 1);
    auto const a = random_matrix<float>(5, 256, 2);
    Exec const exec;
    auto const base = ts::linear{w.view(), g32{}};
    ts::low_rank const adapter{b, a, 0.5f};
    auto const any = ts::erase(exec, base, ts::both_directions{});
    auto const backward = ts::transposed(any.view());
    CHECK(backward.rows() == 256);
    CHECK(backward.cols() == 37);
    for (index_t const m : {0, 1, 17}) {
        auto const x = random_matrix<float>(m, 256, 3);
        auto const dy = random_matrix<float>(m, 37, 4);
        check_same(exec, itself{base}, any, x);
        check_same(exec, itself{ts::transposed(base)}, itself{backward}, dy);
        check_same(exec, itself{base}, itself{ts::transposed(backward)}, x);
        check_same(exec, itself{ts::transposed(base + adapter)}, itself{ts::transposed(any.view() + adapter)}, dy);
        check_same(exec, itself{ts::transposed(2.0f * base)}, itself{ts::transposed(2.0f * any.view())}, dy);
    }
    auto const forward = ts::erase(exec, base);
    CHECK_THROWS_WITH_AS(static_cast<void>(ts::transposed(forward.view())),
                         "tessera: transposed: the operator was erased in one direction, expected both_directions (of erase, place, "
                         "gguf::operator_formats or tessera_add_formats)",
                         ts::unsupported_error);
}

TEST_CASE("both directions of an operator that owns its weights, from anywhere it is moved to") {
    auto const w = random_matrix<float>(24, 40, 1);
    auto const q = ts::quantize<ts::int4_g32>(w);
    exec_type const exec;
    auto first = ts::erase(exec, ts::place(exec, ts::linear{q, g32{}}), ts::both_directions{});
    auto const any = std::move(first);
    auto const typed = ts::place(exec, ts::linear{q, g32{}});
    check_same(exec, typed, any, random_matrix<float>(3, 40, 2));
    check_same(exec, itself{ts::transposed(typed.view())}, itself{ts::transposed(any.view())}, random_matrix<float>(3, 24, 3));
    CHECK(ts::describe(exec, ts::transposed(any.view()), 3) == ts::describe(exec, ts::transposed(typed.view()), 3));
    // What the transpose reads must not be written.
    auto dense = random_matrix<float>(8, 8, 4);
    auto const refers = ts::erase(exec, ts::linear{dense}, ts::both_directions{});
    auto const dy = random_matrix<float>(3, 8, 5);
    CHECK_THROWS_AS(ts::apply(exec, ts::transposed(refers.view()), dy.view(), ts::rows(dense.view(), 0, 3)), ts::shape_error);
}

TEST_CASE("what is placed with an erased operator refers to it; factors on either side") {
    blocks_of<ts::q4_k> const w{37, 256};
    auto const b = random_matrix<float>(37, 5, 1);
    auto const a = random_matrix<float>(5, 256, 2);
    exec_type const exec;
    ts::low_rank const adapter{b, a, 0.5f};
    auto const any = ts::erase(exec, ts::place(exec, ts::linear{w.view(), g32{}}));
    auto const typed = ts::place(exec, ts::linear{w.view(), g32{}});
    auto const placed = ts::place(exec, any.view() + adapter);
    auto const alone = ts::place(exec, adapter);
    CHECK(placed.bytes() == alone.bytes());
    auto const x = random_matrix<float>(3, 256, 3);
    check_same(exec, itself{typed.view() + alone.view()}, placed, x);
    check_same(exec, itself{2.0f * typed}, itself{typed * 2.0f}, x);
}

TEST_CASE("tensors of files with both directions") {
    blocks_of<ts::q4_k> const w{37, 512};
    exec_type const exec;
    ts::gguf::operator_formats<exec_type, g32, ts::both_directions> formats;
    formats.add<ts::q4_k>();
    auto const any = formats.place(exec, w.tensor());
    auto const typed = ts::place(exec, ts::linear{w.view(), g32{}});
    check_same(exec, itself{ts::transposed(typed.view())}, itself{ts::transposed(any.view())}, random_matrix<float>(5, 37, 1));
}

TEST_CASE("the reference policy") {
    blocks_of<ts::q5_0> const w{9, 64};
    ts::reference const exec;
    auto const base = ts::linear{w.view(), g32{}};
    auto const any = ts::erase(exec, base);
    auto const x = random_matrix<float>(3, 64, 1);
    check_same(exec, itself{base}, any, x);
    check_same(exec, itself{base + base}, itself{any.view() + base}, x);
    CHECK(ts::workspace_bytes(exec, any, x.view()) == ts::workspace_bytes(exec, base, x.view()));
}

TEST_CASE("wrong shapes are refused, and nothing is written over the weights") {
    auto w = random_matrix<float>(8, 8, 1);
    exec_type const exec;
    auto const any = ts::erase(exec, ts::linear{w});
    auto const x = random_matrix<float>(3, 8, 2);
    auto const narrow = random_matrix<float>(3, 7, 2);
    ts::matrix<float> y{3, 8}, small{3, 7};
    CHECK_THROWS_AS(ts::apply(exec, any, narrow, y), ts::shape_error);
    CHECK_THROWS_AS(ts::apply(exec, any, x, small), ts::shape_error);
    CHECK_THROWS_AS(ts::apply(exec, any, x.view(), ts::rows(w.view(), 0, 3)), ts::shape_error);
    ts::matrix<ts::fp16> const half{3, 8};
    CHECK_THROWS_AS(ts::apply(exec, any, half.view(), ts::rows(w.view(), 0, 3)), ts::shape_error);
    ts::any_operator<exec_type> const none;
    CHECK(none.is_empty());
    CHECK_THROWS_AS(ts::apply(exec, none, x, y), ts::shape_error);
    auto first = ts::erase(exec, ts::linear{w});
    auto const second = std::move(first);
    CHECK(first.is_empty());
    CHECK(first.rows() == 0);
    CHECK(first.cols() == 0);
    CHECK_THROWS_AS(ts::apply(exec, first, x, y), ts::shape_error);
    CHECK(second.rows() == 8);
}

TEST_CASE("tensors of files by their type") {
    exec_type const exec;
    ts::gguf::operator_formats<exec_type> formats;
    formats.add<ts::q4_k>().add<ts::q4_k>();
    formats.add(ts::format_list<ts::q5_1>{});
    blocks_of<ts::q4_k> const w{12, 256};
    blocks_of<ts::q5_1> const v{12, 96};
    blocks_of<ts::q6_k> const u{12, 256};
    auto const x = random_matrix<float>(2, 256, 1);
    check_same(exec, ts::place(exec, ts::linear{w.view(), g32{}}), formats.place(exec, w.tensor()), x);
    check_same(exec, itself{ts::linear{v.view(), g32{}}}, formats.place(exec, v.tensor()), random_matrix<float>(2, 96, 1));
    formats.add<ts::iq4_xs>(); // a table of small integers
    blocks_of<ts::iq4_xs> const t{12, 256};
    check_same(exec, itself{ts::linear{t.view(), g32{}}}, formats.place(exec, t.tensor()), x);
    CHECK(formats.has(ts::gguf::tensor_type::f16));
    CHECK(!formats.has(ts::gguf::tensor_type::q6_k));
    CHECK_THROWS_WITH_AS(formats.place(exec, u.tensor()),
                         "tessera: gguf: tensor 'w' is q6_k, expected one of the formats that were added: f32, f16, bf16, q4_k, q5_1, iq4_xs",
                         ts::unsupported_error);

    ts::gguf::operator_formats<ts::reference> definitions;
    definitions.add<ts::q4_k>();
    auto const held = definitions.place(ts::reference{}, w.tensor());
    check_same(ts::reference{}, itself{ts::linear{w.view(), g32{}}}, held, x);
    CHECK(held.bytes() == 0);
}

TEST_CASE("the dispatching policy: what is erased runs the instruction set of the file that erased it") {
    ts::thread_pool pool{3};
    using pooled = ts::cpu<ts::dispatched, ts::threads>;
    using run = ts::cpu<ts::native_arch, ts::threads>;
    pooled const exec{ts::threads{pool}};
    run const typed_exec{ts::threads{pool}};
    blocks_of<ts::q4_k> const w{70, 256};
    auto const b = random_matrix<float>(70, 5, 1);
    auto const a = random_matrix<float>(5, 256, 2);
    ts::low_rank const adapter{b, a, 0.5f};
    auto const base = ts::linear{w.view(), g32{}};
    auto const typed = ts::place(typed_exec, base + adapter);
    ts::any_operator<pooled> const any = ts::place(exec, base + adapter);
    CHECK(any.bytes() == typed.bytes());
    CHECK(ts::describe(exec, any, 1) == ts::describe(typed_exec, typed, 1));
    std::vector<float> const bias(70, 0.5f);
    auto const same = [&]<class X>(auto const& first, auto const& second, ts::matrix<X> const& x, auto const& finish) {
        guarded<float> one{x.extent(0), 70}, two{x.extent(0), 70, 1, 2};
        one.clear();
        two.clear();
        ts::apply(typed_exec, first, x.view(), one.view(), finish);
        ts::apply(exec, second, x.view(), two.view(), finish);
        CHECK(two.is_intact());
        CHECK(same_bits(one, two));
    };
    for (index_t const m : {0, 1, 17, 40}) {
        auto const x = random_matrix<float>(m, 256, 3);
        same(typed.view(), any.view(), x, ts::no_epilogue{});
        same(typed.view(), any.view(), x, ts::bias{ts::vector_view<float const>{bias.data(), 70}});
        same(2.0f * typed.view() + typed.view(), 2.0f * any.view() + any.view(), x, ts::no_epilogue{});
    }
    same(typed.view(), any.view(), random_matrix<ts::bf16>(5, 256, 4), ts::no_epilogue{});
    auto const x = random_matrix<float>(3, 256, 5);
    exec.reserve(ts::workspace_bytes(exec, any, x));
    CHECK(ts::describe(exec, any.view() + any.view(), 1).find("dispatched: (" + std::string{ts::native_arch::name}) == 0);
    ts::matrix<float> small{3, 7};
    CHECK_THROWS_AS(ts::apply(exec, any, x, small), ts::shape_error);
}

TEST_CASE("both directions for the dispatching policy") {
    ts::thread_pool pool{2};
    ts::cpu<ts::dispatched, ts::threads> const exec{ts::threads{pool}};
    ts::cpu<ts::native_arch, ts::threads> const typed_exec{ts::threads{pool}};
    blocks_of<ts::q4_k> const w{70, 256};
    auto const op = ts::linear{w.view(), g32{}};
    auto const typed = ts::place(typed_exec, op);
    auto const any = ts::place(exec, op, ts::both_directions{});
    for (index_t const m : {0, 1, 17}) {
        auto const dy = random_matrix<float>(m, 70, 3);
        guarded<float> dx{m, 256}, expected{m, 256, 1, 2};
        dx.clear();
        expected.clear();
        ts::apply(typed_exec, ts::transposed(typed.view()), dy.view(), expected.view());
        ts::apply(exec, ts::transposed(any.view()), dy.view(), dx.view());
        CHECK(dx.is_intact());
        CHECK(same_bits(dx, expected));
    }
}

TEST_CASE("tensors of files for the dispatching policy: nothing but what was added") {
    using policy = ts::cpu<ts::dispatched, ts::serial>;
    policy const exec;
    ts::gguf::operator_formats<policy> formats;
    CHECK(!formats.has(ts::gguf::tensor_type::f16));
    formats.add_dense().add<ts::q4_k>();
    CHECK(formats.has(ts::gguf::tensor_type::f16));
    blocks_of<ts::q4_k> const w{12, 256};
    auto const x = random_matrix<float>(2, 256, 1);
    ts::matrix<float> y{2, 12}, expected{2, 12};
    ts::apply(exec, formats.place(exec, w.tensor()), x, y);
    exec_type const typed;
    ts::apply(typed, ts::place(typed, ts::linear{w.view(), g32{}}), x, expected);
    for (index_t i = 0; i < y.size(); ++i) CHECK(y.data()[i] == expected.data()[i]);
}
