// SPDX-License-Identifier: MIT
// DLPack in and out: round trips, owners that are released once, and arrays that are refused.

#include <doctest/doctest.h>

#include <tessera/core/slice.hpp>
#include <tessera/interop/dlpack.hpp>

#include <limits>
#include <memory>
#include <type_traits>
#include <utility>

namespace ts = tessera;
namespace dlpack = tessera::dlpack;

namespace {

ts::matrix<float> count(ts::index_t n, ts::index_t k) {
    ts::matrix<float> t{n, k};
    for (ts::index_t i = 0; i < t.size(); ++i) t.data()[i] = static_cast<float>(i);
    return t;
}

/// An array of floats that counts how often its deleter is called.
template <class Managed>
struct foreign {
    float values[6] = {0, 1, 2, 3, 4, 5};
    std::int64_t shape[2] = {2, 3};
    std::int64_t strides[2] = {3, 1};
    int released = 0;
    Managed managed{};
    foreign() {
        managed.tensor = {values, {}, 2, dlpack::data_type_of<float>, shape, strides, 0};
        managed.context = this;
        managed.deleter = [](Managed* m) { ++static_cast<foreign*>(m->context)->released; };
    }
};

} // namespace

TEST_CASE("types have their codes") {
    using code = dlpack::type_code;
    CHECK(dlpack::data_type_of<float> == dlpack::data_type{code::floating, 32});
    CHECK(dlpack::data_type_of<ts::fp16> == dlpack::data_type{code::floating, 16});
    CHECK(dlpack::data_type_of<ts::bf16> == dlpack::data_type{code::bfloat, 16});
    CHECK(dlpack::data_type_of<std::int64_t> == dlpack::data_type{code::signed_integer, 64});
    CHECK(dlpack::data_type_of<std::uint8_t> == dlpack::data_type{code::unsigned_integer, 8});
    CHECK(dlpack::data_type_of<bool> == dlpack::data_type{code::boolean, 8});
    CHECK(dlpack::data_type_of<ts::e4m3fn> == dlpack::data_type{code::float8_e4m3fn, 8});
}

TEST_CASE_TEMPLATE("an export comes back as it went, and is released once", Managed, dlpack::managed_tensor,
                   dlpack::managed_tensor_versioned) {
    ts::matrix<float> t = count(3, 4);
    float const* const data = t.data();
    dlpack::imported const back{dlpack::exported<Managed>(std::move(t))};
    auto const v = back.template as_view<float, 2>();
    CHECK(v.data_handle() == data);
    CHECK(v.extent(0) == 3);
    CHECK(v(2, 3) == 11.0f);
    CHECK(!back.is_read_only());

    auto const owner = std::make_shared<ts::matrix<float>>(count(5, 7));
    {
        ts::matrix_view<float> const part = ts::transposed(ts::columns(owner->view(), 2, 5));
        dlpack::imported first{dlpack::exported<Managed>(part, owner)};
        CHECK(owner.use_count() == 2);
        dlpack::imported second{std::move(first)};
        first = std::move(second);
        auto const w = first.template as_view<float const, 2>();
        CHECK(w.extent(0) == 3);
        CHECK(w.stride(0) == 1);
        CHECK(w.stride(1) == 7);
        CHECK(w(1, 4) == part(1, 4));
    }
    CHECK(owner.use_count() == 1);
}

TEST_CASE("read-only stays read-only") {
    auto const owner = std::make_shared<ts::matrix<float>>(count(2, 2));
    ts::matrix_view<float const> const v = std::as_const(*owner).view();
    dlpack::imported const back{dlpack::exported(v, owner)};
    CHECK(back.is_read_only());
    CHECK(back.as_view<float const, 2>()(1, 1) == 3.0f);
    CHECK_THROWS_WITH_AS((back.as_view<float, 2>()), "tessera: dlpack: the array is read-only, wanted one to write",
                         ts::shape_error);
}

