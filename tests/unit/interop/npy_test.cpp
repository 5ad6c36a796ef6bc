// SPDX-License-Identifier: MIT
// The npy reader and writer against numpy's files; tests/data/interop says how they were made.

#include <doctest/doctest.h>

#include <tessera/interop/npy.hpp>
#include <tessera/storage/mapped_file.hpp>
#include <tessera/storage/tensor.hpp>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>
#if defined(__unix__)
#include <unistd.h>
#endif

namespace ts = tessera;

namespace {

using bytes = std::vector<std::byte>;

ts::mapped_file open(std::string const& name) {
    return ts::mapped_file{std::string{TESSERA_TEST_DATA} + "/interop/" + name + ".npy"};
}

bytes file_of(std::string const& header, std::size_t data, int major = 1, int minor = 0) {
    std::string text{ts::npy::magic};
    text += {static_cast<char>(major), static_cast<char>(minor), static_cast<char>(header.size() & 255),
             static_cast<char>(header.size() >> 8)};
    if (major > 1) text += {'\0', '\0'};
    text += header;
    bytes out(text.size() + data);
    std::memcpy(out.data(), text.data(), text.size());
    return out;
}

std::string refusal(bytes const& file) {
    bytes const exact(file.begin(), file.end()); // the address sanitizer sees the first byte past the end
    try {
        ts::npy::array const a = ts::npy::parse(exact, "bad");
        [[maybe_unused]] static std::uint64_t volatile sink;
        for (std::byte const b : a.bytes) sink = static_cast<std::uint64_t>(b);
        CHECK(a.bytes.size() == static_cast<std::size_t>(a.size()) * ts::size_of(a.type));
        return "";
    } catch (ts::format_error const& e) {
        return e.what();
    }
}

void refuses(std::string const& header, std::string_view where, std::string_view what, std::size_t data = 0) {
    std::string const message = refusal(file_of(header, data));
    INFO("header: ", header);
    INFO("message: ", message);
    CHECK(message.starts_with("tessera: npy: bad: " + std::string{where}));
    CHECK(message.find(what) != std::string::npos);
    CHECK(message.find(" at byte ") != std::string::npos);
}

std::string dictionary(std::string const& descr, std::string const& order, std::string const& shape) {
    return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }\n";
}

/// Twelve numbers 0, 1, 2, ... in a file of rank 1.
template <class T>
void check_count(char const* name) {
    CAPTURE(std::string{name});
    ts::mapped_file const file = open(name);
    auto const v = ts::npy::as_view<T, 1>(ts::npy::parse(file.bytes(), name));
    REQUIRE(v.extent(0) == 12);
    for (ts::index_t i = 0; i < 12; ++i) CHECK(v[i] == static_cast<T>(std::is_same_v<T, bool> ? i % 2 : i));
    bytes const again = ts::npy::bytes(v);
    CHECK(std::equal(again.begin(), again.end(), file.bytes().begin(), file.bytes().end()));
}

} // namespace

TEST_CASE("files by numpy: every type of number") {
    check_count<std::int8_t>("i1");
    check_count<std::uint8_t>("u1");
    check_count<std::uint16_t>("u2");
    check_count<std::int32_t>("i4");
    check_count<std::uint32_t>("u4");
    check_count<std::uint64_t>("u8");
    check_count<bool>("b1");
}

TEST_CASE("files by numpy: orders, ranks, versions") {
    ts::mapped_file const c = open("c");
    auto const a = ts::npy::parse(c.bytes(), "c.npy");
    auto const rows = ts::npy::as_view<float, 2>(a);
    for (ts::index_t i = 0; i < 12; ++i) CHECK(rows(i / 4, i % 4) == static_cast<float>(i));
    CHECK(rows.stride(0) == 4);
    CHECK(a.offset == 128);
    bytes const again = ts::npy::bytes(rows);
    CHECK(std::equal(again.begin(), again.end(), c.bytes().begin(), c.bytes().end()));

    ts::mapped_file const f = open("fortran");
    auto const columns = ts::npy::as_view<double, 2>(ts::npy::parse(f.bytes(), "fortran.npy"));
    for (ts::index_t i = 0; i < 12; ++i) CHECK(columns(i / 4, i % 4) == static_cast<double>(i));
    CHECK(columns.stride(0) == 1);
    CHECK(columns.stride(1) == 3);
    ts::mapped_file const f3 = open("fortran3");
    auto const three = ts::npy::as_view<std::int16_t, 3>(ts::npy::parse(f3.bytes(), "fortran3.npy"));
    for (ts::index_t i = 0; i < 12; ++i) CHECK(three(i / 4, i / 2 % 2, i % 2) == i);

    ts::mapped_file const v2 = open("version2");
    auto const half = ts::npy::as_view<ts::fp16, 2>(ts::npy::parse(v2.bytes(), "version2.npy"));
    CHECK(static_cast<float>(half(1, 5)) == 11.0f);
    ts::mapped_file const v3 = open("version3");
    CHECK(ts::npy::as_view<std::int64_t, 2>(ts::npy::parse(v3.bytes(), "version3.npy"))(11, 0) == 11);

    ts::mapped_file const scalar = open("scalar");
    auto const seven = ts::npy::as_view<float, 0>(ts::npy::parse(scalar.bytes(), "scalar.npy"));
    CHECK(seven() == 7.0f);
    bytes const seven_again = ts::npy::bytes(seven);
    CHECK(std::equal(seven_again.begin(), seven_again.end(), scalar.bytes().begin(), scalar.bytes().end()));
    ts::mapped_file const empty = open("empty");
    auto const none = ts::npy::as_view<float, 2>(ts::npy::parse(empty.bytes(), "empty.npy"));
    CHECK(none.extent(1) == 5);
    bytes const none_again = ts::npy::bytes(none);
    CHECK(std::equal(none_again.begin(), none_again.end(), empty.bytes().begin(), empty.bytes().end()));

    CHECK_THROWS_WITH_AS((ts::npy::as_view<float, 1>(a)), "tessera: npy: data at byte 128: has 2 dimensions, wanted 1",
                         ts::format_error);
    CHECK_THROWS_WITH_AS((ts::npy::as_view<double, 2>(a)), "tessera: npy: data at byte 128: holds F32, wanted F64",
                         ts::format_error);
}

