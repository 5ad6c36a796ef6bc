// SPDX-License-Identifier: MIT
// Layers in the layouts of GPTQ, AWQ, bitsandbytes and onnxruntime: every weight is the one that the library itself decodes
// (tests/data/foreign); what does not fit is refused.

#include <doctest/doctest.h>

#include <tessera/core/slice.hpp>
#include <tessera/interop/awq.hpp>
#include <tessera/interop/bitsandbytes.hpp>
#include <tessera/interop/gptq.hpp>
#include <tessera/interop/onnxruntime.hpp>
#include <tessera/interop/safetensors_writer.hpp>
#include <tessera/storage/mapped_file.hpp>

#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;
using ts::element_type;

namespace {

template <class Format, index_t Group, class Scale = ts::fp16>
using affine = ts::scheme<Format, ts::group<Group>, Scale, ts::affine>;
using uint4_g64 = affine<ts::uint4, 64>;
using uint3_g32 = affine<ts::uint3, 32>;

/// A file of tests/data/foreign, with some tensors replaced.
class archive {
public:
    explicit archive(std::string const& name) : bytes_{std::string{TESSERA_TEST_DATA} + "/foreign/" + name} {
        file_ = ts::safetensors::parse(bytes_.bytes(), name);
    }
    ts::safetensors::file const& file() const { return file_; }

    /// The same file with other dimensions, type or bytes of one tensor (none: without it), handed to f.
    template <class F>
    void with(std::string const& name, element_type type, std::vector<index_t> dims, std::vector<std::byte> const& data, F f) const {
        ts::safetensors::writer out;
        for (auto const& t : file_.tensors()) {
            std::vector<index_t> const own{t.dims.begin(), t.dims.begin() + t.rank};
            if (t.name != name) out.add_tensor(t.name, t.type, own, t.bytes);
            if (t.name == name && !dims.empty()) out.add_tensor(name, type, dims, data);
        }
        std::vector<std::byte> const whole = out.bytes();
        f(ts::safetensors::parse(whole, "changed"));
    }

private:
    ts::mapped_file bytes_;
    ts::safetensors::file file_;
};

std::vector<std::byte> bytes_of(std::string const& text) {
    std::vector<std::byte> out;
    for (char const c : text) out.push_back(static_cast<std::byte>(c));
    return out;
}

/// Weights that differ from NAME.expected; column j of w is column(j) there.
template <class Scheme, class Column>
int different(ts::quantized_tensor<Scheme> const& w, ts::safetensors::file const& f, std::string const& name, Column column) {
    auto const expected = ts::safetensors::as_view<float, 2>(f.tensor(name + ".expected"));
    auto const view = w.view();
    REQUIRE(w.rows() == expected.extent(0));
    REQUIRE(w.cols() == expected.extent(1));
    int count = 0;
    for (index_t i = 0; i < w.rows(); ++i)
        for (index_t j = 0; j < w.cols(); ++j) count += view(i, j) != expected(i, column(j));
    return count;
}
template <class Scheme>
int different(ts::quantized_tensor<Scheme> const& w, ts::safetensors::file const& f, std::string const& name) {
    return different(w, f, name, [](index_t j) { return j; });
}

constexpr auto minus_one = ts::gptq::zero_points::minus_one;

template <class Scheme>
int gptq_difference(archive const& a, std::string const& name, ts::gptq::zero_points z = minus_one) {
    auto const w = ts::gptq::read<Scheme>(ts::gptq::find(a.file(), name), z);
    CHECK(w.columns.size() == 0);
    return different(w.codes, a.file(), name);
}

template <class Scheme>
ts::quantized_tensor<Scheme> read_onnx(ts::safetensors::file const& f, std::string const& name, index_t block) {
    auto const& expected = f.tensor(name + ".expected");
    auto const* zeros = f.find_tensor(name + ".zero_points");
    ts::onnxruntime::layer const l{name, expected.dims[0], expected.dims[1], block, f.tensor(name + ".B").bytes,
                                   f.tensor(name + ".scales"), zeros == nullptr ? std::span<std::byte const>{} : zeros->bytes};
    return ts::onnxruntime::read<Scheme>(l);
}

} // namespace

