// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What `gguf::parse` returns: `gguf::file` with its metadata and tensor entries, and `gguf::array_view`. All are views
/// of bytes that the parser has checked; see gguf.hpp.

#include "gguf_format.hpp"

#include "../core/error.hpp"

#include <algorithm>
#include <array>
#include <concepts>
#include <cstring>
#include <iterator>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI::gguf {

namespace detail {

using tessera::detail::raise;

template <class T>
T load(std::byte const* p) noexcept {
    T value;
    std::memcpy(&value, p, sizeof(T));
    return value;
}

/// The stored type that a C++ type stands for.
template <class T>
constexpr value_type value_type_for() noexcept {
    if constexpr (std::same_as<T, bool>)
        return value_type::boolean;
    else if constexpr (std::same_as<T, std::string_view>)
        return value_type::string;
    else if constexpr (std::floating_point<T>)
        return sizeof(T) == 4 ? value_type::float32 : value_type::float64;
    else if constexpr (std::integral<T> && std::is_signed_v<T>)
        return sizeof(T) == 1   ? value_type::int8
               : sizeof(T) == 2 ? value_type::int16
               : sizeof(T) == 4 ? value_type::int32
                                : value_type::int64;
    else if constexpr (std::integral<T>)
        return sizeof(T) == 1   ? value_type::uint8
               : sizeof(T) == 2 ? value_type::uint16
               : sizeof(T) == 4 ? value_type::uint32
                                : value_type::uint64;
    else
        static_assert(tessera::detail::always_false<T>, "tessera: gguf: this type is no metadata type");
}

} // namespace detail

/// A metadata array in the file: elements of type T (a number, bool or std::string_view), at any alignment. Strings
/// have no random access: their positions follow from one another.
template <class T>
class array_view {
public:
    /// A forward iterator; elements are values.
    class iterator {
    public:
        using value_type = T;
        using difference_type = std::ptrdiff_t;
        using iterator_concept = std::forward_iterator_tag;

        iterator() noexcept = default;
        explicit iterator(std::byte const* at) noexcept : at_{at} {}

        T operator*() const noexcept {
            if constexpr (std::same_as<T, std::string_view>)
                return {reinterpret_cast<char const*>(at_ + 8), detail::load<std::uint64_t>(at_)};
            else if constexpr (std::same_as<T, bool>)
                return *at_ != std::byte{0};
            else
                return detail::load<T>(at_);
        }
        iterator& operator++() noexcept {
            if constexpr (std::same_as<T, std::string_view>)
                at_ += 8 + detail::load<std::uint64_t>(at_);
            else
                at_ += sizeof(T);
            return *this;
        }
        iterator operator++(int) noexcept {
            iterator const old = *this;
            ++*this;
            return old;
        }
        friend bool operator==(iterator, iterator) noexcept = default;

    private:
        std::byte const* at_ = nullptr;
    };

    array_view() noexcept = default;
    /// `bytes` are `size` elements; the reader has checked that.
    array_view(std::span<std::byte const> bytes, std::size_t size) noexcept : bytes_{bytes}, size_{size} {}

    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    iterator begin() const noexcept { return iterator{bytes_.data()}; }
    iterator end() const noexcept { return iterator{bytes_.data() + bytes_.size()}; }

    T operator[](std::size_t i) const noexcept
        requires(!std::same_as<T, std::string_view>)
    {
        return *iterator{bytes_.data() + i * sizeof(T)};
    }

private:
    std::span<std::byte const> bytes_{};
    std::size_t size_ = 0;
};

namespace detail {

template <class T>
struct array_element {
    static constexpr bool is_array = false;
};
template <class T>
struct array_element<array_view<T>> {
    static constexpr bool is_array = true;
    using type = T;
};

} // namespace detail

/// One key and its value.
struct metadata_entry {
    std::string_view key;
    value_type type{};
    value_type element_type{};          ///< of an array
    std::uint64_t size = 1;             ///< elements of an array
    std::uint64_t offset = 0;           ///< of the value in the file
    std::span<std::byte const> bytes{}; ///< the value; of a string or an array: without what precedes the elements
};

/// One tensor. GGUF lists the contiguous dimension first: a matrix (n, k) has dims {k, n}.
struct tensor_entry {
    std::string_view name;
    tensor_type type{};
    std::uint32_t rank = 0;
    std::array<index_t, max_dimensions> dims{1, 1, 1, 1};
    std::uint64_t offset = 0; ///< in the file
    std::span<std::byte const> bytes{};

    /// k, the contiguous dimension
    index_t cols() const noexcept { return dims[0]; }
    /// n, the product of the others
    index_t rows() const noexcept { return dims[1] * dims[2] * dims[3]; }
};

/// The contents of a GGUF file; a view of its bytes. Made by `parse`.
class file {
public:
    std::string const& name() const noexcept { return name_; }
    std::uint32_t version() const noexcept { return version_; }
    std::uint64_t alignment() const noexcept { return alignment_; }

    /// In the order of the file.
    std::span<metadata_entry const> metadata() const noexcept { return metadata_; }
    std::span<tensor_entry const> tensors() const noexcept { return tensors_; }

    /// Null where the file has no such key.
    metadata_entry const* find(std::string_view key) const noexcept { return search(metadata_, metadata_order_, key); }
    tensor_entry const* find_tensor(std::string_view name) const noexcept {
        return search(tensors_, tensor_order_, name);
    }

