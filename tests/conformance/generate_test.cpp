// SPDX-License-Identifier: MIT
// The language-model example against its judges: transformers on the real model (where its file is at hand), and a
// forward pass of plain loops on synthetic ones.

#include <doctest/doctest.h>

#include "../../examples/generate/chat.hpp"
#include "../../examples/generate/llama.hpp"
#include "../../examples/generate/options.hpp"
#include "../../examples/generate/synthetic.hpp"
#include "greedy_judge.hpp"
#include "naive_llama.hpp"

#include <tessera/core/thread_pool.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <vector>

namespace {

namespace ts = tessera;
using namespace generate;
using ts::gguf::tensor_type;
using backend = ts::cpu<>;
using floats = std::vector<float>;

/// A policy with a number of threads: OpenMP's, or where there is none, as under the thread sanitizer, a pool's.
struct openmp_threads {
    explicit openmp_threads(int threads) : policy{ts::openmp{threads}} {}
    ts::cpu<ts::native_arch, ts::openmp> policy;
};
struct pool_threads {
    explicit pool_threads(int threads) : pool{threads}, policy{ts::threads{pool}} {}
    ts::thread_pool pool;
    ts::cpu<ts::native_arch, ts::threads> policy;
};
using with_threads = std::conditional_t<ts::config::has_openmp, openmp_threads, pool_threads>;

/// A synthetic model in memory.
struct model_file {
    explicit model_file(synthetic_model const& m = {})
        : bytes{write_synthetic(m)}, aligned{static_cast<index_t>(bytes.size())} {
        std::memcpy(aligned.data(), bytes.data(), bytes.size());
        file = ts::gguf::parse({aligned.data(), bytes.size()}, "synthetic");
    }
    std::vector<std::byte> bytes;
    ts::buffer<std::byte> aligned;
    ts::gguf::file file;
};

std::vector<token_id> some_tokens(std::size_t n, std::uint64_t seed = 7) {
    ts::philox const random{seed};
    std::vector<token_id> out;
    for (std::size_t i = 0; i < n; ++i) out.push_back(static_cast<token_id>(random.bits(i) % 260u));
    return out;
}

floats copy(std::span<float const> x) { return {x.begin(), x.end()}; }
floats row_of(ts::matrix_view<float const> const& x, index_t i) {
    return {&x(i, 0), &x(i, 0) + x.extent(1)};
}

/// The logits after every token, which run in chunks of `chunk`.
template <class Exec>
std::vector<floats> logits_of(llama<Exec>& model, std::span<token_id const> tokens, std::size_t chunk) {
    model.clear();
    std::vector<floats> out;
    for (std::size_t i = 0; i < tokens.size(); i += chunk) {
        std::size_t const n = std::min(chunk, tokens.size() - i);
        auto const logits = model.forward(tokens.subspan(i, n), static_cast<index_t>(n));
        for (index_t r = 0; r < static_cast<index_t>(n); ++r) out.push_back(row_of(logits, r));
    }
    return out;
}

floats to_float(conformance::row const& x) { return {x.begin(), x.end()}; }

double largest_divergence(std::vector<floats> const& p, std::vector<floats> const& q) {
    REQUIRE(p.size() == q.size());
    double most = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        for (float const v : q[i]) REQUIRE(std::isfinite(v));
        most = std::max(most, std::fabs(conformance::divergence(p[i], q[i])));
    }
    return most;
}

/// Bound of KL for the same computation in float32 and in double. Logits are of order 1; the residual stream is a sum of
/// a dozen terms, each with a relative error of a few hundred u (sums of at most 512 products), so logits differ by less than
/// d = 1e-4, and KL <= d^2 to second order.
constexpr double rounding_divergence = 1e-8;

} // namespace

TEST_CASE("synthetic model: float32 activations against plain loops in double, every tensor type") {
    std::vector<token_id> const tokens = some_tokens(37);
    for (tensor_type const type : {tensor_type::f32, tensor_type::f16, tensor_type::bf16, tensor_type::q4_0,
                                   tensor_type::q4_1, tensor_type::q5_0, tensor_type::q8_0, tensor_type::q4_k,
                                   tensor_type::q6_k, tensor_type::iq4_nl, tensor_type::iq4_xs}) {
        CAPTURE(std::string{ts::gguf::name_of(type)});
        synthetic_model m;
        m.table = m.attention = m.value = m.feed = type;
        m.untied = type == tensor_type::q4_0;
        if (type == tensor_type::q4_k || type == tensor_type::q6_k || type == tensor_type::iq4_xs) {
            m.width = 256;
            m.feed_forward = 512;
        }
        model_file const f{m};
        std::vector<floats> expected;
        for (auto const& r : conformance::naive_llama{f.file}(tokens)) expected.push_back(to_float(r));
        llama_options o;
        o.products = activations::exact;
        o.kv.formats = "fp32";
        o.context = 64;
        llama model{backend{}, f.file, o};
        CHECK(largest_divergence(expected, logits_of(model, tokens, 37)) <= rounding_divergence);
        CHECK(largest_divergence(expected, logits_of(model, tokens, 1)) <= rounding_divergence);
    }
}