TEST_CASE("gptq: weights of AutoGPTQ") {
    archive const a{"gptq.safetensors"};
    CHECK(gptq_difference<affine<ts::uint2, 32>>(a, "bits2") == 0);
    CHECK(gptq_difference<affine<ts::uint3, 32>>(a, "bits3") == 0);
    CHECK(gptq_difference<ts::uint4_g32>(a, "bits4") == 0);
    CHECK(gptq_difference<affine<ts::uint8, 32, ts::fp32>>(a, "bits8") == 0);
    CHECK(gptq_difference<ts::scheme<ts::uint4, ts::per_channel, ts::fp16, ts::affine>>(a, "row") == 0);
    CHECK(gptq_difference<ts::uint4_g32>(a, "v2", ts::gptq::zero_points::as_they_are) == 0);
}

TEST_CASE("gptq: columns in order of activations") {
    archive const a{"gptq.safetensors"};
    auto const w = ts::gptq::read<ts::uint4_g32>(ts::gptq::find(a.file(), "act_order"), minus_one);
    REQUIRE(w.columns.size() == 128);
    CHECK(different(w.codes, a.file(), "act_order", [&](index_t j) { return index_t{w.columns(j)}; }) == 0);
    for (index_t j = 1; j < 128; ++j) CHECK((j % 32 == 0 || w.columns(j) > w.columns(j - 1)));
}

TEST_CASE("gptq: what does not fit is refused") {
    archive const a{"gptq.safetensors"};
    auto const refused = [&](std::string const& name, element_type type, std::vector<index_t> const& dims, std::size_t bytes, char const* sentence) {
        CAPTURE(name);
        a.with(name, type, dims, std::vector<std::byte>(bytes), [&](ts::safetensors::file const& f) {
            CHECK_THROWS_WITH_AS(ts::gptq::read<ts::uint4_g32>(ts::gptq::find(f, "bits4"), minus_one), doctest::Contains(sentence), ts::format_error);
        });
    };
    refused("bits4.qweight", element_type::i32, {}, 0, "'bits4.qweight' is missing");
    refused("bits4.qweight", element_type::f32, {16, 32}, 2048, "holds F32, wanted I32");
    refused("bits4.qweight", element_type::i32, {15, 32}, 1920, "size of g_idx is 128, expected 120 (columns that qweight has)");
    refused("bits4.qweight", element_type::i32, {512}, 2048, "dimensions");
    refused("bits4.qzeros", element_type::i32, {3, 4}, 48, "rows of qzeros is 3, expected 4 (groups of the scheme)");
    refused("bits4.qzeros", element_type::i32, {4, 3}, 48, "columns of qzeros is 3, expected 4");
    refused("bits4.scales", element_type::f16, {4, 31}, 248, "size of scales is 124, expected 128");
    refused("bits4.scales", element_type::f64, {4, 32}, 1024, "type of scales is F64, expected F32, F16 or BF16");
    refused("bits4.g_idx", element_type::i32, {128}, 512, "group 0 has 128 columns, expected 32: no order of columns");
    std::vector<std::byte> index(512);
    index[3] = std::byte{0x80};
    a.with("bits4.g_idx", element_type::i32, {128}, index, [&](ts::safetensors::file const& f) {
        CHECK_THROWS_WITH_AS(ts::gptq::read<ts::uint4_g32>(ts::gptq::find(f, "bits4"), minus_one),
                             "tessera: gptq: layer 'bits4': g_idx of column 0 is -2147483648, expected 0 to 3", ts::format_error);
    });
    auto const layer = ts::gptq::find(a.file(), "bits4");
    CHECK_THROWS_WITH_AS(ts::gptq::read<uint4_g64>(layer, minus_one), doctest::Contains("rows of qzeros is 4, expected 2"), ts::format_error);
    CHECK_THROWS_WITH_AS(ts::gptq::read<uint3_g32>(layer, minus_one), doctest::Contains("no whole codes of 3"), ts::format_error);
    CHECK_THROWS_WITH_AS((ts::gptq::read<ts::scheme<ts::int4, ts::group<32>, ts::fp16>>(layer, minus_one)), doctest::Contains("expected an affine scheme"), ts::format_error);
    // nothing in it
    ts::gptq::layer const none{"none", {}, {}, {element_type::f16, ts::array_order::right, 2, {0, 0}, {}}, {}};
    CHECK(ts::gptq::read<ts::uint4_g32>(none, minus_one).codes.rows() == 0);
}

