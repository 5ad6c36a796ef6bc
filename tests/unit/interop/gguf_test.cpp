// SPDX-License-Identifier: MIT
// The GGUF reader on a file by gguf-py (tests/data/gguf/tiny.gguf), and writer to reader.

#include <doctest/doctest.h>

#include <tessera/core/slice.hpp>
#include <tessera/interop/gguf.hpp>
#include <tessera/interop/gguf_writer.hpp>
#include <tessera/storage/mapped_file.hpp>

#include <cstdio>
#include <limits>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace ts = tessera;
using namespace std::string_view_literals;

namespace {

std::string const tiny_path = std::string{TESSERA_TEST_DATA} + "/gguf/tiny.gguf";

template <class T>
std::vector<T> collect(ts::gguf::array_view<T> a) {
    return {a.begin(), a.end()};
}

} // namespace

static_assert(std::forward_iterator<ts::gguf::array_view<std::string_view>::iterator>);

TEST_CASE("a file by gguf-py: metadata of every type") {
    ts::mapped_file const bytes{tiny_path};
    auto const f = ts::gguf::parse(bytes.bytes(), "tiny.gguf");
    CHECK(f.version() == 3);
    CHECK(f.alignment() == 32);
    CHECK(f.name() == "tiny.gguf");
    CHECK(f.get<std::string_view>("general.architecture") == "llama");
    CHECK(f.get<std::uint8_t>("test.uint8") == 200);
    CHECK(f.get<std::int8_t>("test.int8") == -100);
    CHECK(f.get<std::uint16_t>("test.uint16") == 60000);
    CHECK(f.get<std::int16_t>("test.int16") == -30000);
    CHECK(f.get<std::uint32_t>("test.uint32") == 4000000000u);
    CHECK(f.get<std::int32_t>("test.int32") == -2000000000);
    CHECK(f.get<float>("test.float32") == 0.1f);
    CHECK(f.get<bool>("test.bool"));
    CHECK(f.get<std::string_view>("test.string") == "gr\u00fc\u00df dich"sv);
    CHECK(f.get<std::string_view>("test.empty").empty());
    CHECK(f.get<std::uint64_t>("test.uint64") == (std::uint64_t{1} << 63) + 5);
    CHECK(f.get<std::int64_t>("test.int64") == -(std::int64_t{1} << 62));
    CHECK(f.get<double>("test.float64") == 1e-300);
    CHECK(collect(f.get<ts::gguf::array_view<std::string_view>>("test.strings")) ==
          std::vector<std::string_view>{"a", "", "\u65e5\u672c", std::string_view{"dddddddddddddddddddddddddddddddddddddddd"}});
    auto const integers = f.get<ts::gguf::array_view<std::int32_t>>("test.integers");
    CHECK(collect(integers) == std::vector<std::int32_t>{1, -2, 3});
    CHECK(integers[1] == -2);
    CHECK(collect(f.get<ts::gguf::array_view<float>>("test.floats")) == std::vector<float>{0.5f, -0.25f});
    CHECK(collect(f.get<ts::gguf::array_view<bool>>("test.bools")) == std::vector<bool>{true, false, true});
}