TEST_CASE("synthetic model: the CPU policy against the reference policy, every kind of activations") {
    model_file const f;
    auto const run = [&](auto policy, activations products, std::vector<token_id> const& tokens) {
        llama_options o;
        o.products = products;
        o.kv.formats = "fp32";
        o.context = 64;
        llama model{policy, f.file, o};
        return logits_of(model, tokens, 8);
    };
    CHECK(largest_divergence(run(ts::reference{}, activations::exact, some_tokens(21)), run(backend{}, activations::exact, some_tokens(21))) <=
          rounding_divergence);
    // Sums are in float32 here and in double there. A value that lies between two codes may fall on either side, and what follows is
    // then rounded anew: the runs differ as two roundings of one thing do. To second order KL is a squared distance, so that
    // d(p, q) <= 2 d(u, p) + 2 d(u, q) with the unrounded run u. Most prompts have no such value (measured: 11 of 12) and must
    // agree as sums do.
    for (activations const products : {activations::int8_per_token, activations::int8_per_group}) {
        CAPTURE(std::string{name_of(products)});
        int agree = 0;
        for (std::uint64_t seed = 7; seed < 13; ++seed) {
            CAPTURE(seed);
            std::vector<token_id> const tokens = some_tokens(10, seed);
            auto const slow = run(ts::reference{}, products, tokens);
            auto const fast = run(backend{}, products, tokens);
            double const kl = largest_divergence(slow, fast);
            if (kl <= rounding_divergence) {
                ++agree;
                continue;
            }
            auto const unrounded = run(ts::reference{}, activations::exact, tokens);
            CHECK(kl <= 2 * (largest_divergence(unrounded, slow) + largest_divergence(unrounded, fast)));
        }
        MESSAGE(std::string{name_of(products)}, ": ", agree, " of 6 prompts without a tie");
        CHECK(agree > 3);
    }
}

TEST_CASE("synthetic model: the same bits for any number of threads") {
    std::vector<token_id> const tokens = some_tokens(100);
    model_file const f;
    for (std::size_t const chunk : {std::size_t{1}, std::size_t{100}}) {
        std::vector<floats> results[3];
        for (int threads = 1; threads <= 3; ++threads) {
            llama_options o;
            o.context = 128;
            with_threads const with{threads};
            llama model{with.policy, f.file, o};
            results[threads - 1] = logits_of(model, tokens, chunk);
        }
        CHECK(results[0] == results[1]);
        CHECK(results[0] == results[2]);
    }
}

TEST_CASE("synthetic model: prefill in chunks is prefill at once") {
    std::vector<token_id> const tokens = some_tokens(90);
    model_file const f;
    llama_options o;
    o.products = activations::exact;
    o.kv.formats = "fp32";
    o.context = 128;
    llama whole{backend{}, f.file, o};
    auto const expected = logits_of(whole, tokens, 90);
    for (index_t const chunk : {1, 2, 7, 32, 64}) {
        CAPTURE(chunk);
        o.chunk = chunk;
        llama model{backend{}, f.file, o};
        CHECK(largest_divergence(expected, logits_of(model, tokens, static_cast<std::size_t>(chunk))) <=
              rounding_divergence);
        // operator() skips what only earlier rows of the last layer would need.
        model.clear();
        CHECK(conformance::divergence(expected.back(), copy(model(tokens))) <= rounding_divergence);
        CHECK(model.position() == 90);
    }
}