TEST_CASE("awq: weights of AutoAWQ") {
    archive const a{"awq.safetensors"};
    auto const w = ts::awq::read<affine<ts::uint4, 64>>(ts::awq::find(a.file(), "layer"));
    CHECK(different(w, a.file(), "layer") == 0);
    // Columns of a wider array, as a shard has them: all but the last 8 rows of W.
    ts::awq::layer part = ts::awq::find(a.file(), "layer");
    ts::matrix<float> fewer{2, 24};
    auto const scales = ts::safetensors::as_dense<ts::fp16>(a.file().tensor("layer.scales"));
    for (index_t g = 0; g < 2; ++g)
        for (index_t n = 0; n < 24; ++n) fewer(g, n) = static_cast<float>(scales(g, n));
    part.qweight = ts::columns(part.qweight, 0, 3);
    part.qzeros = ts::columns(part.qzeros, 0, 3);
    part.scales = {element_type::f32, ts::array_order::right, 2, {2, 24}, {reinterpret_cast<std::byte const*>(fewer.data()), 192}};
    auto const shard = ts::awq::read<affine<ts::uint4, 64, ts::fp32>>(part);
    for (index_t n = 0; n < 24; ++n)
        for (index_t k = 0; k < 128; ++k) CHECK(shard.view()(n, k) == w.view()(n, k));
    auto const refused = [&](std::string const& name, element_type type, std::vector<index_t> const& dims, std::size_t bytes, char const* sentence) {
        CAPTURE(name);
        a.with(name, type, dims, std::vector<std::byte>(bytes), [&](ts::safetensors::file const& f) {
            CHECK_THROWS_WITH_AS(ts::awq::read<uint4_g64>(ts::awq::find(f, "layer")), doctest::Contains(sentence), ts::format_error);
        });
    };
    refused("layer.qzeros", element_type::i32, {}, 0, "is missing");
    refused("layer.qweight", element_type::i32, {128, 3}, 1536, "columns of qzeros is 4, expected 3 (columns of qweight)");
    refused("layer.qweight", element_type::i32, {130, 4}, 2080, "rows of qzeros is 2, expected 3");
    refused("layer.scales", element_type::f16, {2, 31}, 124, "size of scales is 62, expected 64");
    refused("layer.scales", element_type::i8, {2, 32}, 64, "type of scales is I8");
}

TEST_CASE("bitsandbytes: weights of NF4 and FP4, scales of one level and two") {
    archive const a{"bitsandbytes.safetensors"};
    using nf4 = ts::scheme<ts::nf4, ts::group<64>, ts::fp32>;
    using fp4 = ts::scheme<ts::bitsandbytes::fp4, ts::group<64>, ts::fp32>;
    auto const find = [&](std::string const& name) { return ts::bitsandbytes::find(a.file(), name + ".weight"); };
    for (std::string const suffix : {"", "_nested"}) {
        CHECK(different(ts::bitsandbytes::read<nf4>(find("nf4" + suffix)), a.file(), "nf4" + suffix) == 0);
        CHECK(different(ts::bitsandbytes::read<fp4>(find("fp4" + suffix)), a.file(), "fp4" + suffix) == 0);
    }
    CHECK_THROWS_WITH_AS(ts::bitsandbytes::read<fp4>(find("nf4")), doctest::Contains("value 0 of quant_map ('nf4') is -1.000000, expected 0.000000"), ts::format_error);
    CHECK_THROWS_WITH_AS((ts::bitsandbytes::read<ts::scheme<ts::nf4, ts::group<32>, ts::fp32>>(find("nf4"))), doctest::Contains("blocksize is 64, expected 32"), ts::format_error);
    CHECK_THROWS_WITH_AS((ts::bitsandbytes::read<ts::scheme<ts::nf4, ts::group<64>, ts::fp16>>(find("nf4"))), doctest::Contains("is no number of the scheme's scale type"), ts::format_error);
    CHECK_THROWS_WITH_AS(ts::bitsandbytes::find(a.file(), "other"), doctest::Contains("has no quant_state"), ts::format_error);

    std::string const state = "nf4_nested.weight.quant_state.bitsandbytes__nf4";
    auto const refused = [&](std::string const& name, element_type type, std::vector<index_t> const& dims, std::vector<std::byte> const& bytes, char const* sentence) {
        CAPTURE(name);
        a.with(name, type, dims, bytes, [&](ts::safetensors::file const& f) {
            CHECK_THROWS_WITH_AS(ts::bitsandbytes::read<nf4>(ts::bitsandbytes::find(f, "nf4_nested.weight")), doctest::Contains(sentence), ts::format_error);
        });
    };
    auto const bad_state = [&](std::string const& text, char const* sentence) {
        refused(state, element_type::u8, {static_cast<index_t>(text.size())}, bytes_of(text), sentence);
    };
    bad_state("{\"blocksize\": 64, \"shape\": [20, 192, 1], \"nested_blocksize\": 256}", "number of dimensions is 3, expected 2");
    bad_state("{\"blocksize\": 64, \"shape\": [20, 193], \"nested_blocksize\": 256}", "shape (20, 193) does not fit into 1920 bytes");
    bad_state("{\"blocksize\": 64, \"shape\": [19, 192], \"nested_blocksize\": 256}", "bytes of codes is 1920, expected 1824");
    bad_state("{\"blocksize\": 64, \"shape\": [60, 64], \"nested_blocksize\": 16}", "size of nested_absmax is 1, expected 4");
    bad_state("{\"blocksize\": 0, \"shape\": [20, 192]}", "blocksize is 0");
    bad_state("{\"blocksize\": 64, \"shape\": [20, 192]}", "type of absmax is U8, expected F32");
    bad_state("{\"blocksize\": 64, \"shape\": [40, 96], \"nested_blocksize\": 256}", "blocks reach into the next row");
    bad_state("{\"blocksize\": -1}", "expected digits alone");
    bad_state("{\"blocksize\": 18446744073709551615}", "is too large");
    bad_state("{\"nested_offset\": -1e300}", "is beyond float32");
    bad_state("{\"shape\": [20, 192]", "");
    refused("nf4_nested.weight", element_type::i8, {1920}, std::vector<std::byte>(1920), "is I8, expected U8");
    refused("nf4_nested.weight.absmax", element_type::u8, {59}, std::vector<std::byte>(59), "size of absmax is 59, expected 60");
    refused("nf4_nested.weight.nested_quant_map", element_type::f32, {255}, std::vector<std::byte>(1020), "size of nested_quant_map is 255");
    refused("nf4_nested.weight.quant_map", element_type::f32, {15}, std::vector<std::byte>(60), "size of quant_map is 15");
}

