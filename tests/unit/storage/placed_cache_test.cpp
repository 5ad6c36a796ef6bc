// SPDX-License-Identifier: MIT
// Placed operands in a file: found with the same bits, refused or packed anew where anything differs. Bits are those of
// panels, because products of equal panels are judged elsewhere; one product reads a mapped file.
#include <doctest/doctest.h>

#include "support/instruction_sets.hpp"
#include "support/random_matrix.hpp"

#include <tessera/adapter/dora.hpp>
#include <tessera/moe/moe.hpp>
#include <tessera/operators/apply.hpp>
#include <tessera/operators/place.hpp>
#include <tessera/quant/quantize.hpp>
#include <tessera/sparse/place.hpp>
#include <tessera/sparse/sparsify.hpp>
#include <tessera/storage/placed_cache.hpp>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

namespace {

namespace ts = tessera;
using ts::index_t;
using backend = ts::cpu<ts::native_arch, ts::serial>;

/// A folder that is gone when the test ends.
struct folder {
    std::filesystem::path path;
    explicit folder(char const* name) : path{std::filesystem::temp_directory_path() / (name + std::to_string(::getpid()))} {
        std::filesystem::remove_all(path);
        std::filesystem::create_directories(path);
    }
    folder(folder const&) = delete;
    folder& operator=(folder const&) = delete;
    ~folder() { std::filesystem::remove_all(path); }
    std::string file(char const* name = "model.placed") const { return (path / name).string(); }
    std::size_t files() const {
        return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator{path}, std::filesystem::directory_iterator{}));
    }
};

std::string read(std::string const& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}
void write(std::string const& path, std::string const& bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

using tessera_test::random_matrix;

/// The hashes of the panels of all leaves of a placed operator, but of compressed rows, which no file holds.
template <class Op>
void add_panels(std::string& all, Op const& w) {
    if constexpr (requires { w.storage(); }) {
        if constexpr (!requires { w.storage().windows(); })
            all += ts::content_of({w.storage().data(), static_cast<std::size_t>(w.storage().bytes())}).text() + " ";
    } else if constexpr (requires { w.inner(); }) {
        add_panels(all, w.inner());
    } else {
        add_panels(all, w.first());
        add_panels(all, w.second());
    }
}
template <class Owner>
std::string panels_of(Owner const& owner) {
    std::string all;
    add_panels(all, owner.view());
    return all;
}
/// What they are without a file.
template <class Exec, class Op>
std::string packed(Exec const& exec, Op const& w) {
    return panels_of(ts::place(exec, w));
}

/// An operator of every kind of leaf and most nodes.
struct model {
    static constexpr index_t n = 37;
    static constexpr index_t k = 96;
    ts::matrix<float> dense = random_matrix(n, k, 1);
    ts::quantized_tensor<ts::int4_g32> q = ts::quantize<ts::int4_g32>(random_matrix(n, k, 2));
    ts::quantized_tensor<ts::uint4_g32> affine = ts::quantize<ts::uint4_g32>(random_matrix(n, k, 3));
    ts::quantized_tensor<ts::int8_per_channel> int8 = ts::quantize<ts::int8_per_channel>(random_matrix(n, k, 4));
    ts::matrix<float> b = random_matrix(n, 5, 5);
    ts::matrix<float> a = random_matrix(5, k, 6);
    ts::n_of_m_tensor<2, 4, float> kept = ts::sparsify<ts::n_of_m<2, 4, float>>(random_matrix(n, k, 7));
    ts::csr_tensor<float> rows = ts::sparsify<ts::csr<float>>(random_matrix(n, k, 8), ts::magnitude_threshold{1.5f});
    ts::vector<float> factors{n};

    auto layer() const {
        return ts::linear{q, ts::int8_per_group<32>{}} + ts::low_rank{b, a, 0.5f} + 2.0f * ts::linear{affine} +
               ts::linear{kept} + ts::linear{rows} + ts::row_scaled{factors, ts::linear{int8, ts::int8_per_token{}}} +
               ts::rows(ts::linear{dense}, 0, n);
    }
    static constexpr index_t cached = 7; // leaves that are not compressed rows
};

} // namespace

