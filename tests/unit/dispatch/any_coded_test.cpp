// SPDX-License-Identifier: MIT
// any_coded: every block format of GGUF and some schemes by one operator, forward and transposed, canonical and placed, against their
// own types and the definition; decoded bits; many rows in bf16; what a product refuses.

#include "unit/vector/vector_support.hpp"

#include <tessera/dispatch/gguf_coded.hpp>
#include <tessera/nn/embedding.hpp>
#include <tessera/quant/quantize.hpp>
#include <tessera/storage/placed_cache.hpp>

#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include <unistd.h>

using namespace tessera_test;

namespace {

template <class Arch>
struct only {
    template <class F>
    static void visit(F const& f) {
        f(Arch{});
    }
};

/// A scheme's codes of random numbers.
template <class Arch, class Scheme>
struct coded_scheme {
    ts::quantized_tensor<Scheme> owner;
    coded_scheme(index_t n, index_t k) : owner{ts::quantize<Scheme>(ts::cpu<Arch, ts::serial>{}, normal_matrix(n, k))} {}
    auto view() const { return ts::any_coded<Arch>{owner.view()}; }
};

/// Blocks of random numbers.
template <class Format>
struct random_blocks {
    ts::blocked_tensor<Format> owner;
    random_blocks(index_t n, index_t k) : owner{n, k} {
        ts::matrix<float> const w = normal_matrix(n, k, 5);
        for (index_t i = 0; i < n; ++i) ts::encode_row<Format>(&w(i, 0), k, owner.row(i));
    }
    ts::gguf::tensor_entry tensor() const {
        ts::gguf::tensor_entry t{};
        t.name = "w";
        t.type = ts::gguf::detail::type_for<Format>;
        t.rank = 2;
        t.dims = {owner.cols(), owner.rows(), 1, 1};
        t.bytes = std::as_bytes(std::span{owner.view().data(), static_cast<std::size_t>(owner.rows() * owner.view().blocks_per_row())});
        return t;
    }
};

using exec_type = ts::cpu<ts::native_arch, ts::serial>;
using all_formats = ts::gguf::block_formats;

/// Forward and transposed, canonical and placed.
template <class W>
void check_products(W const& w, index_t m) {
    ts::linear const op{w};
    auto const t = ts::transposed(op);
    guarded<float> x{m, w.cols()}, y{m, w.rows()}, dx{m, w.cols()};
    x.fill(17);
    guarded<float> dy{m, w.rows()};
    dy.fill(19);
    check_on<ts::native_arch>(op, x, apply_case<std::remove_const_t<decltype(op)>>{op, x.view()}, {m, w.rows(), w.cols()}, y);
    check_on<ts::native_arch>(t, dy, apply_case<std::remove_const_t<decltype(t)>>{t, dy.view()}, {m, w.cols(), w.rows()}, dx);
}

/// A tensor whose format the call does not know, against its own type.
template <class Format>
void check_format() {
    CAPTURE(std::string{Format::name});
    random_blocks<Format> const blocks{21, 512};
    auto const found = ts::gguf::as_any_coded(blocks.tensor(), all_formats{});
    REQUIRE(found.has_value());
    ts::any_coded<> const& w = *found;
    CHECK(w.name() == Format::name);
    CHECK(w.bytes() == blocks.owner.bytes());
    ts::matrix<float> const d = decoded(w);
    bool same = true;
    for (index_t n = 0; n < d.extent(0); ++n)
        for (index_t k = 0; k < d.extent(1); ++k) same = same && d(n, k) == blocks.owner.view()(n, k);
    CHECK(same);
    check_decoded_bits<ts::native_arch>(w);
    check_products(w, 1);
    check_products(w, 19);
}

} // namespace

TEST_CASE("every block format of GGUF files") {
    []<class... Format>(ts::format_list<Format...>) { (check_format<Format>(), ...); }(all_formats{});
}

TEST_CASE("a scheme, in wide and narrow registers: zero points, groups that divide nothing") {
    auto const check = []<class Arch>(Arch) {
        check_vector_law<coded_scheme<Arch, ts::scheme<ts::uint5, ts::group<7>, ts::fp16, ts::affine>>, only<Arch>>();
    };
    check(ts::native_arch{});
    visit_lesser<ts::sse2>(check);
}

TEST_CASE("many rows in bf16") {
    random_blocks<ts::q5_k> const blocks{35, 512};
    ts::linear const w{ts::any_coded<>{blocks.owner.view()}, ts::as_bf16{}};
    guarded<float> x{33, 512}, y{33, 35};
    x.fill(3);
    check_on<ts::native_arch>(w, x, apply_case<std::remove_const_t<decltype(w)>>{w, x.view()}, {33, 35, 512}, y);
}

TEST_CASE("panels are those of the format's own type") {
    random_blocks<ts::q3_k> const blocks{32, 512};
    exec_type const exec;
    auto const typed = ts::place(exec, ts::linear{blocks.owner.view()});
    auto const erased = ts::place(exec, ts::linear{ts::any_coded<>{blocks.owner.view()}});
    auto const a = typed.view().storage();
    auto const b = erased.view().storage();
    REQUIRE(a.bytes() == b.bytes());
    CHECK(std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.bytes())) == 0);
    CHECK(ts::describe(exec, erased, 1) == std::string{ts::native_arch::name} + ": q3_k codes, panel<" +
                                               std::to_string(ts::simd::lanes<ts::native_arch>) +
                                               ", 4>, float multiply-add on decoded columns");
}

