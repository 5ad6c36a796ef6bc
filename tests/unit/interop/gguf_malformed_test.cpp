// SPDX-License-Identifier: MIT
// Bad GGUF files by surgery on good ones: every one is refused with a sentence that names file, field and offset.

#include <doctest/doctest.h>

#include <fuzz/gguf_walk.hpp>

#include <tessera/interop/gguf.hpp>
#include <tessera/storage/mapped_file.hpp>

#include <cstring>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace ts = tessera;

namespace {

using bytes = std::vector<std::byte>;

/// Builds a file byte by byte; every field can be wrong.
class builder {
public:
    builder(std::uint64_t tensors, std::uint64_t entries, std::uint32_t version = 3) {
        raw("GGUF").u32(version).u64(tensors).u64(entries);
    }
    template <class T>
    builder& number(T value) {
        std::byte b[sizeof(T)];
        std::memcpy(b, &value, sizeof(T));
        out_.insert(out_.end(), b, b + sizeof(T));
        return *this;
    }
    builder& u8(unsigned value) { return number(static_cast<std::uint8_t>(value)); }
    builder& u32(std::uint32_t value) { return number(value); }
    builder& u64(std::uint64_t value) { return number(value); }
    builder& raw(std::string_view s) {
        for (char const c : s) u8(static_cast<unsigned char>(c));
        return *this;
    }
    builder& string(std::string_view s) { return u64(s.size()).raw(s); }
    builder& entry(std::string_view key, std::uint32_t type) { return string(key).u32(type); }
    builder& tensor(std::string_view name, std::initializer_list<std::uint64_t> dims, std::uint32_t type,
                    std::uint64_t offset) {
        string(name).u32(static_cast<std::uint32_t>(dims.size()));
        for (std::uint64_t const d : dims) u64(d);
        return u32(type).u64(offset);
    }
    builder& pad(std::size_t alignment = 32) {
        out_.resize((out_.size() + alignment - 1) / alignment * alignment);
        return *this;
    }
    builder& data(std::size_t size) {
        pad();
        out_.resize(out_.size() + size);
        return *this;
    }
    bytes const& get() const { return out_; }

private:
    bytes out_;
};

/// The message, or "" when the file is accepted; what is accepted is walked.
std::string refusal(bytes const& file) {
    // exactly this size, so that the address sanitizer sees the first byte past the end
    bytes const exact(file.begin(), file.end());
    try {
        auto const f = ts::gguf::parse(exact, "bad.gguf");
        gguf_test::walk const all{f};
        (void)all;
        return "";
    } catch (ts::format_error const& e) {
        return e.what();
    }
}

void refuses(builder const& b, std::string_view where, std::string_view what) {
    std::string const message = refusal(b.get());
    INFO("message: ", message);
    CHECK(message.starts_with("tessera: gguf: bad.gguf: " + std::string{where}));
    CHECK(message.find(what) != std::string::npos);
    CHECK(message.find(" at byte ") != std::string::npos);
}

constexpr std::uint64_t huge = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t half = std::uint64_t{1} << 63;
constexpr std::uint64_t most = ts::gguf::max_elements;

bytes tiny() {
    ts::mapped_file const file{std::string{TESSERA_TEST_DATA} + "/gguf/tiny.gguf"};
    return {file.bytes().begin(), file.bytes().end()};
}

} // namespace

TEST_CASE("good files of the builder are accepted") {
    CHECK(refusal(builder{0, 0}.get()) == "");
    CHECK(refusal(builder{0, 0, 2}.get()) == "");
    CHECK(refusal(builder{0, 1}.entry("a", 4).u32(7).get()) == "");
    CHECK(refusal(builder{1, 0}.tensor("x", {4, 2}, 0, 0).data(32).get()) == "");
    CHECK(refusal(builder{2, 0}.tensor("x", {4}, 0, 32).tensor("y", {32}, 8, 64).data(98).get()) == ""); // gaps
    CHECK(refusal(builder{1, 0}.tensor("x", {0, 5}, 0, 0).get()) == "");                             // no data at all
    CHECK(refusal(builder{1, 1}.entry("general.alignment", 4).u32(8).tensor("x", {1}, 0, 8).pad(8).u64(0).u32(0).get()) == "");
}

