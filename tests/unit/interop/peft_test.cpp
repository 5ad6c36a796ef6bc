// SPDX-License-Identifier: MIT
// PEFT's adapter files: a folder that PEFT wrote, configurations that are refused, and what is written is read again.

#include <doctest/doctest.h>

#include <tessera/interop/peft_stack.hpp>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace ts = tessera;
namespace peft = tessera::peft;

namespace {

std::string const folder = std::string{TESSERA_TEST_DATA} + "/model/adapters/";

peft::adapter_config config_of(std::string const& members) {
    return peft::parse_config("{\"peft_type\": \"LORA\"" + members + "}", "config");
}

void refuses(std::string const& members, std::string_view what) {
    std::string message;
    try {
        config_of(members);
    } catch (ts::format_error const& e) {
        message = e.what();
    }
    INFO("members: ", members);
    INFO("message: ", message);
    CHECK(message.starts_with("tessera: peft: config: "));
    CHECK(message.find(what) != std::string::npos);
    CHECK(message.find(" at byte ") != std::string::npos);
}

ts::matrix<float> count(ts::index_t n, ts::index_t k, float first) {
    ts::matrix<float> t{n, k};
    for (ts::index_t i = 0; i < t.size(); ++i) t.data()[i] = first + static_cast<float>(i);
    return t;
}

struct bytes_of {
    std::vector<std::byte> bytes;
    explicit bytes_of(ts::safetensors::writer const& w) : bytes{w.bytes()} {}
    ts::safetensors::file file() const { return ts::safetensors::parse(bytes, "tensors"); }
};

} // namespace

TEST_CASE("a LoRA and a DoRA that PEFT wrote") {
    peft::adapter const lora = peft::read(folder + "lora");
    CHECK(lora.config.r == 2);
    CHECK(lora.config.lora_alpha == 8.0);
    CHECK(lora.config.target_modules == std::vector<std::string>{"q_proj", "v_proj"});
    REQUIRE(lora.modules.size() == 60);
    auto const* const q = lora.find("model.layers.29.self_attn.q_proj");
    REQUIRE(q != nullptr);
    CHECK(q->scale == 4.0f);
    CHECK(q->b.extent(0) == 576);
    CHECK(q->a.extent(1) == 576);
    CHECK(q->magnitude.size() == 0);
    CHECK(q->low_rank().rank() == 2);
    CHECK(lora.find("model.layers.29.self_attn.k_proj") == nullptr);
    CHECK(lora.find("model.layers.0.self_attn.v_proj")->b.extent(0) == 192);

    peft::adapter const dora = peft::read(folder + "dora");
    CHECK(dora.config.use_dora);
    auto const* const v = dora.find("model.layers.3.self_attn.v_proj");
    REQUIRE(v != nullptr);
    CHECK(v->scale == static_cast<float>(8 / std::sqrt(2.0))); // use_rslora
    CHECK(v->magnitude.size() == 192);
    CHECK(v->magnitude(0) > 0.0f);
    CHECK_THROWS_AS(peft::read(folder + "nothing"), ts::format_error);
}

TEST_CASE("configurations: ranks, scales, patterns") {
    auto const c = config_of(", \"r\": 4, \"lora_alpha\": 6.0, \"rank_pattern\": {\"layers.1.q_proj\": 3, \"q_proj\": 2},"
                             " \"alpha_pattern\": {\"v_proj\": 32}, \"target_modules\": \"all-linear\"");
    CHECK(c.rank_of("model.layers.0.q_proj") == 2);
    CHECK(c.rank_of("model.layers.1.q_proj") == 3);
    CHECK(c.rank_of("q_proj") == 2);
    CHECK(c.rank_of("model.xq_proj") == 4);
    CHECK(c.scale_of("model.layers.1.q_proj") == 2.0);
    CHECK(c.scale_of("model.v_proj") == 8.0);
    CHECK(c.target_modules == std::vector<std::string>{"all-linear"});
    CHECK(config_of(", \"r\": 4, \"use_rslora\": true, \"lora_alpha\": 6").scale_of("x") == 3.0);
    CHECK(config_of(", \"bias\": \"none\", \"modules_to_save\": null, \"fan_in_fan_out\": false, \"new\": {}, \"other\": []")
              .r == 8);
    CHECK(config_of(", \"init_lora_weights\": true, \"lora_dropout\": 0.1, \"task_type\": \"CAUSAL_LM\"").r == 8);
}