TEST_CASE("onnxruntime: weights of MatMulNBits") {
    archive const a{"onnxruntime.safetensors"};
    auto const& f = a.file();
    CHECK(different(read_onnx<affine<ts::uint4, 32, ts::fp32>>(f, "bits4", 32), f, "bits4") == 0);
    CHECK(different(read_onnx<affine<ts::uint4, 16, ts::fp32>>(f, "bits4_odd", 16), f, "bits4_odd") == 0);
    CHECK(different(read_onnx<affine<ts::uint4, 32, ts::fp32>>(f, "bits4_default", 32), f, "bits4_default") == 0);
    CHECK(different(read_onnx<ts::scheme<ts::int4, ts::group<32>, ts::fp32>>(f, "bits4_default", 32), f, "bits4_default") == 0);
    CHECK(different(read_onnx<affine<ts::uint8, 32, ts::fp32>>(f, "bits8", 32), f, "bits8") == 0);
    CHECK(different(read_onnx<affine<ts::uint2, 32, ts::fp32>>(f, "bits2", 32), f, "bits2") == 0);

    using scheme = affine<ts::uint4, 32, ts::fp32>;
    auto const refused = [&](auto const& change, char const* sentence) {
        ts::onnxruntime::layer l{"l", 24, 128, 32, f.tensor("bits4.B").bytes, f.tensor("bits4.scales"), f.tensor("bits4.zero_points").bytes};
        change(l);
        CHECK_THROWS_WITH_AS(ts::onnxruntime::read<scheme>(l), doctest::Contains(sentence), std::exception);
    };
    refused([](auto& l) { l.b = l.b.first(l.b.size() - 1); }, "B has size 1535, expected 24 times 64");
    refused([](auto& l) { l.n = 25; }, "B has size 1536, expected 25 times 64");
    refused([](auto& l) { l.n = 0; }, "B has size 1536, expected 0 times 64");
    refused([](auto& l) { l.k = 129; }, "B has size 1536, expected 24 times 80");
    refused([](auto& l) { l.k = -1; }, "k is -1");
    refused([](auto& l) { l.n = index_t{1} << 62; }, "n is 46116");
    refused([](auto& l) { l.block = 16; }, "block is 16, expected 32 (group of the scheme)");
    refused([](auto& l) { l.block = 24; }, "block is 24, expected a multiple of 16");
    refused([](auto& l) { l.zero_points = l.zero_points.first(47); }, "zero_points has size 47, expected 24 times 2");
    refused([](auto& l) { l.scales.dims[0] = 95; }, "bytes of scales is 384, expected 380");
}
