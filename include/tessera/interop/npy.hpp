// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Reads and writes numpy's .npy files.
///
///     auto const bytes = ts::mapped_file{"w.npy"};
///     auto const a     = ts::npy::parse(bytes.bytes(), "w.npy");
///     auto const w     = ts::npy::as_view<float, 2>(a);          // (n, k); strides (1, n) when in Fortran order
///     ts::npy::save("copy.npy", w);
///
/// A file is: "\x93NUMPY", version, size of the header in 16 bits (1.0) or 32 (2.0, 3.0), the header, the data. The header is a
/// Python dictionary of exactly 'descr', 'fortran_order' and 'shape'. Read are little-endian numbers and booleans of at
/// most 8 dimensions; structures, objects and text are refused. Written is version 1.0 in C order, with numpy's bytes.
/// Source: numpy.lib.format.

#include "array_entry.hpp"

#include <charconv>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::inline TESSERA_ABI::npy {

/// The first bytes of a file.
inline constexpr std::string_view magic{"\x93NUMPY", 6};
/// Of an array of numbers; numpy writes fewer than 300.
inline constexpr std::uint64_t max_header_bytes = 65535;

/// One array.
struct array : array_entry {
    std::uint64_t offset = 0; ///< of the data in the file
};

/// Does the work of `parse`; one object parses one file.
class parser {
public:
    parser(std::span<std::byte const> bytes, std::string_view file_name)
        : text_{reinterpret_cast<char const*>(bytes.data()), bytes.size()}, bytes_{bytes},
          where_{"tessera: npy: " + std::string{file_name} + ": "} {}

    array run() {
        std::size_t const end = preamble();
        dictionary(text_.substr(0, end));
        std::uint64_t const size = elements_ * size_of(result_.type);
        if (size != bytes_.size() - end)
            fail("data", end, "has " + std::to_string(bytes_.size() - end) + " bytes, expected " + std::to_string(size) + " (" +
                                  std::to_string(elements_) + " elements of " + name_of(result_.type) + ")");
        result_.offset = end;
        result_.bytes = bytes_.subspan(end);
        return result_;
    }

private:
    [[noreturn]] TESSERA_COLD void fail(char const* field, std::uint64_t offset, std::string const& what) const {
        tessera::detail::raise<format_error>(where_ + field + " at byte " + std::to_string(offset) + ": " + what);
    }

    /// Where the header ends.
    std::size_t preamble() {
        if (text_.size() < 10) fail("magic", 0, "10 bytes do not fit into " + std::to_string(text_.size()));
        if (!text_.starts_with(magic)) fail("magic", 0, "is not \"\\x93NUMPY\"");
        int const major = static_cast<unsigned char>(text_[6]);
        int const minor = static_cast<unsigned char>(text_[7]);
        if (major < 1 || major > 3 || minor != 0)
            fail("version", 6, "is " + std::to_string(major) + "." + std::to_string(minor) + ", expected 1.0, 2.0 or 3.0");
        std::size_t const width = major == 1 ? 2 : 4;
        at_ = 8 + width;
        std::uint32_t size = 0;
        if (text_.size() < at_) fail("header size", 8, "4 bytes do not fit into the remaining " + std::to_string(text_.size() - 8));
        std::memcpy(&size, text_.data() + 8, width);
        if (size > max_header_bytes) fail("header size", 8, "is " + std::to_string(size) + ", expected at most 65535");
        if (size > text_.size() - at_)
            fail("header size", 8,
                 std::to_string(size) + " bytes do not fit into the remaining " + std::to_string(text_.size() - at_));
        return at_ + size;
    }

    void space() noexcept {
        while (at_ < header_.size() && (header_[at_] == ' ' || header_[at_] == '\n')) ++at_;
    }
    bool take(std::string_view token) {
        space();
        bool const is_there = header_.substr(at_, token.size()) == token;
        at_ += is_there ? token.size() : 0;
        return is_there;
    }
    void expect(char const* field, char token) {
        if (!take({&token, 1})) fail(field, at_, std::string{"expected "} + token);
    }

