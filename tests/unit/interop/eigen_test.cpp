// SPDX-License-Identifier: MIT
// Eigen in and out: the same memory, whatever the strides.

#include <doctest/doctest.h>

#if __has_include(<Eigen/Core>)

#include <tessera/core/slice.hpp>
#include <tessera/interop/eigen.hpp>

#include <type_traits>

namespace ts = tessera;

namespace {

/// Every element of `v` is the element of `m` at its place.
template <class View, class Matrix>
bool same_elements(View const& v, Matrix const& m) {
    if (v.extent(0) != m.rows() || v.extent(1) != m.cols()) return false;
    for (ts::index_t i = 0; i < m.rows(); ++i)
        for (ts::index_t j = 0; j < m.cols(); ++j)
            if (&v(i, j) != &m.coeffRef(i, j)) return false;
    return true;
}

template <class T>
concept can_view = requires(T&& t) { ts::eigen::view_of(std::forward<T>(t)); };
template <class T>
concept can_map = requires(T&& t) { ts::eigen::map(std::forward<T>(t)); };

} // namespace

// What owns its elements must outlive the view.
static_assert(can_view<Eigen::MatrixXf&> && can_view<Eigen::MatrixXf const&> && !can_view<Eigen::MatrixXf>);
static_assert(can_view<Eigen::Block<Eigen::MatrixXf>> && can_view<Eigen::Map<Eigen::MatrixXf>>);
static_assert(!can_view<decltype(std::declval<Eigen::MatrixXf&>() + std::declval<Eigen::MatrixXf&>())>);
static_assert(can_map<ts::matrix<float>&> && !can_map<ts::matrix<float>>);
static_assert(std::is_same_v<decltype(ts::eigen::view_of(std::declval<Eigen::MatrixXf const&>())), ts::matrix_view<float const>>);

TEST_CASE("Eigen's matrices as views") {
    Eigen::MatrixXf columns(5, 7);
    Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> rows(5, 7);
    Eigen::Matrix<int, 3, 4> fixed;
    Eigen::VectorXf vector(9);
    Eigen::RowVectorXf row(9);
    CHECK(same_elements(ts::eigen::view_of(columns), columns));
    CHECK(ts::eigen::view_of(columns).stride(0) == 1);
    CHECK(ts::eigen::view_of(columns).stride(1) == 5);
    CHECK(same_elements(ts::eigen::view_of(rows), rows));
    CHECK(ts::eigen::view_of(rows).stride(0) == 7);
    CHECK(same_elements(ts::eigen::view_of(fixed), fixed));
    CHECK(same_elements(ts::eigen::view_of(vector), vector));
    CHECK(same_elements(ts::eigen::view_of(row), row));
    auto block = columns.block(1, 2, 3, 4);
    CHECK(same_elements(ts::eigen::view_of(block), block));
    CHECK(ts::eigen::view_of(columns.block(1, 2, 3, 4)).data_handle() == &columns(1, 2));
    auto turned = rows.transpose();
    CHECK(ts::eigen::view_of(turned).stride(0) == 1);
    CHECK(&ts::eigen::view_of(turned)(6, 4) == &rows(4, 6));
    Eigen::Ref<Eigen::MatrixXf> const reference = columns.leftCols(2);
    CHECK(ts::eigen::view_of(reference).extent(1) == 2);
    Eigen::MatrixXf none(0, 4);
    CHECK(ts::eigen::view_of(none).extent(1) == 4);
    ts::eigen::view_of(columns)(4, 6) = 2.5f;
    CHECK(columns(4, 6) == 2.5f);
}

TEST_CASE("views as Eigen's maps") {
    ts::matrix<float> t{6, 10};
    for (ts::index_t i = 0; i < t.size(); ++i) t.data()[i] = static_cast<float>(i);
    auto const v = t.view();
    auto const check = [](auto const& w) {
        auto m = ts::eigen::map(w);
        CHECK(same_elements(w, m));
    };
    check(v);
    check(ts::transposed(v));
    check(ts::columns(v, 3, 8));
    check(ts::transposed(ts::columns(ts::rows(v, 1, 4), 3, 8)));
    check(ts::columns(v, 3, 3));
    ts::eigen::map(t) *= 2.0f;
    CHECK(t(5, 9) == 118.0f);
    CHECK(ts::eigen::map(std::as_const(t)).sum() == 2.0f * 59.0f * 30.0f);
    static_assert(std::is_same_v<decltype(ts::eigen::map(std::as_const(t))), ts::eigen::matrix_map<float const>>);

    ts::vector_view<float> const column{t.data(), {ts::dynamic_extents<1>{6}, std::array<ts::index_t, 1>{10}.data()}};
    auto mapped = ts::eigen::map(column);
    CHECK(&mapped.coeffRef(5) == &t(5, 0));
    mapped.setZero();
    CHECK(t(5, 0) == 0.0f);

    ts::index_t const back[] = {-10, 1};
    CHECK_THROWS_WITH_AS(ts::eigen::map(ts::matrix_view<float>{&t(5, 0), {ts::dynamic_extents<2>{6, 10}, back}}),
                         "tessera: eigen: stride of the rows is -10, expected 0 or more", ts::shape_error);
    // There and back is the same view.
    auto round = ts::eigen::map(ts::transposed(v));
    auto const again = ts::eigen::view_of(round);
    CHECK(again.data_handle() == v.data_handle());
    CHECK(again.stride(0) == 1);
    CHECK(again.stride(1) == 10);
}

#endif