TEST_CASE("header") {
    CHECK(refusal({}).find("magic at byte 0: 4 bytes do not fit into the remaining 0") != std::string::npos);
    CHECK(refusal(bytes(100)).find("magic at byte 0: is not \"GGUF\"") != std::string::npos);
    refuses(builder{0, 0, 1}, "version at byte 4", "is 1, expected 2 or 3");
    refuses(builder{0, 0, 4}, "version at byte 4", "is 4, expected 2 or 3");
    refuses(builder{0, 0, 0x03000000}, "version at byte 4", "(a big-endian file?)");
    for (std::uint64_t const count : {std::uint64_t{1}, half, half - 1, huge, huge / 33 + 2, huge / 14 + 2}) {
        refuses(builder{count, 0}, "tensor count at byte 8", "do not fit into the remaining 0");
        refuses(builder{0, count}, "metadata count at byte 16", "do not fit into the remaining 0");
    }
    // what a count promises and the file lacks
    refuses(builder{0, 2}.entry("a", 4).u32(7).data(64), "metadata 1 name at byte", "is empty");
    refuses(builder{2, 0}.tensor("x", {4}, 0, 0).data(64), "tensor 1 name at byte", "is empty");
}

TEST_CASE("metadata: names and types") {
    refuses(builder{0, 1}.string("").u32(4).u32(7).u64(0), "metadata 0 name at byte 24", "is empty");
    for (std::uint64_t const size : {std::uint64_t{1000}, half, huge, huge - 7, huge - 40})
        refuses(builder{0, 1}.u64(size).raw("abcdefghijkl"), "metadata 0 name at byte 24", "do not fit");
    refuses(builder{0, 1}.entry(std::string(65536, 'a'), 4).u32(7), "metadata 0 name at byte 24",
            "has 65536 bytes, expected at most 65535");
    CHECK(refusal(builder{0, 1}.entry(std::string(65535, 'a'), 4).u32(7).get()) == "");
    for (std::uint32_t const type : {13u, 255u, 0x80000000u, 0xffffffffu})
        refuses(builder{0, 1}.entry("key", type).u64(0), "metadata 0 'key' value type at byte 35", "expected 0 to 12");
    refuses(builder{0, 1}.entry("k\n\x01'\xff", 99).u64(0), "metadata 0 'k\\x0a\\x01\\x27\\xff' value type", "is 99");
    refuses(builder{0, 1}.entry(std::string(200, 'z'), 99).u64(0), "metadata 0 '" + std::string(64, 'z') + "...'",
            "is 99");
    refuses(builder{0, 2}.entry("same", 4).u32(1).entry("same", 4).u32(2), "metadata 1 'same' name at byte 52",
            "is a duplicate of metadata 0");
}

TEST_CASE("metadata: values") {
    refuses(builder{0, 1}.entry("b", 7).u8(2), "metadata 0 'b' boolean at byte 37", "is 2, expected 0 or 1");
    refuses(builder{0, 1}.entry("x", 12).u32(0), "metadata 0 'x' value at byte 37", "8 bytes do not fit");
    for (std::uint64_t const size : {std::uint64_t{4}, half, huge, huge - 7})
        refuses(builder{0, 1}.entry("s", 8).u64(size).raw("abc"), "metadata 0 's' string at byte 37", "do not fit");
    for (std::uint64_t const size : {std::uint64_t{3}, half, huge, huge / 4 + 2}) {
        refuses(builder{0, 1}.entry("a", 9).u32(4).u64(size).u64(0), "metadata 0 'a' array size at byte 41",
                "do not fit");
        refuses(builder{0, 1}.entry("a", 9).u32(8).u64(size).u64(0), "metadata 0 'a' array size at byte 41",
                "do not fit");
        refuses(builder{0, 1}.entry("a", 9).u32(9).u64(size).u64(0), "metadata 0 'a' array size at byte 41",
                "do not fit");
    }
    refuses(builder{0, 1}.entry("a", 9).u32(13).u64(0).u64(0), "metadata 0 'a' value type at byte 37", "is 13");
    refuses(builder{0, 1}.entry("a", 9).u32(8).u64(2).string("").u64(100).raw("x"),
            "metadata 0 'a' string of the array at byte 57", "100 bytes do not fit into the remaining 1");
    refuses(builder{0, 1}.entry("a", 9).u32(7).u64(3).u8(1).u8(0).u8(9), "metadata 0 'a' boolean at byte 49", "is 9");

    builder deep{0, 1};
    deep.entry("deep", 9);
    for (int i = 0; i < 5; ++i) deep.u32(9).u64(1);
    refuses(deep.u32(0).u64(0), "metadata 0 'deep' array at byte", "nested more than 4 deep");
    builder nested{0, 1};
    nested.entry("deep", 9);
    for (int i = 0; i < 3; ++i) nested.u32(9).u64(1);
    CHECK(refusal(nested.u32(0).u64(2).u8(1).u8(2).get()) == "");
}

