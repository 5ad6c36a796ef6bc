// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Whether an input and an output share memory (contract 3). A view's `footprint` is a row of equal intervals, so that two
/// blocks of columns of one matrix, whose addresses interleave, are seen to be apart. The answer is exact for contiguous
/// rows that lie equally far apart (or where one of the two is a single interval); otherwise it is yes wherever the
/// addresses between first and last element meet.

#include "byte_count.hpp"
#include "error.hpp"
#include "view.hpp"

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// Where elements lie: `count` intervals of `width` bytes, `step` bytes apart.
struct footprint {
    std::uintptr_t first = 0;
    index_t count = 0;
    index_t step = 0; ///< positive where there are several intervals
    index_t width = 0;

    constexpr bool empty() const noexcept { return count == 0 || width == 0; }
    /// Bytes from the first to past the last element.
    constexpr index_t bytes() const noexcept { return empty() ? 0 : (count - 1) * step + width; }
};

/// `bytes` bytes from `data` on.
inline footprint footprint_of(void const* data, index_t bytes) noexcept {
    return {reinterpret_cast<std::uintptr_t>(data), bytes > 0 ? 1 : 0, 0, bytes > 0 ? bytes : 0};
}

/// The elements of a view, strides of either sign; an interval holds what the dimension of largest stride steps over.
template <class T, class E, class L, class A>
footprint footprint_of(view<T, E, L, A> const& v) noexcept {
    if (v.empty()) return {};
    auto const size_of = [](index_t elements) { return elements * static_cast<index_t>(sizeof(T)); };
    auto const magnitude = [](index_t stride) { return stride < 0 ? -stride : stride; };
    std::size_t outer = E::rank();
    for (std::size_t r = 0; r < E::rank(); ++r)
        if (v.extent(r) > 1 && v.stride(r) != 0 && (outer == E::rank() || magnitude(v.stride(r)) > magnitude(v.stride(outer))))
            outer = r;
    footprint result{reinterpret_cast<std::uintptr_t>(v.data_handle()), 1, 0, size_of(1)};
    for (std::size_t r = 0; r < E::rank(); ++r) {
        index_t const reach = size_of(magnitude(v.stride(r)) * (v.extent(r) - 1));
        if (v.stride(r) < 0) result.first -= static_cast<std::uintptr_t>(reach);
        if (r != outer) result.width += reach;
    }
    if (outer == E::rank()) return result;
    result.step = size_of(magnitude(v.stride(outer)));
    // Rows without gaps between them are one interval.
    if (result.step == result.width)
        result.width *= v.extent(outer);
    else
        result.count = v.extent(outer);
    return result;
}

/// Whether two footprints share a byte; see the file comment.
constexpr bool overlap(footprint const& a, footprint const& b) noexcept {
    if (a.empty() || b.empty()) return false;
    // Addresses of objects lie less than half the address space apart.
    auto const distance = static_cast<index_t>(b.first - a.first);
    if (distance >= a.bytes() || -distance >= b.bytes()) return false;
    if (a.count > 1 && b.count > 1 && a.step != b.step) return true;
    index_t const step = maximum(a.count > 1 ? a.step : b.step, 1);
    // Interval i of a and j of b meet where -b.width < distance + (j - i) step < a.width: look at the smallest such j - i.
    index_t const above = -b.width - distance;
    index_t const quotient = above / step - (above % step < 0 ? 1 : 0);
    index_t const smallest = maximum(quotient + 1, 1 - a.count);
    return smallest <= b.count - 1 && distance + smallest * step < a.width;
}

/// Whether two views are the same elements: type, place and, where they matter, strides; of equal shape.
template <class T, class EA, class LA, class U, class EB, class LB>
    requires(EA::rank() == EB::rank())
constexpr bool is_same_array(view<T, EA, LA> const& a, view<U, EB, LB> const& b) noexcept {
    if constexpr (std::is_same_v<std::remove_const_t<T>, std::remove_const_t<U>>) {
        for (std::size_t r = 0; r < EA::rank(); ++r)
            if (a.extent(r) != b.extent(r) || (a.extent(r) > 1 && a.stride(r) != b.stride(r))) return false;
        return a.data_handle() == b.data_handle();
    } else {
        return false;
    }
}

namespace detail {

[[noreturn]] TESSERA_COLD inline void raise_too_many_elements(char const* operation, char const* argument,
                                                             index_t const* extents, std::size_t rank, index_t size) {
    std::string shape;
    for (std::size_t r = 0; r < rank; ++r) shape += (r == 0 ? "" : " x ") + std::to_string(extents[r]);
    raise<shape_error>("tessera: " + std::string{operation} + ": " + argument + " has " + shape + " elements of " +
                       std::to_string(size) + " bytes, expected at most " + std::to_string(too_many_bytes) + " bytes");
}

} // namespace detail

namespace check {

/// The bytes of a view's elements are an index, and its pointer is null only where it has none.
template <class T, class E, class L, class A>
void elements(char const* operation, char const* argument, view<T, E, L, A> const& v) {
    constexpr auto size = static_cast<index_t>(sizeof(T));
    index_t extents[E::rank() + 1];
    index_t bytes = size;
    for (std::size_t r = 0; r < E::rank(); ++r) bytes = detail::saturated_product(bytes, extents[r] = v.extent(r));
    if (bytes > detail::too_many_bytes) detail::raise_too_many_elements(operation, argument, extents, E::rank(), size);
    not_null(operation, argument, v.data_handle(), bytes / size);
}

/// An input and an output must not share memory.
inline void no_overlap(char const* operation, char const* input, footprint const& a, char const* output,
                       footprint const& b) {
    if (overlap(a, b)) detail::raise_overlap(operation, input, a.bytes(), output, b.bytes());
}

/// No two elements of an output matrix (m, n) are one: rows lie apart, or columns do.
template <class T, class E, class L, class A>
void distinct_elements(char const* operation, char const* output, view<T, E, L, A> const& y) {
    if (y.size() <= 1) return;
    auto const step = [&](std::size_t r) { return y.stride(r) < 0 ? -y.stride(r) : y.stride(r); };
    auto const reach = [&](std::size_t r) { return step(r) * (y.extent(r) - 1); };
    if (y.extent(1) == 1 ? step(0) > 0 : y.extent(0) == 1 ? step(1) > 0 : (step(1) > 0 && step(0) > reach(1)) || (step(0) > 0 && step(1) > reach(0)))
        return;
    detail::raise<shape_error>("tessera: " + std::string{operation} + ": rows of " + output + " are " +
                               std::to_string(y.stride(0)) + " elements apart and its columns " + std::to_string(y.stride(1)) +
                               ", expected no element twice in " + std::to_string(y.extent(0)) + " x " +
                               std::to_string(y.extent(1)));
}

} // namespace check

} // namespace tessera::inline TESSERA_ABI
