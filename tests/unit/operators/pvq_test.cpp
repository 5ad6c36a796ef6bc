// SPDX-License-Identifier: MIT
// Vector codes as leaves: the law of stored matrices, products with the transpose, activations, what `describe` calls them.

#include "cases/vector_operands.hpp"
#include "operator_laws.hpp"

#include <tessera/operators/describe.hpp>
#include <tessera/quant/pvq.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

using namespace tessera_test;

namespace tessera_test {

/// Gaussian weights in vector codes.
template <class Format, class Gain>
struct pvq_storage_of {
    static constexpr index_t group = Format::group;
    static constexpr index_t column_unit = 1;
    ts::pvq_tensor<Format, Gain> owner;
    pvq_storage_of(index_t n, index_t k)
        : owner{[&] {
              guarded<float> w{n, k};
              ts::philox const random{41};
              for (index_t i = 0; i < n; ++i)
                  for (index_t j = 0; j < k; ++j) w.view()(i, j) = random.normal(static_cast<std::uint64_t>(i * k + j));
              return ts::quantize_pvq<Format, Gain>(ts::matrix_view<float const>{w.view()});
          }()} {}
    auto view() const { return owner.view(); }
};

} // namespace tessera_test

namespace {

using nibbles = ts::pvq<32, 50, 7>;
using small = ts::pvq<32, 22, 3>;
using bytes = ts::pvq<16, 24>;
template <class Format>
using coded = ts::pvq_matrix<Format, ts::gain_code<4>>;

} // namespace

TEST_CASE("products") {
    report_law<pvq_storage_of<small, ts::gain_code<4>>, ts::int8_per_token, best_arch>("pvq<32, 22, 3>, int8_per_token");
    report_law<pvq_storage_of<bytes, ts::gain_as<float>>, ts::as_is, best_arch>("pvq<16, 24>, as_is");
}

TEST_CASE("activations in vector codes") {
    using pulses = ts::pvq_per_group<ts::pvq<32, 96>>;
    using affine = scheme_storage<ts::scheme<ts::uint4, ts::group<64>, ts::fp16, ts::affine>>;
    report_law<affine, pulses, best_arch>("uint4_g64, pvq_per_group<pvq<32, 96>>");
    // A row with a NaN gives NaN; zeros give zeros.
    ts::cpu<ts::native_arch, ts::serial> const exec;
    affine const w{5, 70};
    ts::matrix<float> x{3, 70}, y{3, 5};
    for (index_t i = 0; i < x.size(); ++i) x.data()[i] = i < 70 ? 0.0f : static_cast<float>(i % 13);
    x(2, 69) = std::numeric_limits<float>::quiet_NaN();
    ts::apply(exec, ts::linear{w.owner, pulses{}}, x, y);
    for (index_t n = 0; n < 5; ++n) {
        CHECK(y(0, n) == 0);
        CHECK(std::isfinite(y(1, n)));
        CHECK(std::isnan(y(2, n)));
    }
    // Prepared once, by name.
    ts::matrix<float> again{3, 5};
    ts::workspace_scope scope{exec.scratch()};
    ts::apply(exec, ts::linear{w.owner, pulses{}}, ts::prepare(exec, scope, x, pulses{}), again);
    CHECK(same_bits<float>(ts::rows(again.view(), 0, 2), ts::rows(y.view(), 0, 2)));
}

TEST_CASE("products with the transpose") {
    ts::cpu<ts::native_arch, ts::serial> const exec;
    for (auto const [m, n, k] : {product_shape{1, 5, 67}, product_shape{9, 130, 33}, product_shape{3, 0, 8}, product_shape{3, 8, 0}}) {
        CAPTURE(n);
        CAPTURE(k);
        pvq_storage_of<small, ts::gain_code<4>> const owner{n, k};
        auto const t = ts::transposed(ts::linear{owner.owner});
        guarded<float> x{m, n, 1, 1}, y{m, k, 2, 1}, again{m, k};
        x.fill(23);
        apply_case<std::remove_const_t<decltype(t)>> const expected{t, x.view()};
        apply_to(exec, t, x, y);
        CHECK(expected.worst_ratio(ts::matrix_view<float const>{y.view()}) <= 1.0);
        auto const placed = ts::place(exec, t);
        apply_to(exec, placed.view(), x, again);
        CHECK(same_bits(y, again));
    }
}

TEST_CASE("placed panels decode to the same numbers, and take few bytes") {
    ts::cpu<ts::native_arch, ts::serial> const exec;
    pvq_storage_of<small, ts::gain_code<4>> const owner{33, 70};
    auto const placed = ts::place(exec, ts::linear{owner.owner});
    ts::matrix<float> expected{33, 70};
    ts::decode_tile(owner.view(), 0, 0, expected.view());
    for (index_t n = 0; n < 33; ++n)
        for (index_t k = 0; k < 70; ++k) CHECK(ts::detail::reference_element(placed.view().storage(), n, k) == expected(n, k));

    pvq_storage_of<nibbles, ts::gain_code<4>> const larger{64, 512};
    CHECK(larger.owner.bytes() == 64 * (16 * 96 / 8 + 8 + 4) + 64);
    CHECK(ts::place(exec, ts::linear{larger.owner}).bytes() == 64 * 16 * (16 + 2)); // 4.5 bits a weight
    using source = ts::code_source<coded<small>>;
    CHECK(source::bits == 3);
    CHECK(ts::code_source<coded<bytes>>::bits == 6);

    auto const text = ts::describe(exec, ts::linear{owner.owner, ts::int8_per_token{}}, 1);
    CHECK(text.find("pvq<32, 22, 3, 1>, gain 4 bit codes, panel<") != std::string::npos);
    CHECK(text.find("packed on the fly") != std::string::npos);
    CHECK(ts::describe(exec, ts::place(exec, ts::linear{owner.owner, ts::int8_per_token{}}), 1).find("packed on the fly") == std::string::npos);
}

TEST_CASE("what the door refuses") {
    ts::cpu<ts::native_arch, ts::serial> const exec;
    pvq_storage_of<small, ts::gain_code<4>> w{20, 64};
    ts::matrix<float> wrong{2, 63}, x{1, 64}, y{2, 20};
    CHECK_THROWS_AS(ts::apply(exec, ts::linear{w.owner, ts::int8_per_token{}}, wrong, y), ts::shape_error);
    ts::matrix_view<float> const inside{w.owner.gain_arrays().norms(), 1, 20};
    CHECK_THROWS_AS(ts::apply(exec, ts::linear{w.owner, ts::int8_per_token{}}, x.view(), inside), ts::shape_error);
}
