// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Writes safetensors files.
///
///     ts::safetensors::writer out;
///     out.set("format", "pt");
///     out.add_tensor("output.weight", w);            // a contiguous view of any rank
///     out.save("model.safetensors");
///
/// Metadata is copied; tensor data is not, it must live until the file is written. The bytes are those of the reference
/// implementation: tensors by falling width of their type, then by name, so that each is aligned; the header padded to 8.

#include "safetensors.hpp"

#include <limits>

namespace tessera::inline TESSERA_ABI::safetensors {

/// Collects metadata and tensors, and writes them as a file; what is added must live until then.
class writer {
public:
    /// A line of the metadata.
    void set(std::string_view key, std::string_view value) {
        check_text("key", key);
        check_text("value of the metadata", value);
        for (metadata_entry const& e : metadata_)
            if (e.key == key) fail("key " + tessera::detail::quoted_name(key) + " is set already");
        metadata_.push_back({std::string{key}, std::string{value}});
    }

    /// Stored bytes as they are; the last of `dims` is the contiguous one.
    void add_tensor(std::string_view name, element_type type, std::span<index_t const> dims,
                    std::span<std::byte const> bytes) {
        check_text("tensor name", name);
        if (name == metadata_key) fail("a tensor cannot be called '__metadata__'");
        if (dims.size() > max_array_rank)
            fail("tensor " + tessera::detail::quoted_name(name) + " has " + std::to_string(dims.size()) +
                 " dimensions, expected at most 8");
        if (type == element_type::other) fail("tensor " + tessera::detail::quoted_name(name) + " is of another type, expected a known one");
        std::array<std::uint64_t, max_array_rank> sizes{};
        auto const refuse = [&](std::size_t d) {
            fail("tensor " + tessera::detail::quoted_name(name) + " has dimension " + std::to_string(dims[d]) +
                 ", expected one within the range of the index type");
        };
        for (std::size_t d = 0; d < dims.size(); ++d) {
            if (dims[d] < 0) refuse(d);
            sizes[d] = static_cast<std::uint64_t>(dims[d]);
        }
        auto const size = tessera::detail::count_elements(std::span{sizes}.first(dims.size()), refuse) * size_of(type);
        if (bytes.size() != size)
            fail("tensor " + tessera::detail::quoted_name(name) + " has " + std::to_string(bytes.size()) + " bytes, expected " +
                 std::to_string(size));
        tensors_.push_back({std::string{name}, type, {dims.begin(), dims.end()}, bytes});
    }

    /// A view whose elements follow each other in C order.
    template <class T, class E, class L>
    void add_tensor(std::string_view name, view<T, E, L, default_accessor<T>> const& w) {
        if (!tessera::detail::is_contiguous(w))
            fail("tensor " + tessera::detail::quoted_name(name) + " is strided, expected elements that follow each other");
        std::array<index_t, E::rank() + 1> dims{};
        for (std::size_t d = 0; d < E::rank(); ++d) dims[d] = w.extent(d);
        add_tensor(name, element_type_of<T>, std::span<index_t const>{dims}.first(E::rank()),
                   {reinterpret_cast<std::byte const*>(w.data_handle()), static_cast<std::size_t>(w.size()) * sizeof(T)});
    }

    /// Hands the file to `sink(std::span<std::byte const>)`, piece by piece.
    /// @throws shape_error when two tensors have one name.
    template <class Sink>
    void write(Sink&& sink) const {
        std::vector<std::size_t> const order = in_order();
        std::string text = header(order);
        text.resize((text.size() + 7) / 8 * 8, ' ');
        std::uint64_t const size = text.size();
        sink(std::as_bytes(std::span{&size, 1}));
        sink(std::as_bytes(std::span{text}));
        for (std::size_t const i : order) sink(tensors_[i].bytes);
    }

    /// The file in memory.
    std::vector<std::byte> bytes() const {
        std::vector<std::byte> out;
        write([&](std::span<std::byte const> part) { tessera::detail::append_bytes(out, part); });
        return out;
    }

    /// @throws format_error naming the path and the system's reason.
    void save(std::string const& path) const {
        static_cast<void>(in_order()); // checked before the file is touched
        tessera::detail::save_file("safetensors", path, [&](auto const& sink) { write(sink); });
    }

private:
    struct tensor_record {
        std::string name;
        element_type type;
        std::vector<index_t> dims;
        std::span<std::byte const> bytes;
    };

    [[noreturn]] static void fail(std::string const& what) {
        tessera::detail::raise<shape_error>("tessera: safetensors writer: " + what);
    }
    static void check_text(char const* what, std::string_view s) {
        if (json::detail::first_bad_utf8(s) != s.size())
            fail(std::string{what} + " " + tessera::detail::quoted_name(s) + " is not UTF-8");
    }

    std::vector<std::size_t> in_order() const {
        std::vector<std::size_t> order(tensors_.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
        auto const by_name = [&](std::size_t a, std::size_t b) { return tensors_[a].name < tensors_[b].name; };
        std::sort(order.begin(), order.end(), by_name);
        for (std::size_t i = 1; i < order.size(); ++i)
            if (!by_name(order[i - 1], order[i]))
                fail("tensor " + tessera::detail::quoted_name(tensors_[order[i]].name) + " is there twice");
        std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            return tensors_[a].type != tensors_[b].type ? tensors_[a].type > tensors_[b].type : by_name(a, b);
        });
        return order;
    }

    std::string header(std::vector<std::size_t> const& order) const {
        std::string out = "{";
        if (!metadata_.empty()) {
            json::append_string(out, metadata_key);
            out += ":{";
            for (metadata_entry const& e : metadata_) {
                if (&e != metadata_.data()) out += ',';
                json::append_string(out, e.key);
                out += ':';
                json::append_string(out, e.value);
            }
            out += '}';
        }
        std::uint64_t at = 0;
        for (std::size_t const i : order) {
            tensor_record const& t = tensors_[i];
            if (out.size() > 1) out += ',';
            json::append_string(out, t.name);
            out += std::string{":{\"dtype\":\""} + name_of(t.type) + "\",\"shape\":[";
            for (std::size_t d = 0; d < t.dims.size(); ++d) out += (d == 0 ? "" : ",") + std::to_string(t.dims[d]);
            out += "],\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(at + t.bytes.size()) + "]}";
            at += t.bytes.size();
        }
        return out += '}';
    }

    std::vector<metadata_entry> metadata_;
    std::vector<tensor_record> tensors_;
};

} // namespace tessera::inline TESSERA_ABI::safetensors