TEST_CASE("files by numpy: what is not a plain array of numbers is refused") {
    CHECK_THROWS_WITH_AS(ts::npy::parse(open("big_endian").bytes(), "big_endian.npy"),
                         "tessera: npy: big_endian.npy: descr at byte 20: is '>f4', expected '<f4' (little-endian)",
                         ts::format_error);
    CHECK_THROWS_WITH_AS(ts::npy::parse(open("structure").bytes(), "structure.npy"),
                         "tessera: npy: structure.npy: descr at byte 20: is a structure, expected numbers", ts::format_error);
}

TEST_CASE("strided views are written in C order") {
    ts::mapped_file const c = open("c");
    auto const rows = ts::npy::as_view<float, 2>(ts::npy::parse(c.bytes(), "c.npy"));
    bytes const turned = ts::npy::bytes(ts::transposed(rows));
    auto const t = ts::npy::as_view<float, 2>(ts::npy::parse(turned, "memory"));
    REQUIRE(t.extent(0) == 4);
    for (ts::index_t i = 0; i < 12; ++i) CHECK(t(i % 4, i / 4) == static_cast<float>(i));

    ts::matrix<std::int32_t> large{70, 50};
    for (ts::index_t i = 0; i < large.size(); ++i) large.data()[i] = static_cast<std::int32_t>(i);
    auto const part = ts::columns(ts::matrix_view<std::int32_t const>{large.view()}, 3, 44);
    std::string const path = "npy_test_saved";
    ts::npy::save(path, part);
    ts::mapped_file const file{path};
    auto const back = ts::npy::as_view<std::int32_t, 2>(ts::npy::parse(file.bytes(), path));
    bool same = true;
    for (ts::index_t i = 0; i < 70; ++i)
        for (ts::index_t j = 0; j < 41; ++j) same = same && back(i, j) == part(i, j);
    CHECK(same);
    std::remove(path.c_str());
    CHECK_THROWS_AS(ts::npy::save("no/such/folder/x", part), ts::format_error);
}

TEST_CASE("good headers are accepted") {
    CHECK(refusal(file_of(dictionary("'<f4'", "False", "(2, 3)"), 24)) == "");
    CHECK(refusal(file_of(dictionary("'<f4'", "True", "(2, 3)"), 24, 2)) == "");
    CHECK(refusal(file_of(dictionary("\"<i1\"", "False", "( 2 , 3 , )"), 6, 3)) == "");
    CHECK(refusal(file_of("{\"shape\":(2,),\"fortran_order\":False,\"descr\":\"|b1\"}", 2)) == "");
    CHECK(refusal(file_of(dictionary("'<u8'", "False", "(0, 99999999)"), 0)) == "");
}

TEST_CASE("bad files are refused: preamble") {
    bytes const good = file_of(dictionary("'<f4'", "False", "(2, 3)"), 24);
    for (std::size_t cut = 0; cut < good.size(); ++cut)
        CHECK(refusal({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(cut)}).find(" at byte ") != std::string::npos);
    bytes longer = good;
    longer.push_back({});
    CHECK(refusal(longer).find("data at byte " + std::to_string(good.size() - 24) + ": has 25 bytes, expected 24 (6 elements of F32)") != std::string::npos);
    bytes wrong = good;
    wrong[0] = std::byte{'N'};
    CHECK(refusal(wrong).find("magic at byte 0") != std::string::npos);
    for (auto const& [major, minor] : {std::pair{0, 0}, {4, 0}, {1, 1}, {255, 255}}) {
        wrong = good;
        wrong[6] = static_cast<std::byte>(major);
        wrong[7] = static_cast<std::byte>(minor);
        CHECK(refusal(wrong).find("version at byte 6: is " + std::to_string(major)) != std::string::npos);
    }
    bytes huge = file_of(dictionary("'<f4'", "False", "(2, 3)"), 24, 2);
    std::memset(huge.data() + 8, 0xff, 4);
    CHECK(refusal(huge).find("header size at byte 8: is 4294967295, expected at most 65535") != std::string::npos);
    std::memset(huge.data() + 8, 0xff, 2);
    std::memset(huge.data() + 10, 0, 2);
    CHECK(refusal(huge).find("header size at byte 8: 65535 bytes do not fit") != std::string::npos);
}

