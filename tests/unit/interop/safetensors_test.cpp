// SPDX-License-Identifier: MIT
// The safetensors reader and writer against files of the package of that name; tests/data/interop says which.

#include <doctest/doctest.h>

#include <fuzz/safetensors_walk.hpp>

#include <tessera/interop/safetensors.hpp>
#include <tessera/interop/safetensors_writer.hpp>
#include <tessera/storage/mapped_file.hpp>
#include <tessera/storage/tensor.hpp>

#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace ts = tessera;

namespace {

using bytes = std::vector<std::byte>;

std::string const folder = std::string{TESSERA_TEST_DATA} + "/interop/";
std::string const odd = "odd \"name\" \\ \n\t\x01 \u00e9 \u65e5 \U0001f600";

/// Header text and data as a file.
bytes file_of(std::string const& header, std::size_t data) {
    std::uint64_t const size = header.size();
    bytes out(8 + header.size() + data);
    std::memcpy(out.data(), &size, 8);
    std::memcpy(out.data() + 8, header.data(), header.size());
    return out;
}

/// The message, or "" when the file is accepted; what is accepted is walked.
std::string refusal(bytes const& file) {
    bytes const exact(file.begin(), file.end()); // the address sanitizer sees the first byte past the end
    try {
        auto const f = ts::safetensors::parse(exact, "bad");
        safetensors_test::walk(f);
        return "";
    } catch (ts::format_error const& e) {
        return e.what();
    }
}

void refuses(std::string const& header, std::size_t data, std::string_view where, std::string_view what) {
    std::string const message = refusal(file_of(header, data));
    INFO("header: ", header);
    INFO("message: ", message);
    CHECK(message.starts_with("tessera: safetensors: bad: " + std::string{where}));
    CHECK(message.find(what) != std::string::npos);
    CHECK(message.find(" at byte ") != std::string::npos);
}

std::string entry(std::string const& dtype, std::string const& shape, std::string const& offsets) {
    return "{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}
std::string one(std::string const& dtype, std::string const& shape, std::string const& offsets) {
    return "{\"x\":" + entry(dtype, shape, offsets) + "}";
}

template <class T>
void check_values(ts::safetensors::file const& f, char const* name) {
    CAPTURE(std::string{name});
    auto const w = ts::safetensors::as_dense<T>(f.tensor(name));
    REQUIRE(w.extent(0) == 2);
    REQUIRE(w.extent(1) == 3);
    for (ts::index_t i = 0; i < 6; ++i) {
        if constexpr (std::is_same_v<T, bool>)
            CHECK(w(i / 3, i % 3) == (i % 2 == 1));
        else
            CHECK(static_cast<float>(w(i / 3, i % 3)) == static_cast<float>(i));
    }
}

} // namespace

TEST_CASE("a file by the package: tensors of every type") {
    ts::mapped_file const file{folder + "tiny.safetensors"};
    auto const f = ts::safetensors::parse(file.bytes(), "tiny.safetensors");
    REQUIRE(f.tensors().size() == 19);
    check_values<double>(f, "f64");
    check_values<float>(f, "f32");
    check_values<ts::fp16>(f, "f16");
    check_values<ts::bf16>(f, "bf16");
    check_values<ts::e4m3fn>(f, "f8_e4m3");
    check_values<ts::e5m2>(f, "f8_e5m2");
    check_values<std::int8_t>(f, "i8");
    check_values<std::int16_t>(f, "i16");
    check_values<std::int32_t>(f, "i32");
    check_values<std::int64_t>(f, "i64");
    check_values<std::uint8_t>(f, "u8");
    check_values<std::uint16_t>(f, "u16");
    check_values<std::uint32_t>(f, "u32");
    check_values<std::uint64_t>(f, "u64");
    check_values<bool>(f, "bool");
    REQUIRE(f.metadata().size() == 1);
    CHECK(f.metadata()[0].key == "note");
    CHECK(f.metadata()[0].value == "line\n\"quoted\" \u00fc");

    auto const& scalar = f.tensor("scalar");
    CHECK(scalar.rank == 0);
    CHECK(scalar.size() == 1);
    CHECK(ts::safetensors::as_dense<float>(scalar)(0, 0) == 7.0f);
    auto const empty = ts::safetensors::as_view<float, 2>(f.tensor("empty"));
    CHECK(empty.extent(0) == 0);
    CHECK(empty.extent(1) == 5);
    auto const rank4 = ts::safetensors::as_view<std::int16_t, 4>(f.tensor("rank4"));
    CHECK(rank4(1, 0, 2, 1) == 11);
    CHECK(rank4.stride(0) == 6);
    CHECK(ts::safetensors::as_dense<std::int16_t>(f.tensor("rank4")).extent(0) == 6);
    CHECK(ts::safetensors::as_view<std::uint8_t, 1>(f.tensor(odd))[0] == 0);

    CHECK(f.find_tensor("nothing") == nullptr);
    CHECK_THROWS_WITH_AS(f.tensor("nothing"), "tessera: safetensors: tiny.safetensors: tensor 'nothing' is missing",
                         ts::format_error);
    CHECK_THROWS_WITH_AS(ts::safetensors::as_dense<float>(f.tensor("bf16")), doctest::Contains("holds BF16, wanted F32"),
                         ts::format_error);
    CHECK_THROWS_WITH_AS((ts::safetensors::as_view<float, 3>(f.tensor("f32"))),
                         doctest::Contains("has 2 dimensions, wanted 3"), ts::format_error);
}

TEST_CASE("the writer's bytes are the package's") {
    ts::mapped_file const file{folder + "tiny.safetensors"};
    auto const f = ts::safetensors::parse(file.bytes(), "tiny.safetensors");
    ts::safetensors::writer w;
    for (auto const& m : f.metadata()) w.set(m.key, m.value);
    for (auto const& t : f.tensors()) w.add_tensor(t.name, t.type, std::span{t.dims}.first(t.rank), t.bytes);
    auto const out = w.bytes();
    CHECK(std::equal(out.begin(), out.end(), file.bytes().begin(), file.bytes().end()));

    ts::mapped_file const none{folder + "none.safetensors"};
    auto const empty = ts::safetensors::writer{}.bytes();
    CHECK(ts::safetensors::parse(none.bytes(), "none").tensors().empty());
    CHECK(std::equal(empty.begin(), empty.end(), none.bytes().begin(), none.bytes().end()));
}

TEST_CASE("what the writer writes the reader reads") {
    ts::tensor<float, 3> x{2, 3, 4};
    for (ts::index_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>(i) - 5.5f;
    ts::vector<bool> flags{3};
    flags(1) = true;
    std::string const path = "safetensors_test_saved";
    ts::safetensors::writer w;
    w.set("a", "b");
    w.set("", "\x01\x1f");
    w.add_tensor("flags", flags.view());
    w.add_tensor("", ts::tensor_view<float const, 3>{x.view()});
    w.add_tensor("none", ts::matrix_view<double const>{nullptr, 5, 0});
    w.save(path);
    ts::mapped_file const file{path};
    auto const f = ts::safetensors::parse(file.bytes(), path);
    CHECK(ts::safetensors::as_view<float, 3>(f.tensor(""))(1, 2, 3) == 17.5f);
    CHECK(ts::safetensors::as_view<bool, 1>(f.tensor("flags"))[1]);
    CHECK(f.tensor("none").dims[0] == 5);
    CHECK(f.metadata()[1].value == "\x01\x1f");
    for (auto const& t : f.tensors()) CHECK((t.bytes.empty() || t.offset % ts::size_of(t.type) == 0));
    std::remove(path.c_str());
    CHECK_THROWS_AS(w.save("no/such/folder/x"), ts::format_error);
}

TEST_CASE("writer: wrong calls") {
    ts::safetensors::writer w;
    ts::matrix<float> const x{8, 8};
    ts::matrix_view<float const> const v = x.view();
    w.set("a", "b");
    CHECK_THROWS_AS(w.set("a", "c"), ts::shape_error);
    CHECK_THROWS_AS(w.set("b", "\xff"), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("__metadata__", v), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("\xc0\x80", v), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("t", ts::transposed(v)), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("t", ts::columns(v, 0, 4)), ts::shape_error);
    auto const some = std::as_bytes(std::span{x.data(), 4});
    using dims = std::vector<ts::index_t>;
    auto const f32 = ts::element_type::f32;
    CHECK_THROWS_AS(w.add_tensor("t", f32, dims{5}, some), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("t", f32, dims{-4}, some), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("t", f32, dims{1, 1, 1, 1, 1, 1, 1, 1, 4}, some), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("t", f32, dims{std::numeric_limits<ts::index_t>::max(), 4}, some), ts::shape_error);
    CHECK(ts::safetensors::parse(w.bytes(), "memory").tensors().empty());
    w.add_tensor("t", v);
    w.add_tensor("t", v);
    CHECK_THROWS_WITH_AS(w.bytes(), "tessera: safetensors writer: tensor 't' is there twice", ts::shape_error);
}

TEST_CASE("files at odd addresses, and booleans that are none") {
    ts::mapped_file const file{folder + "tiny.safetensors"};
    bytes moved(file.bytes().size() + 1);
    std::copy(file.bytes().begin(), file.bytes().end(), moved.begin() + 1);
    auto const f = ts::safetensors::parse(std::span<std::byte const>{moved}.subspan(1), "moved");
    CHECK_THROWS_WITH_AS(ts::safetensors::as_dense<float>(f.tensor("f32")),
                         doctest::Contains("its address is not a multiple of 4"), ts::format_error);
    bytes flags = file_of(one("BOOL", "[1]", "[0,1]"), 1);
    flags.back() = std::byte{2};
    auto const g = ts::safetensors::parse(flags, "flags");
    CHECK_THROWS_WITH_AS((ts::safetensors::as_view<bool, 1>(g.tensor("x"))), doctest::Contains("holds 2, expected booleans"),
                         ts::format_error);
}

TEST_CASE("good headers are accepted") {
    for (std::string const header :
         {"{}", "{ }", "{}  \n", "{\"__metadata__\":{}}", "{\"__metadata__\" : { \"a\" : \"\\u00e9\\ud83d\\ude00\\/\" } }"})
        CHECK(refusal(file_of(header, 0)) == "");
    CHECK(refusal(file_of(one("F32", "[2]", "[0,8]"), 8)) == "");
    CHECK(refusal(file_of(one("F32", "[]", "[0,4]"), 4)) == "");
    CHECK(refusal(file_of(one("F32", "[0,99999999]", "[0,0]"), 0)) == "");
    CHECK(refusal(file_of(one("U8", "[1,1,1,1,1,1,1,1]", "[0,1]"), 1)) == "");
    // out of order, with empty tensors between
    CHECK(refusal(file_of("{\"b\":" + entry("U8", "[2]", "[1,3]") + ",\"e\":" + entry("U8", "[0]", "[1,1]") + ",\"a\":" +
                              entry("I8", "[1]", "[0,1]") + ",\"z\":" + entry("F64", "[0]", "[3,3]") + "}",
                          3)) == "");
}

TEST_CASE("bad files are refused: sizes") {
    CHECK(refusal(bytes(7)).find("header size at byte 0: 8 bytes do not fit into 7") != std::string::npos);
    CHECK(refusal({}).find("header size at byte 0") != std::string::npos);
    for (std::uint64_t const size : {std::uint64_t{3}, std::uint64_t{100'000'000}, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
        bytes b(10, std::byte{'{'});
        std::memcpy(b.data(), &size, 8);
        CHECK(refusal(b).find("header size at byte 0") != std::string::npos);
    }
    refuses("", 0, "header at byte 8", "does not begin with '{'");
    refuses(" {}", 0, "header at byte 8", "does not begin with '{'");
    refuses("{}x", 0, "header at byte 10", "something follows");
    refuses("{}", 1, "data at byte 10", "1 bytes belong to no tensor");
}

TEST_CASE("a tensor of another type is listed, and refused when it is asked for") {
    std::string header = "{\"x\":" + entry("F31", "[3]", "[0,7]") + ",\"s\":" + entry("F8_E8M0", "[1]", "[7,8]") + "}";
    std::vector<char> bytes(8);
    bytes[0] = static_cast<char>(header.size());
    bytes.insert(bytes.end(), header.begin(), header.end());
    bytes.insert(bytes.end(), {1, 2, 3, 4, 5, 6, 7, 128 - 1});
    auto const file = ts::safetensors::parse(std::as_bytes(std::span{bytes}), "f");
    REQUIRE(file.tensors().size() == 2);
    CHECK(static_cast<float>(ts::safetensors::as_dense<ts::e8m0>(file.tensor("s"))(0, 0)) == 1.0f);
    ts::safetensors::tensor_entry const& x = file.tensor("x");
    CHECK(x.type == ts::element_type::other);
    CHECK(x.bytes.size() == 7);
    std::string const sentence = "tensor 'x' at byte " + std::to_string(8 + header.size()) + ": holds 'F31', which is unknown";
    CHECK_THROWS_WITH_AS(ts::safetensors::as_dense<float>(x), doctest::Contains(sentence.c_str()), ts::format_error);
    CHECK_THROWS_AS((ts::safetensors::as_view<float, 1>(x)), ts::format_error);
    ts::safetensors::writer out;
    CHECK_THROWS_AS(out.add_tensor("y", x.type, {}, {}), ts::shape_error);
}

TEST_CASE("bad files are refused: entries") {
    refuses(one("F32", "[2]", "[0,9]"), 9, "tensor 'x' entry at byte 13", "has 9 bytes, expected 8 (2 elements of F32)");
    refuses(one("F32", "[3]", "[0,8]"), 8, "tensor 'x' entry", "has 8 bytes, expected 12");
    refuses(one("F32", "[2]", "[0,8]"), 7, "tensor 'x' data_offsets", "[0, 8] does not fit into the data's 7 bytes");
    refuses(one("F32", "[2]", "[8,0]"), 8, "tensor 'x' data_offsets", "does not fit");
    refuses(one("F32", "[2]", "[0]"), 8, "tensor 'x' data_offsets", "has 1 numbers, expected 2");
    refuses(one("F32", "[2]", "[0,8,8]"), 8, "tensor 'x' data_offsets", "more than 2");
    refuses(one("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "tensor 'x' shape", "more than 8 dimensions");
    refuses(one("F32", "[-2]", "[0,8]"), 8, "tensor 'x' shape", "is '-2', expected digits alone");
    refuses(one("F32", "[2.0]", "[0,8]"), 8, "tensor 'x' shape", "is '2.0', expected digits alone");
    refuses(one("F32", "[02]", "[0,8]"), 8, "tensor 'x' shape", "leading zero");
    refuses(one("F32", "[\"2\"]", "[0,8]"), 8, "tensor 'x' shape", "is no number");
    refuses(one("F32", "[18446744073709551616]", "[0,8]"), 8, "tensor 'x' shape", "which 64 bits cannot hold");
    // products and sizes that overflow, a zero beside them or not
    for (std::string const shape : {"[4294967296,4294967296]", "[18446744073709551615]", "[9223372036854775808,2]",
                                    "[4611686018427387905,4]", "[0,18446744073709551615]", "[0,4294967296,4294967296]",
                                    "[4294967296,4294967296,0]"})
        refuses(one("F32", shape, "[0,0]"), 0, "tensor 'x' shape", "too many elements");
    refuses(one("F64", "[144115188075855872]", "[0,0]"), 0, "tensor 'x' entry", "has 0 bytes, expected 1152921504606846976");

    refuses("{\"x\":{\"dtype\":\"F32\",\"shape\":[0]}}", 0, "tensor 'x' entry", "has no data_offsets");
    refuses("{\"x\":{\"dtype\":\"F32\",\"data_offsets\":[0,0]}}", 0, "tensor 'x' entry", "has no shape");
    refuses("{\"x\":{}}", 0, "tensor 'x' entry", "has no dtype");
    refuses("{\"x\":{\"dtype\":\"F32\",\"other\":1}}", 0, "tensor 'x' entry", "has the unknown field 'other'");
    refuses("{\"x\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "tensor 'x' entry",
            "key 'dtype' is there twice");
    refuses("{\"x\":" + entry("U8", "[0]", "[0,0]") + ",\"\\u0078\":" + entry("U8", "[0]", "[0,0]") + "}", 0,
            "header", "is there twice");
    refuses("{\"x\":1}", 0, "tensor 'x' entry", "expected an object");
    refuses("{\"__metadata__\":{\"a\":1}}", 0, "metadata", "expected a string");
    refuses("{\"__metadata__\":{\"a\":\"b\",\"a\":\"b\"}}", 0, "metadata", "is there twice");
}

TEST_CASE("bad files are refused: gaps and overlap") {
    auto const two = [](std::string const& a, std::string const& b) {
        return "{\"a\":" + entry("U8", "[2]", a) + ",\"b\":" + entry("U8", "[2]", b) + "}";
    };
    CHECK(refusal(file_of(two("[0,2]", "[2,4]"), 4)) == "");
    CHECK(refusal(file_of(two("[2,4]", "[0,2]"), 4)) == "");
    refuses(two("[0,2]", "[1,3]"), 4, "tensor 'b' data", "overlaps the tensor before");
    refuses(two("[0,2]", "[0,2]"), 4, "tensor 'b' data", "overlaps the tensor before");
    refuses(two("[0,2]", "[3,5]"), 5, "tensor 'b' data", "leaves a gap");
    refuses(two("[1,3]", "[3,5]"), 5, "tensor 'a' data", "leaves a gap");
    refuses(two("[0,2]", "[2,4]"), 6, "data at byte", "2 bytes belong to no tensor");
}

TEST_CASE("bad files are refused: JSON") {
    for (std::string const text : {"{", "{\"a\"", "{\"a\":", "{\"a\":{", "{\"a\":{}", "{,}", "{\"a\":{},}", "{a:1}", "{'a':1}",
                                   "{\"a\" 1}", "{\"__metadata__\":{\"a\":\"b\"", "{\"__metadata__\":{\"a\":\"b"})
        CHECK(refusal(file_of(text, 0)).find(" at byte ") != std::string::npos);
    auto const value = [](std::string const& v) { return "{\"__metadata__\":{\"a\":\"" + v + "\"}}"; };
    for (std::string const bad : {"\\x", "\\u12", "\\u12g4", "\\ud800", "\\ud800x", "\\ud800\\u0041", "\\udc00", "\n", "\t", "\\"})
        refuses(value(bad), 0, "metadata at byte", "");
    for (std::string const bad : {"\x80", "\xc0\x80", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
                                  "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"})
        refuses(value(bad), 0, "text at byte", "is not UTF-8");
    CHECK(refusal(file_of(value("\u00e9\u65e5\U0001f600\\u0000"), 0)) == "");
    refuses(std::string(100, '{'), 0, "header at byte", "expected a string");
    std::string deep = "{\"x\":{\"dtype\":";
    deep += std::string(1000, '[');
    refuses(deep, 0, "tensor 'x' dtype", "expected a string");
}

TEST_CASE("any byte of a good file") {
    ts::mapped_file const file{folder + "tiny.safetensors"};
    bytes const good(file.bytes().begin(), file.bytes().end());
    for (std::size_t cut = 0; cut < good.size(); ++cut)
        CHECK(refusal({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(cut)}) != "");
    for (std::size_t i = 0; i < good.size(); ++i)
        for (int const flip : {1, 2, 16, 128}) {
            bytes b = good;
            b[i] ^= static_cast<std::byte>(flip);
            refusal(b); // accepted and walked, or refused; sanitizers see the rest
        }
}