TEST_CASE("what was placed is found, and gives the same bits") {
    folder const at{"tessera_placed_1"};
    backend const exec;
    model const m;
    auto const expected = packed(exec, m.layer());
    {
        ts::placed_cache cache{at.file()};
        CHECK(cache.report().state == ts::placed_cache_state::absent);
        auto const layer = ts::place(exec, m.layer(), cache);
        CHECK(panels_of(layer) == expected);
        CHECK(cache.report().packed == model::cached);
        CHECK(cache.report().found == 0);
        index_t const written = cache.save();
        CHECK(written == static_cast<index_t>(std::filesystem::file_size(at.file())));
        CHECK(cache.save() == 0);
        CHECK(at.files() == 1);
    }
    for (auto const access : {ts::file_access::map, ts::file_access::read})
        for (auto const panels : {ts::content_check::none, ts::content_check::sampled, ts::content_check::whole}) {
            ts::placed_cache cache{at.file(), {.panels = panels, .access = access}};
            auto const layer = ts::place(exec, m.layer(), cache);
            CHECK(panels_of(layer) == expected);
            CHECK(cache.report().state == ts::placed_cache_state::good);
            CHECK(cache.report().found == model::cached);
            CHECK(cache.report().packed == 0);
            CHECK(cache.report().packed_bytes == 0);
            CHECK(cache.report().reason.empty());
            auto const before = read(at.file());
            CHECK(cache.save() == 0);
            CHECK(read(at.file()) == before);
        }
}

TEST_CASE("a mapped operand is the file's pages; the owner may move") {
    folder const at{"tessera_placed_2"};
    backend const exec;
    auto const w = random_matrix(33, 64, 1);
    {
        ts::placed_cache cache{at.file()};
        auto const layer = ts::place(exec, ts::linear{w}, cache);
        cache.save();
    }
    ts::placed_cache cache{at.file()};
    auto layer = ts::place(exec, ts::linear{w}, cache);
    auto const file = read(at.file());
    auto const* const data = layer.view().storage().data();
    CHECK(std::memcmp(data, file.data() + 4096, static_cast<std::size_t>(layer.bytes())) == 0);
    CHECK(reinterpret_cast<std::uintptr_t>(data) % 4096 == 0);
    auto const moved = std::move(layer);
    CHECK(moved.view().storage().data() == data);
    auto const x = random_matrix(1, 64, 99);
    ts::matrix<float> y{1, 33};
    ts::matrix<float> expected{1, 33};
    ts::apply(exec, moved, x, y);
    ts::apply(exec, ts::place(exec, ts::linear{w}), x, expected);
    CHECK(std::memcmp(y.data(), expected.data(), 33 * sizeof(float)) == 0);
    CHECK_THROWS_AS(ts::apply(exec, layer, x, y), ts::shape_error);
}

TEST_CASE("mixtures; equal operands; empty ones") {
    folder const at{"tessera_placed_3"};
    backend const exec;
    auto const gate = random_matrix(4, 32, 1);
    std::vector<ts::quantized_tensor<ts::int4_g32>> weights;
    for (std::uint64_t e = 0; e < 4; ++e) weights.push_back(ts::quantize<ts::int4_g32>(random_matrix(32, 32, 10 + e / 2)));
    std::vector<ts::linear<ts::quantized<ts::int4_g32>>> experts;
    for (auto const& w : weights) experts.emplace_back(w.view());
    ts::moe const block{ts::top_k_router{gate, 2, ts::softmax_gate{}}, experts};
    std::string expected = packed(exec, ts::linear{gate});
    for (auto const& expert : experts) expected += packed(exec, expert);
    ts::matrix<float> const empty{0, 32};
    for (int run = 0; run < 2; ++run) {
        ts::placed_cache cache{at.file()};
        auto const ready = ts::place(exec, block, cache);
        auto const nothing = ts::place(exec, ts::linear{empty}, cache);
        CHECK(nothing.bytes() == 0);
        auto const mixture = ready.view();
        std::string panels;
        add_panels(panels, mixture.router().weights());
        for (auto const& expert : mixture.experts()) add_panels(panels, expert);
        CHECK(panels == expected);
        CHECK((run == 0 ? cache.report().packed : cache.report().found) == 5);
        cache.save();
    }
}