TEST_CASE("alignment") {
    for (std::uint32_t const a : {0u, 1u, 4u, 12u, 0xffffffffu})
        refuses(builder{0, 1}.entry("general.alignment", 4).u32(a), "metadata 0 'general.alignment' value at byte 53",
                "expected a positive multiple of 8");
    refuses(builder{0, 1}.entry("general.alignment", 10).u64(32), "metadata 0 'general.alignment' value at byte 53",
            "is uint64, expected uint32");
    refuses(builder{0, 1}.entry("general.alignment", 8).string("32"), "metadata 0 'general.alignment' value",
            "is string, expected uint32");
    // an alignment that moves the data section out of the file
    refuses(builder{1, 1}.entry("general.alignment", 4).u32(0x80000000u).tensor("x", {4}, 0, 0).data(64),
            "tensor 0 'x' data at byte 2147483648", "do not fit into the data section of 0");
}

TEST_CASE("tensors: descriptions") {
    refuses(builder{1, 0}.string("").u32(1).u64(4).u32(0).u64(0).data(64), "tensor 0 name", "is empty");
    refuses(builder{1, 0}.tensor("x", {}, 0, 0).data(64), "tensor 0 'x' number of dimensions at byte 33",
            "is 0, expected 1 to 4");
    refuses(builder{1, 0}.tensor("x", {1, 1, 1, 1, 1}, 0, 0).data(64), "tensor 0 'x' number of dimensions at byte 33",
            "is 5, expected 1 to 4");
    refuses(builder{1, 0}.string("x").u32(0xffffffffu).data(64), "tensor 0 'x' number of dimensions",
            "is 4294967295, expected 1 to 4");
    for (std::uint64_t const d : {most + 1, half, huge})
        refuses(builder{1, 0}.tensor("x", {d}, 0, 0).data(64), "tensor 0 'x' dimension at byte 37",
                "too many elements");
    refuses(builder{1, 0}.tensor("x", {1u << 31, 1u << 23, 4}, 0, 0).data(64), "tensor 0 'x' dimension at byte 53",
            "too many elements");
    refuses(builder{1, 0}.tensor("x", {0, most, 2}, 0, 0).data(64), "tensor 0 'x' dimension at byte 53",
            "too many elements"); // also where there are none
    for (std::uint32_t const type : {0u, 1u, 2u, 3u, 8u, 28u, 30u})
        refuses(builder{1, 0}.tensor("x", {most}, type, 0).data(64), "tensor 0 'x' size", "do not fit");
    refuses(builder{1, 0}.tensor("x", {most / 4, 1}, 0, 0).data(64), "tensor 0 'x' size", "do not fit");
    CHECK(refusal(builder{3, 0}.tensor("x", {most, 0}, 3, 0).tensor("y", {0, most}, 8, 0).tensor("z", {most, 0}, 0, 0).get()) == "");
    for (std::uint32_t const type : {4u, 5u, 31u, 36u, 43u, 1000u, 0xffffffffu})
        refuses(builder{1, 0}.tensor("x", {32}, type, 0).data(64), "tensor 0 'x' type at byte 45", "is unknown");
    for (std::uint64_t const k : {std::uint64_t{1}, std::uint64_t{31}, std::uint64_t{33}})
        for (std::uint32_t const type : {2u, 3u, 8u})
            refuses(builder{1, 0}.tensor("x", {k, 32}, type, 0).data(4096), "tensor 0 'x' first dimension",
                    "expected a multiple of 32 for type q");
    refuses(builder{1, 0}.tensor("x", {32}, 12, 0).data(4096), "tensor 0 'x' first dimension",
            "expected a multiple of 256 for type q4_k");
}

