// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Eigen's matrices as views and views as Eigen's maps, without copies. Link `tessera::eigen`.
///
///     Eigen::MatrixXf m(n, k);                                    // column-major: strides (1, n)
///     auto const q = ts::quantize<ts::int4_g32>(ts::eigen::view_of(m));
///     ts::eigen::map(y) += m * x;                                 // y: a matrix_view<float>
///
/// Elements are arithmetic types. A view or a map refers to what it was made of: a matrix that would not outlive it is
/// refused at compile time.

#include "../core/error.hpp"
#include "../core/view.hpp"
#include "../storage/tensor.hpp"

#include <Eigen/Core>

#include <string>
#include <type_traits>

namespace tessera::inline TESSERA_ABI::eigen {

namespace detail {

template <class T>
using matrix_of = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using vector_of = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, 1>;
template <class T, class Plain>
using as_const = std::conditional_t<std::is_const_v<T>, Plain const, Plain>;

/// Eigen's strides are not negative.
inline void check_stride(index_t extent, index_t stride, char const* what) {
    if (extent > 1 && stride < 0)
        tessera::detail::raise<shape_error>(std::string{"tessera: eigen: "} + what + " is " + std::to_string(stride) +
                                            ", expected 0 or more");
}

template <class D>
inline constexpr bool is_owner = std::is_base_of_v<Eigen::PlainObjectBase<D>, D>;

template <class D>
inline constexpr bool is_readable = (D::Flags & Eigen::DirectAccessBit) != 0;

} // namespace detail

/// A matrix view of any strides as an Eigen map.
template <class T>
using matrix_map = Eigen::Map<detail::as_const<T, detail::matrix_of<T>>, Eigen::Unaligned,
                              Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
/// A vector view of any stride as a column vector.
template <class T>
using vector_map =
    Eigen::Map<detail::as_const<T, detail::vector_of<T>>, Eigen::Unaligned, Eigen::InnerStride<Eigen::Dynamic>>;

/// A view or an owning tensor as an Eigen map of its elements.
/// @throws shape_error where a stride is negative
template <class T, class E, class L>
    requires(E::rank() == 2)
matrix_map<T> map(view<T, E, L, default_accessor<T>> const& v) {
    detail::check_stride(v.extent(0), v.stride(0), "stride of the rows");
    detail::check_stride(v.extent(1), v.stride(1), "stride of the columns");
    // The stride of an extent of 1 means nothing and may be anything.
    auto const stride = [&](std::size_t r) { return static_cast<Eigen::Index>(v.extent(r) > 1 ? v.stride(r) : 1); };
    return matrix_map<T>{v.data_handle(), static_cast<Eigen::Index>(v.extent(0)), static_cast<Eigen::Index>(v.extent(1)),
                         {stride(0), stride(1)}};
}
template <class T, class E, class L>
    requires(E::rank() == 1)
vector_map<T> map(view<T, E, L, default_accessor<T>> const& v) {
    detail::check_stride(v.extent(0), v.stride(0), "stride");
    return vector_map<T>{v.data_handle(), static_cast<Eigen::Index>(v.extent(0)),
                         Eigen::InnerStride<Eigen::Dynamic>{static_cast<Eigen::Index>(v.extent(0) > 1 ? v.stride(0) : 1)}};
}
template <class T, std::size_t Rank>
auto map(tensor<T, Rank>& t) {
    return map(t.view());
}
template <class T, std::size_t Rank>
auto map(tensor<T, Rank> const& t) {
    return map(t.view());
}
template <class T, std::size_t Rank>
void map(tensor<T, Rank> const&&) = delete;

/// A matrix, vector, block, map or Ref of Eigen's that has memory, as a matrix view (rows, columns); a const one gives a
/// view of const elements.
template <class D>
    requires detail::is_readable<D>
auto view_of(D& m) noexcept {
    using T = std::remove_pointer_t<decltype(m.data())>;
    index_t const strides[] = {static_cast<index_t>(m.rowStride()), static_cast<index_t>(m.colStride())};
    return matrix_view<T>{m.data(), {dynamic_extents<2>{m.rows(), m.cols()}, strides}};
}
/// Blocks, maps and references are views themselves; what owns its elements must be an lvalue.
template <class D>
    requires(!std::is_lvalue_reference_v<D> && detail::is_readable<std::remove_cv_t<D>> && !detail::is_owner<std::remove_cv_t<D>>)
auto view_of(D&& m) noexcept {
    return view_of(m);
}
template <class D>
    requires(!std::is_lvalue_reference_v<D> && detail::is_owner<std::remove_cv_t<D>>)
void view_of(D&&) = delete;

} // namespace tessera::inline TESSERA_ABI::eigen