TEST_CASE("where a matrix lies does not matter, what it holds does") {
    folder const at{"tessera_placed_4"};
    backend const exec;
    auto const wide = random_matrix(40, 100, 1);
    auto const part = ts::columns(ts::rows(wide.view(), 3, 36), 5, 69);
    ts::matrix<float> copy{33, 64};
    ts::matrix<float> turned{64, 33};
    for (index_t i = 0; i < 33; ++i)
        for (index_t j = 0; j < 64; ++j) copy(i, j) = turned(j, i) = part(i, j);
    index_t const strides[] = {1, 33};
    ts::matrix_view<float const> const across{turned.data(), {ts::dynamic_extents<2>{33, 64}, strides}};
    {
        ts::placed_cache cache{at.file()};
        static_cast<void>(ts::place(exec, ts::linear{part}, cache));
        cache.save();
    }
    auto const state_of = [&](auto const& w) {
        ts::placed_cache cache{at.file()};
        auto const layer = ts::place(exec, w, cache);
        CHECK(panels_of(layer) == packed(exec, w));
        return cache.report().state;
    };
    using enum ts::placed_cache_state;
    CHECK(state_of(ts::linear{part}) == good);
    CHECK(state_of(ts::linear{copy}) == good);
    CHECK(state_of(ts::linear{across}) == good);
    ts::matrix<ts::bf16> const other_type{33, 64};
    CHECK(state_of(ts::linear{other_type}) == stale);
    copy(32, 63) = -copy(32, 63);
    CHECK(state_of(ts::linear{copy}) == stale);
    // The same bytes in another shape, and under another granularity.
    CHECK(state_of(ts::linear{ts::matrix_view<float const>{turned.data(), 64, 33}}) == stale);
    ts::quantized_tensor<ts::scheme<ts::int4, ts::group<32>, ts::fp16>> const q{32, 64};
    ts::quantized_tensor<ts::scheme<ts::int4, ts::block<1, 32>, ts::fp16>> const same{32, 64};
    ts::quantized_tensor<ts::scheme<ts::uint4, ts::group<32>, ts::fp16>> const other{32, 64};
    {
        ts::placed_cache cache{at.file()};
        static_cast<void>(ts::place(exec, ts::linear{q}, cache));
        cache.save();
    }
    CHECK(state_of(ts::linear{q}) == good);
    CHECK(state_of(ts::linear{same}) == good);
    CHECK(state_of(ts::linear{other}) == stale);
}

TEST_CASE("another instruction set") {
    folder const at{"tessera_placed_5"};
    auto const w = ts::quantize<ts::int4_g32>(random_matrix(40, 64, 1));
    tessera_test::archs_by_width::visit([&](auto arch) { // panels of one width are the same
        ts::cpu<decltype(arch), ts::serial> const exec;
        std::string const path = at.file(ts::placed_cache_name(exec, ts::content_of({})).c_str());
        for (int run = 0; run < 2; ++run) {
            ts::placed_cache cache{path};
            auto const layer = ts::place(exec, ts::linear{w}, cache);
            CHECK(panels_of(layer) == packed(exec, ts::linear{w}));
            cache.save();
        }
        // A file of the wrong name is found out too.
        ts::placed_cache cache{at.file("one")};
        auto const layer = ts::place(exec, ts::linear{w}, cache);
        CHECK(panels_of(layer) == packed(exec, ts::linear{w}));
        cache.save();
    });
    CHECK(ts::placed_cache_name(ts::cpu<ts::native_arch>{}, {1, 2}) ==
          "00000000000000020000000000000001-panel" + std::to_string(ts::simd::lanes<ts::native_arch>) + "-v6.placed");
}