TEST_CASE_TEMPLATE("foreign arrays", Managed, dlpack::managed_tensor, dlpack::managed_tensor_versioned) {
    foreign<Managed> f;
    {
        dlpack::imported const a{&f.managed};
        CHECK(a.template as_view<float, 2>()(1, 2) == 5.0f);
        f.managed.tensor.strides = nullptr; // C order
        CHECK(a.template as_view<float, 2>()(1, 0) == 3.0f);
        f.managed.tensor.byte_offset = 8;
        f.shape[0] = 1;
        CHECK(a.template as_view<float const, 2>()(0, 2) == 4.0f);
        f.managed.tensor.byte_offset = 0;
        f.managed.tensor.data = f.values + 5;
        f.shape[0] = 2;
        f.managed.tensor.strides = f.strides;
        f.strides[0] = -3;
        f.strides[1] = -1;
        CHECK(a.template as_view<float const, 2>()(1, 2) == 0.0f);
        CHECK(f.released == 0);
    }
    CHECK(f.released == 1);
    f.managed.deleter = nullptr; // nothing to call
    dlpack::imported{&f.managed};
    CHECK_THROWS_AS(dlpack::imported{static_cast<Managed*>(nullptr)}, ts::shape_error);
}

TEST_CASE("foreign arrays that are refused") {
    foreign<dlpack::managed_tensor> f;
    dlpack::array& a = f.managed.tensor;
    auto const refused = [&](char const* what) {
        CHECK_THROWS_WITH_AS((dlpack::as_view<float, 2>(a)), doctest::Contains(what), ts::shape_error);
        a = {f.values, {}, 2, dlpack::data_type_of<float>, f.shape, f.strides, 0};
        f.shape[0] = 2, f.shape[1] = 3, f.strides[0] = 3, f.strides[1] = 1;
    };
    a.dtype.bits = 64, refused("type is (code 2, 64 bits, 1 lanes), expected (code 2, 32 bits, 1 lanes)");
    a.dtype.lanes = 4, refused("4 lanes");
    a.ndim = 3, refused("number of dimensions is 3, expected 2");
    a.ndim = -1, refused("number of dimensions is -1");
    a.shape = nullptr, refused("shape is null");
    a.data = nullptr, refused("data is null but has 6 elements");
    a.byte_offset = 2, refused("address of the data is not a multiple of 4");
    f.shape[1] = -1, refused("dimension 1 is -1");
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
    f.shape[0] = f.shape[1] = std::int64_t{1} << 40, refused("dimension 1 is 1099511627776");
    f.shape[0] = most, refused("dimension 0 is");
    f.strides[0] = most, refused("strides reach");
    f.strides[0] = std::numeric_limits<std::int64_t>::min(), refused("strides reach");
    f.shape[0] = std::int64_t{1} << 30, f.strides[0] = std::int64_t{1} << 40, refused("strides reach");
    a.device.type = dlpack::device_type::cuda;
    CHECK_THROWS_WITH_AS((dlpack::as_view<float, 2>(a)), doctest::Contains("device type is 2"), ts::unsupported_error);

    foreign<dlpack::managed_tensor_versioned> later;
    later.managed.version.major = 2;
    CHECK_THROWS_WITH_AS(dlpack::imported{&later.managed}, "tessera: dlpack: major version is 2, expected 1",
                         ts::unsupported_error);
    CHECK(later.released == 1);

    dlpack::imported taken{dlpack::exported(ts::matrix<float>{2, 3})};
    dlpack::imported const whole{std::move(taken)};
    CHECK(whole.as_view<float, 2>().extent(1) == 3);
    CHECK_THROWS_AS((taken.as_view<float, 2>()), ts::shape_error);
    CHECK_THROWS_AS(static_cast<void>(taken.array()), ts::shape_error);
}

TEST_CASE("no elements, no dimensions") {
    dlpack::imported const none{dlpack::exported(ts::matrix<double>{0, 5})};
    CHECK(none.as_view<double, 2>().extent(1) == 5);
    dlpack::imported const one{dlpack::exported(ts::tensor<std::int8_t, 0>{})};
    CHECK(one.array().ndim == 0);
}