TEST_CASE("get converts what fits and refuses the rest") {
    ts::mapped_file const bytes{tiny_path};
    auto const f = ts::gguf::parse(bytes.bytes(), "tiny.gguf");
    CHECK(f.get<ts::index_t>("test.uint8") == 200);
    CHECK(f.get<std::uint64_t>("test.uint32") == 4000000000u);
    CHECK(f.get<std::int32_t>("test.int8") == -100);
    CHECK(f.get<double>("test.float32") == static_cast<double>(0.1f));
    CHECK(f.get_or<int>("test.nothing", 7) == 7);
    CHECK(f.get_or<std::string_view>("test.nothing", "x") == "x");
    CHECK(f.get_or<int>("test.uint8", 7) == 200);
    CHECK(f.contains("test.uint8"));
    CHECK(!f.contains("test.uint"));

    CHECK_THROWS_WITH_AS(f.get<int>("test.nothing"), "tessera: gguf: tiny.gguf: metadata 'test.nothing' is missing",
                         ts::format_error);
    CHECK_THROWS_WITH_AS(f.get<std::uint32_t>("test.int8"),
                         doctest::Contains("is -100, which uint32 cannot hold"), ts::format_error);
    CHECK_THROWS_WITH_AS(f.get<std::int32_t>("test.uint32"),
                         doctest::Contains("is 4000000000, which int32 cannot hold"), ts::format_error);
    CHECK_THROWS_WITH_AS(f.get<int>("test.string"), doctest::Contains("holds string, wanted int32"), ts::format_error);
    CHECK_THROWS_WITH_AS(f.get<int>("test.integers"), doctest::Contains("holds an array of int32, wanted int32"),
                         ts::format_error);
    CHECK_THROWS_AS(f.get<float>("test.int8"), ts::format_error);
    CHECK_THROWS_AS(f.get<int>("test.float32"), ts::format_error);
    CHECK_THROWS_AS(f.get<int>("test.bool"), ts::format_error);
    CHECK_THROWS_AS(f.get<bool>("test.uint8"), ts::format_error);
    CHECK_THROWS_AS(f.get<std::string_view>("test.uint8"), ts::format_error);
    CHECK_THROWS_AS((f.get<ts::gguf::array_view<float>>("test.integers")), ts::format_error);
    CHECK_THROWS_AS((f.get<ts::gguf::array_view<std::uint32_t>>("test.integers")), ts::format_error);
    CHECK_THROWS_AS((f.get<ts::gguf::array_view<std::string_view>>("test.string")), ts::format_error);
}

TEST_CASE("a file by gguf-py: tensors of every type") {
    ts::mapped_file const bytes{tiny_path, ts::file_access::read};
    ts::mapped_file const expected{std::string{TESSERA_TEST_DATA} + "/gguf/tiny_x.bin"};
    auto const f = ts::gguf::parse(bytes.bytes(), "tiny.gguf");
    REQUIRE(f.tensors().size() == 8);
    std::vector<float> x(3 * 64);
    REQUIRE(expected.bytes().size() == x.size() * sizeof(float));
    std::memcpy(x.data(), expected.bytes().data(), expected.bytes().size());
    ts::matrix_view<float const> const reference{x.data(), 3, 64};

    auto const f32 = ts::gguf::as_dense<float>(f.tensor("dense.f32"));
    auto const f16 = ts::gguf::as_dense<ts::fp16>(f.tensor("dense.f16"));
    auto const bf16 = ts::gguf::as_dense<ts::bf16>(f.tensor("dense.bf16"));
    auto const b40 = ts::gguf::as_blocked<ts::q4_0>(f.tensor("blocks.q4_0"));
    auto const b41 = ts::gguf::as_blocked<ts::q4_1>(f.tensor("blocks.q4_1"));
    auto const b80 = ts::gguf::as_blocked<ts::q8_0>(f.tensor("blocks.q8_0"));
    REQUIRE(f32.extent(0) == 3);
    REQUIRE(f32.extent(1) == 64);
    REQUIRE(b41.rows() == 3);
    REQUIRE(b41.cols() == 64);
    for (ts::index_t i = 0; i < 3; ++i)
        for (ts::index_t b = 0; b < 2; ++b) {
            ts::q4_0::block q40{};
            ts::q4_1::block q41{};
            ts::q8_0::block q80{};
            ts::q4_0::encode(&reference(i, 32 * b), q40);
            ts::q4_1::encode(&reference(i, 32 * b), q41);
            ts::q8_0::encode(&reference(i, 32 * b), q80);
            for (ts::index_t j = 32 * b; j < 32 * b + 32; ++j) {
                REQUIRE(f32(i, j) == reference(i, j));
                REQUIRE(f16(i, j) == ts::fp16{reference(i, j)});
                REQUIRE(bf16(i, j) == ts::bf16{reference(i, j)});
                REQUIRE(b40(i, j) == ts::q4_0::decode(q40, static_cast<int>(j % 32)));
                REQUIRE(b41(i, j) == ts::q4_1::decode(q41, static_cast<int>(j % 32)));
                REQUIRE(b80(i, j) == ts::q8_0::decode(q80, static_cast<int>(j % 32)));
            }
        }
    auto const vector = ts::gguf::as_vector<float>(f.tensor("vector.f32"));
    REQUIRE(vector.extent(0) == 5);
    for (ts::index_t i = 0; i < 5; ++i) CHECK(vector[i] == reference(0, i));

    auto const& rank4 = f.tensor("rank4.f32");
    CHECK(rank4.rank == 4);
    CHECK(rank4.dims == std::array<ts::index_t, 4>{2, 4, 3, 2});
    auto const flat = ts::gguf::as_dense<float>(rank4);
    CHECK(flat.extent(0) == 24);
    CHECK(flat(23, 1) == 47.0f);

    CHECK_THROWS_WITH_AS(f.tensor("nothing"), "tessera: gguf: tiny.gguf: tensor 'nothing' is missing",
                         ts::format_error);
    CHECK(f.find_tensor("nothing") == nullptr);
    CHECK_THROWS_WITH_AS(ts::gguf::as_dense<float>(f.tensor("blocks.q4_1")),
                         doctest::Contains("holds q4_1, wanted f32"), ts::format_error);
    CHECK_THROWS_AS(ts::gguf::as_blocked<ts::q4_0>(f.tensor("blocks.q4_1")), ts::format_error);
    CHECK_THROWS_AS(ts::gguf::as_vector<float>(f.tensor("dense.f32")), ts::format_error);
}

