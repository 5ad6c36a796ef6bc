// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A bounded, zero-copy reader of GGUF files, versions 2 and 3, over bytes that the caller owns (see mapped_file).
///
///     auto const bytes = ts::mapped_file{path};
///     auto const model = ts::gguf::parse(bytes.bytes(), path);
///     auto const heads = model.get<std::uint32_t>("llama.attention.head_count");
///     auto const w     = ts::gguf::as_blocked<ts::q4_1>(model.tensor("blk.0.attn_q.weight")); // (n, k)
///
/// `parse` checks everything it will ever hand out: after it, names, strings, arrays and tensor bytes lie inside the
/// file, tensors do not overlap and are aligned as the file promises. It reads each header byte a bounded number of
/// times and allocates at most a small multiple of the bytes it has already accepted, whatever the counts say. What is
/// wrong is reported as one format_error that names the file, the field and its byte offset.

#include "gguf_file.hpp"

#include "../core/view.hpp"

namespace tessera::inline TESSERA_ABI::gguf {

/// Does the work of `parse`; one object parses one file.
class parser {
public:
    parser(std::span<std::byte const> bytes, std::string_view file_name) : bytes_{bytes} { result_.name_ = file_name; }

    file run() {
        auto const [tensors, entries] = header();
        for (index_ = 0; index_ < entries; ++index_) metadata();
        sort(result_.metadata_, result_.metadata_order_, "metadata");
        for (index_ = 0; index_ < tensors; ++index_) tensor();
        sort(result_.tensors_, result_.tensor_order_, "tensor");
        place_tensors();
        return std::move(result_);
    }

private:
    /// The least bytes that an entry of either kind takes.
    static constexpr std::uint64_t least_metadata_bytes = 8 + 1 + 4 + 1;
    static constexpr std::uint64_t least_tensor_bytes = 8 + 1 + 4 + 8 + 4 + 8;

    struct counts {
        std::uint64_t tensors;
        std::uint64_t metadata;
    };

    std::uint64_t remaining() const noexcept { return bytes_.size() - at_; }

    [[noreturn]] TESSERA_COLD void fail(char const* field, std::uint64_t offset, std::string const& what) const {
        std::string where = kind_;
        if (!where.empty()) where += " " + std::to_string(index_) + " ";
        if (!item_.empty()) where += detail::quoted_name(item_) + " ";
        detail::raise<format_error>("tessera: gguf: " + result_.name_ + ": " + where + field + " at byte " +
                                    std::to_string(offset) + ": " + what);
    }

    void need(std::uint64_t count, std::uint64_t size, char const* field, std::uint64_t offset) const {
        if (count > remaining() / size)
            fail(field, offset,
                 std::to_string(count) + (size == 1 ? " bytes" : " items of at least " + std::to_string(size) + " bytes") +
                     " do not fit into the remaining " + std::to_string(remaining()));
    }

    template <class T>
    T read(char const* field) {
        need(sizeof(T), 1, field, at_);
        T const value = detail::load<T>(bytes_.data() + at_);
        at_ += sizeof(T);
        return value;
    }

    std::span<std::byte const> take(std::uint64_t size) noexcept {
        auto const part = bytes_.subspan(static_cast<std::size_t>(at_), static_cast<std::size_t>(size));
        at_ += size;
        return part;
    }

    std::span<std::byte const> read_string(char const* field) {
        auto const start = at_;
        auto const size = read<std::uint64_t>(field);
        need(size, 1, field, start);
        return take(size);
    }

    std::string_view read_name() {
        auto const start = at_;
        auto const name = read_string("name");
        if (name.empty()) fail("name", start, "is empty");
        if (name.size() > max_name_bytes)
            fail("name", start, "has " + std::to_string(name.size()) + " bytes, expected at most 65535");
        return {reinterpret_cast<char const*>(name.data()), name.size()};
    }