    bool contains(std::string_view key) const noexcept { return find(key) != nullptr; }

    /// The value of a key as a number, bool, std::string_view or array_view<element>. Integers convert where the value
    /// fits, floats to floats; nothing else converts.
    /// @throws format_error when the key is missing, holds something else, or the value does not fit.
    template <class T>
    T get(std::string_view key) const {
        metadata_entry const* const entry = find(key);
        if (entry == nullptr)
            detail::raise<format_error>("tessera: gguf: " + name_ + ": metadata " + detail::quoted_name(key) +
                                        " is missing");
        return convert<T>(*entry);
    }

    /// The same, and `fallback` where the key is missing.
    template <class T>
    T get_or(std::string_view key, std::type_identity_t<T> fallback) const {
        metadata_entry const* const entry = find(key);
        return entry == nullptr ? fallback : convert<T>(*entry);
    }

    /// @throws format_error when the file has no such tensor.
    tensor_entry const& tensor(std::string_view name) const {
        tensor_entry const* const entry = find_tensor(name);
        if (entry == nullptr)
            detail::raise<format_error>("tessera: gguf: " + name_ + ": tensor " + detail::quoted_name(name) +
                                        " is missing");
        return *entry;
    }

private:
    friend class parser;

    static std::string_view name_in(metadata_entry const& e) noexcept { return e.key; }
    static std::string_view name_in(tensor_entry const& e) noexcept { return e.name; }

    template <class Entry>
    static Entry const* search(std::vector<Entry> const& entries, std::vector<std::size_t> const& order,
                               std::string_view name) noexcept {
        auto const at = std::lower_bound(order.begin(), order.end(), name,
                                         [&](std::size_t i, std::string_view n) { return name_in(entries[i]) < n; });
        return at != order.end() && name_in(entries[*at]) == name ? &entries[*at] : nullptr;
    }

    [[noreturn]] void raise_value(metadata_entry const& e, std::string const& what) const {
        detail::raise<format_error>("tessera: gguf: " + name_ + ": metadata " + detail::quoted_name(e.key) + " at byte " +
                                    std::to_string(e.offset) + ": " + what);
    }

    template <class T>
    T convert(metadata_entry const& e) const {
        if constexpr (detail::array_element<T>::is_array) {
            constexpr value_type wanted = detail::value_type_for<typename detail::array_element<T>::type>();
            if (e.type != value_type::array || e.element_type != wanted)
                raise_value(e, std::string{"holds "} + describe(e) + ", wanted an array of " + name_of(wanted));
            return T{e.bytes, static_cast<std::size_t>(e.size)};
        } else {
            constexpr value_type wanted = detail::value_type_for<T>();
            if (e.type == wanted) return *typename array_view<T>::iterator{value_begin(e)};
            if constexpr (std::integral<T> && !std::same_as<T, bool>) {
                if (T result{}; integer(e, result)) return result;
            } else if constexpr (std::floating_point<T>) {
                if (e.type == value_type::float32) return static_cast<T>(detail::load<float>(e.bytes.data()));
                if (e.type == value_type::float64) return static_cast<T>(detail::load<double>(e.bytes.data()));
            }
            raise_value(e, std::string{"holds "} + describe(e) + ", wanted " + name_of(wanted));
        }
    }

    /// A string's bytes begin at its length for the iterator.
    static std::byte const* value_begin(metadata_entry const& e) noexcept {
        return e.type == value_type::string ? e.bytes.data() - 8 : e.bytes.data();
    }

    static std::string describe(metadata_entry const& e) {
        return e.type == value_type::array ? std::string{"an array of "} + name_of(e.element_type) : name_of(e.type);
    }

    /// False where the entry is no integer.
    template <class T>
    bool integer(metadata_entry const& e, T& out) const {
        auto const fit = [&](auto value) {
            if (!std::in_range<T>(value)) {
                constexpr value_type wanted = detail::value_type_for<T>();
                raise_value(e, "is " + std::to_string(value) + ", which " + name_of(wanted) + " cannot hold");
            }
            out = static_cast<T>(value);
            return true;
        };
        std::byte const* const p = e.bytes.data();
        switch (e.type) {
        case value_type::uint8: return fit(detail::load<std::uint8_t>(p));
        case value_type::int8: return fit(detail::load<std::int8_t>(p));
        case value_type::uint16: return fit(detail::load<std::uint16_t>(p));
        case value_type::int16: return fit(detail::load<std::int16_t>(p));
        case value_type::uint32: return fit(detail::load<std::uint32_t>(p));
        case value_type::int32: return fit(detail::load<std::int32_t>(p));
        case value_type::uint64: return fit(detail::load<std::uint64_t>(p));
        case value_type::int64: return fit(detail::load<std::int64_t>(p));
        default: return false;
        }
    }

    std::string name_;
    std::uint32_t version_ = 0;
    std::uint64_t alignment_ = default_alignment;
    std::vector<metadata_entry> metadata_;
    std::vector<tensor_entry> tensors_;
    std::vector<std::size_t> metadata_order_; ///< by key
    std::vector<std::size_t> tensor_order_;   ///< by name
};

} // namespace tessera::inline TESSERA_ABI::gguf
