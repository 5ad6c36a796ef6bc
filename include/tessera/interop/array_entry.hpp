// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Arrays in foreign bytes, as safetensors, npy and DLPack describe them: `element_type`, `array_entry`, and the checks
/// that make a view of one.

#include "../core/view.hpp"
#include "../numerics/fp8.hpp"
#include "../numerics/half.hpp"
#include "foreign.hpp"

#include <array>
#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

static_assert(std::endian::native == std::endian::little, "tessera: interop needs a little-endian machine");

/// Most dimensions of an array of a foreign file.
inline constexpr std::uint32_t max_array_rank = 8;
/// Most elements, also of an empty array without its zeros: sizes and strides in bytes stay far within index_t.
inline constexpr std::uint64_t max_array_elements = std::uint64_t{1} << 57;

/// Type of the elements of a foreign array; by width, in the order in which safetensors sorts tensors.
enum class element_type : std::uint8_t {
    boolean,
    u8,
    i8,
    f8_e5m2, ///< tessera::e5m2
    f8_e4m3, ///< tessera::e4m3fn
    f8_e8m0, ///< tessera::e8m0
    f8_e4m3fnuz,
    f8_e5m2fnuz,
    i16,
    u16,
    f16,
    bf16,
    i32,
    u32,
    f32,
    f64,
    i64,
    u64,
    other ///< one that tessera does not read: what holds it can be listed, its size is not known
};

/// Number of element types, without `other`.
inline constexpr std::size_t element_types = 18;

/// The names and the size of an element type.
struct element_info {
    char const* name; ///< as safetensors writes it
    char const* npy;  ///< as numpy writes it; null: numpy has no such type
    std::uint8_t bytes;
};

/// What there is to know about an element type.
constexpr element_info info_of(element_type t) noexcept {
    constexpr element_info table[element_types + 1] = {
        {"BOOL", "|b1", 1}, {"U8", "|u1", 1},  {"I8", "|i1", 1},    {"F8_E5M2", nullptr, 1}, {"F8_E4M3", nullptr, 1},
        {"F8_E8M0", nullptr, 1}, {"F8_E4M3FNUZ", nullptr, 1}, {"F8_E5M2FNUZ", nullptr, 1}, {"I16", "<i2", 2},  {"U16", "<u2", 2}, {"F16", "<f2", 2},   {"BF16", nullptr, 2},    {"I32", "<i4", 4},
        {"U32", "<u4", 4},  {"F32", "<f4", 4}, {"F64", "<f8", 8},   {"I64", "<i8", 8},       {"U64", "<u8", 8},
        {"another type", nullptr, 0}};
    return table[static_cast<std::size_t>(t)];
}
constexpr char const* name_of(element_type t) noexcept { return info_of(t).name; }
constexpr std::uint64_t size_of(element_type t) noexcept { return info_of(t).bytes; }

namespace detail {

template <class T>
constexpr element_type find_element_type() noexcept {
    using enum element_type;
    if constexpr (std::same_as<T, bool>)
        return boolean;
    else if constexpr (std::integral<T> && std::is_signed_v<T>)
        return sizeof(T) == 1 ? i8 : sizeof(T) == 2 ? i16 : sizeof(T) == 4 ? i32 : i64;
    else if constexpr (std::integral<T>)
        return sizeof(T) == 1 ? u8 : sizeof(T) == 2 ? u16 : sizeof(T) == 4 ? u32 : u64;
    else if constexpr (std::same_as<T, float>)
        return f32;
    else if constexpr (std::same_as<T, double>)
        return f64;
    else if constexpr (std::same_as<T, fp16>)
        return f16;
    else if constexpr (std::same_as<T, tessera::bf16>)
        return bf16;
    else if constexpr (std::same_as<T, e5m2>)
        return f8_e5m2;
    else if constexpr (std::same_as<T, e4m3fn>)
        return f8_e4m3;
    else if constexpr (std::same_as<T, e8m0>)
        return f8_e8m0;
    else if constexpr (std::same_as<T, e4m3fnuz>)
        return f8_e4m3fnuz;
    else if constexpr (std::same_as<T, e5m2fnuz>)
        return f8_e5m2fnuz;
    else
        static_assert(always_false<T>, "tessera: interop: foreign arrays have no such element type");
}

} // namespace detail

