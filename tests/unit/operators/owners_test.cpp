// SPDX-License-Identifier: MIT
// The same calls with tensors, views and owners, in any mixture, and with either policy.

#include <tessera/tessera.hpp>

#include "operator_laws.hpp"

#include <cstring>

using namespace tessera_test;

namespace {

template <class T>
concept addable = requires(T const& t) { t + t; };

template <class Policy>
void check_calls(Policy const& exec) {
    ts::matrix<float> w{24, 64}, b{24, 2}, a{2, 64}, x{3, 64}, expected{3, 24}, y{3, 24};
    ts::philox const random{1};
    for (auto* t : {&w, &b, &a, &x})
        for (index_t i = 0; i < t->size(); ++i) t->data()[i] = random.normal(static_cast<std::uint64_t>(i));
    auto const q = ts::quantize<ts::int4_g32>(w);
    auto const sum = ts::linear{q} + ts::low_rank{b, a, 0.5f};
    auto const layer = ts::place(exec, sum);
    ts::apply(exec, layer.view(), x.view(), expected.view());
    auto const check = [&](auto const& call) {
        for (index_t i = 0; i < y.size(); ++i) y.data()[i] = -1;
        call();
        for (index_t i = 0; i < y.size(); ++i) CHECK(y.data()[i] == expected.data()[i]);
    };
    check([&] { ts::apply(exec, layer, x, y); });
    check([&] { ts::apply(exec, layer, x.view(), y); });
    check([&] { ts::apply(exec, layer, x, y.view()); });
    check([&] { ts::apply(exec, layer, x.view(), y.view()); });
    check([&] { ts::apply(exec, layer.view(), x, y.view()); });
    CHECK(ts::workspace_bytes(exec, layer, x) == ts::workspace_bytes(exec, layer.view(), x.view()));
    CHECK(ts::workspace_bytes(exec, layer.view(), x) == ts::workspace_bytes(exec, layer.view(), x.view()));
    CHECK(ts::describe(exec, layer, 3) == ts::describe(exec, layer.view(), 3));
    if constexpr (!std::is_same_v<Policy, ts::reference>)
        check([&] {
            ts::workspace_scope scope{exec.scratch()};
            ts::apply(exec, layer, ts::prepare(exec, scope, x, layer), y);
        });
}

} // namespace

TEST_CASE("tensors, views and owners mix, with either policy") {
    check_calls(ts::cpu<>{});
    check_calls(ts::reference{});
}

TEST_CASE("a factor stands on either side") {
    ts::matrix<float> w{3, 4}, x{1, 4}, left{1, 3}, right{1, 3};
    for (index_t i = 0; i < w.size(); ++i) w.data()[i] = static_cast<float>(i);
    for (index_t i = 0; i < x.size(); ++i) x.data()[i] = 1;
    ts::apply(ts::cpu<>{}, 2.0f * ts::linear{w}, x, left);
    ts::apply(ts::cpu<>{}, ts::linear{w} * 2.0f, x, right);
    for (index_t n = 0; n < 3; ++n) CHECK(left(0, n) == right(0, n));
}

TEST_CASE("an output that holds an element twice is refused, and nothing is written") {
    ts::matrix<float> const w{6, 40}, x{3, 40};
    ts::matrix<float> y{6, 6};
    y(0, 0) = 7;
    auto const strided = [&](index_t rows, index_t columns) {
        index_t const strides[] = {rows, columns};
        using view = ts::matrix_view<float>;
        return view{y.data(), view::mapping_type{ts::dynamic_extents<2>{3, 6}, strides}};
    };
    auto const apply = [&](auto const& to) { ts::apply(ts::cpu<>{}, ts::linear{w}, x, to); };
    CHECK_THROWS_WITH_AS(apply(strided(0, 1)),
                         "tessera: apply: rows of y are 0 elements apart and its columns 1, expected no element twice in 3 x 6",
                         ts::shape_error);
    CHECK_THROWS_AS(apply(strided(5, 1)), ts::shape_error);
    CHECK_THROWS_AS(apply(strided(1, 2)), ts::shape_error);
    CHECK(y(0, 0) == 7.0f);
    CHECK_NOTHROW(apply(strided(6, 1)));
    CHECK_NOTHROW(apply(strided(1, 3)));
}

TEST_CASE("owners join sums and products as what they own") {
    using exec_type = ts::cpu<ts::native_arch, ts::serial>;
    exec_type const exec;
    ts::matrix<float> w{19, 32}, b{19, 3}, a{3, 32};
    ts::philox const random{1};
    for (auto* t : {&w, &b, &a})
        for (ts::index_t i = 0; i < t->size(); ++i) t->data()[i] = random.normal(static_cast<std::uint64_t>(i + t->size()));
    auto const q = ts::quantize<ts::int4_g32>(w);
    auto const adapter = ts::low_rank{b, a, 0.5f};
    auto const placed = ts::place(exec, ts::linear{q});
    ts::matrix<float> x{3, 32}, y{3, 19}, expected{3, 19};
    for (ts::index_t i = 0; i < x.size(); ++i) x.data()[i] = random.normal(static_cast<std::uint64_t>(i));
    auto const same = [&](auto const& op, auto const& by_hand) {
        static_assert(ts::linear_operator<std::remove_cvref_t<decltype(op)>>);
        ts::apply(exec, op, x, y);
        ts::apply(exec, by_hand, x, expected);
        CHECK(std::memcmp(y.data(), expected.data(), sizeof(float) * 57) == 0);
    };
    same(placed + adapter, placed.view() + adapter);
    same(adapter + placed, adapter + placed.view());
    same(placed + placed, placed.view() + placed.view());
    same(q + adapter, ts::linear{q} + adapter);
    same(w + placed, ts::linear{w} + placed.view());
    same(2.0f * placed, 2.0f * placed.view());
    same(b * ts::linear{a}, ts::linear{b} * ts::linear{a});
    same(placed + 0.5f * placed + adapter, placed.view() + 0.5f * placed.view() + adapter);
    auto const across = ts::place(exec, ts::transposed(ts::linear{q}));
    same(ts::transposed(across), ts::transposed(across.view()));
    ts::matrix<float> const other{18, 32};
    CHECK_THROWS_AS(placed + ts::linear{other}, ts::shape_error);
    // Two tensors are no operators: their sum has no meaning here.
    static_assert(!addable<ts::matrix<float>>);
}
