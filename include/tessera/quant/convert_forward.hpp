// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// convert, for the kernels of every backend; `convert.hpp` has those of processors, `convert.cuh` those of CUDA devices.

#include "../core/device_view.hpp"
#include "../core/exec.hpp"
#include "../core/overlap.hpp"
#include "../kernels/ref/convert.hpp"

#include <concepts>
#include <type_traits>
#include <utility>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A vector (as one row) or matrix view of any layout, or an owner with view(), as a run-time strided matrix, where a policy computes.
template <class Exec, class V>
constexpr auto as_rows(V&& v) noexcept {
    using plain = std::remove_cvref_t<V>;
    if constexpr (is_device_view<plain>) {
        static_assert(is_cuda<Exec>, "tessera: cuda<Sm> takes views of device memory (device_matrix_view), every other policy the host's");
        return as_rows<void>(kernel_view(v));
    } else if constexpr (is_view<plain>) {
        static_assert(!is_cuda<Exec>, "tessera: cuda<Sm> takes views of device memory (device_matrix_view), every other policy the host's");
        using element = typename plain::element_type;
        static_assert(plain::rank() == 1 || plain::rank() == 2, "tessera: convert: arrays have one or two dimensions");
        static_assert(
            storable_element<std::remove_const_t<element>>,
            "tessera: convert: elements must be float, fp16, bf16, std::int8_t, std::uint8_t or a format's value");
        if constexpr (plain::rank() == 2) {
            return matrix_view<element>{v};
        } else {
            index_t const strides[] = {v.extent(0), v.stride(0)};
            return matrix_view<element>{v.data_handle(), {dynamic_extents<2>{index_t{1}, v.extent(0)}, strides}};
        }
    } else {
        return as_rows<Exec>(std::forward<V>(v).view());
    }
}

template <overflow Beyond, class Exec, class X, class Y>
void convert_checked(Exec const& exec, matrix_view<X const> const& x, matrix_view<Y> const& y) {
    check::equal("convert", "rows of y", y.extent(0), x.extent(0), "rows of x");
    check::equal("convert", "columns of y", y.extent(1), x.extent(1), "columns of x");
    check::elements("convert", "x", x);
    check::elements("convert", "y", y);
    for (std::size_t r = 0; r < 2; ++r)
        if (!y.empty() && y.extent(r) > 1 && y.stride(r) == 0)
            raise_unequal("convert", r == 0 ? "distance of the rows of y" : "distance of the columns of y", 0, 1,
                          "or more: elements of an output are apart");
    check::no_overlap("convert", "x", footprint_of(x), "y", footprint_of(y));
    kernel<op::convert, Exec, conversion<X, Y, Beyond>>::run(exec, x, y);
}

} // namespace detail

/// y = x in y's elements; values above y's largest become `Beyond`.
template <overflow Beyond, execution_policy Exec, class X, class Y>
void convert(Exec const& exec,
             X const& x, // (n) or (m, n)
             Y&& y) {    // (n) or (m, n)
    detail::require_backend<Exec>();
    auto const from = detail::as_rows<Exec>(x);
    auto const to = detail::as_rows<Exec>(std::forward<Y>(y));
    static_assert(!std::is_const_v<typename decltype(to)::element_type>, "tessera: convert: the output is read-only");
    detail::convert_checked<Beyond>(exec, matrix_view<typename decltype(from)::value_type const>{from}, to);
}

/// y = x in y's elements.
template <execution_policy Exec, class X, class Y>
void convert(Exec const& exec,
             X const& x, // (n) or (m, n)
             Y&& y) {    // (n) or (m, n)
    using element = std::remove_const_t<typename decltype(detail::as_rows<Exec>(y))::element_type>;
    convert<default_overflow<format_of_t<element>>>(exec, x, std::forward<Y>(y));
}

} // namespace tessera::inline TESSERA_ABI
