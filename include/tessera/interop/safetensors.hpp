// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A bounded, zero-copy reader of safetensors files, over bytes that the caller owns (see mapped_file).
///
///     auto const bytes = ts::mapped_file{path};
///     auto const model = ts::safetensors::parse(bytes.bytes(), path);
///     auto const w     = ts::safetensors::as_dense<ts::bf16>(model.tensor("model.embed_tokens.weight")); // (n, k)
///
/// A file is: the size of the header in 64 bits; the header, a JSON object of {"dtype", "shape", "data_offsets"} by tensor
/// name, and "__metadata__", strings by string; the data. `parse` accepts what the reference implementation accepts (the
/// Rust crate of that name): tensors fill the data without gaps or overlap and each has the size of its shape. It is
/// stricter where the format is silent: names differ, fields are these three, at most 8 dimensions. A tensor of a type that
/// tessera does not read (complex or 4-bit numbers, what later versions add) is listed, its size unchecked, and refused when it
/// is asked for. What is wrong is reported as one format_error that names the file, the field and its byte offset; memory is a
/// small multiple of the header's bytes.

#include "array_entry.hpp"
#include "json.hpp"

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI::safetensors {

/// The reference implementation's limit.
inline constexpr std::uint64_t max_header_bytes = 100'000'000;
/// The entry of the header that is not a tensor.
inline constexpr std::string_view metadata_key = "__metadata__";

/// One tensor, its last dimension contiguous.
struct tensor_entry : array_entry {
    std::string name;
    std::string dtype; ///< as the file calls its type
    std::uint64_t offset = 0; ///< in the file
};

/// A line of the metadata.
struct metadata_entry {
    std::string key;
    std::string value;
};

/// The contents of a file; tensors are views of its bytes. Made by `parse`.
class file {
public:
    std::string const& name() const noexcept { return name_; }

    std::span<metadata_entry const> metadata() const noexcept { return metadata_; }
    /// In the order of their data.
    std::span<tensor_entry const> tensors() const noexcept { return tensors_; }

    /// Null where the file has no such tensor.
    tensor_entry const* find_tensor(std::string_view name) const noexcept {
        auto const at = std::lower_bound(order_.begin(), order_.end(), name, [&](std::size_t i, std::string_view n) {
            return std::string_view{tensors_[i].name} < n;
        });
        return at != order_.end() && tensors_[*at].name == name ? &tensors_[*at] : nullptr;
    }

    /// @throws format_error when the file has no such tensor.
    tensor_entry const& tensor(std::string_view name) const {
        tensor_entry const* const entry = find_tensor(name);
        if (entry == nullptr)
            tessera::detail::raise<format_error>("tessera: safetensors: " + name_ + ": tensor " +
                                                 tessera::detail::quoted_name(name) + " is missing");
        return *entry;
    }

private:
    friend class parser;

    std::string name_;
    std::vector<metadata_entry> metadata_;
    std::vector<tensor_entry> tensors_;
    std::vector<std::size_t> order_; ///< by name
};

/// Does the work of `parse`; one object parses one file.
class parser {
public:
    parser(std::span<std::byte const> bytes, std::string_view file_name)
        : bytes_{bytes}, where_{"tessera: safetensors: " + std::string{file_name} + ": "} {
        result_.name_ = file_name;
    }

    file run() {
        std::string_view const text = header();
        data_ = bytes_.subspan(8 + text.size());
        json::reader in{text, where_, 8};
        in.expecting("header");
        in.object([&](std::string const& key) {
            if (key == metadata_key)
                metadata(in);
            else
                tensor(in, key);
            in.expecting("header");
        });
        in.end();
        place();
        return std::move(result_);
    }

private:
    [[noreturn]] void fail(char const* field, std::uint64_t offset, std::string const& what) const {
        tessera::detail::raise<format_error>(where_ + field + " at byte " + std::to_string(offset) + ": " + what);
    }

    std::string_view header() const {
        if (bytes_.size() < 8) fail("header size", 0, "8 bytes do not fit into " + std::to_string(bytes_.size()));
        std::uint64_t size = 0;
        std::memcpy(&size, bytes_.data(), 8);
        if (size > max_header_bytes)
            fail("header size", 0, "is " + std::to_string(size) + ", expected at most " + std::to_string(max_header_bytes));
        if (size > bytes_.size() - 8)
            fail("header size", 0,
                 std::to_string(size) + " bytes do not fit into the remaining " + std::to_string(bytes_.size() - 8));
        std::string_view const text{reinterpret_cast<char const*>(bytes_.data()) + 8, static_cast<std::size_t>(size)};
        if (!text.starts_with('{')) fail("header", 8, "does not begin with '{'");
        return text;
    }

    void metadata(json::reader& in) {
        in.expecting("metadata");
        in.object([&](std::string const& key) { result_.metadata_.push_back({key, in.string()}); });
    }

    void tensor(json::reader& in, std::string const& name) {
        tensor_entry t;
        t.name = name;
        bool has_type = false, has_shape = false, has_offsets = false;
        std::uint64_t elements = 0, begin = 0, end = 0;
        in.expecting("entry", "tensor", name);
        auto const at = in.offset();
        in.object([&](std::string const& key) {
            if (key == "dtype") {
                has_type = true;
                in.expecting("dtype", "tensor", name);
                t.dtype = in.string();
                t.type = type_of(t.dtype);
            } else if (key == "shape") {
                has_shape = true;
                in.expecting("shape", "tensor", name);
                elements = shape(in, t);
            } else if (key == "data_offsets") {
                has_offsets = true;
                in.expecting("data_offsets", "tensor", name);
                offsets(in, begin, end);
            } else {
                in.fail(in.offset(), "has the unknown field " + tessera::detail::quoted_name(key));
            }
            in.expecting("entry", "tensor", name);
        });
        if (!has_type || !has_shape || !has_offsets)
            in.fail(at, std::string{"has no "} + (!has_type ? "dtype" : !has_shape ? "shape" : "data_offsets"));
        if (t.type != element_type::other && elements * size_of(t.type) != end - begin)
            in.fail(at, "has " + std::to_string(end - begin) + " bytes, expected " +
                            std::to_string(elements * size_of(t.type)) + " (" + std::to_string(elements) + " elements of " +
                            name_of(t.type) + ")");
        t.offset = begin; // in the data, until place()
        t.bytes = data_.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
        result_.tensors_.push_back(std::move(t));
    }

    static element_type type_of(std::string_view dtype) noexcept {
        for (std::size_t i = 0; i < element_types; ++i)
            if (dtype == name_of(static_cast<element_type>(i))) return static_cast<element_type>(i);
        return element_type::other;
    }

    /// Returns the number of elements.
    static std::uint64_t shape(json::reader& in, tensor_entry& t) {
        auto const at = in.offset();
        std::array<std::uint64_t, max_array_rank> dims{};
        in.array([&] {
            if (t.rank == max_array_rank) in.fail(at, "has more than 8 dimensions");
            dims[t.rank++] = in.unsigned_integer();
        });
        auto const elements = tessera::detail::count_elements(std::span{dims}.first(t.rank), [&](std::size_t d) {
            in.fail(at, "dimension " + std::to_string(d) + " is " + std::to_string(dims[d]) + ": too many elements");
        });
        for (std::uint32_t d = 0; d < t.rank; ++d) t.dims[d] = static_cast<index_t>(dims[d]);
        return elements;
    }

    void offsets(json::reader& in, std::uint64_t& begin, std::uint64_t& end) const {
        auto const at = in.offset();
        std::size_t count = 0;
        in.array([&] {
            if (count > 1) in.fail(at, "has more than 2 numbers");
            (count++ == 0 ? begin : end) = in.unsigned_integer();
        });
        if (count != 2) in.fail(at, "has " + std::to_string(count) + " numbers, expected 2");
        if (begin > end || end > data_.size())
            in.fail(at, "[" + std::to_string(begin) + ", " + std::to_string(end) + "] does not fit into the data's " +
                            std::to_string(data_.size()) + " bytes");
    }

    /// Tensors follow each other and fill the data; then offsets are in the file.
    void place() {
        auto& tensors = result_.tensors_;
        std::sort(tensors.begin(), tensors.end(), [](tensor_entry const& a, tensor_entry const& b) {
            if (a.offset != b.offset) return a.offset < b.offset;
            return a.bytes.size() != b.bytes.size() ? a.bytes.size() < b.bytes.size() : a.name < b.name;
        });
        std::uint64_t const first = bytes_.size() - data_.size();
        std::uint64_t at = 0;
        for (tensor_entry& t : tensors) {
            if (t.offset != at) {
                std::string const field = "tensor " + tessera::detail::quoted_name(t.name) + " data";
                fail(field.c_str(), first + t.offset,
                     (t.offset < at ? "overlaps the tensor before, which ends at byte "
                                    : "leaves a gap after the tensor before, which ends at byte ") +
                         std::to_string(first + at));
            }
            at += t.bytes.size();
            t.offset += first;
        }
        if (at != data_.size())
            fail("data", first + at, std::to_string(data_.size() - at) + " bytes belong to no tensor");
        auto& order = result_.order_;
        order.resize(tensors.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
        std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return tensors[a].name < tensors[b].name; });
    }

    std::span<std::byte const> bytes_;
    std::span<std::byte const> data_;
    std::string where_;
    file result_;
};