    /// A quoted string; none of ours has an escape.
    std::string_view quoted_text(char const* field) {
        space();
        char const quote = at_ < header_.size() ? header_[at_] : '\0';
        std::size_t const end = quote == '\'' || quote == '"' ? header_.find(quote, at_ + 1) : header_.npos;
        if (end == header_.npos)
            fail(field, at_, quote == '[' ? "is a structure, expected numbers" : "expected a string in quotes");
        std::string_view const s = header_.substr(at_ + 1, end - at_ - 1);
        at_ = end + 1;
        return s;
    }

    void dictionary(std::string_view header) {
        header_ = header;
        bool has_type = false, has_order = false, has_shape = false;
        expect("header", '{');
        while (!take("}")) {
            space();
            auto const start = at_;
            std::string_view const key = quoted_text("header");
            expect("header", ':');
            bool* const seen = key == "descr"           ? &has_type
                               : key == "fortran_order" ? &has_order
                               : key == "shape"         ? &has_shape
                                                        : nullptr;
            if (seen == nullptr) fail("header", start, "has the unknown key " + tessera::detail::quoted_name(key));
            if (*seen) fail("header", start, "has the key " + tessera::detail::quoted_name(key) + " twice");
            *seen = true;
            if (seen == &has_type)
                type();
            else if (seen == &has_order)
                order();
            else
                shape();
            if (!take(",")) {
                expect("header", '}');
                break;
            }
        }
        if (!has_type || !has_order || !has_shape)
            fail("header", 8, std::string{"has no key '"} + (!has_type ? "descr" : !has_order ? "fortran_order" : "shape") + "'");
        if (space(); at_ != header_.size()) fail("header", at_, "something follows the dictionary");
    }

    void type() {
        space();
        auto const start = at_;
        std::string_view const descr = quoted_text("descr");
        for (std::size_t i = 0; i < element_types; ++i) {
            auto const t = static_cast<element_type>(i);
            char const* const name = info_of(t).npy;
            // The order of one byte is written as | but other writers say <.
            if (name == nullptr || descr.size() != 3 || descr.substr(1) != name + 1) continue;
            if (descr[0] != '<' && descr[0] != name[0])
                fail("descr", start, "is " + tessera::detail::quoted_name(descr) + ", expected " + tessera::detail::quoted_name(name) + " (little-endian)");
            result_.type = t;
            return;
        }
        fail("descr", start, "is " + tessera::detail::quoted_name(descr) + ", expected numbers or booleans of 1 to 8 bytes");
    }

    void order() {
        space();
        auto const start = at_;
        if (take("True"))
            result_.order = array_order::left;
        else if (!take("False"))
            fail("fortran_order", start, "is neither True nor False");
    }

    /// A tuple of integers: (), (3,), (3, 4).
    void shape() {
        space();
        auto const start = at_;
        std::array<std::uint64_t, max_array_rank> dims{};
        expect("shape", '(');
        while (!take(")")) {
            space();
            if (result_.rank == max_array_rank) fail("shape", start, "has more than 8 dimensions");
            char const* const first = header_.data() + at_;
            auto const [end, error] = std::from_chars(first, header_.data() + header_.size(), dims[result_.rank]);
            auto const size = static_cast<std::size_t>(end - first);
            if (error == std::errc::result_out_of_range) fail("shape", at_, "is a number that 64 bits cannot hold");
            if (error != std::errc{} || (size > 1 && *first == '0')) fail("shape", at_, "expected a number");
            ++result_.rank;
            at_ += size;
            if (take(",")) continue;
            expect("shape", ')');
            if (result_.rank == 1) fail("shape", start, "is a number in parentheses, expected a tuple");
            break;
        }
        elements_ = tessera::detail::count_elements(std::span{dims}.first(result_.rank), [&](std::size_t d) {
            fail("shape", start, "dimension " + std::to_string(d) + " is " + std::to_string(dims[d]) + ": too many elements");
        });
        for (std::uint32_t d = 0; d < result_.rank; ++d) result_.dims[d] = static_cast<index_t>(dims[d]);
    }

