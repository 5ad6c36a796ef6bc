// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What tests of products of bytes share.

#include "cuda_support.hpp"

namespace tessera_test {

/// Many rows of x, which go by large tiles, and some of them alone, by small ones: the same bits, and in every run.
template <class Scheme, class Preparation>
void check_invariance() {
    index_t const m = 1030, n = 1032, k = 900;
    auto const q = random_quantized<Scheme>(n, k);
    auto const placed = ts::place(device{}, ts::linear{q.view(), Preparation{}});
    guarded<float> x{m, k};
    guarded<float> y{m, n};
    guarded<float> again{m, n};
    x.fill(5);
    apply_there(placed.view(), x, y);
    apply_there(placed.view(), x, again);
    CHECK(same_bits<float>(again.view(), y.view()));
    on_device<float const> const dx{x.view()};
    for (index_t const first : {0, 1, 255, 256, 513, 1029})
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