TEST_CASE("a file at an odd address: metadata reads, tensors are refused") {
    ts::mapped_file const bytes{tiny_path};
    std::vector<std::byte> moved(bytes.bytes().size() + 1);
    std::copy(bytes.bytes().begin(), bytes.bytes().end(), moved.begin() + 1);
    auto const f = ts::gguf::parse(std::span<std::byte const>{moved}.subspan(1), "moved");
    CHECK(f.get<double>("test.float64") == 1e-300);
    CHECK(collect(f.get<ts::gguf::array_view<std::int32_t>>("test.integers")) == std::vector<std::int32_t>{1, -2, 3});
    CHECK_THROWS_WITH_AS(ts::gguf::as_dense<float>(f.tensor("dense.f32")),
                         doctest::Contains("its address is not a multiple of 4"), ts::format_error);
}

TEST_CASE("what the writer writes the reader reads") {
    std::vector<float> x(2 * 64);
    std::iota(x.begin(), x.end(), -7.0f);
    std::vector<ts::fp16> const halves(5, ts::fp16{0.5f});
    std::vector<ts::bf16> const brains(6, ts::bf16{-2.0f});
    std::vector<ts::q4_1::block> b41(4);
    std::vector<ts::q8_0::block> b80(4);
    ts::encode_row<ts::q4_1>(x.data(), 128, b41.data());
    ts::encode_row<ts::q8_0>(x.data(), 128, b80.data());
    for (std::uint32_t const alignment : {8u, 24u, 32u, 64u, 4096u}) {
        CAPTURE(alignment);
        ts::gguf::writer w{alignment};
        w.set("a.u8", std::uint8_t{1});
        w.set("a.bool", false);
        w.set("a.i64", std::int64_t{-5});
        w.set("a.f32", std::numeric_limits<float>::infinity());
        w.set("a.text", "text");
        w.set("a.string", std::string{"with\0zero", 9});
        std::string const words[] = {"one", "", "three"};
        w.set_array<std::string>("a.words", words);
        double const numbers[] = {1.5, -2.5};
        w.set_array<double>("a.numbers", numbers);
        w.set_array<int>("a.none", {});
        w.add_tensor("x", ts::matrix_view<float const>{x.data(), 2, 64});
        w.add_tensor("halves", ts::vector_view<ts::fp16 const>{halves.data(), 5});
        w.add_tensor("brains", ts::matrix_view<ts::bf16 const>{brains.data(), 2, 3});
        w.add_tensor("b41", ts::blocked<ts::q4_1>{b41.data(), 2, 64});
        w.add_tensor("b80", ts::blocked<ts::q8_0>{b80.data(), 4, 32});
        w.add_tensor("empty", ts::blocked<ts::q8_0>{nullptr, 0, 32});
        auto const bytes = w.bytes();
        CHECK(bytes == w.bytes());
        auto const f = ts::gguf::parse(bytes, "memory");
        CHECK(f.alignment() == alignment);
        CHECK(f.get<std::uint8_t>("a.u8") == 1);
        CHECK(!f.get<bool>("a.bool"));
        CHECK(f.get<int>("a.i64") == -5);
        CHECK(f.get<float>("a.f32") == std::numeric_limits<float>::infinity());
        CHECK(f.get<std::string_view>("a.text") == "text");
        CHECK(f.get<std::string_view>("a.string") == "with\0zero"sv);
        CHECK(collect(f.get<ts::gguf::array_view<std::string_view>>("a.words")) ==
              std::vector<std::string_view>{"one", "", "three"});
        CHECK(collect(f.get<ts::gguf::array_view<double>>("a.numbers")) == std::vector<double>{1.5, -2.5});
        CHECK(f.get<ts::gguf::array_view<int>>("a.none").empty());
        REQUIRE(f.tensors().size() == 6);
        for (auto const& t : f.tensors()) CHECK((t.bytes.empty() || (t.offset % alignment == 0)));
        auto const dense = ts::gguf::as_dense<float>(f.tensor("x"));
        for (ts::index_t i = 0; i < 128; ++i) REQUIRE(dense(i / 64, i % 64) == x[static_cast<std::size_t>(i)]);
        CHECK(ts::gguf::as_vector<ts::fp16>(f.tensor("halves"))[4] == ts::fp16{0.5f});
        CHECK(ts::gguf::as_dense<ts::bf16>(f.tensor("brains"))(1, 2) == ts::bf16{-2.0f});
        CHECK(ts::gguf::as_blocked<ts::q4_1>(f.tensor("b41"))(1, 63) == ts::q4_1::decode(b41[3], 31));
        CHECK(ts::gguf::as_blocked<ts::q8_0>(f.tensor("b80"))(3, 31) == ts::q8_0::decode(b80[3], 31));
        CHECK(ts::gguf::as_blocked<ts::q8_0>(f.tensor("empty")).rows() == 0);
    }
}