TEST_CASE("synthetic model: KV formats, and the ring") {
    std::vector<token_id> const tokens = some_tokens(60);
    model_file const f;
    std::vector<floats> exact;
    for (auto const& r : conformance::naive_llama{f.file}(tokens)) exact.push_back(to_float(r));
    for (std::string const format : {"fp32", "fp16", "bf16", "int8", "fp16,int8"}) {
        CAPTURE(format);
        llama_options o;
        o.products = activations::exact;
        o.kv.formats = format;
        o.context = 64;
        llama contiguous{backend{}, f.file, o};
        auto const expected = logits_of(contiguous, tokens, 20);
        o.kv.layout = kv_layout::ring;
        llama ring{backend{}, f.file, o};
        CHECK(logits_of(ring, tokens, 20) == expected); // the same bits while nothing is dropped
        // A key or value is off by at most u: relative rounding of fp16 and bf16, half a step of int8.
        double const u = format == "fp32" ? 1e-6 : format == "fp16" ? 0x1p-11 : 0x1p-8;
        double const kl = largest_divergence(exact, expected);
        MESSAGE(format, ": largest KL ", kl);
        CHECK(kl <= 100 * u * u + rounding_divergence);
    }
    CHECK_THROWS_AS((llama{backend{}, f.file, llama_options{.kv = {.formats = "fp16,int5"}}}), ts::unsupported_error);
    // A ring that has dropped tokens is a window.
    llama_options o;
    o.products = activations::exact;
    o.kv.formats = "fp32";
    o.context = 64;
    o.kv.layout = kv_layout::ring;
    o.kv.tokens = 16;
    llama ring{backend{}, f.file, o};
    std::vector<floats> expected;
    for (auto const& r : conformance::naive_llama{f.file, 16}(tokens)) expected.push_back(to_float(r));
    CHECK(largest_divergence(expected, logits_of(ring, tokens, 1)) <= rounding_divergence);
}

TEST_CASE("synthetic model: what the KV cache forgets") {
    std::vector<token_id> const tokens = some_tokens(60);
    model_file const f;
    llama_options o;
    o.products = activations::exact;
    o.kv.formats = "fp32";
    o.context = 64;
    o.kv.page = 1; // what is kept is kept to the token
    auto const logits = [&](eviction evict, index_t sinks, index_t window, std::size_t chunk) {
        llama_options own = o;
        own.kv.evict = evict;
        own.kv.sinks = sinks;
        own.kv.window = window;
        own.chunk = static_cast<index_t>(chunk);
        llama model{backend{}, f.file, own};
        auto out = logits_of(model, tokens, chunk);
        CHECK(model.position() == 60);
        if (evict == eviction::top_k)
            CHECK(model.kv_tokens() == 60);
        else if (own.kv.page == 1)
            CHECK(model.kv_tokens() == ts::minimum(index_t{60}, own.kv.kept()));
        else
            CHECK(model.kv_tokens() <= own.kv.kept());
        model.clear();
        CHECK(model.position() == 0);
        CHECK(logits_of(model, tokens, chunk) == out);
        return out;
    };
    auto const all = logits(eviction::none, 0, 64, 1);
    CHECK(logits(eviction::window, 4, 56, 1) == all); // nothing is forgotten
    CHECK(logits(eviction::heavy_hitters, 0, 60, 1) == all);
    // Without sinks the window is a ring's: that keeps the token itself and 15, here 15 are kept behind every token.
    std::vector<floats> expected;
    for (auto const& r : conformance::naive_llama{f.file, 16}(tokens)) expected.push_back(to_float(r));
    CHECK(largest_divergence(expected, logits(eviction::window, 0, 15, 1)) <= rounding_divergence);
    // Sinks and heavy tokens are seen: the results are others, and whole chunks see more.
    auto const sinks = logits(eviction::window, 4, 15, 1);
    CHECK(largest_divergence(expected, sinks) > rounding_divergence);
    CHECK(std::equal(sinks.begin(), sinks.begin() + 20, all.begin()));
    auto const heavy = logits(eviction::heavy_hitters, 0, 16, 1);
    CHECK(std::equal(heavy.begin(), heavy.begin() + 17, all.begin()));
    CHECK(largest_divergence(sinks, heavy) > rounding_divergence);
    logits(eviction::heavy_hitters, 0, 16, 7);
    logits(eviction::window, 4, 15, 7);
    // Pages that are not read are seen by no token; enough of them are all of the text, and prompts are dense.
    CHECK(logits(eviction::top_k, 4, 120, 1) == all);
    auto const best = logits(eviction::top_k, 0, 16, 1);
    CHECK(std::equal(best.begin(), best.begin() + 16, all.begin()));
    CHECK(largest_divergence(all, best) > rounding_divergence);
    CHECK(logits(eviction::top_k, 0, 16, 20) == logits(eviction::none, 0, 64, 20));
    o.kv.page = 8; // pages are where rows lie
    CHECK(logits(eviction::heavy_hitters, 0, 16, 1) == heavy);
    logits(eviction::window, 4, 15, 7);
    o.kv.layout = kv_layout::ring;
    o.kv.evict = eviction::window;
    CHECK_THROWS_AS((llama{backend{}, f.file, o}), ts::unsupported_error);
}