TEST_CASE("configurations that change the mathematics are refused") {
    refuses(", \"fan_in_fan_out\": true", "key 'fan_in_fan_out' value at byte 40: changes what the adapter computes");
    refuses(", \"bias\": \"all\"", "is 'all', expected 'none'");
    refuses(", \"modules_to_save\": [\"lm_head\"]", "key 'modules_to_save'");
    refuses(", \"layer_replication\": [[0, 4]]", "key 'layer_replication'");
    refuses(", \"lora_bias\": true", "key 'lora_bias'");
    refuses(", \"use_qalora\": true", "key 'use_qalora'");
    refuses(", \"init_lora_weights\": \"pissa\"", "is 'pissa', expected 'gaussian'");
    refuses(", \"alora_invocation_tokens\": [1]", "key 'alora_invocation_tokens'");
    refuses(", \"something_new\": 1", "or is unknown here");
    refuses(", \"rank_pattern\": {\"(q|v)_proj\": 2}", "is a regular expression");
    refuses(", \"rank_pattern\": {\"q_proj\": 2.5}", "is no rank");
    refuses(", \"r\": 0", "is no rank");
    refuses(", \"r\": 1e999", "which a double cannot hold");
    refuses(", \"r\": \"4\"", "is no number");
    refuses(", \"r\": 4, \"r\": 4", "is there twice");
    refuses(", \"use_dora\": 1", "expected true or false");
    CHECK_THROWS_WITH_AS(peft::parse_config("{\"peft_type\": \"LOHA\"}", "c"), doctest::Contains("is 'LOHA', expected 'LORA'"),
                         ts::format_error);
    CHECK_THROWS_WITH_AS(peft::parse_config("{}", "c"), doctest::Contains("has no key 'peft_type'"), ts::format_error);
    CHECK_THROWS_AS(peft::parse_config("", "c"), ts::format_error);
    CHECK_THROWS_AS(peft::parse_config("{\"peft_type\": \"LORA\"} 1", "c"), ts::format_error);
}

TEST_CASE("tensors that do not fit the configuration are refused") {
    auto const refused = [](peft::adapter_config const& c, auto const& add, char const* what) {
        ts::safetensors::writer w;
        add(w);
        bytes_of const b{w};
        CHECK_THROWS_WITH_AS(peft::load(c, b.file()), doctest::Contains(what), ts::format_error);
    };
    ts::matrix<float> const a = count(2, 3, 0);
    ts::matrix<float> const b = count(4, 2, 0);
    ts::vector<float> const m{3};
    std::string const q = "base_model.model.q";
    auto const c = config_of(", \"r\": 2");
    auto const d = config_of(", \"r\": 2, \"use_dora\": true");
    refused(c, [&](auto& w) { w.add_tensor("q.lora_A.weight", a.view()); }, "is no factor of a linear layer");
    refused(c, [&](auto& w) { w.add_tensor(q + ".lora_embedding_A", a.view()); }, "is no factor");
    refused(c, [&](auto& w) { w.add_tensor("base_model.model.lora_A.weight", a.view()); }, "is no factor");
    refused(c, [&](auto& w) { w.add_tensor(q + ".lora_A.weight", a.view()); }, "has no lora_B beside it");
    refused(c, [&](auto& w) { w.add_tensor(q + ".lora_B.weight", b.view()); }, "has no lora_A beside it");
    auto const both = [&](auto& w) {
        w.add_tensor(q + ".lora_A.weight", a.view());
        w.add_tensor(q + ".lora_B.weight", b.view());
    };
    refused(config_of(", \"r\": 3"), both, "expected factors (n, 3) and (3, k)");
    refused(d, both, "has no lora_magnitude_vector beside it");
    auto const three = [&](auto& w) {
        both(w);
        w.add_tensor(q + ".lora_magnitude_vector", m.view());
    };
    refused(c, three, "is a magnitude, but use_dora is false");
    refused(d, three, "has a magnitude of 3 values, expected 4");
    refused(config_of(", \"r\": 2, \"lora_alpha\": 1e40"), both, "expected one that float32 holds");
    ts::matrix<double> const wide{2, 3};
    refused(c, [&](auto& w) {
        w.add_tensor(q + ".lora_A.weight", wide.view());
        w.add_tensor(q + ".lora_B.weight", b.view());
    }, "holds F64");
}

TEST_CASE("what is written is read again") {
    peft::adapter out;
    out.config = config_of(", \"r\": 2, \"lora_alpha\": 3, \"use_dora\": true, \"rank_pattern\": {\"k\": 1},"
                           " \"alpha_pattern\": {\"q\": 0.1}, \"target_modules\": [\"q\", \"k\"],"
                           " \"base_model_name_or_path\": \"a \\\"b\\\"\"");
    auto const add = [&](std::string const& name, ts::index_t n, ts::index_t r, ts::index_t k) {
        ts::vector<float> magnitude{n};
        for (ts::index_t i = 0; i < n; ++i) magnitude(i) = 0.5f * static_cast<float>(i);
        out.modules.push_back({name, count(n, r, 1), count(r, k, -2), std::move(magnitude),
                               static_cast<float>(out.config.scale_of(name))});
    };
    add("x.q", 5, 2, 3);
    add("x.k", 4, 1, 3);
    peft::write(".", out);
    peft::adapter const in = peft::read(".");
    std::remove(peft::config_name);
    std::remove(peft::tensors_name);
    CHECK(in.config.base_model == "a \"b\"");
    CHECK(in.config.target_modules == out.config.target_modules);
    REQUIRE(in.modules.size() == 2);
    for (peft::module_adapter const& m : out.modules) {
        auto const* const n = in.find(m.name);
        REQUIRE(n != nullptr);
        CHECK(n->scale == m.scale);
        CHECK(std::equal(m.b.data(), m.b.data() + m.b.size(), n->b.data()));
        CHECK(std::equal(m.a.data(), m.a.data() + m.a.size(), n->a.data()));
        CHECK(std::equal(m.magnitude.data(), m.magnitude.data() + m.magnitude.size(), n->magnitude.data()));
    }
    out.modules[0].scale = 9;
    CHECK_THROWS_WITH_AS(peft::write(".", out), doctest::Contains("scale of 'x.q' is 9"), ts::shape_error);
    out.modules[0].scale = static_cast<float>(out.config.scale_of("x.q"));
    out.modules[0].magnitude = {};
    CHECK_THROWS_AS(peft::write(".", out), ts::shape_error);
}