TEST_CASE("what changed is packed anew, the rest is found") {
    folder const at{"tessera_placed_6"};
    backend const exec;
    std::vector<ts::matrix<float>> w;
    for (std::uint64_t i = 0; i < 3; ++i) w.push_back(random_matrix(17, 40, i));
    auto const run = [&](ts::placed_cache& cache) {
        for (auto const& one : w) {
            auto const layer = ts::place(exec, ts::linear{one}, cache);
            CHECK(panels_of(layer) == packed(exec, ts::linear{one}));
        }
    };
    {
        ts::placed_cache cache{at.file()};
        run(cache);
        cache.save();
    }
    w[1](16, 39) += 1.0f;
    std::swap(w[0], w[2]);
    {
        ts::placed_cache cache{at.file()};
        run(cache);
        CHECK(cache.report().state == ts::placed_cache_state::stale);
        CHECK(cache.report().reason == "the file holds no such operand: fp32, panel<" + std::to_string(ts::simd::lanes<ts::native_arch>) +
                                           ", 1> (17 x 40)");
        CHECK(cache.report().found == 2);
        CHECK(cache.report().packed == 1);
        CHECK(cache.save() > 0); // while its old pages are in use
        run(cache);
    }
    ts::placed_cache cache{at.file()};
    run(cache);
    CHECK(cache.report().found == 3);
    CHECK(cache.report().state == ts::placed_cache_state::good);
}

TEST_CASE("sampled sources") {
    folder const at{"tessera_placed_7"};
    backend const exec;
    auto w = random_matrix(64, 512, 1); // 128 KiB
    ts::placed_cache_options const sampled{.source = ts::content_check::sampled};
    auto const place = [&](ts::placed_cache_options const& options) {
        ts::placed_cache cache{at.file(), options};
        static_cast<void>(ts::place(exec, ts::linear{w}, cache));
        auto const state = cache.report().state;
        cache.save();
        return state;
    };
    using enum ts::placed_cache_state;
    CHECK(place(sampled) == absent);
    CHECK(place(sampled) == good);
    w.data()[300] += 1; // between the first two pieces: not seen
    CHECK(place(sampled) == good);
    w.data()[200] += 1;
    CHECK(place(sampled) == stale);
    CHECK(place({}) == stale); // keys of one kind are none of the other
    CHECK(place({}) == good);
    w.data()[300] += 1;
    CHECK(place({}) == stale);
    CHECK_THROWS_WITH_AS((ts::placed_cache{at.file(), {.source = ts::content_check::none}}),
                         "tessera: placed_cache: the check of sources is none, expected sampled or full", ts::unsupported_error);
}

