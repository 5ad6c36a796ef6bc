// SPDX-License-Identifier: MIT
// scipy's arrays as they are, its products, and what numpy keeps by magnitude (tests/data/sparse/README.md).

#include "sparse_support.hpp"

#include <cstring>
#include <fstream>
#include <iterator>

using namespace tessera_test;

namespace {

class reader {
public:
    reader() {
        std::ifstream file(std::string{TESSERA_TEST_DATA} + "/sparse/scipy.bin", std::ios::binary);
        bytes_.assign(std::istreambuf_iterator<char>(file), {});
    }
    template <class T>
    std::vector<T> take(index_t count) {
        REQUIRE(at_ + static_cast<std::size_t>(count) * sizeof(T) <= bytes_.size());
        std::vector<T> values(static_cast<std::size_t>(count));
        if (count > 0) std::memcpy(values.data(), bytes_.data() + at_, values.size() * sizeof(T));
        at_ += values.size() * sizeof(T);
        return values;
    }

private:
    std::vector<char> bytes_;
    std::size_t at_ = 0;
};

/// |y - exact| within what a float32 sum of `roundings` roundings may be off.
template <class Op>
void check_product(Op const& w, ts::matrix_view<float const> x, std::vector<double> const& exact) {
    index_t const m = x.extent(0);
    guarded<float> y{m, w.rows()};
    archs_by_width::visit([&]<class Arch>(Arch) {
        CAPTURE(std::string{Arch::name});
        ts::apply(ts::cpu<Arch, ts::serial>{}, w, x, y.view());
        for (index_t i = 0; i < m; ++i) {
            row_of_doubles row(static_cast<std::size_t>(w.cols()));
            for (index_t k = 0; k < w.cols(); ++k) row[static_cast<std::size_t>(k)] = double{x(i, k)};
            row_of_doubles const magnitude = error_model<Op>::magnitude(w, row);
            double const gamma = ts::gamma(error_model<Op>::roundings(w), ts::unit_roundoff<float>);
            for (index_t n = 0; n < w.rows(); ++n)
                CHECK(std::abs(double{y.view()(i, n)} - exact[static_cast<std::size_t>(i * w.rows() + n)]) <=
                      gamma * magnitude[static_cast<std::size_t>(n)]);
        }
    });
}

void check_kept(ts::csr_tensor<float> const& tensor, std::vector<std::int32_t> const& offsets,
                std::vector<std::int32_t> const& columns, std::vector<float> const& values) {
    auto const kept = tensor.view();
    REQUIRE(kept.nonzeros() == static_cast<index_t>(values.size()));
    for (std::size_t n = 0; n < offsets.size(); ++n) CHECK(kept.row_offsets()[n] == offsets[n]);
    for (std::size_t i = 0; i < values.size(); ++i) {
        CHECK(kept.columns()[i] == columns[i]);
        CHECK(kept.values()[i] == values[i]);
    }
}

} // namespace

TEST_CASE("scipy: products, forward and transposed, and what is kept by magnitude") {
    reader file;
    int cases = 0;
    for (;; ++cases) {
        auto const head = file.take<std::int32_t>(5);
        if (head[0] < 0) break;
        index_t const n = head[1], k = head[2], m = head[3], nonzeros = head[4];
        auto const dense = file.take<float>(head[0] == 0 ? 0 : n * k);
        auto const offsets = file.take<std::int32_t>(n + 1);
        auto const columns = file.take<std::int32_t>(nonzeros);
        auto const values = file.take<float>(nonzeros);
        CAPTURE(cases);
        if (head[0] == 0) {
            ts::csr_tensor<float> const w{offsets.data(), columns.data(), values.data(), nullptr, nonzeros, n, k};
            auto const x = file.take<float>(m * k);
            auto const dy = file.take<float>(m * n);
            auto const y = file.take<double>(m * n);
            check_product(ts::linear{w}, ts::matrix_view<float const>{x.data(), m, k}, y);
            check_product(ts::transposed(ts::linear{w}), ts::matrix_view<float const>{dy.data(), m, n}, file.take<double>(m * k));
            continue;
        }
        ts::matrix_view<float const> const w{dense.data(), n, k};
        using rows = ts::csr<float>;
        if (head[0] == 1) check_kept(ts::sparsify<rows>(w, ts::magnitude_threshold{3}), offsets, columns, values);
        if (head[0] == 2) check_kept(ts::sparsify<rows>(w, ts::top_per_row{3}), offsets, columns, values);
        if (head[0] == 3) check_kept(ts::sparsify<rows>(w, ts::keep_fraction{0.1}), offsets, columns, values);
        if (head[0] == 4) {
            auto const kept = ts::sparsify<ts::n_of_m<2, 4, float>>(w);
            index_t i = 0;
            for (index_t r = 0; r < n; ++r)
                kept.view().for_each_entry(r, [&](index_t c, float weight) {
                    CHECK(c == columns[static_cast<std::size_t>(i)]);
                    CHECK(weight == values[static_cast<std::size_t>(i++)]);
                });
            CHECK(i == nonzeros);
        }
    }
    CHECK(cases == 10);
}