TEST_CASE("every block format is found by its type") {
    auto const check = []<class Format>() {
        CAPTURE(std::string{Format::name});
        typename Format::block b[2]{};
        ts::gguf::writer out;
        out.add_tensor("w", ts::blocked<Format>{b, 1, 2 * Format::block_size});
        std::vector<std::byte> const bytes = out.bytes();
        ts::gguf::file const f = ts::gguf::parse(bytes, "one");
        CHECK(std::string{ts::gguf::name_of(f.tensor("w").type)} == Format::name);
        bool const same = ts::gguf::with_storage(
            f.tensor("w"), []<class Storage>(Storage const&) { return std::is_same_v<Storage, ts::blocked<Format>>; },
            ts::gguf::block_formats{});
        CHECK(same);
    };
    [&]<class... Format>(ts::format_list<Format...>) { (check.template operator()<Format>(), ...); }(ts::gguf::block_formats{});
}

TEST_CASE("writer: save and read back") {
    std::string const path = "gguf_test_saved.gguf";
    std::vector<float> const x(3, 1.25f);
    ts::gguf::writer w;
    w.set("general.architecture", "test");
    w.add_tensor("x", ts::vector_view<float const>{x.data(), 3});
    w.save(path);
    for (auto const access : {ts::file_access::map, ts::file_access::read}) {
        ts::mapped_file const bytes{path, access};
        CHECK(bytes.access() == access);
        auto const f = ts::gguf::parse(bytes.bytes(), path);
        CHECK(ts::gguf::as_vector<float>(f.tensor("x"))[2] == 1.25f);
    }
    std::remove(path.c_str());
    CHECK_THROWS_AS(w.save("no/such/folder/x.gguf"), ts::format_error);
}

