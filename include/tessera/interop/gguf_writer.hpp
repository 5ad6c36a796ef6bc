// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Writes GGUF files, version 3: metadata and tensors of F32, F16, BF16, Q4_0, Q4_1 and Q8_0.
///
///     ts::gguf::writer out;
///     out.set("general.architecture", "llama");
///     out.set_array<float>("tokenizer.ggml.scores", scores);
///     out.add_tensor("output.weight", w);            // matrix_view<float const> or blocked<q4_1>, (n, k)
///     out.save("model.gguf");
///
/// Metadata is copied; tensor data is not, it must live until the file is written. Tensors keep their order, each
/// begins at a multiple of the alignment, and the same calls write the same bytes.

#include "gguf_format.hpp"
#include "gguf_file.hpp"

#include "../core/error.hpp"
#include "../core/view.hpp"

#include <array>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace tessera::inline TESSERA_ABI::gguf {

/// Collects metadata and tensors, and writes them as a file; what is added must live until then.
class writer {
public:
    /// @param alignment of the tensors, a positive multiple of 8; other than 32 it becomes a metadata entry.
    explicit writer(std::uint32_t alignment = static_cast<std::uint32_t>(default_alignment)) : alignment_{alignment} {
        if (alignment == 0 || alignment % 8 != 0)
            fail("alignment is " + std::to_string(alignment) + ", expected a positive multiple of 8");
        if (alignment != default_alignment) set(alignment_key, alignment);
    }

    /// A number or a bool.
    template <class T>
        requires std::is_arithmetic_v<T>
    void set(std::string_view key, T value) {
        begin_entry(key, detail::value_type_for<T>());
        append(metadata_, value);
    }

    /// A string.
    void set(std::string_view key, std::string_view value) {
        begin_entry(key, value_type::string);
        append_string(value);
    }
    void set(std::string_view key, char const* value) { set(key, std::string_view{value}); }

    /// An array of numbers or bools.
    template <class T>
        requires std::is_arithmetic_v<T>
    void set_array(std::string_view key, std::span<T const> values) {
        begin_array(key, detail::value_type_for<T>(), values.size());
        for (T const v : values) append(metadata_, v);
    }

    /// An array of std::string or std::string_view.
    template <class T>
        requires(std::is_convertible_v<T const&, std::string_view> && !std::is_arithmetic_v<T>)
    void set_array(std::string_view key, std::span<T const> values) {
        begin_array(key, value_type::string, values.size());
        for (T const& v : values) append_string(v);
    }

    /// Stored bytes as they are. `dims` begins with the contiguous dimension k.
    void add_tensor(std::string_view name, tensor_type type, std::span<index_t const> dims,
                    std::span<std::byte const> bytes) {
        check_name("tensor name", name);
        for (tensor_record const& t : tensors_)
            if (t.name == name) fail("tensor " + detail::quoted_name(name) + " is there already");
        if (dims.empty() || dims.size() > max_dimensions)
            fail("tensor " + detail::quoted_name(name) + " has " + std::to_string(dims.size()) +
                 " dimensions, expected 1 to 4");
        std::uint64_t const size = stored_bytes(name, type, dims);
        if (bytes.size() != size)
            fail("tensor " + detail::quoted_name(name) + " has " + std::to_string(bytes.size()) + " bytes, expected " +
                 std::to_string(size));
        tensor_record t{std::string{name}, type, {dims.begin(), dims.end()}, bytes, data_bytes_};
        data_bytes_ += size + padding(size);
        tensors_.push_back(std::move(t));
    }

    /// A contiguous matrix (n, k) of float, fp16 or bf16.
    template <class T, class E, class L, class A>
        requires(E::rank() == 2)
    void add_tensor(std::string_view name, view<T, E, L, A> const& w) {
        index_t const n = w.extent(0);
        index_t const k = w.extent(1);
        if (!has_unit_stride(w) || (n > 1 && w.stride(0) != k))
            fail("tensor " + detail::quoted_name(name) + " has a row stride of " + std::to_string(w.stride(0)) +
                 ", expected contiguous rows of " + std::to_string(k));
        index_t const dims[] = {k, n};
        add_tensor(name, detail::type_for<std::remove_cv_t<T>>, dims, {as_bytes(w.data_handle()), span_size(w)});
    }

    /// A contiguous vector (size) of float, fp16 or bf16.
    template <class T, class E, class L, class A>
        requires(E::rank() == 1)
    void add_tensor(std::string_view name, view<T, E, L, A> const& w) {
        if (!has_unit_stride(w))
            fail("tensor " + detail::quoted_name(name) + " has a stride of " + std::to_string(w.stride(0)) + ", expected 1");
        index_t const dims[] = {w.extent(0)};
        add_tensor(name, detail::type_for<std::remove_cv_t<T>>, dims, {as_bytes(w.data_handle()), span_size(w)});
    }

    /// A contiguous matrix (n, k) of blocks.
    template <block_format Format>
    void add_tensor(std::string_view name, blocked<Format> const& w) {
        if (w.rows() > 1 && w.row_stride() != w.blocks_per_row())
            fail("tensor " + detail::quoted_name(name) + " has a row stride of " + std::to_string(w.row_stride()) +
                 " blocks, expected contiguous rows of " + std::to_string(w.blocks_per_row()));
        index_t const dims[] = {w.cols(), w.rows()};
        add_tensor(name, detail::type_for<Format>, dims, {as_bytes(w.data()), static_cast<std::size_t>(w.bytes())});
    }