TEST_CASE("bad files are refused: dictionary") {
    refuses("", "header at byte 10", "expected {");
    refuses("{", "header at byte 11", "expected a string");
    refuses("{}", "header at byte 8", "has no key 'descr'");
    refuses("{'descr': '<f4', 'fortran_order': False}", "header at byte 8", "has no key 'shape'");
    refuses("{'descr': '<f4', 'shape': (1,)}", "header at byte 8", "has no key 'fortran_order'");
    refuses("{'descr': '<f4' 'shape': (1,)}", "header at byte 26", "expected }");
    refuses("{'other': 1}", "header at byte 11", "has the unknown key 'other'");
    refuses("{'descr': '<f4', 'descr': '<f4'}", "header", "has the key 'descr' twice");
    refuses(dictionary("'<f4'", "False", "()") + "x", "header", "something follows");
    refuses(dictionary("'<f4", "False", "()"), "descr", "is '<f4, '");
    for (std::string const descr : {"'f4'", "'=f4'", "'|f4'", "'<f16'", "'<c8'", "'|O'", "'|S3'", "'<U3'", "'|V2'", "''", "'<M8'"})
        refuses(dictionary(descr, "False", "()"), "descr at byte 20", "expected");
    refuses(dictionary("'<f4'", "0", "()"), "fortran_order", "is neither True nor False");
    refuses(dictionary("'<f4'", "False", "3"), "shape", "expected (");
    refuses(dictionary("'<f4'", "False", "(3)"), "shape", "is a number in parentheses");
    refuses(dictionary("'<f4'", "False", "(,)"), "shape", "expected a number");
    refuses(dictionary("'<f4'", "False", "(-3,)"), "shape", "expected a number");
    refuses(dictionary("'<f4'", "False", "(03,)"), "shape", "expected a number");
    refuses(dictionary("'<f4'", "False", "(3.0,)"), "shape", "expected )");
    refuses(dictionary("'<f4'", "False", "(3L,)"), "shape", "expected )");
    refuses(dictionary("'<f4'", "False", "(18446744073709551616,)"), "shape", "64 bits cannot hold");
    refuses(dictionary("'<f4'", "False", "(1,1,1,1,1,1,1,1,1)"), "shape", "more than 8 dimensions", 4);
    for (std::string const shape : {"(18446744073709551615,)", "(4294967296, 4294967296)", "(0, 18446744073709551615)",
                                    "(9223372036854775808, 2)", "(4294967296, 4294967296, 0)"})
        refuses(dictionary("'<f4'", "False", shape), "shape", "too many elements");
    refuses(dictionary("'<f8'", "False", "(144115188075855872,)"), "data", "has 0 bytes, expected 1152921504606846976");
}

TEST_CASE("any byte of a good file") {
    ts::mapped_file const file = open("fortran");
    bytes const good(file.bytes().begin(), file.bytes().end());
    for (std::size_t i = 0; i < good.size(); ++i)
        for (int const flip : {1, 2, 16, 128}) {
            bytes b = good;
            b[i] ^= static_cast<std::byte>(flip);
            refusal(b); // accepted and read, or refused; sanitizers see the rest
        }
}

#if defined(__unix__)
TEST_CASE("a mapped file is replaced by what is read from it, through a link; what cannot be written leaves it") {
    namespace fs = std::filesystem;
    fs::path const folder = fs::temp_directory_path() / ("tessera_npy_" + std::to_string(::getpid()));
    fs::create_directories(folder);
    std::string const path = (folder / "m.npy").string(), link = (folder / "link.npy").string();
    ts::matrix<float> w{64, 300};
    for (ts::index_t i = 0; i < w.size(); ++i) w.data()[i] = static_cast<float>(i);
    ts::npy::save(path, w.view());
    fs::create_symlink("m.npy", link);
    {
        ts::mapped_file const old{link};
        auto const a = ts::npy::parse(old.bytes(), link);
        ts::npy::save(link, ts::npy::as_view<float, 2>(a)); // its bytes lie in the file that it replaces
    }
    CHECK(fs::is_symlink(link));
    ts::mapped_file const file{path};
    auto const again = ts::npy::parse(file.bytes(), path);
    auto const v = ts::npy::as_view<float, 2>(again);
    for (ts::index_t i = 0; i < 64; ++i)
        for (ts::index_t j = 0; j < 300; ++j) REQUIRE(v(i, j) == w(i, j));
    CHECK_THROWS_AS(ts::npy::save((folder / "none" / "m.npy").string(), w.view()), ts::format_error);
    CHECK(std::distance(fs::directory_iterator{folder}, fs::directory_iterator{}) == 2); // nothing beside them
    fs::remove_all(folder);
}
#endif
