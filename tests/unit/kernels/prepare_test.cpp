// SPDX-License-Identifier: MIT
// Prepared activations: the int8 form of x holds the values of the definition, bit for bit, in the layout that
// kernels/forms.hpp describes, from any type and strides of x.

#include <doctest/doctest.h>

#include "../operators/operator_laws.hpp"

using namespace tessera_test;

namespace {

template <class Arch, class P, index_t Block, class X>
void check_form(guarded<X> const& x) {
    using form = ts::int8_rows<ts::detail::activation_group<P>, Block>;
    using kernel = ts::kernel<ts::op::prepare, ts::cpu<Arch, ts::serial>, form>;
    ts::cpu<Arch, ts::serial> const exec;
    ts::workspace_scope scope{exec.scratch()};
    form const f = kernel::plan(x.view(), scope);
    kernel::run(exec, x.view(), f);
    index_t const columns = x.view().extent(1);
    index_t const group = form::scale_group == 0 ? ts::maximum(columns, 1) : form::scale_group;
    row_of_doubles row(static_cast<std::size_t>(columns));
    bool same = true;
    for (index_t m = 0; m < x.view().extent(0); ++m) {
        for (index_t k = 0; k < columns; ++k) row[static_cast<std::size_t>(k)] = double{static_cast<float>(x.view()(m, k))};
        ts::detail::reference_prepare<P>(row.data(), columns, row.data());
        std::vector<int> seen(static_cast<std::size_t>(form::stride_of(columns)), 0);
        for (index_t b = 0; b < form::blocks_of(columns); ++b) {
            int sum = 0;
            for (index_t k = b * Block; k < ts::minimum((b + 1) * Block, columns); ++k) {
                index_t const at = b * form::padded_block + k - b * Block;
                seen[static_cast<std::size_t>(at)] = 1;
                sum += f.row(m)[at];
                same = same && double{f.scale(m, k / group)} * f.row(m)[at] == row[static_cast<std::size_t>(k)];
            }
            same = same && f.row_sums(m)[b] == sum;
        }
        for (index_t i = 0; i < form::stride_of(columns); ++i)
            same = same && (seen[static_cast<std::size_t>(i)] != 0 || f.row(m)[i] == 0);
    }
    CHECK(same);
}

template <class X>
void check_type() {
    for (index_t const columns : {1, 7, 31, 32, 33, 64, 130})
        for (index_t const step : {1, 2}) {
            CAPTURE(columns);
            CAPTURE(step);
            guarded<X> x{3, columns, 1, step};
            x.fill(77, 3);
            for_each_arch([&]<class Arch>(Arch) {
                check_form<Arch, ts::int8_per_token, 32>(x);
                check_form<Arch, ts::int8_per_token, 5>(x);
                check_form<Arch, ts::int8_per_group<32>, 32>(x);
                check_form<Arch, ts::int8_per_group<96>, 32>(x);
            });
        }
}

} // namespace

TEST_CASE_TEMPLATE("int8 forms are the definition", X, float, ts::fp16, ts::bf16) { check_type<X>(); }

TEST_CASE("halves round to even, the largest becomes 127") {
    float const x[] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -127.0f};
    double y[7];
    double wide[7];
    for (int i = 0; i < 7; ++i) wide[i] = double{x[i]};
    ts::detail::reference_prepare<ts::int8_per_token>(wide, 7, y);
    double const expected[] = {127, 0, 2, 2, 0, -2, -127};
    for (int i = 0; i < 7; ++i) CHECK(y[i] == expected[i]);
    guarded<float> m{1, 7};
    for (index_t k = 0; k < 7; ++k) m.view()(0, k) = x[k];
    for_each_arch([&]<class Arch>(Arch) { check_form<Arch, ts::int8_per_token, 32>(m); });
}