TEST_CASE("writer: wrong calls") {
    ts::gguf::writer w;
    std::vector<float> const x(64, 1.0f);
    w.set("a", 1);
    CHECK_THROWS_WITH_AS(w.set("a", 2), "tessera: gguf writer: key 'a' is set already", ts::shape_error);
    CHECK_THROWS_AS(w.set("", 2), ts::shape_error);
    CHECK_THROWS_AS(w.set("general.alignment", 64u), ts::shape_error);
    CHECK_THROWS_AS(ts::gguf::writer{12}, ts::shape_error);
    w.add_tensor("x", ts::vector_view<float const>{x.data(), 3});
    CHECK_THROWS_AS(w.add_tensor("x", ts::vector_view<float const>{x.data(), 3}), ts::shape_error);
    ts::matrix_view<float const> const square{x.data(), 8, 8};
    CHECK_THROWS_AS(w.add_tensor("strided", ts::columns(square, 0, 4)), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("transposed", ts::transposed(square)), ts::shape_error);
    auto const bytes = std::as_bytes(std::span{x});
    using dims = std::vector<ts::index_t>;
    CHECK_THROWS_AS(w.add_tensor("t", ts::gguf::tensor_type::f32, dims{65}, bytes), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("t", ts::gguf::tensor_type::f32, dims{}, bytes), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("t", ts::gguf::tensor_type::f32, dims{1, 1, 1, 1, 64}, bytes), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("t", ts::gguf::tensor_type::q4_0, dims{33}, bytes), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("t", ts::gguf::tensor_type::f32, dims{-64}, bytes), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("t", ts::gguf::tensor_type{77}, dims{64}, bytes), ts::shape_error);
    CHECK_THROWS_AS(w.add_tensor("t", ts::gguf::tensor_type::f32, dims{std::numeric_limits<ts::index_t>::max(), 64}, bytes),
                    ts::shape_error);
    CHECK(ts::gguf::parse(w.bytes(), "memory").tensors().size() == 1);
}

TEST_CASE("files that cannot be opened say so") {
    CHECK_THROWS_WITH_AS(ts::mapped_file{"no/such/file"},
                         "tessera: no/such/file: cannot open: No such file or directory", ts::format_error);
    CHECK_THROWS_AS(ts::read_file("no/such/file"), ts::format_error);
#if defined(__unix__)
    CHECK_THROWS_WITH_AS(ts::mapped_file{"/"}, "tessera: /: is not a regular file", ts::format_error);
#endif
    std::FILE* const empty = std::fopen("gguf_test_empty", "wb");
    REQUIRE(empty != nullptr);
    std::fclose(empty);
    for (auto const access : {ts::file_access::map, ts::file_access::read}) {
        ts::mapped_file const nothing{"gguf_test_empty", access};
        CHECK(nothing.bytes().empty());
        CHECK_THROWS_AS(ts::gguf::parse(nothing.bytes(), "empty"), ts::format_error);
    }
    std::remove("gguf_test_empty");

    ts::mapped_file first{tiny_path};
    ts::mapped_file second{std::move(first)};
    CHECK(first.bytes().empty()); // NOLINT: what a moved-from file holds is part of its contract
    CHECK(!second.bytes().empty());
    second = ts::read_file(tiny_path);
    CHECK(second.access() == ts::file_access::read);
}