/// Checks and indexes a safetensors file. The bytes must outlive the result; `file_name` is for error messages.
/// @throws format_error naming file, field and byte offset.
inline file parse(std::span<std::byte const> bytes, std::string_view file_name) {
    return parser{bytes, file_name}.run();
}

namespace detail {

[[noreturn]] TESSERA_COLD inline void fail(tensor_entry const& t, std::string const& what) {
    tessera::detail::raise<format_error>("tessera: safetensors: tensor " + tessera::detail::quoted_name(t.name) + " at byte " +
                                         std::to_string(t.offset) + ": " + what);
}

TESSERA_COLD inline void check_type(tensor_entry const& t) {
    if (t.type == element_type::other) fail(t, "holds " + tessera::detail::quoted_name(t.dtype) + ", which is unknown");
}

} // namespace detail

/// A tensor as a matrix (n, k), k its last dimension and n the product of the others; rank 0 and 1 have one row.
/// @throws format_error when it holds another type.
template <class T>
matrix_view<T const> as_dense(tensor_entry const& t) {
    detail::check_type(t);
    return tessera::detail::array_matrix<T>(t, [&](std::string const& what) { detail::fail(t, what); });
}

/// A tensor as a view of its rank; `as_view<float, 1>` is a vector.
/// @throws format_error when it holds another type or has another rank.
template <class T, std::size_t Rank>
tensor_view<T const, Rank> as_view(tensor_entry const& t) {
    detail::check_type(t);
    return tessera::detail::array_view<T, Rank>(t, [&](std::string const& what) { detail::fail(t, what); });
}

} // namespace tessera::inline TESSERA_ABI::safetensors