TEST_CASE("rotations of long contexts: golden numbers, and none within the trained one") {
    hyperparameters s;
    s.context = 2048;
    s.rope_dims = 64;
    s.rope_base = 10000;
    auto const plain = rope_frequencies(s, 2048, rope_scaling::ntk);
    CHECK(plain.size() == 32);
    CHECK(plain[0] == 1.0);
    CHECK(plain == rope_frequencies(s, 100, rope_scaling::linear));
    CHECK(plain == rope_frequencies(s, 8192, rope_scaling::none));
    auto const linear = rope_frequencies(s, 8192, rope_scaling::linear);
    auto const ntk = rope_frequencies(s, 8192, rope_scaling::ntk);
    for (std::size_t i = 0; i < 32; ++i) CHECK(linear[i] == plain[i] / 4);
    CHECK(ntk[0] == 1.0);
    CHECK(ntk[31] == doctest::Approx(plain[31] / 4).epsilon(1e-12)); // the slowest: exactly as linear
    CHECK(std::pow(ntk[1], -32.0) == doctest::Approx(41829.36593).epsilon(1e-9)); // the base: 10000 * 4^(64 / 62)
}

TEST_CASE("synthetic model: no scratch memory is added after the first chunk and the first token") {
    model_file const f;
    ts::workspace scratch;
    llama_options o;
    o.context = 256;
    o.chunk = 64;
    llama model{backend{{}, scratch}, f.file, o};
    index_t const reserved = scratch.capacity();
    auto const tokens = some_tokens(250);
    model(std::span{tokens}.first(200));
    for (std::size_t i = 200; i < 250; ++i) model(std::span{tokens}.subspan(i, 1));
    CHECK(scratch.capacity() == reserved);
}

TEST_CASE("synthetic model: wrong calls are refused and change nothing") {
    model_file const f;
    llama_options o;
    o.context = 8;
    llama model{backend{}, f.file, o};
    std::vector<token_id> const tokens = some_tokens(9);
    CHECK_THROWS_AS(model.forward(tokens, 1), ts::shape_error);                           // more than a chunk
    CHECK_THROWS_AS(model.forward({}, 0), ts::shape_error);                               // none
    CHECK_THROWS_AS(model.forward(std::span{tokens}.first(2), 3), ts::shape_error);       // more rows than tokens
    token_id const unknown[] = {1 << 20};
    CHECK_THROWS_AS(model.forward(unknown, 1), ts::shape_error);
    token_id const negative[] = {-1};
    CHECK_THROWS_AS(model.forward(negative, 1), ts::shape_error);
    CHECK(model.position() == 0);
    model(std::span{tokens}.first(8));
    CHECK_THROWS_AS(model(std::span{tokens}.first(1)), ts::shape_error); // beyond the context
    CHECK(model.position() == 8);
}