    /// Hands the file to `sink(std::span<std::byte const>)`, piece by piece.
    template <class Sink>
    void write(Sink&& sink) const {
        std::vector<std::byte> head;
        append(head, magic);
        append(head, newest_version);
        append(head, static_cast<std::uint64_t>(tensors_.size()));
        append(head, static_cast<std::uint64_t>(keys_.size()));
        head.insert(head.end(), metadata_.begin(), metadata_.end());
        for (tensor_record const& t : tensors_) {
            append(head, static_cast<std::uint64_t>(t.name.size()));
            detail::append_bytes(head, std::as_bytes(std::span{t.name}));
            append(head, static_cast<std::uint32_t>(t.dims.size()));
            for (index_t const d : t.dims) append(head, static_cast<std::uint64_t>(d));
            append(head, static_cast<std::uint32_t>(t.type));
            append(head, t.offset);
        }
        head.resize(head.size() + static_cast<std::size_t>(padding(head.size())));
        sink(std::span<std::byte const>{head});
        std::vector<std::byte> const zeros(alignment_);
        for (tensor_record const& t : tensors_) {
            sink(t.bytes);
            sink(std::span{zeros}.first(static_cast<std::size_t>(padding(t.bytes.size()))));
        }
    }

    /// The file in memory.
    std::vector<std::byte> bytes() const {
        std::vector<std::byte> out;
        write([&](std::span<std::byte const> part) { detail::append_bytes(out, part); });
        return out;
    }

    /// @throws format_error naming the path and the system's reason.
    void save(std::string const& path) const {
        detail::save_file("gguf", path, [&](auto const& sink) { write(sink); });
    }

private:
    struct tensor_record {
        std::string name;
        tensor_type type;
        std::vector<index_t> dims;
        std::span<std::byte const> bytes;
        std::uint64_t offset; ///< in the data section
    };

    [[noreturn]] static void fail(std::string const& what) {
        detail::raise<shape_error>("tessera: gguf writer: " + what);
    }

    static std::byte const* as_bytes(void const* p) noexcept { return static_cast<std::byte const*>(p); }

    template <class View>
    static std::size_t span_size(View const& w) noexcept {
        return static_cast<std::size_t>(w.size()) * sizeof(typename View::value_type);
    }

    template <class T>
    static void append(std::vector<std::byte>& out, T value) {
        detail::append_bytes(out, std::as_bytes(std::span{&value, 1}));
    }

    void append_string(std::string_view s) {
        append(metadata_, static_cast<std::uint64_t>(s.size()));
        detail::append_bytes(metadata_, std::as_bytes(std::span{s}));
    }

    static void check_name(char const* what, std::string_view name) {
        if (name.empty() || name.size() > max_name_bytes)
            fail(std::string{what} + " has " + std::to_string(name.size()) + " bytes, expected 1 to 65535");
    }

    void begin_entry(std::string_view key, value_type type) {
        check_name("key", key);
        if (key == alignment_key && alignment_ == default_alignment)
            fail("the alignment is an argument of the constructor");
        for (std::string const& k : keys_)
            if (k == key) fail("key " + detail::quoted_name(key) + " is set already");
        keys_.emplace_back(key);
        append_string(key);
        append(metadata_, static_cast<std::uint32_t>(type));
    }

    void begin_array(std::string_view key, value_type element, std::size_t size) {
        begin_entry(key, value_type::array);
        append(metadata_, static_cast<std::uint32_t>(element));
        append(metadata_, static_cast<std::uint64_t>(size));
    }

    static std::uint64_t stored_bytes(std::string_view name, tensor_type type, std::span<index_t const> dims) {
        tensor_type_info const info = info_of(type);
        if (info.name == nullptr)
            fail("tensor " + detail::quoted_name(name) + " has type " + std::to_string(static_cast<std::uint32_t>(type)) +
                 ", which is unknown");
        index_t blocks = 1;
        constexpr index_t most = std::numeric_limits<index_t>::max() / 512;
        for (std::size_t i = 0; i < dims.size(); ++i) {
            index_t const size = dims[i];
            index_t const unit = i == 0 ? info.block_size : 1;
            if (size < 0 || size % unit != 0 || (size != 0 && blocks > most / size))
                fail("tensor " + detail::quoted_name(name) + " has dimension " + std::to_string(size) +
                     ", expected a multiple of " + std::to_string(unit) + " within the range of the index type");
            blocks *= size / unit;
        }
        return static_cast<std::uint64_t>(blocks) * info.block_bytes;
    }

    /// Bytes from `size` to the next multiple of the alignment.
    std::uint64_t padding(std::uint64_t size) const noexcept { return (alignment_ - size % alignment_) % alignment_; }

    std::uint32_t alignment_;
    std::vector<std::string> keys_;
    std::vector<std::byte> metadata_;
    std::vector<tensor_record> tensors_;
    std::uint64_t data_bytes_ = 0;
};

} // namespace tessera::inline TESSERA_ABI::gguf
