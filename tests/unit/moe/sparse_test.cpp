// SPDX-License-Identifier: MIT
// Sparse matrices as experts: grouped products and mixtures of them are the products one by one.

#include "moe_support.hpp"

#include <tessera/sparse/place.hpp>
#include <tessera/sparse/sparsify.hpp>

using namespace moe_test;

TEST_CASE("compressed rows and N of M in groups that begin anywhere") {
    std::vector<ts::csr_tensor<float>> sparse;
    for (std::uint64_t g = 0; g < 3; ++g)
        sparse.push_back(ts::sparsify<ts::csr<float>>(random_weights(37, 50, g), ts::magnitude_threshold{0.1f}));
    using op = decltype(ts::linear{sparse[0]});
    std::vector<op> const family{ts::linear{sparse[0]}, ts::linear{sparse[1]}, ts::linear{sparse[2]}};
    for (std::vector<index_t> const& offsets : std::vector<std::vector<index_t>>{{0, 1, 1, 1}, {0, 3, 8, 40}, {0, 0, 5, 5}, {0, 30, 31, 150}}) {
        index_t const m = offsets.back();
        CAPTURE(m);
        guarded<float> x{m, 50}, y{m, 37}, expected{m, 37};
        x.fill(3);
        for_each_cpu([&](auto const& exec) {
            ts::apply_grouped(exec, std::span<op const>{family}, ts::vector_view<index_t const>{offsets.data(), 4}, x.view(), y.view());
            for (std::size_t g = 0; g < 3; ++g)
                ts::apply(exec, family[g], ts::rows(x.view(), offsets[g], offsets[g + 1]),
                          ts::rows(expected.view(), offsets[g], offsets[g + 1]));
            CHECK(same_bits(y, expected));
        });
    }
}