    counts header() {
        if (read<std::uint32_t>("magic") != magic) fail("magic", 0, "is not \"GGUF\"");
        auto const version = read<std::uint32_t>("version");
        if (version < oldest_version || version > newest_version)
            fail("version", 4,
                 "is " + std::to_string(version) + ", expected 2 or 3" +
                     (version != 0 && (version & 0xffffffu) == 0 ? " (a big-endian file?)" : ""));
        result_.version_ = version;
        counts c{};
        c.tensors = read<std::uint64_t>("tensor count");
        c.metadata = read<std::uint64_t>("metadata count");
        need(c.tensors, least_tensor_bytes, "tensor count", 8);
        need(c.metadata, least_metadata_bytes, "metadata count", 16);
        return c;
    }

    value_type read_type() {
        auto const start = at_;
        auto const type = read<std::uint32_t>("value type");
        if (type >= value_types) fail("value type", start, "is " + std::to_string(type) + ", expected 0 to 12");
        return static_cast<value_type>(type);
    }

    void check_booleans(std::span<std::byte const> values, std::uint64_t start) const {
        for (std::byte const b : values)
            if (b > std::byte{1}) fail("boolean", start, "is " + std::to_string(int(b)) + ", expected 0 or 1");
    }

    /// Steps over a value that is no array.
    std::span<std::byte const> read_value(value_type type) {
        if (type == value_type::string) return read_string("string");
        auto const start = at_;
        need(size_of(type), 1, "value", start);
        auto const value = take(size_of(type));
        if (type == value_type::boolean) check_booleans(value, start);
        return value;
    }

    /// Steps over the head and the elements of an array.
    void read_array(metadata_entry& entry, int depth) {
        auto const start = at_;
        if (depth > max_array_depth) fail("array", start, "is nested more than 4 deep");
        entry.element_type = read_type();
        entry.size = read<std::uint64_t>("array size");
        value_type const type = entry.element_type;
        std::uint64_t const least = type == value_type::array ? 12 : type == value_type::string ? 8 : size_of(type);
        need(entry.size, least, "array size", start + 4);
        auto const begin = at_;
        if (type == value_type::array) {
            metadata_entry inner{};
            for (std::uint64_t i = 0; i < entry.size; ++i) read_array(inner, depth + 1);
        } else if (type == value_type::string) {
            for (std::uint64_t i = 0; i < entry.size; ++i) read_string("string of the array");
        } else {
            auto const values = take(entry.size * least);
            if (type == value_type::boolean) check_booleans(values, begin);
        }
        entry.bytes = bytes_.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(at_ - begin));
    }

    void metadata() {
        kind_ = "metadata";
        item_ = {};
        metadata_entry entry{};
        entry.key = item_ = read_name();
        entry.type = read_type();
        entry.offset = at_;
        if (entry.type == value_type::array)
            read_array(entry, 1);
        else
            entry.bytes = read_value(entry.type);
        if (entry.key == alignment_key) {
            if (entry.type != value_type::uint32)
                fail("value", entry.offset, std::string{"is "} + name_of(entry.type) + ", expected uint32");
            result_.alignment_ = detail::load<std::uint32_t>(entry.bytes.data());
            if (result_.alignment_ == 0 || result_.alignment_ % 8 != 0)
                fail("value", entry.offset,
                     "is " + std::to_string(result_.alignment_) + ", expected a positive multiple of 8");
        }
        result_.metadata_.push_back(entry);
    }

    /// The dimensions; returns the number of elements.
    std::uint64_t dimensions(tensor_entry& t) {
        auto const start = at_;
        t.rank = read<std::uint32_t>("number of dimensions");
        if (t.rank == 0 || t.rank > max_dimensions)
            fail("number of dimensions", start, "is " + std::to_string(t.rank) + ", expected 1 to 4");
        std::uint64_t product = 1; // of the dimensions that are not 0: no partial product may overflow either
        bool is_empty = false;
        for (std::uint32_t d = 0; d < t.rank; ++d) {
            auto const offset = at_;
            auto const size = read<std::uint64_t>("dimension");
            is_empty = is_empty || size == 0;
            if (size > max_elements / product) fail("dimension", offset, "is " + std::to_string(size) + ": too many elements");
            product *= std::max<std::uint64_t>(size, 1);
            t.dims[d] = static_cast<index_t>(size);
        }
        return is_empty ? 0 : product;
    }