    std::string_view text_;
    std::string_view header_; ///< the file up to the header's end
    std::span<std::byte const> bytes_;
    std::string where_;
    std::size_t at_ = 0;
    std::uint64_t elements_ = 0;
    array result_;
};

/// Checks a .npy file. The bytes must outlive the result; `file_name` is for error messages.
/// @throws format_error naming file, field and byte offset.
inline array parse(std::span<std::byte const> bytes, std::string_view file_name) { return parser{bytes, file_name}.run(); }

/// The array as a view of its rank, strided as the file's order says.
/// @throws format_error when it holds another type or has another rank.
template <class T, std::size_t Rank>
tensor_view<T const, Rank> as_view(array const& a) {
    return tessera::detail::array_view<T, Rank>(a, [&](std::string const& what) {
        tessera::detail::raise<format_error>("tessera: npy: data at byte " + std::to_string(a.offset) + ": " + what);
    });
}

namespace detail {

/// Magic, version 1.0 and header, as numpy writes them: with room for a first dimension of 21 digits, to a multiple of 64.
inline std::string preamble(element_type type, std::span<index_t const> dims) {
    std::string header = std::string{"{'descr': '"} + info_of(type).npy + "', 'fortran_order': False, 'shape': (";
    for (std::size_t d = 0; d < dims.size(); ++d)
        header += (d == 0 ? "" : ", ") + std::to_string(dims[d]);
    header += dims.size() == 1 ? ",), }" : "), }";
    if (!dims.empty()) header.append(21 - std::to_string(dims[0]).size(), ' ');
    std::size_t const size = (10 + header.size() + 1 + 63) / 64 * 64 - 10;
    header.resize(size - 1, ' ');
    header += '\n';
    std::string out{magic};
    out += {'\1', '\0', static_cast<char>(size & 255), static_cast<char>(size >> 8)};
    return out + header;
}

} // namespace detail

/// Hands the file to `sink(std::span<std::byte const>)`, piece by piece; views of any strides.
template <class T, class E, class L, class Sink>
void write(view<T, E, L, default_accessor<T>> const& a, Sink&& sink) {
    constexpr std::size_t rank = E::rank();
    static_assert(info_of(element_type_of<T>).npy != nullptr, "tessera: npy: numpy has no such element type");
    static_assert(rank <= max_array_rank, "tessera: npy: at most 8 dimensions");
    std::array<index_t, rank + 1> dims{};
    for (std::size_t d = 0; d < rank; ++d) dims[d] = a.extent(d);
    std::string const head = detail::preamble(element_type_of<T>, std::span<index_t const>{dims}.first(rank));
    sink(std::as_bytes(std::span{head}));
    if (a.empty()) return;
    if (tessera::detail::is_contiguous(a)) {
        sink(std::as_bytes(std::span{a.data_handle(), static_cast<std::size_t>(a.size())}));
        return;
    }
    // Element after element in C order, in pieces.
    std::array<std::remove_cv_t<T>, 512> piece;
    std::size_t held = 0;
    std::array<index_t, rank + 1> at{};
    index_t offset = 0;
    for (index_t left = a.size(); left > 0; --left) {
        piece[held++] = a.data_handle()[offset];
        if (held == piece.size() || left == 1) {
            sink(std::as_bytes(std::span{piece}.first(held)));
            held = 0;
        }
        for (std::size_t d = rank; d-- > 0;) {
            offset += a.stride(d);
            if (++at[d] < a.extent(d)) break;
            offset -= a.extent(d) * a.stride(d);
            at[d] = 0;
        }
    }
}

/// The file in memory.
template <class T, class E, class L>
std::vector<std::byte> bytes(view<T, E, L, default_accessor<T>> const& a) {
    std::vector<std::byte> out;
    write(a, [&](std::span<std::byte const> part) { tessera::detail::append_bytes(out, part); });
    return out;
}

/// @throws format_error naming the path and the system's reason.
template <class T, class E, class L>
void save(std::string const& path, view<T, E, L, default_accessor<T>> const& a) {
    tessera::detail::save_file("npy", path, [&](auto const& sink) { write(a, sink); });
}

} // namespace tessera::inline TESSERA_ABI::npy