TEST_CASE("damaged files are refused with a sentence") {
    model_file const f;
    std::size_t const size = f.bytes.size();
    auto const load = [](std::vector<std::byte> const& bytes) {
        ts::buffer<std::byte> aligned{static_cast<index_t>(bytes.size())};
        if (!bytes.empty()) std::memcpy(aligned.data(), bytes.data(), bytes.size());
        ts::gguf::file const file = ts::gguf::parse({aligned.data(), bytes.size()}, "damaged");
        tokenizer const words{file};
        llama_options o;
        o.context = 16;
        llama model{backend{}, file, o};
        token_id const tokens[] = {1, 2, 3};
        model(tokens);
    };
    SUBCASE("cut anywhere") {
        for (std::size_t cut = 0; cut < size; cut += 1 + cut / 50) {
            CAPTURE(cut);
            CHECK_THROWS_AS(load({f.bytes.begin(), f.bytes.begin() + static_cast<std::ptrdiff_t>(cut)}), ts::format_error);
        }
    }
    SUBCASE("a key or a tensor that is missing is named") {
        for (std::string const name : {"llama.block_count", "llama.attention.head_count", "llama.context_length",
                                       "llama.attention.layer_norm_rms_epsilon", "general.architecture",
                                       "tokenizer.ggml.merges", "blk.1.attn_k.weight", "output_norm.weight"}) {
            CAPTURE(name);
            std::vector<std::byte> bytes = f.bytes;
            auto const* const first = reinterpret_cast<std::byte const*>(name.data());
            auto const at = std::search(bytes.begin(), bytes.end(), first, first + name.size());
            REQUIRE(at != bytes.end());
            *at = std::byte{'X'};
            std::string what;
            try {
                load(bytes);
            } catch (std::exception const& e) {
                what = e.what();
            }
            CHECK(what.find(name) != std::string::npos);
        }
    }
    SUBCASE("any byte of the head") {
        std::size_t const head = f.file.tensors().front().offset;
        ts::philox const random{11};
        int refused = 0;
        for (std::uint64_t i = 0; i < 400; ++i) {
            std::vector<std::byte> bytes = f.bytes;
            bytes[random.bits(2 * i) % head] ^= static_cast<std::byte>(1 + random.bits(2 * i + 1) % 255u);
            try {
                load(bytes);
            } catch (std::exception const& e) {
                ++refused;
                CHECK(std::strlen(e.what()) > 10);
            }
        }
        MESSAGE(refused, " of 400 were refused, the others still ran");
    }
}

namespace {

std::string model_path() {
    char const* const named = std::getenv("TESSERA_TEST_MODEL");
    return named != nullptr ? std::string{named} : default_model_path();
}

struct judgement {
    double mean = 0;
    double largest = 0;
    std::size_t other_tokens = 0; ///< positions whose most probable token is another
};

judgement judge(ts::gguf::file const& file, conformance::greedy_judge const& reference, activations products,
                std::string const& kv) {
    llama_options o;
    o.products = products;
    o.kv.formats = kv;
    o.context = 512;
    llama model{backend{}, file, o};
    judgement j;
    std::size_t positions = 0;
    for (std::size_t p = 0; p < reference.prompts().size(); ++p) {
        auto const& prompt = reference.prompts()[p];
        model.clear();
        std::span<float const> logits = model(prompt.tokens);
        for (std::size_t s = 0; s < reference.steps(); ++s, ++positions) {
            double const kl = reference.divergence_at(p, s, logits);
            j.mean += kl;
            j.largest = std::max(j.largest, kl);
            auto const best = std::max_element(logits.begin(), logits.end()) - logits.begin();
            j.other_tokens += best != prompt.continuation[s];
            if (s + 1 < reference.steps()) logits = model({&prompt.continuation[s], 1});
        }
    }
    j.mean /= static_cast<double>(positions);
    MESSAGE("activations ", std::string{name_of(products)}, ", KV ", kv, ": mean KL ", j.mean, ", largest ", j.largest, ", ",
            j.other_tokens, " of ", positions, " most probable tokens differ");
    return j;
}

} // namespace

TEST_CASE("SmolLM2-135M-Instruct against transformers") {
    std::string const path = model_path();
    std::FILE* const present = std::fopen(path.c_str(), "rb");
    if (present == nullptr) {
        MESSAGE("skipped: no model at ", path, " (set TESSERA_TEST_MODEL, or run examples/run.sh once)");
        return;
    }
    std::fclose(present);
    conformance::greedy_judge const reference{TESSERA_TEST_DATA "/model/greedy.bin"};
    ts::mapped_file const bytes{path};
    ts::gguf::file const file = ts::gguf::parse(bytes.bytes(), path);
    tokenizer const words{file};
    REQUIRE(words.size() == reference.vocabulary());

    chat_template const chat = read_chat_template(file);
    for (auto const& p : reference.prompts()) {
        std::vector<message> const messages{{"user", p.message}};
        CHECK(chat.render(messages) == p.rendered);
        CHECK(chat.encode(words, messages) == p.tokens);
    }

    for (std::string const kv : {"fp32", "fp16"}) {
        judgement const exact = judge(file, reference, activations::exact, kv);
        CHECK(exact.largest <= 1e-4);
        CHECK(exact.other_tokens == 0); // so the free-running continuation is the same
    }
    CHECK(judge(file, reference, activations::automatic, "fp16").mean <= 5e-3);
    CHECK(judge(file, reference, activations::int8_per_group, "fp16").mean <= 5e-3);
    judge(file, reference, activations::int8_per_token, "fp16"); // not the default: reported only
}
