// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What tests of products of bytes share.

#include "cuda_support.hpp"

#include <limits>
#include <vector>

namespace tessera_test {

/// y of 16 bits in rows side by side, which whole tiles store as they are: what y of float rounds to.
template <class T, class Placed>
void check_rounded(Placed const& placed, on_device<float const> const& x, ts::matrix_view<float const> y) {
    std::vector<T> memory(static_cast<std::size_t>(y.size()));
    ts::matrix_view<T> const rounded{memory.data(), y.extent(0), y.extent(1)};
    on_device<T> const there{rounded};
    ts::apply(device{}, placed.view(), x.view(), there.view());
    wait();
    there.fetch();
    index_t different = 0;
    for (index_t i = 0; i < y.extent(0); ++i)
        for (index_t j = 0; j < y.extent(1); ++j) different += rounded(i, j).to_bits() != T{y(i, j)}.to_bits();
    CHECK(different == 0);
}

/// Many rows of x, which go by larger tiles, and some of them alone, by small ones: the same bits, and in every run.
template <class Scheme, class Preparation>
void check_invariance(index_t m = 1030, index_t n = 1032, index_t k = 900) {
    auto const q = random_quantized<Scheme>(n, k);
    auto const placed = ts::place(device{}, ts::linear{q.view(), Preparation{}});
    guarded<float> x{m, k};
    guarded<float> y{m, n};
    guarded<float> again{m, n};
    x.fill(5);
    x.view()(2, 7) = std::numeric_limits<float>::quiet_NaN();
    apply_there(placed.view(), x, y);
    apply_there(placed.view(), x, again);
    CHECK(same_bits<float>(again.view(), y.view()));
    on_device<float const> const dx{x.view()};
    check_rounded<ts::bf16>(placed, dx, y.view());
    check_rounded<ts::fp16>(placed, dx, y.view());
    for (index_t const first : {index_t{0}, index_t{1}, index_t{255}, index_t{256}, index_t{513}, m - 1})
        for (index_t const rows : {1, 130}) {
            if (first + rows > m) continue;
            CAPTURE(first);
            CAPTURE(rows);
            guarded<float> part{rows, n};
            on_device<float> const dy{part.view()};
            ts::apply(device{}, placed.view(), ts::rows(dx.view(), first, first + rows), dy.view());
            wait();
            dy.fetch();
            CHECK(same_bits<float>(part.view(), ts::rows(y.view(), first, first + rows)));
        }
}

} // namespace tessera_test
