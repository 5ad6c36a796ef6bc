// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the reader and the writer of GGUF files share: type codes, their names and sizes, limits.
///
/// A file is: magic "GGUF", version, tensor count, metadata count; the metadata (key, type, value); the tensor
/// descriptions (name, dimensions, type, offset); padding; the data. All little endian, strings are a 64-bit length and
/// that many bytes. Source: the GGUF specification; sizes of tensor types as in gguf-py (`GGML_QUANT_SIZES`), of q2_0 as in ggml.

#include "../core/types.hpp"
#include "../numerics/half.hpp"
#include "../storage/blocked.hpp"
#include "foreign.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera::inline TESSERA_ABI::gguf {

static_assert(std::endian::native == std::endian::little, "tessera: the GGUF reader needs a little-endian machine");

/// Of files: the first bytes, versions that are read, the tensors' alignment and the metadata key that changes it.
inline constexpr std::uint32_t magic = 0x46554747u; ///< "GGUF"
inline constexpr std::uint32_t oldest_version = 2;
inline constexpr std::uint32_t newest_version = 3;
inline constexpr std::uint64_t default_alignment = 32;
inline constexpr std::string_view alignment_key = "general.alignment";

/// Limits.
inline constexpr std::uint64_t max_name_bytes = 65535; ///< of a key or a tensor name
inline constexpr std::uint32_t max_dimensions = 4;
inline constexpr int max_array_depth = 4; ///< arrays in arrays
/// Of a tensor, also of an empty one without its zeros: sizes and strides in bytes, of blocks of 292 too, stay within index_t.
inline constexpr std::uint64_t max_elements = std::uint64_t{1} << 54;

/// Type of a metadata value, as stored.
enum class value_type : std::uint32_t {
    uint8,
    int8,
    uint16,
    int16,
    uint32,
    int32,
    float32,
    boolean,
    string,
    array,
    uint64,
    int64,
    float64
};

/// Number of metadata types.
inline constexpr std::uint32_t value_types = 13;

/// The name of a metadata type.
constexpr char const* name_of(value_type t) noexcept {
    constexpr char const* names[] = {"uint8",   "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
                                     "boolean", "string", "array",  "uint64", "int64",  "float64"};
    auto const i = static_cast<std::uint32_t>(t);
    return i < value_types ? names[i] : "unknown";
}

/// Bytes of a value of fixed size; 0 for string and array.
constexpr std::uint64_t size_of(value_type t) noexcept {
    constexpr std::uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    auto const i = static_cast<std::uint32_t>(t);
    return i < value_types ? sizes[i] : 0;
}

/// Type of a tensor's elements, as stored. The reader knows the size of all of these, so that a file can be listed;
/// tessera computes with the ones named here.
enum class tensor_type : std::uint32_t {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q4_1 = 3,
    q5_0 = 6,
    q5_1 = 7,
    q8_0 = 8,
    q2_k = 10,
    q3_k = 11,
    q4_k = 12,
    q5_k = 13,
    q6_k = 14,
    q8_k = 15,
    iq2_xxs = 16,
    iq2_xs = 17,
    iq3_xxs = 18,
    iq1_s = 19,
    iq4_nl = 20,
    iq3_s = 21,
    iq2_s = 22,
    iq4_xs = 23,
    iq1_m = 29,
    bf16 = 30,
    tq1_0 = 34,
    tq2_0 = 35,
    mxfp4 = 39,
    nvfp4 = 40,
    q1_0 = 41,
    q2_0 = 42
};

/// Name and size of a tensor type; `block_size` elements take `block_bytes` bytes.
struct tensor_type_info {
    char const* name = nullptr; ///< null: unknown
    std::uint16_t block_size = 0;
    std::uint16_t block_bytes = 0;
};

inline constexpr std::uint32_t tensor_types = 43; ///< codes below this may be known

/// What there is to know about a tensor type; nothing where the code is unknown.
constexpr tensor_type_info info_of(tensor_type t) noexcept {
    constexpr tensor_type_info table[tensor_types] = {
        {"f32", 1, 4},       {"f16", 1, 2},      {"q4_0", 32, 18},     {"q4_1", 32, 20},    {},
        {},                  {"q5_0", 32, 22},   {"q5_1", 32, 24},     {"q8_0", 32, 34},    {"q8_1", 32, 40},
        {"q2_k", 256, 84},   {"q3_k", 256, 110}, {"q4_k", 256, 144},   {"q5_k", 256, 176},  {"q6_k", 256, 210},
        {"q8_k", 256, 292},  {"iq2_xxs", 256, 66}, {"iq2_xs", 256, 74}, {"iq3_xxs", 256, 98}, {"iq1_s", 256, 50},
        {"iq4_nl", 32, 18},  {"iq3_s", 256, 110}, {"iq2_s", 256, 82},  {"iq4_xs", 256, 136}, {"i8", 1, 1},
        {"i16", 1, 2},       {"i32", 1, 4},      {"i64", 1, 8},        {"f64", 1, 8},       {"iq1_m", 256, 56},
        {"bf16", 1, 2},      {},                 {},                   {},                  {"tq1_0", 256, 54},
        {"tq2_0", 256, 66},  {},                 {},                   {},                  {"mxfp4", 32, 17},
        {"nvfp4", 64, 36},   {"q1_0", 128, 18},  {"q2_0", 64, 18},
    };
    auto const i = static_cast<std::uint32_t>(t);
    return i < tensor_types ? table[i] : tensor_type_info{};
}

/// The name of a tensor type, or "unknown".
constexpr char const* name_of(tensor_type t) noexcept {
    char const* const name = info_of(t).name;
    return name != nullptr ? name : "unknown";
}

namespace detail {

/// The stored type of a C++ element or block.
template <class T>
inline constexpr tensor_type type_for = [] {
    static_assert(tessera::detail::always_false<T>, "tessera: gguf: this element type has no GGUF tensor type");
    return tensor_type{};
}();
template <>
inline constexpr tensor_type type_for<float> = tensor_type::f32;
template <>
inline constexpr tensor_type type_for<fp16> = tensor_type::f16;
template <>
inline constexpr tensor_type type_for<bf16> = tensor_type::bf16;
/// A block format is found by its name.
template <block_format Format>
inline constexpr tensor_type type_for<Format> = [] {
    constexpr std::uint32_t code = [] {
        std::uint32_t i = 0;
        while (i < tensor_types && std::string_view{name_of(static_cast<tensor_type>(i))} != Format::name) ++i;
        return i;
    }();
    constexpr tensor_type_info info = info_of(static_cast<tensor_type>(code));
    static_assert(info.block_size == Format::block_size && info.block_bytes == sizeof(typename Format::block),
                  "tessera: gguf: no tensor type has the name and the size of this block format");
    return static_cast<tensor_type>(code);
}();

using tessera::detail::append_bytes;
using tessera::detail::quoted_name;
using tessera::detail::save_file;

} // namespace detail

} // namespace tessera::inline TESSERA_ABI::gguf
