// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Quantised layers of other libraries as `quantized_tensor<Scheme>`, code by code: what the readers of their layouts
/// (gptq.hpp, awq.hpp, bitsandbytes.hpp, onnxruntime.hpp) share. Nothing is rounded: a scheme that cannot hold the layer's
/// codes, scales or zero points is refused.

#include "../storage/quantized.hpp"
#include "array_entry.hpp"

#include <string>

namespace tessera::inline TESSERA_ABI::detail {

/// What begins the message of every reader, and throws it.
struct layer_failure {
    char const* layout; ///< "gptq"
    std::string name;   ///< of the layer

    [[noreturn]] TESSERA_COLD void operator()(std::string const& what) const {
        raise<format_error>(std::string{"tessera: "} + layout + ": layer " + quoted_name(name) + ": " + what);
    }
    void equal(char const* what, index_t is, index_t wanted, char const* why) const {
        if (is != wanted)
            (*this)(std::string{what} + " is " + std::to_string(is) + ", expected " + std::to_string(wanted) + " (" + why + ")");
    }
};

/// A contiguous array of float32, fp16 or bf16, read as float32; a view.
class float_array {
public:
    float_array() = default;
    float_array(array_entry const& a, char const* name, layer_failure const& fail)
        : type_{a.type}, data_{a.bytes.data()}, size_{a.size()} {
        if (type_ != element_type::f32 && type_ != element_type::f16 && type_ != element_type::bf16)
            fail(std::string{"type of "} + name + " is " + name_of(type_) + ", expected F32, F16 or BF16");
        if (a.bytes.size() != static_cast<std::size_t>(size_) * size_of(type_))
            fail(std::string{"bytes of "} + name + " is " + std::to_string(a.bytes.size()) + ", expected " +
                 std::to_string(static_cast<std::size_t>(size_) * size_of(type_)));
    }
    index_t size() const noexcept { return size_; }
    float operator()(index_t i) const noexcept {
        if (type_ == element_type::f32) return load<float>(i);
        return type_ == element_type::f16 ? load<fp16>(i) : load<bf16>(i);
    }

private:
    template <class T>
    float load(index_t i) const noexcept { // at any address
        T value;
        std::memcpy(&value, data_ + i * static_cast<index_t>(sizeof(T)), sizeof(T));
        return static_cast<float>(value);
    }
    element_type type_ = element_type::f32;
    std::byte const* data_ = nullptr;
    index_t size_ = 0;
};

/// Groups of columns in a row of k.
template <class Scheme>
constexpr index_t groups_of(index_t k) noexcept {
    return quantized<Scheme>::scale_columns(k);
}

/// Columns of a group; of one scale a row, k.
template <class Scheme>
constexpr index_t group_columns(index_t k) noexcept {
    return Scheme::granularity_type::columns == 0 ? k : Scheme::granularity_type::columns;
}

/// The (n, k) weights scale(n, g) * (value of code(n, k) - zero(n, g)), codes counted from 0. A symmetric integer scheme holds
/// them where every zero point is half of the codes; a table's codes have none (zero gives 0).
/// @throws format_error where the scheme cannot hold them; shape_error, std::bad_alloc for shapes beyond memory
template <class Scheme, class Code, class Scale, class Zero>
quantized_tensor<Scheme> relay(index_t n, index_t k, Code const& code, Scale const& scale, Zero const& zero,
                               layer_failure const& fail) {
    using format = typename Scheme::format;
    using scale_type = typename quantized<Scheme>::scale_type;
    static_assert(Scheme::granularity_type::rows == 1 && !Scheme::has_two_levels,
                  "tessera: foreign layers have a scale for a row or a group of its columns: per_channel or group<N>");
    constexpr bool is_signed = format::is_integer && !Scheme::is_affine;
    constexpr int half = is_signed ? 1 << (format::bits - 1) : 0;
    static_assert(!is_signed || format::decode(half) == -static_cast<float>(half),
                  "tessera: foreign layers need a scheme of unsigned integers that is affine, or a symmetric one of signed integers");
    constexpr int largest_zero = 255;

    quantized_tensor<Scheme> w{n, k};
    if (k == 0) return w; // n may be any number then
    index_t const groups = groups_of<Scheme>(k);
    index_t const row_bytes = bitpack::bytes(k, format::bits);
    for (index_t i = 0; i < n; ++i) {
        for (index_t j = 0; j < k; ++j)
            bitpack::set<format::bits>(w.codes() + i * row_bytes, j, code(i, j) ^ static_cast<std::uint32_t>(half));
        for (index_t g = 0; g < groups; ++g) {
            auto const where = [&] { return " of row " + std::to_string(i) + ", group " + std::to_string(g); };
            float const value = scale(i, g);
            scale_type const stored{value};
            if (static_cast<float>(stored) != value && value == value)
                fail("scale " + std::to_string(value) + where() + " is no number of the scheme's scale type");
            w.scales()[i * groups + g] = stored;
            int const z = zero(i, g);
            if constexpr (Scheme::is_affine) {
                if (z < 0 || z > largest_zero) fail("zero point " + std::to_string(z) + where() + " is not in 0 to 255");
                w.zero_points()[i * groups + g] = static_cast<std::uint8_t>(z);
            } else if (z != half) {
                fail("zero point " + std::to_string(z) + where() + " is not " + std::to_string(half) +
                     ", expected an affine scheme for this layer");
            }
        }
    }
    return w;
}

} // namespace tessera::inline TESSERA_ABI::detail