TEST_CASE("files of placed operands find them by their format, whatever type placed them") {
    std::string const path = (std::filesystem::temp_directory_path() / ("tessera_any_coded_" + std::to_string(::getpid()))).string();
    std::filesystem::remove(path);
    exec_type const exec;
    // The same bytes in two formats of one size, and what has its own.
    random_blocks<ts::q4_0> const first{32, 512};
    random_blocks<ts::iq4_nl> second{32, 512};
    static_assert(sizeof(ts::q4_0::block) == sizeof(ts::iq4_nl::block));
    std::memcpy(static_cast<void*>(second.owner.row(0)), first.owner.view().data(), static_cast<std::size_t>(first.owner.bytes()));
    ts::quantized_tensor<ts::nv_e2m1> const third = ts::quantize<ts::nv_e2m1>(exec, normal_matrix(21, 50));
    ts::any_coded<> const erased[] = {ts::any_coded<>{first.owner.view()}, ts::any_coded<>{second.owner.view()}, ts::any_coded<>{third.view()}};
    auto const bytes_of = [](auto const& placed) {
        auto const w = placed.view().storage();
        return ts::content_of({w.data(), static_cast<std::size_t>(w.bytes())}).text();
    };
    auto const product = [&](auto const& w) {
        ts::matrix<float> const x = normal_matrix(3, w.view().cols(), 9);
        ts::matrix<float> y{3, w.view().rows()};
        ts::apply(exec, w.view(), x, y);
        return ts::content_of(std::as_bytes(std::span{y.data(), static_cast<std::size_t>(y.size())})).text();
    };
    {
        ts::placed_cache cache{path};
        for (auto const& w : erased) static_cast<void>(ts::place(exec, ts::linear{w}, cache));
        CHECK(cache.report().packed == 3);
        CHECK(cache.save() > 0);
    }
    for (ts::file_access const access : {ts::file_access::map, ts::file_access::read}) {
        ts::placed_cache cache{path, {.access = access}};
        for (auto const& w : erased) {
            auto const found = ts::place(exec, ts::linear{w}, cache);
            auto const packed = ts::place(exec, ts::linear{w});
            CHECK(bytes_of(found) == bytes_of(packed));
            CHECK(product(found) == product(packed));
        }
        CHECK(bytes_of(ts::place(exec, ts::linear{first.owner.view()}, cache)) == bytes_of(ts::place(exec, ts::linear{erased[0]})));
        CHECK(cache.report().found == 4);
        CHECK(cache.report().packed == 0);
        CHECK(cache.report().state == ts::placed_cache_state::good);
        // Changed codes are not those of the file.
        random_blocks<ts::q4_0> changed{32, 512};
        changed.owner.row(3)[2].scale = ts::fp16{3.0f};
        static_cast<void>(ts::place(exec, ts::linear{ts::any_coded<>{changed.owner.view()}}, cache));
        CHECK(cache.report().packed == 1);
    }
    ts::memory_arena arena;
    CHECK(bytes_of(ts::place(exec, ts::linear{erased[2]}, arena)) == bytes_of(ts::place(exec, ts::linear{erased[2]})));
    std::filesystem::remove(path);
}

TEST_CASE("an embedding's rows; nothing at all; what is refused") {
    random_blocks<ts::iq2_s> blocks{6, 256};
    ts::any_coded<> const w{blocks.owner.view()};
    std::int32_t const ids[] = {5, 0, 5};
    ts::matrix<float> y{3, 256};
    ts::embedding(exec_type{}, ts::linear{w}, ts::vector_view<std::int32_t const>{ids, 3}, y);
    bool same = true;
    for (index_t i = 0; i < 3; ++i)
        for (index_t k = 0; k < 256; ++k) same = same && y(i, k) == blocks.owner.view()(ids[i], k);
    CHECK(same);

    ts::any_coded<> const nothing;
    CHECK(nothing.rows() == 0);
    CHECK(nothing.bytes() == 0);
    ts::matrix<float> none{2, 0};
    ts::apply(exec_type{}, ts::place(exec_type{}, ts::linear{nothing}), none, none);
    ts::apply(ts::reference{}, ts::linear{nothing}, none, none);

    ts::gguf::tensor_entry const t = blocks.tensor();
    CHECK(!ts::gguf::as_any_coded(t, ts::format_list<ts::q4_0, ts::q8_0>{}));
    // y may not be where the codes are.
    auto* const inside = reinterpret_cast<float*>(blocks.owner.row(1));
    ts::matrix<float> const x = normal_matrix(1, 256);
    CHECK_THROWS_AS(ts::apply(exec_type{}, ts::linear{w}, x, ts::matrix_view<float>{inside, 1, 6}), ts::shape_error);
    ts::matrix<float> short_x{1, 255}, out{1, 6};
    CHECK_THROWS_AS(ts::apply(exec_type{}, ts::linear{w}, short_x, out), ts::shape_error);
}