/// The element type that a C++ type stands for.
template <class T>
inline constexpr element_type element_type_of = detail::find_element_type<std::remove_cv_t<T>>();

/// The order in memory of the elements of a contiguous array.
enum class array_order {
    right, ///< C: the last dimension is contiguous
    left   ///< Fortran: the first is
};

/// A typed, contiguous array in foreign bytes.
struct array_entry {
    element_type type{};
    array_order order = array_order::right;
    std::uint32_t rank = 0;
    std::array<index_t, max_array_rank> dims{};
    std::span<std::byte const> bytes{};

    index_t size() const noexcept {
        index_t product = 1;
        for (std::uint32_t d = 0; d < rank; ++d) product *= dims[d];
        return product;
    }
};

namespace detail {

/// The number of elements of a shape, or a sentence about the dimension that is too large through `fail(d)`.
template <class Fail>
std::uint64_t count_elements(std::span<std::uint64_t const> dims, Fail const& fail) {
    std::uint64_t product = 1; // of the dimensions that are not 0: no partial product may overflow either
    bool is_empty = false;
    for (std::size_t d = 0; d < dims.size(); ++d) {
        is_empty = is_empty || dims[d] == 0;
        if (dims[d] > max_array_elements / product) fail(d);
        product *= dims[d] == 0 ? 1 : dims[d];
    }
    return is_empty ? 0 : product;
}

/// The elements after checks of type and address; `fail(what)` throws.
template <class T, class Fail>
T const* elements(array_entry const& a, Fail const& fail) {
    if (a.type != element_type_of<T>)
        fail(std::string{"holds "} + name_of(a.type) + ", wanted " + name_of(element_type_of<T>));
    if (!a.bytes.empty() && reinterpret_cast<std::uintptr_t>(a.bytes.data()) % alignof(T) != 0)
        fail("its address is not a multiple of " + std::to_string(alignof(T)));
    if constexpr (std::same_as<T, bool>)
        for (std::byte const b : a.bytes)
            if (b > std::byte{1}) fail("holds " + std::to_string(int(b)) + ", expected booleans 0 or 1");
    return reinterpret_cast<T const*>(a.bytes.data());
}

template <class T, std::size_t Rank, class Fail>
tensor_view<T const, Rank> array_view(array_entry const& a, Fail const& fail) {
    if (a.rank != Rank)
        fail("has " + std::to_string(a.rank) + " dimensions, wanted " + std::to_string(Rank));
    T const* const data = elements<T>(a, fail);
    return [&]<std::size_t... R>(std::index_sequence<R...>) {
        dynamic_extents<Rank> const e{a.dims[R]...};
        using mapping = typename tensor_view<T const, Rank>::mapping_type;
        return tensor_view<T const, Rank>{data, a.order == array_order::right
                                                    ? mapping{layout_right::mapping<dynamic_extents<Rank>>{e}}
                                                    : mapping{layout_left::mapping<dynamic_extents<Rank>>{e}}};
    }(std::make_index_sequence<Rank>{});
}

/// A C array as a matrix of its innermost dimension; rank 0 and 1 have one row.
template <class T, class Fail>
matrix_view<T const> array_matrix(array_entry const& a, Fail const& fail) {
    index_t rows = 1;
    for (std::uint32_t d = 0; d + 1 < a.rank; ++d) rows *= a.dims[d];
    return matrix_view<T const>{elements<T>(a, fail), rows, a.rank == 0 ? 1 : a.dims[a.rank - 1]};
}

/// True where the elements follow each other in C order.
template <class View>
bool is_contiguous(View const& v) noexcept {
    index_t expected = 1;
    for (std::size_t r = View::rank(); r-- > 0;) {
        if (v.extent(r) > 1 && v.stride(r) != expected) return v.empty();
        expected *= v.extent(r);
    }
    return true;
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