TEST_CASE("damage: every byte of header and table, every length, bytes of panels") {
    folder const at{"tessera_placed_8"};
    backend const exec;
    auto const w = random_matrix(3, 5, 1);
    auto const q = ts::quantize<ts::int4_g32>(random_matrix(9, 40, 2));
    auto const op = ts::linear{w};
    auto const second = ts::linear{q, ts::int8_per_group<32>{}};
    {
        ts::placed_cache cache{at.file()};
        static_cast<void>(ts::place(exec, op, cache));
        static_cast<void>(ts::place(exec, second, cache));
        cache.save();
    }
    std::string const good = read(at.file());
    auto const first_bits = packed(exec, op);
    auto const second_bits = packed(exec, second);
    // Either the operands are right, packed anew where they must be, or nothing was touched.
    auto const survives = [&](std::string const& bytes, bool is_seen) {
        write(at.file(), bytes);
        try {
            ts::placed_cache cache{at.file()};
            auto const a = ts::place(exec, op, cache);
            auto const b = ts::place(exec, second, cache);
            REQUIRE(panels_of(a) == first_bits);
            REQUIRE(panels_of(b) == second_bits);
            REQUIRE((cache.report().state == ts::placed_cache_state::stale) == is_seen);
            REQUIRE(cache.report().reason.empty() != is_seen);
            if (is_seen) {
                REQUIRE(cache.save() > 0);
                REQUIRE(read(at.file()).size() == good.size());
            }
        } catch (ts::format_error const&) {
            REQUIRE(read(at.file()) == bytes); // foreign
            REQUIRE((bytes.empty() || std::memcmp(bytes.data(), good.data(), std::min<std::size_t>(8, bytes.size())) != 0 || bytes.size() < 8));
        }
    };
    std::size_t const table = 64 + 2 * 192;
    for (std::size_t i = 0; i < table; ++i)
        for (int const bit : {0, 3, 7}) {
            std::string bytes = good;
            bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
            survives(bytes, true);
        }
    for (std::size_t i = 4096; i < good.size(); i += 5) { // bytes between operands are nobody's
        std::string bytes = good;
        bytes[i] = static_cast<char>(~bytes[i]);
        write(at.file(), bytes);
        ts::placed_cache cache{at.file()};
        auto const a = ts::place(exec, op, cache);
        auto const b = ts::place(exec, second, cache);
        REQUIRE(panels_of(a) == first_bits);
        REQUIRE(panels_of(b) == second_bits);
        REQUIRE(cache.report().packed + cache.report().found == 2);
    }
    for (std::size_t n = 0; n < good.size(); n += n < 512 ? 1 : 97) survives(good.substr(0, n), true);
    survives(good + '\0', true);
    survives(good + good, true);
    survives(good, false);

    SUBCASE("sentences") {
        auto const refuses = [&](std::string const& bytes, std::string const& why) {
            write(at.file(), bytes);
            CHECK_THROWS_WITH_AS((ts::placed_cache{at.file(), {.stale = ts::stale_file::refuse}}),
                                 ("tessera: " + at.file() + ": " + why).c_str(), ts::format_error);
            if (why.find("does not begin") != std::string::npos) return;
            ts::placed_cache cache{at.file()};
            CHECK(cache.report().reason == "the file " + why);
        };
        auto const with = [&](std::size_t at_byte, std::uint64_t value, std::size_t size) {
            std::string bytes = good;
            std::memcpy(bytes.data() + at_byte, &value, size);
            return bytes;
        };
        refuses("", "is empty");
        refuses("not ours, do not touch", "does not begin as a file of placed operands");
        refuses(good.substr(0, 20), "is truncated: 20 bytes, expected at least 64");
        refuses(with(8, 0x04030201, 4), "was written in another byte order");
        refuses(with(12, 2, 4), "has file format 2, expected 1");
        refuses(with(16, 7, 8), "has panel layout 7, expected 6");
        refuses(good.substr(0, 4500), "has 4500 bytes, its header says " + std::to_string(good.size()));
        refuses(with(24, ~0ull, 8), "has no room for the 18446744073709551615 entries of its header");
        refuses(with(130, 1, 1), "is damaged: the hash of its table differs");
    }
    SUBCASE("a table with a right hash that points outside") {
        for (std::size_t const field : {std::size_t{48}, std::size_t{56}})
            for (std::uint64_t const value : {std::uint64_t{0}, std::uint64_t{64}, std::uint64_t{4097}, static_cast<std::uint64_t>(good.size()),
                                              static_cast<std::uint64_t>(good.size()) + 64, ~std::uint64_t{0}, ~std::uint64_t{63}}) {
                std::string bytes = good;
                std::memcpy(bytes.data() + 64 + field, &value, 8);
                ts::detail::placed_header header;
                std::memcpy(&header, bytes.data(), sizeof header);
                header.table = ts::placed_table::hash_of(header, reinterpret_cast<std::byte const*>(bytes.data()) + 64);
                std::memcpy(bytes.data(), &header, sizeof header);
                survives(bytes, true);
            }
    }
    SUBCASE("a damaged operand is refused where it shall be") {
        std::string bytes = good;
        bytes[4096] = static_cast<char>(bytes[4096] ^ 1);
        write(at.file(), bytes);
        ts::placed_cache cache{at.file(), {.stale = ts::stale_file::refuse}};
        CHECK_THROWS_AS(static_cast<void>(ts::place(exec, op, cache)), ts::format_error);
        CHECK_NOTHROW(static_cast<void>(ts::place(exec, second, cache)));
        ts::placed_cache trusting{at.file(), {.panels = ts::content_check::none}};
        static_cast<void>(ts::place(exec, op, trusting));
        CHECK(trusting.report().found == 1);
    }
}