TEST_CASE("tensors: places") {
    refuses(builder{1, 0}.tensor("x", {4}, 0, 16).data(64), "tensor 0 'x' offset", "expected a multiple of 32");
    refuses(builder{1, 0}.tensor("x", {4}, 0, 64).data(64), "tensor 0 'x' data", "do not fit into the data section of 64");
    refuses(builder{1, 0}.tensor("x", {4}, 0, 32).data(47), "tensor 0 'x' data", "16 bytes at offset 32");
    for (std::uint64_t const offset : {half, huge - 31, huge - 63})
        refuses(builder{1, 0}.tensor("x", {4}, 0, offset).data(64), "tensor 0 'x' data", "do not fit");
    refuses(builder{1, 0}.tensor("x", {0}, 0, 96).data(64), "tensor 0 'x' data", "0 bytes at offset 96");
    refuses(builder{2, 0}.tensor("x", {16}, 0, 0).tensor("y", {4}, 0, 32).data(64), "tensor 1 'y' data",
            "overlaps tensor 'x'");
    refuses(builder{2, 0}.tensor("y", {4}, 0, 32).tensor("x", {16}, 0, 0).data(64), "tensor 0 'y' data",
            "overlaps tensor 'x'");
    refuses(builder{2, 0}.tensor("x", {4}, 0, 0).tensor("y", {4}, 0, 0).data(64), "tensor", "overlaps tensor '");
    refuses(builder{3, 0}.tensor("x", {16}, 0, 0).tensor("e", {0}, 0, 32).tensor("y", {4}, 0, 32).data(64),
            "tensor 2 'y' data", "overlaps tensor 'x'");
    refuses(builder{2, 0}.tensor("x", {4}, 0, 0).tensor("x", {4}, 0, 32).data(64), "tensor 1 'x' name at byte 65",
            "is a duplicate of tensor 0");
}

TEST_CASE("a file cut at any byte is refused") {
    bytes const whole = tiny();
    REQUIRE(refusal(whole) == "");
    // the last tensor is followed by nothing but padding
    auto const parsed = ts::gguf::parse(whole, "tiny");
    std::size_t end = 0;
    for (auto const& t : parsed.tensors()) end = std::max(end, static_cast<std::size_t>(t.offset) + t.bytes.size());
    for (std::size_t size = 0; size < whole.size(); ++size) {
        std::string const message = refusal({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)});
        CAPTURE(size);
        if (size < end)
            REQUIRE(message.find("do not fit into the ") != std::string::npos);
        else
            REQUIRE(message == "");
    }
}

TEST_CASE("any changed header byte is refused or gives views inside the file") {
    bytes const whole = tiny();
    std::size_t const header = static_cast<std::size_t>(ts::gguf::parse(whole, "tiny").tensors()[0].offset);
    int refused = 0;
    for (std::size_t at = 0; at < header; ++at)
        for (unsigned const change : {0x01u, 0x80u, 0xffu, 0x20u}) {
            bytes bad = whole;
            bad[at] ^= static_cast<std::byte>(change);
            std::string const message = refusal(bad);
            refused += !message.empty();
            if (message.empty()) continue;
            CAPTURE(message);
            REQUIRE(message.starts_with("tessera: gguf: bad.gguf: "));
            REQUIRE(message.find(" at byte ") != std::string::npos);
        }
    CHECK(refused > 0);
    for (std::size_t at = 0; at + 8 <= header; ++at)
        for (std::uint64_t const word : {std::uint64_t{0}, half, huge, half - 1, std::uint64_t{0xffffffff}}) {
            bytes bad = whole;
            std::memcpy(bad.data() + at, &word, 8);
            refusal(bad);
        }
}