TEST_CASE("adapters stacked: modules of either, weights, files") {
    auto const make = [](ts::index_t r, std::vector<std::string> names) {
        peft::adapter a;
        a.config.r = r;
        a.config.lora_alpha = 2.0 * static_cast<double>(r);
        a.config.target_modules = names;
        float first = static_cast<float>(r);
        for (auto const& n : names) a.modules.push_back({n, count(4, r, first), count(r, 3, ++first), {}, 2.0f});
        return a;
    };
    peft::adapter const one = make(1, {"a.q", "b.v"});
    peft::adapter const two = make(2, {"b.v", "c.v"});
    peft::weighted const list[] = {{one}, {two, -0.25f}};
    peft::adapter const both = peft::stack(list);
    REQUIRE(both.modules.size() == 3);
    CHECK(both.config.target_modules == std::vector<std::string>{"a.q", "b.v", "c.v"});
    CHECK(both.find("a.q")->rank() == 1);
    CHECK(both.find("c.v")->rank() == 2);
    auto const* const shared = both.find("b.v");
    REQUIRE(shared->rank() == 3);
    auto const delta = [](peft::module_adapter const& m, ts::index_t n, ts::index_t k) {
        float sum = 0;
        for (ts::index_t r = 0; r < m.rank(); ++r) sum += m.scale * m.b(n, r) * m.a(r, k);
        return sum;
    };
    for (ts::index_t n = 0; n < 4; ++n)
        for (ts::index_t k = 0; k < 3; ++k) // small integers: exact
            CHECK(delta(*shared, n, k) == delta(*one.find("b.v"), n, k) - 0.25f * delta(*two.find("b.v"), n, k));
    for (auto const& m : both.modules) CHECK(static_cast<float>(both.config.scale_of(m.name)) == m.scale);
    CHECK(peft::parse_config(peft::config_text(both.config), "config").rank_of("b.v") == 3);

    // Names that end others, and a dot that is any character: every module keeps its rank.
    peft::adapter const ends = make(1, {"a", "proj", "z.proj", "l1.q", "l1_q"});
    peft::adapter const more = make(2, {"proj", "l1_q"});
    peft::weighted const nested[] = {{ends}, {more}};
    peft::adapter const all = peft::stack(nested);
    for (auto const& m : all.modules) {
        CHECK(all.config.rank_of(m.name) == m.rank());
        CHECK(all.config.scale_of(m.name) == 1.0);
    }
    CHECK(all.find("z.proj")->rank() == 1);
    CHECK(all.find("l1_q")->rank() == 3);

    // An expression is written as one; a stack lists what it found.
    peft::adapter found = make(1, {"x.q"});
    found.config.target_modules = {".*\\.(q|v)"};
    found.config.targets_by_expression = true;
    auto const text = peft::config_text(found.config);
    CHECK(text.find("\"target_modules\": \".*\\\\.(q|v)\"") != std::string::npos);
    auto const again = peft::parse_config(text, "config");
    CHECK(again.targets_by_expression);
    CHECK(again.target_modules == found.config.target_modules);
    peft::weighted const mixed[] = {{found}, {one}};
    CHECK(peft::stack(mixed).config.target_modules == std::vector<std::string>{"x.q", "a.q", "b.v"});

    peft::adapter dora = make(1, {"a.q"});
    dora.config.use_dora = true;
    peft::weighted const wrong[] = {{one}, {dora}};
    CHECK_THROWS_WITH_AS(peft::stack(wrong), "tessera: peft::stack: an adapter is a DoRA, expected LoRA: its rows are scaled, so it is no sum",
                         ts::unsupported_error);
    CHECK_THROWS_AS(peft::stack({}), ts::shape_error);
    peft::adapter other = make(1, {"a.q"});
    other.modules[0].b = count(5, 1, 1);
    peft::weighted const unlike[] = {{one}, {other}};
    CHECK_THROWS_WITH_AS(peft::stack(unlike), "tessera: stack: rows of a term is 5, expected 4 (rows of the first)", ts::shape_error);
}