TEST_CASE("where the file cannot be written nothing is left behind") {
    folder const at{"tessera_placed_9"};
    backend const exec;
    auto const w = random_matrix(3, 5, 1);
    ts::placed_cache cache{at.file("no such folder/model.placed")};
    static_cast<void>(ts::place(exec, ts::linear{w}, cache));
    CHECK_THROWS_WITH_AS(cache.save(), ("tessera: " + at.file("no such folder/model.placed") + ": cannot write: No such file or directory").c_str(),
                         ts::format_error);
    CHECK(at.files() == 0);
    CHECK_THROWS_WITH_AS((ts::placed_cache{at.path.string()}), ("tessera: " + at.path.string() + ": is not a regular file").c_str(), ts::format_error);
    // The target is a folder: the new file is taken away again.
    std::filesystem::create_directories(at.path / "late");
    std::filesystem::remove(at.path / "late");
    ts::placed_cache late{at.file("late")};
    static_cast<void>(ts::place(exec, ts::linear{w}, late));
    std::filesystem::create_directories(at.path / "late" / "full");
    CHECK_THROWS_AS(late.save(), ts::format_error);
    CHECK(at.files() == 1);
}

// Whoever changes a panel's bytes sees this fail, raises panel_layout_version and puts the new hashes here.
TEST_CASE("the layout of version 6") {
    REQUIRE(ts::panel_layout_version == 6);
    auto const hash_of = [](auto const& storage, auto packed) {
        std::vector<std::byte> bytes(static_cast<std::size_t>(packed.bytes()), std::byte{0x5a}); // all of them are written
        for (index_t p = 0; p < packed.panels(); ++p) ts::pack_panel(storage, packed, p, bytes.data() + p * packed.panel_bytes());
        return ts::content_of(bytes).text();
    };
    auto const all = [&]<class Storage>(Storage const& w) {
        return hash_of(w, ts::prepacked<ts::panel<4, 4>, Storage>{nullptr, w.rows(), w.cols()}) + " " +
               hash_of(w, ts::prepacked<ts::panel<16, 4>, Storage>{nullptr, w.rows(), w.cols()});
    };
    auto const filled = []<class Scheme>(ts::quantized_tensor<Scheme> q) {
        auto const v = q.view();
        for (index_t i = 0; i < v.rows() * v.row_bytes(); ++i) q.codes()[i] = static_cast<std::uint8_t>(37 * i + 11);
        for (index_t i = 0; i < v.scale_rows() * v.scale_columns(); ++i) {
            q.scales()[i] = static_cast<typename ts::quantized_tensor<Scheme>::scale_type>(static_cast<float>(i + 1));
            if constexpr (Scheme::is_affine) q.zero_points()[i] = static_cast<std::uint8_t>(i % 16);
        }
        return q;
    };
    auto const int4 = filled(ts::quantized_tensor<ts::int4_g32>{19, 70});
    auto const affine = filled(ts::quantized_tensor<ts::uint4_g32>{19, 70});
    auto const int8 = filled(ts::quantized_tensor<ts::int8_per_channel>{19, 70});
    CHECK(all(int4.view()) == "0aacb7c1613465e804a9dfce27150038 eff3d7722429e143d1d25982e773b14a");
    CHECK(all(affine.view()) == "83bee533873559c67e8ecaac38768ac3 8876c72071e46fa81c79d71d60f1f59d");
    auto const int6 = filled(ts::quantized_tensor<ts::scheme<ts::int6, ts::group<64>>>{19, 70});
    auto const two_levels = filled(ts::quantized_tensor<ts::nv_e2m1>{19, 70});
    CHECK(all(int6.view()) == "3d60a6fb6c1de8124d0b4ff91238f234 dab13a9517b23fb2ce57cc578b243c67");
    CHECK(all(two_levels.view()) == "f39b896d8223a3c6ea52e2c509c05a1b 28d00ffcce50eb7b9de7639704d18477");
    auto const shared = filled(ts::quantized_tensor<ts::scheme<ts::uint4, ts::block<16, 32>, ts::fp16, ts::affine>>{19, 70});
    auto long_super = filled(ts::quantized_tensor<ts::scheme<ts::int3, ts::group<2>, ts::two_level<ts::int6, ts::group<34>, ts::fp16>>>{19, 70});
    CHECK(all(shared.view()) == "5cd673a6eca55924795fe995fd276b32 d9fa047a20f9648379c21620a4af57df");
    for (index_t i = 0; i < long_super.view().super_scale_count(19, 70); ++i) long_super.super_scales()[i] = ts::fp16{static_cast<float>(i + 1)};
    CHECK(all(long_super.view()) == "7a7013ae28bc3c55fb5b0b1e9b2eb700 79c6e9341caba22e8dc02fd01c4bd826");
    auto const fixed = filled(ts::quantized_tensor<ts::mx_int8>{19, 70});
    CHECK(all(fixed.view()) == "1aa2e1291b77640761349d0cf029b225 433d350dbc631a0cb6aa68a8d3b52535");
    CHECK(all(int8.view()) == "f911d23ec87b2b6ac60a8a06e3515ad6 1d7fcadf09e56e4ab1710062872462e0");
    std::vector<std::byte> stored(19 * sizeof(ts::q4_k::block));
    for (std::size_t i = 0; i < stored.size(); ++i) stored[i] = static_cast<std::byte>(37 * i + 11);
    std::vector<ts::q4_k::block> blocks(19);
    std::memcpy(static_cast<void*>(blocks.data()), stored.data(), stored.size());
    CHECK(all(ts::blocked<ts::q4_k>{blocks.data(), 19, 256}) == "8233ecaf6258c8baa8b8ff2bf518999a 34314c212e053bf9adc2e0a2bf34663a");
    // Groups that share a record.
    std::vector<ts::q3_k::block> joined(19);
    std::memset(static_cast<void*>(joined.data()), 0, joined.size() * sizeof joined[0]);
    for (std::size_t i = 0; i < joined.size(); ++i)
        for (int c = 0; c < 256; ++c) {
            ts::q3_k::set_code(joined[i], c, static_cast<int>((37 * i + 11 * static_cast<std::size_t>(c)) % 8) - 4);
            if (c < 16) ts::q3_k::set_sub(joined[i], c, static_cast<int>((5 * i + 3 * static_cast<std::size_t>(c)) % 64) - 32, 0);
        }
    CHECK(all(ts::blocked<ts::q3_k>{joined.data(), 19, 256}) == "076f4d008e3bd2ab6133fbc35a1d61b0 0646d04a8f2a4d64464c398c1e0013ac");
    ts::matrix<float> dense{19, 7};
    for (index_t i = 0; i < dense.size(); ++i) dense.data()[i] = static_cast<float>(i);
    using view = ts::matrix_view<float const>;
    CHECK(hash_of(view{dense}, ts::prepacked<ts::panel<8, 1>, view>{nullptr, 19, 7}) == "9211f6e2a69473c8cc6fec4a9fe1754e");
}