    void tensor() {
        kind_ = "tensor";
        item_ = {};
        tensor_entry t{};
        t.name = item_ = read_name();
        std::uint64_t const elements = dimensions(t);
        auto const type_at = at_;
        t.type = static_cast<tensor_type>(read<std::uint32_t>("type"));
        tensor_type_info const info = info_of(t.type);
        if (info.name == nullptr)
            fail("type", type_at, "is " + std::to_string(static_cast<std::uint32_t>(t.type)) + ", which is unknown");
        if (t.dims[0] % info.block_size != 0)
            fail("first dimension", type_at,
                 "is " + std::to_string(t.dims[0]) + ", expected a multiple of " + std::to_string(info.block_size) +
                     " for type " + info.name);
        std::uint64_t const blocks = elements / info.block_size;
        need(blocks, info.block_bytes, "size", type_at);
        auto const offset_at = at_;
        t.offset = read<std::uint64_t>("offset");
        if (t.offset % result_.alignment_ != 0)
            fail("offset", offset_at,
                 "is " + std::to_string(t.offset) + ", expected a multiple of " + std::to_string(result_.alignment_));
        // Until place_tensors knows where the data begins: the right size at a wrong place, inside the file.
        t.bytes = bytes_.first(static_cast<std::size_t>(blocks * info.block_bytes));
        result_.tensors_.push_back(t);
    }

    /// The order by name; names must differ.
    template <class Entry>
    void sort(std::vector<Entry> const& entries, std::vector<std::size_t>& order, char const* kind) {
        order.resize(entries.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
        std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            auto const names = file::name_in(entries[a]).compare(file::name_in(entries[b]));
            return names != 0 ? names < 0 : a < b;
        });
        for (std::size_t i = 1; i < order.size(); ++i) {
            item_ = file::name_in(entries[order[i]]);
            if (item_ != file::name_in(entries[order[i - 1]])) continue;
            kind_ = kind;
            index_ = order[i];
            fail("name", static_cast<std::uint64_t>(reinterpret_cast<std::byte const*>(item_.data()) - bytes_.data()),
                 "is a duplicate of " + std::string{kind} + " " + std::to_string(order[i - 1]));
        }
    }

    /// Turns offsets in the data section into offsets in the file, checked; tensors must not share bytes.
    void place_tensors() {
        kind_ = "tensor";
        std::uint64_t const begin = at_ + (result_.alignment_ - at_ % result_.alignment_) % result_.alignment_;
        std::uint64_t const available = bytes_.size() > begin ? bytes_.size() - begin : 0;
        std::vector<std::size_t> by_offset;
        for (index_ = 0; index_ < result_.tensors_.size(); ++index_) {
            tensor_entry& t = result_.tensors_[static_cast<std::size_t>(index_)];
            item_ = t.name;
            if (t.offset > available || t.bytes.size() > available - t.offset)
                fail("data", begin,
                     std::to_string(t.bytes.size()) + " bytes at offset " + std::to_string(t.offset) +
                         " do not fit into the data section of " + std::to_string(available));
            t.offset = std::min<std::uint64_t>(begin + t.offset, bytes_.size());
            t.bytes = bytes_.subspan(static_cast<std::size_t>(t.offset), t.bytes.size());
            if (!t.bytes.empty()) by_offset.push_back(static_cast<std::size_t>(index_));
        }
        auto const& tensors = result_.tensors_;
        std::sort(by_offset.begin(), by_offset.end(),
                  [&](std::size_t a, std::size_t b) { return tensors[a].offset < tensors[b].offset; });
        for (std::size_t i = 1; i < by_offset.size(); ++i) {
            tensor_entry const& previous = tensors[by_offset[i - 1]];
            tensor_entry const& next = tensors[by_offset[i]];
            if (previous.offset + previous.bytes.size() <= next.offset) continue;
            index_ = by_offset[i];
            item_ = next.name;
            fail("data", next.offset,
                 "overlaps tensor " + detail::quoted_name(previous.name) + ", which ends at byte " +
                     std::to_string(previous.offset + previous.bytes.size()));
        }
    }

    std::span<std::byte const> bytes_;
    std::uint64_t at_ = 0;
    file result_;
    // where we are, for the error message
    char const* kind_ = "";
    std::uint64_t index_ = 0;
    std::string_view item_;
};

/// Checks and indexes a GGUF file. The bytes must outlive the result; `file_name` is for error messages.
/// @throws format_error naming file, field and byte offset.
inline file parse(std::span<std::byte const> bytes, std::string_view file_name) {
    return parser{bytes, file_name}.run();
}

namespace detail {

/// The data of a tensor as `Element`s, after checks of type and address.
template <class Element>
Element const* elements(tensor_entry const& t, tensor_type wanted) {
    auto const fail = [&](std::string const& what) {
        raise<format_error>("tessera: gguf: tensor " + quoted_name(t.name) + " at byte " + std::to_string(t.offset) + ": " +
                            what);
    };
    if (t.type != wanted) fail(std::string{"holds "} + name_of(t.type) + ", wanted " + name_of(wanted));
    if (!t.bytes.empty() && reinterpret_cast<std::uintptr_t>(t.bytes.data()) % alignof(Element) != 0)
        fail("its address is not a multiple of " + std::to_string(alignof(Element)));
    return reinterpret_cast<Element const*>(t.bytes.data());
}

} // namespace detail

/// A tensor of float, fp16 or bf16 as a matrix (n, k); a tensor of rank 1 has one row.
/// @throws format_error when it holds another type.
template <class T>
matrix_view<T const> as_dense(tensor_entry const& t) {
    return matrix_view<T const>{detail::elements<T>(t, detail::type_for<T>), t.rows(), t.cols()};
}

/// A tensor of rank 1 as a vector (size).
/// @throws format_error when it holds another type or has more dimensions.
template <class T>
vector_view<T const> as_vector(tensor_entry const& t) {
    if (t.rank != 1)
        detail::raise<format_error>("tessera: gguf: tensor " + detail::quoted_name(t.name) + " at byte " +
                                    std::to_string(t.offset) + ": has " + std::to_string(t.rank) +
                                    " dimensions, wanted 1");
    return vector_view<T const>{detail::elements<T>(t, detail::type_for<T>), t.cols()};
}

/// A tensor of block format `Format` as a matrix (n, k).
/// @throws format_error when it holds another type.
template <block_format Format>
blocked<Format> as_blocked(tensor_entry const& t) {
    return {detail::elements<typename Format::block>(t, detail::type_for<Format>), t.rows(), t.cols()};
}

/// The block formats of files that tessera multiplies.
using block_formats = format_list<q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, q8_k, q1_0, q2_0, tq1_0, tq2_0,
                                  iq4_nl, iq4_xs, gguf_mxfp4, gguf_nvfp4, iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s>;

namespace detail {

template <class F, block_format First, block_format... Rest>
decltype(auto) with_blocks(tensor_entry const& t, F&& f, format_list<First, Rest...>) {
    if (t.type == type_for<First>) return f(as_blocked<First>(t));
    if constexpr (sizeof...(Rest) > 0)
        return with_blocks(t, f, format_list<Rest...>{});
    else
        raise<unsupported_error>("tessera: gguf: tensor " + quoted_name(t.name) + " is " + name_of(t.type) +
                                 ", which is not among the formats of this program");
}

} // namespace detail

/// f(the tensor as what it is stored as): a dense matrix of float, fp16 or bf16, or `blocked<Format>` of one of the formats,
/// each of which f is compiled for.
/// @throws unsupported_error when it holds another type.
template <class F, block_format... Format>
decltype(auto) with_storage(tensor_entry const& t, F&& f, format_list<Format...> formats) {
    switch (t.type) {
    case tensor_type::f32: return f(as_dense<float>(t));
    case tensor_type::f16: return f(as_dense<fp16>(t));
    case tensor_type::bf16: return f(as_dense<bf16>(t));
    default: return detail::with_blocks(t, f, formats);
    }
}

} // namespace tessera::inline TESSERA_ABI::gguf
